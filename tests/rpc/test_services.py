"""The standard services: health and reflection."""

import pytest
from google.protobuf import descriptor_pb2
from trio.testing import wait_all_tasks_blocked

from dspex_trio import rpc
from dspex_trio.rpc.generated.health_grpc import HealthStub
from dspex_trio.rpc.generated.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest
from dspex_trio.rpc.generated.reflection_v1_grpc import ServerReflectionStub as ReflectionV1
from dspex_trio.rpc.generated.reflection_v1_pb2 import ExtensionRequest, ServerReflectionRequest
from dspex_trio.rpc.generated.reflection_v1alpha_grpc import ServerReflectionStub as ReflectionV1Alpha
from dspex_trio.rpc.generated.reflection_v1alpha_pb2 import ServerReflectionRequest as AlphaRequest

from .greeter import Greeter, serving

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = HealthCheckResponse.SERVICE_UNKNOWN


async def check(stub, service=""):
    return (await stub.Check(HealthCheckRequest(service=service))).status


async def test_health_is_told_per_service():
    health = rpc.Health(["greeting.Greeter"])
    async with serving(health) as target, rpc.open_channel(target) as channel:
        stub = HealthStub(channel)
        health.set("greeting.Greeter", serving=False)
        assert await check(stub) == SERVING
        assert await check(stub, "greeting.Greeter") == NOT_SERVING
        with pytest.raises(rpc.RpcError) as caught:
            await check(stub, "nobody")
    assert caught.value.status is rpc.StatusCode.NOT_FOUND


async def test_a_process_that_is_not_ready_is_still_alive():
    """A supervisor replaces what is not alive; a load balancer only passes by what is not ready."""
    health = rpc.Health()
    async with serving(health) as target, rpc.open_channel(target) as channel:
        stub = HealthStub(channel)
        health.set_ready(False)
        assert await check(stub) == await check(stub, rpc.READINESS) == NOT_SERVING
        assert await check(stub, rpc.LIVENESS) == SERVING
        health.set_ready(True)
        health.set_alive(False)
        assert await check(stub) == SERVING
        assert await check(stub, rpc.LIVENESS) == NOT_SERVING


async def test_all_states_are_listed():
    health = rpc.Health(["a.B"])
    health.set("a.B", serving=False)
    async with serving(health) as target, rpc.open_channel(target) as channel:
        listed = await HealthStub(channel).List(HealthListRequest())
    states = {name: response.status for name, response in listed.statuses.items()}
    assert states == {"": SERVING, "readiness": SERVING, "liveness": SERVING, "a.B": NOT_SERVING}


async def test_a_watch_reports_changes_and_nothing_else():
    health = rpc.Health(["a.B"])
    async with serving(health) as target, rpc.open_channel(target) as channel:
        stub = HealthStub(channel)
        async with (
            stub.Watch(HealthCheckRequest(service="a.B")) as watch,
            stub.Watch(HealthCheckRequest(service="later")) as later,
        ):
            assert (await anext(watch)).status == SERVING
            assert (await anext(later)).status == SERVICE_UNKNOWN
            health.set("a.B", serving=True)
            health.set("later", serving=True)
            health.set("a.B", serving=False)
            assert (await anext(watch)).status == NOT_SERVING
            assert (await anext(later)).status == SERVING


async def test_on_drain_watchers_are_told_and_do_not_keep_the_server():
    """A watch never ends by itself: a drain without a limit would wait for it for ever."""
    health, drain = rpc.Health(), rpc.Drain()
    drain.before(health.shut_down)
    async with serving(health, drain=drain) as target, rpc.open_channel(target) as channel:
        async with HealthStub(channel).Watch(HealthCheckRequest()) as watch:
            assert (await anext(watch)).status == SERVING
            drain.start()
            assert (await anext(watch)).status == NOT_SERVING
            with pytest.raises(rpc.RpcError, match="shutting down"):
                await anext(watch)
        health.set_ready(True)
        await wait_all_tasks_blocked()
    assert health._response("").status == NOT_SERVING


@pytest.fixture(params=["v1", "v1alpha"])
async def ask(request):
    """Ask one question of the reflection service of one version."""
    greeter = Greeter()
    async with (
        serving(greeter, *rpc.reflection([greeter])) as target,
        rpc.open_channel(target) as channel,
    ):
        stub, kind = (
            (ReflectionV1(channel), ServerReflectionRequest)
            if request.param == "v1"
            else (ReflectionV1Alpha(channel), AlphaRequest)
        )

        async def ask_one(**question):
            async with stub.ServerReflectionInfo() as call:
                await call.send(kind(**question))
                return await anext(call)

        yield ask_one


def files(answer):
    return [
        descriptor_pb2.FileDescriptorProto.FromString(one).name
        for one in answer.file_descriptor_response.file_descriptor_proto
    ]


async def test_reflection_lists_services(ask):
    listed = (await ask(list_services="")).list_services_response.service
    assert [one.name for one in listed] == [
        "greeting.Greeter",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ]


async def test_reflection_finds_files_by_name_and_by_symbol_with_what_they_import(ask):
    expected = ["greeting/greeter.proto", "google/protobuf/empty.proto"]
    assert files(await ask(file_by_filename="greeting/greeter.proto")) == expected
    for symbol in (
        "greeting.Greeter",
        "greeting.Greeter.SayHello",
        "greeting.Outer.Inner",
        "greeting.HelloRequest.name",
    ):
        assert files(await ask(file_containing_symbol=symbol)) == expected


async def test_reflection_says_what_it_does_not_know(ask):
    questions = [
        {"file_by_filename": "none.proto"},
        {"file_containing_symbol": "none"},
        {"file_containing_symbol": "greeting.Greeter.SayNothing"},
        {"file_containing_symbol": "greeting.HelloRequest.nothing"},
    ]
    for question in questions:
        assert (await ask(**question)).error_response.error_code == int(rpc.StatusCode.NOT_FOUND)
    assert (await ask()).error_response.error_code == int(rpc.StatusCode.INVALID_ARGUMENT)


async def test_reflection_answers_about_extensions(ask):
    """Proto3 messages have none; tools ask all the same."""
    answer = await ask(all_extension_numbers_of_type="greeting.HelloRequest")
    assert answer.all_extension_numbers_response.base_type_name == "greeting.HelloRequest"
    assert list(answer.all_extension_numbers_response.extension_number) == []


async def test_reflection_does_not_know_extensions_that_are_not_there():
    greeter = Greeter()
    async with (
        serving(*rpc.reflection([greeter])) as target,
        rpc.open_channel(target) as channel,
        ReflectionV1(channel).ServerReflectionInfo() as call,
    ):
        wanted = ExtensionRequest(containing_type="greeting.HelloRequest", extension_number=100)
        await call.send(ServerReflectionRequest(file_containing_extension=wanted))
        answer = await anext(call)
    assert answer.error_response.error_code == int(rpc.StatusCode.NOT_FOUND)
