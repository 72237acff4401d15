"""What an open runtime changes in DSPy, and that nothing of it stays."""

import ast
import os
import subprocess
import sys
import textwrap
import threading
from contextlib import suppress
from pathlib import Path

import dspy
import pytest
import trio
from dspy.utils import DummyLM

import dspex_trio as dspex
from dspex_trio import programs
from dspex_trio.programs import ProgramSettings, UnsupportedDspy, current_interrupt, interrupt_of_frame, open_programs
from dspex_trio.programs.dspy import private
from dspex_trio.programs.dspy.private import base_lm, parallelizer
from dspex_trio.programs.hydrate.parsing import one_at_a_time

from .fakes import Interrupt, Trial, answers


def in_a_process_of_its_own(code, cwd, **environment):
    """The cache and the environment are the process's: what is left behind shows best in a fresh one."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        cwd=cwd,
        env={**os.environ, "DSPY_CACHEDIR": str(cwd / "cache"), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LOOK = """
    import os, signal, sys, threading
    import dspy
    from dspy.clients import base_lm
    from dspy.utils import parallelizer

    def look():
        return {
            "history": id(base_lm.GLOBAL_HISTORY),
            "cache": vars(dspy).get("cache"),
            "lm": (dspy.BaseLM.__call__, dspy.BaseLM.acall),
            "tool": (dspy.Tool.__call__, dspy.Tool.acall),
            "sandbox": dspy.PythonInterpreter._health_check,
            "tqdm": parallelizer.tqdm,
            "environment": dict(os.environ),
            "path": list(sys.path),
            "settings": dict(dspy.settings.config),
            "threads": threading.active_count(),
            "signals": [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)],
        }
"""


def test_everything_is_as_it_was_when_the_last_of_several_closes(tmp_path):
    in_a_process_of_its_own(
        LOOK
        + """
    before = look()
    import dspex_trio.runtime.embedded
    from dspex_trio.programs import ProgramSettings, open_programs

    assert look() == before, "importing changes nothing"
    assert "litellm" not in sys.modules
    first, second = (open_programs(ProgramSettings()) for _ in range(2))
    first.__enter__()
    changed = look()
    assert all(changed[name] != before[name] for name in ("history", "cache", "lm", "tool", "sandbox", "tqdm"))
    second.__enter__()
    first.__exit__(None, None, None)
    assert look() == changed, "the second one still runs"
    second.__exit__(None, None, None)
    assert look() == before, look()
    assert not os.path.exists("cache"), "DSPy's cache on disk was not made"
    """,
        tmp_path,
    )


def test_what_somebody_else_put_in_place_meanwhile_stays_and_calls_ours(monkeypatch):
    monkeypatch.setattr(dspy.Tool, "__call__", dspy.Tool.__call__)  # undone after the test
    with open_programs(ProgramSettings()):
        ours = dspy.Tool.__call__

        def theirs(self, **arguments):
            return ours(self, **arguments)

        dspy.Tool.__call__ = theirs
    assert dspy.Tool.__call__ is theirs
    assert dspy.Tool(lambda x: x, name="same")(x=5) == 5, "outside of trials ours passes through"


def files_open_in(directory):
    files = [link.resolve() for link in Path("/proc/self/fd").iterdir()]
    return [file for file in files if file.is_relative_to(directory)]


@pytest.mark.parametrize("wanted", [False, True])
def test_the_cache_on_disk_is_there_only_when_asked_for(tmp_path, monkeypatch, wanted):
    monkeypatch.setattr(dspy.clients, "DISK_CACHE_DIR", str(tmp_path / "cache"))
    with open_programs(ProgramSettings(disk_cache=wanted)):
        assert dspy.cache.enable_disk_cache is wanted
        assert bool(files_open_in(tmp_path)) is wanted
    assert (tmp_path / "cache").exists() is wanted
    assert files_open_in(tmp_path) == []


def test_source_is_parsed_one_at_a_time_where_python_fails_at_more():
    """Now and then a trial would fail of another one's parsing, on Python before 3.11.8."""
    before = ast.parse
    with open_programs(ProgramSettings()):
        assert (ast.parse is not before) == (sys.version_info < (3, 11, 8))
        assert ast.literal_eval("[1]") == [1]
    assert ast.parse is before


def test_no_second_thread_parses_while_one_does():
    inside, most, begun = [], [], threading.Barrier(4)

    def original(text):
        inside.append(text)
        most.append(len(inside))
        inside.remove(text)

    parse = one_at_a_time(original)

    def work():
        begun.wait(10)
        for _ in range(200):
            parse(object())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert most == [1] * 800


def test_an_error_while_opening_leaves_nothing_behind(monkeypatch):
    before = (dspy.Tool.__call__, base_lm.GLOBAL_HISTORY, os.environ.get("LITELLM_LOCAL_MODEL_COST_MAP"))
    monkeypatch.setattr("dspex_trio.programs.dspy.patches._check_recording", lambda: 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), open_programs(ProgramSettings()):
            pass
    assert (dspy.Tool.__call__, base_lm.GLOBAL_HISTORY, os.environ.get("LITELLM_LOCAL_MODEL_COST_MAP")) == before


@pytest.mark.parametrize(
    ("owner", "name"),
    [(base_lm, "GLOBAL_HISTORY"), (private.Cache, "cache_key"), (dspy.PythonInterpreter, "_health_check")],
)
def test_a_dspy_without_what_is_relied_on_is_refused_at_the_start_by_name(monkeypatch, owner, name):
    """And not in the middle of a paid trial."""
    monkeypatch.delattr(owner, name)
    told = rf"lacks .*{name}; dspex_trio needs dspy>=3\.4,<3\.5"
    with pytest.raises(UnsupportedDspy, match=told), open_programs(ProgramSettings()):
        pass


def test_a_dspy_whose_threads_cannot_be_told_apart_is_refused(monkeypatch):
    monkeypatch.setattr(parallelizer.ParallelExecutor, "_execute_parallel", lambda self, function, data: [])
    with pytest.raises(UnsupportedDspy, match="ParallelExecutor's worker"), open_programs(ProgramSettings()):
        pass


def test_a_dspy_that_records_otherwise_is_refused(monkeypatch):
    """A name may stay where what it does has changed."""
    monkeypatch.setattr(base_lm, "record_history", lambda lm, entry: None)
    with pytest.raises(UnsupportedDspy, match="is not recorded as expected"), open_programs(ProgramSettings()):
        pass


def test_calls_outside_of_trials_pass_through_unrecorded():
    with open_programs(ProgramSettings()):
        assert current_interrupt() is None
        with dspy.context(lm=DummyLM([{"answer": "yes"}])):
            assert dspy.Predict("q -> answer")(q="?").answer == "yes"
        assert dspy.Tool(lambda x: x + 1, name="next")(x=1) == 2
        assert len(base_lm.GLOBAL_HISTORY) == 0


# ---- how the thread room finds a trial ------------------------------------------------------------------------------


async def test_the_interrupt_is_known_in_the_programs_thread_and_in_those_of_dspys_parallel(trial):
    import dspex_trio as dspex

    found = []

    def frames():
        frame = sys._current_frames()[threading.get_ident()]
        while frame is not None:
            yield frame
            frame = frame.f_back

    @dspex.tool
    def look(_: str = "") -> str:
        """Look."""
        found.append((current_interrupt(), {interrupt_of_frame(frame) for frame in frames()} - {None}))
        return ""

    @dspex.register("Looks")
    class Looks(dspy.Module):
        def __init__(self, look):
            super().__init__()
            self.look = look

        def inner(self, **_):
            self.look()
            return dspy.Prediction()

        def forward(self):
            self.look()
            dspy.Parallel(num_threads=2)([(self.inner, {}), (self.inner, {})])

    t = trial(python_class="Looks", dependencies={"look": {"tool": "look"}})
    await t.run()
    assert found == [(t.interrupt, set()), (t.interrupt, {t.interrupt}), (t.interrupt, {t.interrupt})]
    assert current_interrupt() is None


SANDBOX = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if "1+1" in line:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": {"output": "2"}}), flush=True)
"""


async def test_a_code_interpreter_is_killed_when_the_trial_ends(trial):
    """It is a process; a program that waits for its answer waits in a pipe, which nothing else wakes."""
    import dspex_trio as dspex

    started = []

    @dspex.register("RunsCode")
    class RunsCode(dspy.Module):
        def forward(self):
            interpreter = dspy.PythonInterpreter(deno_command=[sys.executable, "-c", SANDBOX])
            interpreter.start()
            started.append(interpreter.deno_process)
            ready.set()
            interpreter.execute("never answered")

    ready = threading.Event()
    t = await trial(python_class="RunsCode", interrupt=Interrupt()).ready()
    raised = []

    def work():
        try:
            t.call()
        except BaseException as error:  # noqa: BLE001 - the test says which one
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(20)
    assert len(t.interrupt.callbacks) == 1
    for callback in t.interrupt.callbacks:
        callback()
    thread.join(20)
    assert not thread.is_alive()
    assert started[0].wait(20) is not None
    assert isinstance(raised[0], dspy.primitives.code_interpreter.CodeInterpreterError)
    for stream in (started[0].stdin, started[0].stdout, started[0].stderr):
        with suppress(BrokenPipeError):  # DSPy may have had more to say to it
            stream.close()


def test_a_ready_model_is_not_changed_by_a_runtime():
    lm = answers(a="x")
    before = dict(vars(lm))
    with open_programs(ProgramSettings(), lm=lm) as loader:
        assert Trial(loader, python_class="dspy.Predict").loader is loader
    assert vars(lm) == before


async def test_a_program_cannot_configure_dspy_for_the_trials_after_it(monkeypatch, trial):
    """DSPy's settings are the process's: what one trial sets, the next one, of somebody else, would run under."""
    monkeypatch.setattr(private.dspy_settings, "config_owner_thread_id", None)

    @dspex.register("Configures")
    class Configures(dspy.Module):
        def forward(self, q: str):
            dspy.configure(lm=answers(a="mine for all"))

    t = await trial(python_class="Configures").ready()
    failed = []

    def in_a_thread():
        with pytest.raises(RuntimeError, match=r"dspy.settings can only be changed by the thread that") as caught:
            t.call(q="?")
        failed.append(caught.value)

    thread = threading.Thread(target=in_a_thread)
    thread.start()
    await trio.to_thread.run_sync(thread.join)
    assert len(failed) == 1
    assert dspy.settings.lm is None


def test_whoever_opened_a_runtime_may_configure_dspy_and_anybody_may_afterwards(monkeypatch):
    """A module that the operator loads does so when it is imported."""
    monkeypatch.setattr(private.dspy_settings, "config_owner_thread_id", None)
    with open_programs(ProgramSettings()):
        dspy.configure(warn_on_type_mismatch=dspy.settings.warn_on_type_mismatch)
    assert private.dspy_settings.config_owner_thread_id is None


def test_every_change_of_dspy_is_listed_with_whether_it_is_in_place():
    names = {each.where for each in programs.patches()}
    assert {"dspy.cache", "dspy.clients.base_lm.BaseLM.__call__"} <= names
    with programs.dspy_prepared(memory_cache=True, disk_cache=False):
        states = {each.where: each.state for each in programs.patches()}
        kept = base_lm.GLOBAL_HISTORY
        base_lm.GLOBAL_HISTORY = []
        covered = [each.where for each in programs.patches() if each.state == "covered"]
        base_lm.GLOBAL_HISTORY = kept
    no_need = {
        "ast.parse",
        'os.environ["LITELLM_LOCAL_MODEL_COST_MAP"]',
        "dspy.dsp.utils.settings.config_owner_thread_id",
    }
    assert {where for where, state in states.items() if state != "ours"} <= no_need
    assert covered == ["dspy.clients.base_lm.GLOBAL_HISTORY"]
    assert {each.state for each in programs.patches()} == {"not installed"}
