"""The generator, on proto files of another project with what proto files may have in them."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from dspex_trio import rpc

from .greeter import serving

TOOL = Path(__file__).parents[2] / "tools" / "generate_protos.py"

PROTOS = {
    "a/b/odd.proto": """
        syntax = "proto3";
        package a.b;
        import "google/protobuf/empty.proto";
        import public "c/odd.proto";
        message Call {
            optional string from = 1;
            map<string, Call> children = 2;
            oneof which { string text = 3; Deep.Er.Est est = 4; }
            enum Kind { ZERO = 0; ONE = 1; }
            optional Kind kind = 5;
        }
        message Deep { message Er { message Est { string text = 1; } Est est = 1; } }
        service Odd {
            rpc Nested(Deep.Er.Est) returns (Deep.Er);
            rpc service(Call) returns (Call);
            rpc import(stream c.Thing) returns (stream google.protobuf.Empty);
            rpc __init__(Call) returns (Call);
        }
        service Nothing {}
    """,
    "c/odd.proto": """
        syntax = "proto2";
        package c;
        message Thing { required string must = 1; extensions 100 to 200; }
        extend Thing { optional string more = 100; }
    """,
    "with-dash.proto": """
        syntax = "proto3";
        message Global { string text = 1; }
        service Nowhere { rpc Get(Global) returns (Global); }
    """,
}


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """A function that imports a module of the package that was generated."""
    where = tmp_path_factory.mktemp("project")
    for name, text in PROTOS.items():
        (where / "protos" / name).parent.mkdir(parents=True, exist_ok=True)
        (where / "protos" / name).write_text(text)
    command = [TOOL, "--root", where / "protos", "--out", where / "odd_stubs", "a/b/odd.proto", "with-dash.proto"]
    subprocess.run([sys.executable, *command], check=True)
    sys.path.insert(0, str(where))
    yield lambda name: importlib.import_module(f"odd_stubs.{name}")
    sys.path.remove(str(where))


async def test_names_that_python_or_a_servicer_has_a_use_for_get_another(generated):
    messages, other, services = generated("odd_b_pb2"), generated("odd_c_pb2"), generated("odd_b_grpc")

    class Odd(services.OddServicer):
        async def Nested(self, request, call):
            return messages.Deep.Er(est=request)

        async def service_(self, request, call):
            return messages.Call(text="served", children={"the same": request})

        async def import_(self, requests, call):
            async for request in requests:
                assert request.Extensions[other.more] == "yes"
                yield generated("empty_pb2").Empty()

    async with serving(Odd()) as target, rpc.open_channel(target) as channel:
        stub = services.OddStub(channel)
        est = messages.Deep.Er.Est(text="nested")
        assert (await stub.Nested(est)).est == est
        reply = await stub.service_(messages.Call(kind=messages.Call.ONE))
        assert reply.children["the same"].HasField("kind")
        assert not reply.HasField("kind")
        thing = other.Thing(must="be there")
        thing.Extensions[other.more] = "yes"
        async with stub.import_() as call:
            await call.send(thing)
            call.done()
            assert len([reply async for reply in call]) == 1
        with pytest.raises(rpc.RpcError, match="__init__ is not implemented"):
            await stub.__init___(messages.Call())


def test_a_service_without_methods_is_one(generated):
    services = generated("odd_b_grpc")
    assert services.NothingServicer().service.methods == {}
    services.NothingStub(None)


async def test_files_may_have_a_dash_and_no_package(generated):
    class Nowhere(generated("with_dash_grpc").NowhereServicer):
        async def Get(self, request, call):
            return request

    message = generated("with_dash_pb2").Global(text="here")
    async with serving(Nowhere()) as target, rpc.open_channel(target) as channel:
        assert await generated("with_dash_grpc").NowhereStub(channel).Get(message) == message


def test_types_are_found_where_the_modules_are(generated):
    """Protoc's own type stubs name its folders, which there are none of; for a public import, too."""
    stubs = Path(generated("odd_b_pb2").__file__).with_suffix(".pyi").read_text()
    assert "from . import odd_c_pb2 as" in stubs
    assert "from .odd_c_pb2 import Thing as Thing" in stubs
    assert "from c." not in stubs
