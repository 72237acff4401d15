"""Whatever a job's thread is blocked on, a cancel ends it; nothing outside of jobs is changed."""

import asyncio
import contextlib
import gc
import http.client
import multiprocessing
import os
import queue
import select
import selectors
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial

import anyio
import pytest
import requests
import trio
import trustme

from dspex_trio.threads import Job, JobCancelled, Slots, left_alone, open_threads
from dspex_trio.threads.ladder.job import enter_job

# A library whose call is ended leaves its socket, shut down already, to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("collected_here"),
]


@contextlib.contextmanager
def silent_server(tls=None):
    """Accepts and never answers; `closed` tells that the peer is gone."""
    closed = threading.Event()
    held = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    held.append(connection)
                    threading.Thread(target=read, args=(connection,), daemon=True).start()

        def read(connection):
            with contextlib.suppress(OSError):
                if tls is not None:
                    connection = tls.wrap_socket(connection, server_side=True)
                while connection.recv(65536):
                    pass
            closed.set()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1], closed
    for connection in held:
        connection.close()


async def cancelled_in(function, *args, ready=None):
    """Run `function` as a job, cancel it once it is blocked (and `ready` is set), and return how it was stopped."""
    slots, job = Slots(1), Job()
    async with open_threads(patience=lambda _job: 10, may_raise=False) as threads:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancel():
                    looks = 0
                    while looks < 50:  # in a row: a wait that ends by itself, as for a connection, is not meant
                        looks = looks + 1 if blocked(job) and (ready is None or ready.is_set()) else 0
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

                nursery.start_soon(cancel)
                await threads.run(function, *args, job=job, slot=slots.acquire_nowait())
        assert scope.cancelled_caught
        assert threads.stuck() == []
    return job.details()


def blocked(job):
    """Whether the job's thread is inside one of the waits that the seam knows."""
    if job._sockets or job._parked:
        return True
    for top in sys._current_frames().values():
        frame = top
        while frame is not None:
            if frame.f_code.co_name in {"in_steps", "get_events"}:  # the second is Trio's
                return True
            frame = frame.f_back
    return False


def recv(port):
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.recv(1)


def http_client(port):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/")
    connection.getresponse()


def through_urllib(port):
    urllib.request.urlopen(f"http://127.0.0.1:{port}/").read()


def through_requests(port):
    requests.get(f"http://127.0.0.1:{port}/", timeout=60)


def stubborn_requests(port):
    """What `except Exception` keeps is not our interrupt."""
    while True:
        with contextlib.suppress(Exception):
            requests.get(f"http://127.0.0.1:{port}/", timeout=60)


@pytest.mark.parametrize("function", [recv, http_client, through_urllib, through_requests, stubborn_requests])
async def test_a_blocked_socket_is_woken_and_its_peer_sees_the_close(function):
    with silent_server() as (port, closed):
        assert (await cancelled_in(function, port))["rung"] == "wake"
        assert await trio.to_thread.run_sync(closed.wait, 10)


def connect_to_who_does_not_accept():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as connections:
        for _ in range(10):
            connections.enter_context(socket.create_connection(listener.getsockname()))


def send_a_file(sock):
    with tempfile.TemporaryFile() as file:
        file.truncate(1 << 24)
        sock.sendfile(file)


@pytest.mark.parametrize(
    "operation",
    [
        lambda sock: sock.recv_into(bytearray(1)),
        lambda sock: sock.recvfrom(1),
        lambda sock: sock.recvmsg(1),
        lambda sock: sock.makefile().readline(),
        lambda sock: sock.sendall(b"x" * 10_000_000),
        lambda sock: sock.sendmsg([b"x" * 10_000_000]) and sock.sendmsg([b"x"]),
        lambda sock: sock.makefile("wb").write(b"x" * 10_000_000),
        lambda sock: socket.socket(fileno=sock.detach()).recv(1),
        send_a_file,
    ],
)
async def test_every_operation_on_a_socket_is_woken_and_its_peer_sees_the_close(operation):
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    with ours, theirs:
        assert (await cancelled_in(operation, ours))["rung"] == "wake"
        while theirs.recv(1 << 20):
            pass


@pytest.mark.parametrize(
    "operation",
    [
        lambda: socket.create_server(("127.0.0.1", 0)).accept(),
        lambda: socket.socket(type=socket.SOCK_DGRAM).recvfrom(1),
        connect_to_who_does_not_accept,
    ],
)
async def test_a_socket_without_a_peer_is_woken_too(operation):
    assert (await cancelled_in(operation))["rung"] == "wake"


def test_a_connection_that_comes_in_the_moment_of_the_end_is_closed():
    """Its descriptor is a number, which nobody would ever close."""
    from dspex_trio.threads.patches.sockets import accepting

    job, accepted = Job(), []
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as caller:

        def accept_and_end(self):
            accepted.append(type(self)._accept(self))
            job.cancel()
            return accepted[0]

        def work():
            enter_job(job)
            with pytest.raises(JobCancelled):
                accepting(accept_and_end)(listener)

        thread = threading.Thread(target=copy_context().run, args=(work,))
        thread.start()
        thread.join(10)
        caller.settimeout(10)
        assert accepted
        assert caller.recv(1) == b""


async def test_tls_is_woken_in_a_read_and_in_a_handshake():
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)

    def read(port):
        with (
            socket.create_connection(("127.0.0.1", port)) as sock,
            client.wrap_socket(sock, server_hostname="localhost") as secured,
        ):
            last_wait.set()
            secured.recv(1)

    def shake_hands(port):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            last_wait.set()
            client.wrap_socket(sock, server_hostname="localhost")

    for function, context in ((read, server), (shake_hands, None)):
        last_wait = threading.Event()  # those before it may end by themselves just when the job is cancelled
        with silent_server(context) as (port, closed):
            assert (await cancelled_in(function, port, ready=last_wait))["rung"] == "wake"
            assert await trio.to_thread.run_sync(closed.wait, 10)


async def test_a_connection_of_http_2_is_left_to_those_who_share_it():
    """Its other streams are other trials' requests: a cancel ends the wait alone."""
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    for context in (server, client):
        context.set_alpn_protocols(["h2"])

    def connect(ours, theirs):
        box = []
        thread = threading.Thread(target=lambda: box.append(server.wrap_socket(theirs, server_side=True)))
        thread.start()
        near = client.wrap_socket(ours, server_hostname="localhost")
        thread.join(10)
        return near, box[0]

    near, far = await trio.to_thread.run_sync(connect, *socket.socketpair())
    with near, far:
        near.settimeout(0.001)

        async with open_threads(patience=lambda _job: 10) as threads:
            with pytest.raises(TimeoutError):
                await threads.run(near.recv, 1, job=Job(), slot=Slots(1).acquire_nowait())
            near.settimeout(60)
            assert (await cancelled_in(near.recv, 1))["rung"] == "wake"

            def answer():
                far.sendall(b"for another stream")
                near.sendall(b"asked")
                return near.recv(100), far.recv(100)

            found = await threads.run(answer, job=Job(), slot=Slots(1).acquire_nowait())
    assert found == (b"for another stream", b"asked")


async def test_a_connection_is_closed_though_the_job_ended_at_a_check(threads):
    """In the middle of a reply say. Its frames hold it, in a cycle with the error: that is not left to a collection."""
    job, started, token = Job(), trio.Event(), trio.lowlevel.current_trio_token()

    def work(port):
        kept = [socket.create_connection(("127.0.0.1", port))]
        token.run_sync_soon(started.set)
        try:
            while True:
                job.check()
        except JobCancelled as error:
            kept.append(error)
            raise

    gc.disable()
    try:
        with silent_server() as (port, closed), trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def cancel():
                    await started.wait()
                    scope.cancel()

                await threads.run(work, port, job=job, slot=Slots(1).acquire_nowait())
        assert await trio.to_thread.run_sync(closed.wait, 10)
    finally:
        gc.enable()


def join_a_thread():
    release = threading.Event()
    thread = threading.Thread(target=release.wait, args=(5,), daemon=True)
    thread.start()
    try:
        thread.join()
    finally:
        release.set()


def wait_for_a_process():
    subprocess.run([sys.executable, "-c", "import time; time.sleep(60)"], check=False)


def use_a_selector():
    with socket.create_server(("127.0.0.1", 0)) as listener, selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.select()


def use_select():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        select.select([listener], [], [])


def use_poll():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.poll()


def read_a_process_through_one_pipe():
    """What subprocess would do with one blocking read in C."""
    subprocess.check_output([sys.executable, "-c", "import time; time.sleep(60)"])


SILENT = [sys.executable, "-c", "import time; time.sleep(60)"]


def read_what_a_process_says(how):
    with subprocess.Popen(SILENT, stdout=subprocess.PIPE, **how) as process:
        for _line in process.stdout:
            pass


def write_to_a_process_that_does_not_read():
    with subprocess.Popen(SILENT, stdin=subprocess.PIPE) as process:
        process.stdin.write(b"x" * 1_000_000)


SPAWN = multiprocessing.get_context("spawn")


def join_a_process():
    process = SPAWN.Process(target=time.sleep, args=(60,))
    process.start()
    process.join()


def read_a_pipe():
    near, far = SPAWN.Pipe()
    with near, far:
        near.recv()


def map_in_a_pool():
    with SPAWN.Pool(1) as pool:
        pool.map(time.sleep, [60])


def ask_a_resolver_that_hangs():
    from dspex_trio.threads.patches.sockets import resolving

    release = threading.Event()
    try:
        resolving(lambda host: release.wait(10))("example.invalid")
    finally:
        release.set()


def run_stubborn_asyncio():
    """A task that keeps its cancel, in a loop that waits for it."""

    async def main():
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    asyncio.run(main())


def run_asyncio():
    async def main():
        await asyncio.sleep(60)

    asyncio.run(main())


def run_trio():
    trio.run(trio.sleep, 60)


def run_anyio_on_trio():
    anyio.run(anyio.sleep, 60, backend="trio")


@pytest.mark.parametrize(
    ("wait", "rung"),
    [
        (lambda: time.sleep(60), "wake"),
        (lambda: threading.Event().wait(), "wake"),
        (lambda: threading.Event().wait(60), "wake"),
        (lambda: queue.Queue().get(), "wake"),
        (lambda: threading.Semaphore(0).acquire(), "wake"),
        (lambda: threading.Barrier(2).wait(), "wake"),
        (lambda: Future().result(), "wake"),
        (join_a_thread, "wake"),
        (wait_for_a_process, "wake"),
        (use_a_selector, "wake"),
        (use_select, "wake"),
        (use_poll, "wake"),
        (read_a_process_through_one_pipe, "wake"),
        (lambda: read_what_a_process_says({}), "wake"),
        (lambda: read_what_a_process_says({"text": True}), "wake"),
        (lambda: read_what_a_process_says({"bufsize": 0}), "wake"),
        (write_to_a_process_that_does_not_read, "wake"),
        (join_a_process, "wake"),
        (read_a_pipe, "wake"),
        (lambda: SPAWN.SimpleQueue().get(), "wake"),
        (map_in_a_pool, "wake"),
        (ask_a_resolver_that_hangs, "wake"),
        (run_asyncio, "wake"),
        (run_stubborn_asyncio, "wake"),
        (run_trio, "wake"),
        (run_anyio_on_trio, "wake"),
    ],
)
async def test_a_wait_that_is_no_socket_is_ended_too(wait, rung):
    assert (await cancelled_in(wait))["rung"] == rung
    assert multiprocessing.active_children() == []


async def test_a_process_that_is_waited_for_in_vain_is_ended():
    started = []

    def work():
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        started.append(process)
        process.wait()

    await cancelled_in(work)
    assert started[0].returncode == -9


async def test_a_process_that_is_read_from_in_vain_is_ended():
    started = []

    def work():
        started.append(subprocess.Popen(SILENT, stdout=subprocess.PIPE))
        started[0].stdout.read()

    await cancelled_in(work)
    with started[0]:
        assert started[0].wait() == -9


@pytest.mark.parametrize("size", [-1, 0, 100])
async def test_the_pipes_of_a_process_are_as_ever(size, threads):
    """In a job, and for whoever gets them from one."""
    code = "import sys; data = sys.stdin.buffer.read(); sys.stdout.buffer.write(data); sys.stderr.write('é')"
    text = "ä\n" * 100_000

    def work():
        how = {"stdin": -1, "stdout": -1, "stderr": -1, "bufsize": size}
        binary, texts, lent, outside = [
            subprocess.Popen([sys.executable, "-X", "utf8", "-c", code], **how, **more)
            for more in ({}, {"encoding": "utf-8", "errors": "strict"} if size else {}, {}, {})
        ]
        with texts:
            assert texts.communicate(text if size else text.encode())[0] in {text, text.encode()}
        with binary:
            feeder = threading.Thread(target=feed, args=(binary.stdin, text.encode()))
            feeder.start()
            assert binary.stdout.read() == text.encode()
            assert binary.stderr.readline() == "é".encode()
            feeder.join()
            assert (binary.stdin.closed, binary.stdout.name, binary.stdout.readable()) == (
                True,
                binary.stdout.fileno(),
                True,
            )
        return lent, outside

    def feed(stdin, data):
        left = memoryview(data)
        while left:
            left = left[stdin.write(left) :]
        stdin.close()

    lent, outside = await threads.run(work, job=Job(), slot=Slots(1).acquire_nowait())
    with lent, outside:
        assert lent.communicate(b"x")[0] == b"x"
        feed(outside.stdin, b"y")
        assert outside.stdout.read() == b"y"


@pytest.mark.parametrize("run", [asyncio.run, lambda main: trio.run(lambda: main)], ids=["asyncio", "trio"])
async def test_a_loop_that_is_begun_after_the_end_does_nothing(run):
    """It might ask a model meanwhile, by sockets that do not block."""
    did = []

    async def main(checkpoint):
        did.append("begun")
        await checkpoint()
        did.append("went on")

    def work():
        try:
            time.sleep(60)
        finally:
            run(main(trio.lowlevel.checkpoint if run is not asyncio.run else partial(asyncio.sleep, 0)))

    await cancelled_in(work)
    assert "went on" not in did


async def test_a_loops_tasks_clean_up_before_it_ends():
    cleaned = []

    def work():
        async def main():
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0)
                cleaned.append("task")

        asyncio.run(main())

    assert (await cancelled_in(work))["rung"] == "wake"
    assert cleaned == ["task"]


async def test_a_trio_loops_tasks_clean_up_and_its_threads_are_woken():
    cleaned = []

    def work():
        async def main():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.to_thread.run_sync, time.sleep, 60)
                try:
                    await trio.sleep_forever()
                finally:
                    with trio.CancelScope(shield=True):
                        await trio.lowlevel.checkpoint()
                    cleaned.append("task")

        trio.run(main)

    await cancelled_in(work)
    assert cleaned == ["task"]


async def test_a_trio_loop_returns_and_raises_as_ever(threads):
    async def answer(*args):
        await trio.lowlevel.checkpoint()
        return args

    def work():
        with pytest.raises(KeyError):
            trio.run({}.__getitem__, "missing")
        return trio.run(answer, 1, 2, strict_exception_groups=True)

    assert await threads.run(work, job=Job(), slot=Slots(1).acquire_nowait()) == (1, 2)


async def test_a_log_handlers_socket_is_not_broken():
    """It is the process's: a trial that ends while it logs lets it finish."""
    import logging

    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    begun = threading.Event()

    class Handler(logging.Handler):
        def emit(self, record):
            begun.set()
            ours.recv(1)
            ours.send(b"whole")

    logger = logging.getLogger("test_a_log_handlers_socket_is_not_broken")
    logger.propagate = False
    logger.addHandler(Handler())

    def work():
        logger.warning("x")
        time.sleep(60)  # here it is told

    job = Job()
    async with open_threads(patience=lambda _job: 10) as threads:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def cancel():
                    await trio.to_thread.run_sync(begun.wait, 10)
                    scope.cancel()
                    await trio.sleep_forever()

                @nursery.start_soon
                async def answer_once_cancelled():
                    try:
                        await trio.sleep_forever()
                    finally:
                        theirs.send(b"x")

                await threads.run(work, job=job, slot=Slots(1).acquire_nowait())
    with ours, theirs:
        assert theirs.recv(5) == b"whole"
    assert job.details()["rung"] in {"check", "wake"}


async def test_a_datagram_is_sent_by_a_job_that_is_over_too():
    """Its socket may be the process's, for metrics say; and it does not block."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.settimeout(10)

            def work():
                try:
                    time.sleep(60)
                finally:
                    sender.sendto(b"counted", receiver.getsockname())

            assert (await cancelled_in(work))["rung"] == "wake"
            sender.sendto(b"again", receiver.getsockname())
        assert (receiver.recv(10), receiver.recv(10)) == (b"counted", b"again")


async def test_a_notified_waiter_keeps_its_notification(threads):
    """Under the seam a Condition hands items over as ever: none lost, none twice."""
    channel, taken, count = queue.Queue(maxsize=2), [], 500
    slots = Slots(2)

    def produce():
        for n in range(count):
            channel.put(n)

    def consume():
        taken.extend(channel.get() for _ in range(count))

    async with trio.open_nursery() as nursery:
        for function in (produce, consume):
            nursery.start_soon(_run, threads, function, slots)
    assert taken == list(range(count))


async def _run(threads, function, slots):
    await threads.run(function, job=Job(), slot=slots.acquire_nowait())


async def test_a_lookup_for_which_there_is_no_thread_takes_no_place_of_others(threads, monkeypatch):
    from dspex_trio.threads.patches import sockets

    def no_thread(*args):
        raise RuntimeError("can't start new thread")

    def work():
        for _ in range(sockets._MAX_LOOKUPS + 1):
            with pytest.raises(RuntimeError, match="can't start"):
                sockets.resolving(len)("example.invalid")

    monkeypatch.setattr(sockets, "start_new_thread", no_thread)
    await threads.run(work, job=Job(), slot=Slots(1).acquire_nowait())


async def test_what_must_be_finished_can_be_left_alone(threads):
    """A job that is over may give back what it has rented."""
    begun, job, done = trio.Event(), Job(), []
    token = trio.lowlevel.current_trio_token()

    def work():
        try:
            token.run_sync_soon(begun.set)
            time.sleep(60)
        finally:
            with left_alone():
                done.append(threading.Event().wait(0.001))
            threading.Event().wait(60)

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def cancel():
                await begun.wait()
                scope.cancel()

            await threads.run(work, job=job, slot=Slots(1).acquire_nowait())
    assert done == [False]
    assert job.details()["rung"] in {"wake", "check"}  # it may not have gone to sleep yet


async def test_a_pool_keeps_the_thread_that_a_job_starts_for_it_after_its_end(threads):
    """One that it did not know of, nobody would ever end: not even the process could."""
    pool = ThreadPoolExecutor(1)

    def work():
        try:
            time.sleep(60)
        finally:
            pool.submit(int)

    await cancelled_in(work)
    assert len(pool._threads) == 1
    pool.shutdown()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
async def test_a_process_that_a_job_forks_waits_as_without_the_seam(threads):
    """There is nobody there who could end its waits, and whatever another thread held, it holds for ever."""
    job, held, release, status = Job(), threading.Event(), threading.Event(), []

    def hold():
        with job._lock:
            held.set()
            release.wait(10)

    def work():
        holder = threading.Thread(target=hold)
        holder.start()
        assert held.wait(10)
        if (child := os.fork()) == 0:
            try:
                signal.alarm(10)
                time.sleep(0.001)
                os._exit(7)
            finally:
                os._exit(1)
        status.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        release.set()

    await threads.run(work, job=job, slot=Slots(1).acquire_nowait())
    assert status == [7]


async def test_waits_that_time_out_do_so_as_without_the_seam(threads):
    def work():
        assert threading.Event().wait(0.001) is False
        with pytest.raises(queue.Empty):
            queue.Queue().get(timeout=0.001)
        with pytest.raises(subprocess.TimeoutExpired):
            subprocess.run([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.05, check=False)
        with pytest.raises(RuntimeError, match="un-acquired"):
            threading.Condition().wait(1)
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join(5)
        assert not thread.is_alive()
        assert asyncio.run(asyncio.sleep(0, "done")) == "done"
        assert socket.getaddrinfo("localhost", 80)

    await threads.run(work, job=Job(), slot=Slots(1).acquire_nowait())


async def test_the_host_thread_is_never_taken_for_the_jobs():
    """Code of the job that hops to the loop runs there in a copy of the job's context."""
    slots, job, seen = Slots(1), Job(), []
    from dspex_trio.threads import current_job

    async def on_the_loop():
        seen.append(current_job())

    token = trio.lowlevel.current_trio_token()

    def hop():
        seen.append(current_job())
        trio.from_thread.run(on_the_loop, trio_token=token)

    async with open_threads() as threads:
        await threads.run(hop, job=job, slot=slots.acquire_nowait())
    assert seen == [job, None]


async def test_a_thread_of_a_librarys_own_that_is_ended_says_nothing(threads, capfd):
    """As the one that dspy.streamify fills its queue from."""
    job, helpers = Job(), []

    def work():
        helpers.append(threading.Thread(target=copy_context().run, args=(time.sleep, 60)))
        helpers[0].start()
        helpers[0].join()

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def cancel():
                while not (helpers and helpers[0].is_alive() and job._parked):
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            await threads.run(work, job=job, slot=Slots(1).acquire_nowait())
    await trio.to_thread.run_sync(helpers[0].join, 10)
    assert not helpers[0].is_alive()
    assert capfd.readouterr() == ("", "")


def test_the_seam_is_counted_and_taken_back_where_it_is_still_ours():
    from dspex_trio.threads.patches.install import hooks

    def state():
        calls = (time.sleep, socket.getaddrinfo, select.select, threading.Condition.wait, socket.socket.recv)
        return [*calls, "recv" in vars(socket.socket), subprocess.Popen._wait, ssl.SSLSocket.read]

    before = state()
    with hooks():
        with hooks():
            inside = state()
        assert state() == inside
        assert all(a is not b for a, b in zip(before, inside, strict=True))
    assert state() == before

    with hooks():
        ours = time.sleep

        def theirs(seconds):
            ours(seconds)

        time.sleep = theirs
    try:
        assert time.sleep is theirs
        time.sleep(0)  # what stayed behind passes through
    finally:
        time.sleep = before[0]
