"""The systems that `tools/bench_peers.py` compares, each with so many slots for the same DSPy call.

Each function opens one and yields the call: it takes a question and the caller's time-out in seconds, and returns
"success" or what the caller is told instead. Imports nothing but its own library, since each has an environment of its
own.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

from bench_peers_install import API_BASE
from bench_peers_program import ask

Call = Callable[[str, float], Awaitable[str]]

LOOK_SECONDS: Final = 0.02
START_SECONDS: Final = 60.0
HARD_AFTER: Final = 1.0
OBJECT_STORE_BYTES: Final = 100_000_000
# grpcio's, for calls to this machine.
DIRECT: Final = (("grpc.enable_http_proxy", 0),)
TOOLS: Final = str(Path(__file__).parent)


@asynccontextmanager
async def asyncify(slots: int, _seconds: float) -> AsyncIterator[Call]:
    """`dspy.asyncify` under `asyncio.wait_for`; a slot is one of its threads."""
    import dspy

    dspy.configure(async_max_workers=slots)
    program = dspy.asyncify(ask)

    async def call(question: str, timeout: float) -> str:  # noqa: ASYNC109 - the caller's
        try:
            await asyncio.wait_for(program(question), timeout)
        except TimeoutError:
            return "TimeoutError"
        return "success"

    yield call


@asynccontextmanager
async def to_thread(slots: int, _seconds: float) -> AsyncIterator[Call]:
    """A grpc.aio service that runs the call by `asyncio.to_thread`; the deadline is gRPC's."""
    import grpc.aio

    async def handle(request: bytes, _context: Any) -> bytes:
        return (await asyncio.to_thread(ask, request.decode())).encode()

    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(slots))
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(handle)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Peer", {"Ask": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=DIRECT) as channel:
        method = channel.unary_unary("/bench.Peer/Ask")

        async def call(question: str, timeout: float) -> str:  # noqa: ASYNC109 - the caller's
            try:
                await method(question.encode(), timeout=timeout)
            except grpc.aio.AioRpcError as error:
                return str(error.code().name)
            return "success"

        yield call


@asynccontextmanager
async def temporal(slots: int, _seconds: float) -> AsyncIterator[Call]:
    """Temporal's worker with synchronous activities in threads; the time-out is the activity's start-to-close."""
    from bench_peers_temporal import open_worker

    async with open_worker(slots) as call:
        yield call


@asynccontextmanager
async def celery(slots: int, seconds: float) -> AsyncIterator[Call]:
    """Celery's prefork pool: soft limit at the caller's time-out, hard limit a second later."""
    async with _celery(slots, soft=seconds, hard=seconds + HARD_AFTER) as call:
        yield call


@asynccontextmanager
async def celery_hard(slots: int, seconds: float) -> AsyncIterator[Call]:
    """The same with the hard limit alone, at the caller's time-out."""
    async with _celery(slots, soft=None, hard=seconds) as call:
        yield call


@asynccontextmanager
async def _celery(slots: int, *, soft: float | None, hard: float) -> AsyncIterator[Call]:
    with tempfile.TemporaryDirectory(prefix="dspex-trio-bench-") as directory:
        os.environ["BENCH_DIRECTORY"] = directory
        limits = [f"--time-limit={hard}", *([f"--soft-time-limit={soft}"] if soft else [])]
        command = ["-m", "celery", "-A", "bench_peers_celery", "worker", "--pool", "prefork", "-c", str(slots)]
        command += ["--loglevel", "CRITICAL", "-O", "fair", "--without-gossip", "--without-mingle", *limits]
        with ThreadPoolExecutor(4 * slots) as waiting:
            import bench_peers_celery as app

            def wait(question: str, timeout: float) -> str:
                result = app.answer.apply_async((question,), expires=timeout)
                try:
                    result.get(timeout=timeout, interval=LOOK_SECONDS)
                except Exception as error:  # noqa: BLE001 - whatever the caller is told
                    return type(error).__name__
                return "success"

            async def call(question: str, timeout: float) -> str:  # noqa: ASYNC109 - the caller's
                return await asyncio.get_running_loop().run_in_executor(waiting, wait, question, timeout)

            with _ended(command):
                yield call


@asynccontextmanager
async def ray(slots: int, _seconds: float) -> AsyncIterator[Call]:
    """Ray's actors, each a slot: `ray.get` with a time-out, then `ray.cancel`."""
    import ray as library

    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    directory = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
    library.init(
        num_cpus=slots,
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _temp_dir=directory.name,
    )

    class Slot:
        def answer(self, question: str) -> str:
            return ask(question)

    actor = library.remote(num_cpus=1)(Slot)
    free: asyncio.Queue[Any] = asyncio.Queue()
    for _ in range(slots):
        free.put_nowait(actor.remote())

    def wait(slot: Any, question: str, timeout: float) -> str:
        reference = slot.answer.remote(question)
        try:
            library.get(reference, timeout=timeout)
        except library.exceptions.RayError as error:
            library.cancel(reference)
            return type(error).__name__
        return "success"

    with ThreadPoolExecutor(4 * slots) as waiting:

        async def call(question: str, timeout: float) -> str:  # noqa: ASYNC109 - the caller's
            slot = await free.get()
            try:
                return await asyncio.get_running_loop().run_in_executor(waiting, wait, slot, question, timeout)
            finally:
                free.put_nowait(slot)

        try:
            yield call
        finally:
            library.shutdown()
            directory.cleanup()


@asynccontextmanager
async def litserve(slots: int, seconds: float) -> AsyncIterator[Call]:
    """LitServe with that time-out and a worker process for each slot; the client is httpx, with the same time-out."""
    import httpx  # noqa: ASYNC127 - what comes with DSPy

    with tempfile.TemporaryDirectory(prefix="dspex-trio-bench-") as directory:
        ready = Path(directory) / "port"
        command = [str(Path(TOOLS) / "bench_peers_litserve.py"), str(slots), str(seconds), str(ready)]
        with _ended(command) as process:
            port = await _until(ready, process)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:

                async def call(question: str, timeout: float) -> str:  # noqa: ASYNC109 - the caller's
                    try:
                        async with asyncio.timeout(timeout):
                            reply = await client.post("/predict", json={"question": question}, timeout=None)
                    except TimeoutError:
                        return "TimeoutError"
                    except httpx.HTTPError as error:  # while the server starts
                        return type(error).__name__
                    return "success" if reply.is_success else f"HTTP {reply.status_code}"

                yield call


@asynccontextmanager
async def dspex(slots: int, _seconds: float) -> AsyncIterator[Call]:
    """`dspex-trio serve` with its default executors; the deadline is gRPC's."""
    import grpc.aio

    from dspex_trio.model import TrialOptions, TrialRequest
    from dspex_trio.wire import encode_request, program_from_json
    from dspex_trio.wire.generated.program_pb2 import ExecuteProgramResponse, FailureKind

    program = program_from_json({"python_class": "dspy.Predict", "signature": "question -> answer"})
    with tempfile.TemporaryDirectory(prefix="dspex-trio-bench-") as directory:
        ready = Path(directory) / "ready"
        command = ["-m", "dspex_trio", "serve", "--port", "0", "--ready-file", str(ready), "--log-level", "error"]
        command += ["--lm", "openai/load", "--lm-arg", f"api_base={os.environ[API_BASE]}", "--lm-arg", "api_key=bench"]
        command += ["--max-trials", str(slots), "--no-memory-cache"]
        with _ended(command) as process:
            port = await _until(ready, process)
            target = f"127.0.0.1:{port}"
            async with grpc.aio.insecure_channel(target, options=DIRECT) as channel:
                method = channel.unary_unary("/snakepit.bridge.SnakepitBridge/ExecuteProgram")

                async def call(question: str, timeout: float) -> str:  # noqa: ASYNC109 - the caller's
                    asked = TrialRequest(program, {"question": question}, options=TrialOptions(no_cache=True))
                    try:
                        reply = await method(encode_request(asked).SerializeToString(), timeout=timeout)
                    except grpc.aio.AioRpcError as error:
                        return f"status {error.code().name}"
                    response = ExecuteProgramResponse.FromString(reply)
                    if response.HasField("success"):
                        return "success"
                    return str(FailureKind.Name(response.failure.kind)).removeprefix("FAILURE_KIND_")

                yield call


@contextmanager
def _ended(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that is ended with the block."""
    with subprocess.Popen([sys.executable, *command], cwd=TOOLS) as process:
        try:
            yield process
        finally:
            process.kill()


def _port_in(ready: Path) -> str:
    return ready.read_text(encoding="utf-8") if ready.exists() else ""


async def _until(ready: Path, process: subprocess.Popen[bytes]) -> int:
    async with asyncio.timeout(START_SECONDS):
        while not (port := _port_in(ready)):
            if process.poll() is not None:
                raise RuntimeError(f"the server ended with exit code {process.returncode}")
            await asyncio.sleep(LOOK_SECONDS)  # a file of another process is no event of ours
    return int(port)
