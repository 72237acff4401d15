"""What a type checker makes of generated stubs: a request or a reply of the wrong type must not pass."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Stands in for types-protobuf. While the base of messages is not known, mypy lets any message pass for any other.
MESSAGE = """
class Message:
    DESCRIPTOR: object
    def SerializeToString(self) -> bytes: ...
    def HasField(self, field_name: str) -> bool: ...
"""

USER = """
from collections.abc import AsyncIterator
from dspex_trio import rpc
from messages.greeter_grpc import GreeterServicer, GreeterStub
from messages.greeter_pb2 import HelloReply, HelloRequest

class Right(GreeterServicer):
    async def SayHello(self, request: HelloRequest, call: rpc.Call) -> HelloReply:
        return HelloReply(text=request.name)

    async def Chat(self, requests: AsyncIterator[HelloRequest], call: rpc.Call) -> AsyncIterator[HelloReply]:
        async for request in requests:
            yield HelloReply(text=request.name)

async def right(stub: GreeterStub) -> HelloReply:
    async with stub.Watch(HelloRequest(name="a"), metadata={"key": "value"}) as replies:
        texts: list[str] = [reply.text async for reply in replies]
    async with stub.Chat() as call:
        await call.send(HelloRequest(name=texts[0]))
    return await stub.SayHello(HelloRequest(name="a"))
"""

WRONG = {
    "a reply for a request": ("await stub.SayHello(HelloReply())", "arg-type"),
    "a reply for a request that streams": ("stub.Watch(HelloReply())", "arg-type"),
    "a reply sent": ("async with stub.Chat() as call:\n        await call.send(HelloReply())", "arg-type"),
    "a request for a reply": ("wrong: HelloRequest = await stub.SayHello(HelloRequest())", "assignment"),
    "a field that is none": ("(await stub.SayHello(HelloRequest())).name", "attr-defined"),
}

WRONG_SERVICER = """
class Wrong(GreeterServicer):
    async def SayHello(self, request: HelloReply, call: rpc.Call) -> HelloReply:
        return request
"""


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    """The errors that mypy finds, by the line of the program that they are on, and the program's lines."""
    where = tmp_path_factory.mktemp("user")
    known = where / "google" / "protobuf"
    known.mkdir(parents=True)
    for package in (where / "google", known):
        (package / "__init__.pyi").touch()
    (known / "message.pyi").write_text(MESSAGE)
    (known / "descriptor.pyi").write_text("class FileDescriptor: ...\n")
    (where / "messages").symlink_to(ROOT / "tests" / "rpc" / "generated")
    wrong = [
        f"async def wrong_{i}(stub: GreeterStub) -> None:\n    {code}\n" for i, (code, _) in enumerate(WRONG.values())
    ]
    program = USER + WRONG_SERVICER + "".join(wrong)
    (where / "user.py").write_text(program)
    options = ["--strict", "--config-file=", f"--cache-dir={ROOT / '.mypy_cache' / 'users'}", "--follow-imports=silent"]
    found = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "user.py"],
        cwd=where,
        env={"MYPYPATH": f"{where}:{ROOT / 'src'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not found.stderr
    lines = program.splitlines()
    errors = [line.split(":", 2) for line in found.stdout.splitlines() if ": error: " in line]
    return {lines[int(number) - 1].strip(): text for file, number, text in errors if file == "user.py"}


def test_a_program_with_the_right_types_has_no_errors(findings):
    wrong = [code.splitlines()[-1].strip() for code, _ in WRONG.values()]
    wrong += [line.strip() for line in WRONG_SERVICER.splitlines()]
    assert [line for line in findings if line not in wrong] == []


@pytest.mark.parametrize("case", WRONG)
def test_a_message_of_the_wrong_type_is_an_error(case, findings):
    code, kind = WRONG[case]
    assert f"[{kind}]" in findings[code.splitlines()[-1].strip()]


def test_a_handler_with_a_wrong_request_is_an_error(findings):
    assert any("[override]" in text for text in findings.values())
