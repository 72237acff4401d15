"""What is recorded of a program: every predictor, every LM call, once, where it belongs."""

import contextlib
import json
import threading

import dspy
import pytest

import dspex_trio as dspex
from dspex_trio.model import Recording, TrialOptions, Usage
from dspex_trio.observing import correlation

from .fakes import Ended, Interrupt, Scripted, answers, chat


async def test_an_entry_tells_what_the_predictor_was_and_did(trial):
    lm = Scripted(lambda _: chat(answer="four"))
    t = trial(python_class="dspy.Predict", signature="question, n: int -> answer", model=lm)
    await t.run(question="2+2?", n=4)
    [entry] = t.recording.trace
    assert (entry.predictor, entry.class_name, entry.signature) == ("self", "Predict", "question, n -> answer")
    assert (entry.inputs, entry.outputs) == ({"question": "2+2?", "n": 4}, {"answer": "four"})
    [call] = entry.lm_calls
    assert [message["role"] for message in json.loads(call.messages_json)] == ["system", "user"]
    assert "2+2?" in json.loads(call.messages_json)[1]["content"]
    assert json.loads(call.response_json)["response"]["message"]["parts"][0]["text"] == chat(answer="four")
    assert call.model == "scripted"
    assert call.usage == Usage(prompt_tokens=3, completion_tokens=2, total_tokens=5)
    assert not call.cache_hit
    assert 0 <= entry.started_ms <= call.started_ms
    assert call.started_ms + call.latency_ms <= entry.started_ms + entry.latency_ms
    assert t.recording.cost.usage == call.usage
    assert (t.recording.cost.known, t.recording.cost.total_usd) == (False, 0.0), "unknown is not free"


async def test_what_is_recorded_is_what_was_at_that_moment(trial):
    """ReActV2 goes on writing into the history that it passed."""

    @dspex.register("Writes")
    class Writes(dspy.Module):
        def __init__(self):
            super().__init__()
            self.generate = dspy.Predict("notes: list[str] -> answer")

        def forward(self):
            notes = ["first"]
            made = self.generate(notes=notes)
            notes.append("second")
            made.answer = "changed"
            return made

    t = trial(python_class="Writes")
    await t.run()
    [entry] = t.recording.trace
    assert (entry.inputs, entry.outputs) == ({"notes": ["first"]}, {"answer": "yes"})


async def test_predictors_have_their_dotted_names_in_lists_compiled_parts_and_copies(trial):
    @dspex.register("Nested")
    class Nested(dspy.Module):
        def __init__(self):
            super().__init__()
            self.steps = [dspy.Predict("q -> answer"), dspy.Predict("q -> answer")]
            self.frozen = dspy.ChainOfThought("q -> answer")
            self.frozen._compiled = True

        def forward(self, q: str):
            for step in [*self.steps, self.steps[0].deepcopy(), self.frozen, dspy.Predict("q -> answer")]:
                step(q=q)

    t = trial(python_class="Nested", model=answers(reasoning="r", answer="a"))
    await t.run(q="?")
    names = [entry.predictor for entry in t.recording.trace]
    assert names == ["steps[0]", "steps[1]", "steps[0]", "frozen.predict", ""]


async def test_a_reply_that_cannot_be_parsed_leaves_all_its_calls_without_outputs(trial):
    lm = Scripted(lambda _: "nonsense")
    t = await trial(python_class="dspy.Predict", signature="q -> a: int", model=lm).ready()
    with pytest.raises(dspex.TrialError):
        t.call(q="?")
    [entry] = t.recording.trace
    assert (entry.predictor, entry.outputs, len(entry.lm_calls)) == ("self", {}, 2), "DSPy asks again for JSON"
    assert t.recording.cost.usage.total_tokens == 10


async def test_a_second_way_of_asking_belongs_to_the_call_that_needed_it(trial):
    replies = iter(["nonsense", json.dumps({"answer": "yes"})])
    t = trial(python_class="dspy.Predict", signature="q -> answer", model=Scripted(lambda _: next(replies)))
    assert await t.run(q="?") == {"answer": "yes"}
    assert t.tree() == [("self", 2)]


async def test_calls_of_a_try_that_failed_are_not_counted_to_the_next_try(trial):
    replies = iter(["nonsense", "nonsense", chat(answer="yes")])

    @dspex.register("TriesAgain")
    class TriesAgain(dspy.Module):
        def __init__(self):
            super().__init__()
            self.generate = dspy.Predict("q -> answer")

        def forward(self, q: str):
            try:
                return self.generate(q=q)
            except dspy.AdapterParseError:
                return self.generate(q=q)

    t = trial(python_class="TriesAgain", model=Scripted(lambda _: next(replies)))
    await t.run(q="?")
    assert [(bool(e.outputs), len(e.lm_calls)) for e in t.recording.trace] == [(True, 1), (False, 2)]


async def test_a_module_that_asks_its_model_itself_has_an_entry_of_its_own(trial):
    @dspex.register("AsksItself")
    class AsksItself(dspy.Module):
        def forward(self, q: str):
            return {"text": dspy.settings.lm(q)[0]}

    t = trial(python_class="AsksItself", model=Scripted(lambda _: "hello"))
    assert await t.run(q="say hello") == {"text": "hello"}
    [entry] = t.recording.trace
    assert (entry.predictor, entry.class_name, len(entry.lm_calls)) == ("", "AsksItself", 1)
    assert json.loads(entry.lm_calls[0].messages_json)[0]["content"] == "say hello"


async def test_several_replies_to_one_question_are_one_call(trial):
    lm = Scripted(lambda _: chat(answer="yes"))
    t = trial(python_class="dspy.Predict", signature="q -> answer", parameters={"n": 3}, model=lm)
    await t.run(q="?")
    assert t.tree() == [("self", 1)]
    assert t.recording.cost.usage == Usage(9, 6, 15)


async def test_threads_of_dspys_parallel_are_recorded_like_any_other(trial):
    @dspex.register("Fans")
    class Fans(dspy.Module):
        def __init__(self):
            super().__init__()
            self.generate = dspy.ChainOfThought("q -> answer")

        def forward(self, n: int):
            parallel = dspy.Parallel(num_threads=4, disable_progress_bar=True)
            return {"made": len(parallel([(self.generate, dspy.Example(q=str(i)).with_inputs("q")) for i in range(n)]))}

    lm = Scripted(lambda request: chat(reasoning="r", answer="a"))
    t = trial(python_class="Fans", model=lm)
    assert await t.run(n=20) == {"made": 20}
    assert t.tree() == [("generate.predict", 1)] * 20
    for entry in t.recording.trace:
        assert f"[[ ## q ## ]]\\n{entry.inputs['q']}\\n" in entry.lm_calls[0].messages_json
    assert t.recording.cost.usage.total_tokens == 100


async def test_context_variables_reach_the_threads_of_dspys_parallel(trial):
    """DSPy hands on its own settings alone; a correlation id, or a span, would be lost."""
    found = []

    @dspex.register("TellsWhatItIs")
    class TellsWhatItIs(dspy.Module):
        def forward(self):
            def tell(x):
                found.append((correlation.current(), threading.get_ident() != here))

            here = threading.get_ident()
            with correlation.correlated("c-17"):
                dspy.Parallel(num_threads=2, disable_progress_bar=True)([(tell, {"x": 1})] * 2)
            return {}

    await trial(python_class="TellsWhatItIs").run()
    assert found == [("c-17", True)] * 2


async def test_dspys_parallel_shows_no_progress_bar_and_starts_no_monitor(trial, capsys):
    """Bars of trials at once break each other in tqdm, and nobody watches a worker's output."""

    @dspex.register("Shows")
    class Shows(dspy.Module):
        def __init__(self):
            super().__init__()
            self.generate = dspy.Predict("q -> answer")

        def forward(self):
            return {"made": len(dspy.Parallel(num_threads=2)([(self.generate, {"q": "?"})] * 4))}

    before = {thread.name for thread in threading.enumerate() if "ThreadPool" not in thread.name}
    assert await trial(python_class="Shows").run() == {"made": 4}
    assert capsys.readouterr() == ("", "")
    assert {thread.name for thread in threading.enumerate() if "ThreadPool" not in thread.name} == before


def rewarded(kind):
    """A program around BestOfN or Refine, which copy their module for each attempt and keep the best one's trace."""

    @dspex.register("Rewarded")
    class Rewarded(dspy.Module):
        def __init__(self):
            super().__init__()
            self.generate = dspy.Predict("q -> answer")
            self.best = kind(module=self.generate, N=3, reward_fn=lambda _, made: float(made.answer), threshold=9.0)

        def forward(self, q: str):
            return self.best(q=q)


async def test_best_of_n_tells_the_best_attempt_and_what_the_others_cost(trial):
    rewarded(dspy.BestOfN)
    replies = iter(["1", "3", "2"])
    t = trial(python_class="Rewarded", model=Scripted(lambda _: chat(answer=next(replies))))
    assert await t.run(q="?") == {"answer": "3"}
    assert [(e.predictor, e.outputs, len(e.lm_calls)) for e in t.recording.trace] == [
        ("generate", {"answer": "3"}, 1),
        ("generate", {}, 1),
        ("generate", {}, 1),
    ]
    assert '"text": "[[ ## answer ## ]]\\n3' in t.recording.trace[0].lm_calls[0].response_json
    assert t.recording.cost.usage.total_tokens == 15


async def test_refine_is_recorded_with_the_advice_it_asks_for(trial):
    rewarded(dspy.Refine)
    advice = chat(discussion="d", advice='{"self": "better"}')

    def say(request):
        return advice if "discussion" in repr(request) else chat(answer="1")

    t = trial(python_class="Rewarded", model=Scripted(say))
    assert await t.run(q="?") == {"answer": "1"}
    cost = t.recording.cost
    assert cost.lm_calls == sum(len(entry.lm_calls) for entry in t.recording.trace)
    assert cost.usage.total_tokens == 5 * cost.lm_calls
    assert {entry.predictor for entry in t.recording.trace if entry.outputs} >= {"generate"}


# ---- what is left out -----------------------------------------------------------------------------------------------


async def test_prompts_or_the_whole_trace_are_left_out_and_the_cost_stays(trial):
    for options, entries in ((TrialOptions(omit_prompts=True), 1), (TrialOptions(omit_trace=True), 0)):
        lm = Scripted(lambda _: chat(answer="yes"))
        t = trial(python_class="dspy.Predict", signature="q -> answer", options=options, model=lm)
        await t.run(q="?")
        assert len(t.recording.trace) == entries
        calls = [call for entry in t.recording.trace for call in entry.lm_calls]
        assert all((call.messages_json, call.response_json) == ("", "") for call in calls)
        assert (t.recording.cost.lm_calls, t.recording.cost.usage.total_tokens) == (1, 5)


async def test_without_a_trace_the_calls_of_a_failure_are_left_out_too(trial):
    t = await trial(
        python_class="dspy.Predict",
        signature="q -> a: int",
        options=TrialOptions(omit_trace=True),
        model=Scripted(lambda _: "nonsense"),
    ).ready()
    with pytest.raises(dspex.TrialError):
        t.call(q="?")
    assert t.recording.trace == ()
    assert t.recording.cost.lm_calls == 2


async def test_secrets_are_taken_out_of_prompts_replies_inputs_and_outputs():
    from dspex_trio.observing.redaction import Redactor
    from dspex_trio.programs import ProgramSettings, open_programs

    from .fakes import Trial

    secret = "hunter2-hunter2"
    lm = Scripted(lambda _: chat(answer=f"the key is {secret}"))
    with open_programs(ProgramSettings(), lm=lm, redact=Redactor([secret])) as loader:
        t = Trial(loader, python_class="dspy.Predict", signature="q, notes: list[str] -> answer")
        prediction = await t.run(q=f"use {secret}", notes=[f"{secret}!"])
    assert secret not in repr(t.recording)
    assert "use [redacted]" in t.recording.trace[0].lm_calls[0].messages_json
    assert t.recording.trace[0].inputs["notes"] == ["[redacted]!"]
    assert prediction == {"answer": f"the key is {secret}"}, "what the program answers is its own affair"


async def test_a_program_that_goes_on_and_on_is_kept_up_to_a_limit_and_counted_in_full(trial, monkeypatch):
    """Until its deadline it could fill the worker's memory with prompts."""
    monkeypatch.setattr("dspex_trio.programs.record.recorder.MAX_ENTRIES", 5)

    @dspex.register("GoesOn")
    class GoesOn(dspy.Module):
        def __init__(self):
            super().__init__()
            self.generate = dspy.Predict("q -> answer")

        def forward(self, n: int):
            for _ in range(n):
                self.generate(q="?")
            return {}

    for n, truncated in ((5, False), (9, True)):
        t = trial(python_class="GoesOn", model=Scripted(lambda _: chat(answer="a")))
        await t.run(n=n)
        recording = t.recording
        assert (len(recording.trace), recording.truncated) == (5, truncated)
        assert (recording.cost.lm_calls, recording.cost.usage.total_tokens) == (n, 5 * n)


async def test_prompts_are_kept_up_to_a_limit(trial, monkeypatch):
    monkeypatch.setattr("dspex_trio.programs.record.recorder.MAX_PROMPT_CHARS", 3_000)

    @dspex.register("Talks")
    class Talks(dspy.Module):
        def __init__(self):
            super().__init__()
            self.generate = dspy.Predict("q -> answer")

        def forward(self):
            for _ in range(6):
                self.generate(q="?")
            return {}

    t = trial(python_class="Talks")
    await t.run()
    lengths = [len(entry.lm_calls[0].messages_json + entry.lm_calls[0].response_json) for entry in t.recording.trace]
    assert lengths[0] > 0
    assert lengths[-1] == 0
    assert sum(lengths) <= 3_000
    assert t.recording.truncated


# ---- while it runs, and when it is ended ----------------------------------------------------------------------------


async def test_the_recording_can_be_read_while_the_program_runs(trial):
    """At the deadline it is all that the caller gets."""
    waiting, go_on = threading.Event(), threading.Event()

    def say(request):
        if "second" in repr(request):
            waiting.set()
            go_on.wait(10)
        return chat(answer="yes")

    @dspex.register("Twice")
    class Twice(dspy.Module):
        def __init__(self):
            super().__init__()
            self.generate = dspy.Predict("q -> answer")

        def forward(self):
            self.generate(q="first")
            self.generate(q="second")

    t = await trial(python_class="Twice", model=Scripted(say)).ready()
    assert t.recording == Recording()
    thread = threading.Thread(target=t.call)
    thread.start()
    try:
        assert waiting.wait(10)
        ended, running = t.recording.trace
        assert (ended.outputs, len(ended.lm_calls)) == ({"answer": "yes"}, 1)
        assert (running.predictor, running.outputs) == ("generate", {})
        [call] = running.lm_calls
        assert "[[ ## q ## ]]\\nsecond" in call.messages_json
        assert (call.response_json, call.cost_known, call.cache_hit) == ("", False, False)
        assert (t.recording.cost.lm_calls, t.recording.cost.known) == (1, False), "it may be billed all the same"
    finally:
        go_on.set()
        thread.join()
    assert t.tree() == [("generate", 1), ("generate", 1)]
    assert t.recording.cost.lm_calls == 2


KINDS = {
    "Predict": lambda: dspy.Predict("q -> answer"),
    "ChainOfThought": lambda: dspy.ChainOfThought("q -> answer"),
    "ReAct": lambda: dspy.ReAct("q -> answer", tools=[]),
    "BestOfN": lambda: dspy.BestOfN(module=dspy.Predict("q -> answer"), N=9, reward_fn=lambda *_: 0.0, threshold=1.0),
    "Refine": lambda: dspy.Refine(module=dspy.Predict("q -> answer"), N=9, reward_fn=lambda *_: 0.0, threshold=1.0),
    "MultiChain": lambda: dspy.MultiChainComparison("q -> answer", M=1),
}


def stubborn(make):
    """A program that lets no exception out and goes on for ever."""

    @dspex.register("Stubborn")
    class Stubborn(dspy.Module):
        def __init__(self):
            super().__init__()
            self.inner = make()

        def forward(self, q: str):
            more = (
                {"completions": [dspy.Prediction(rationale="r", answer="a")]}
                if "Multi" in repr(type(self.inner))
                else {}
            )
            while True:
                with contextlib.suppress(Exception):
                    self.inner(q=q, **more)


REPLY = chat(reasoning="r", rationale="r", answer="a", next_thought="t", next_tool_name="finish", next_tool_args="{}")


@pytest.mark.filterwarnings("ignore:The 'prefix' argument:DeprecationWarning")  # of MultiChainComparison itself
@pytest.mark.parametrize("at", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("kind", KINDS)
async def test_an_interrupt_ends_any_program_at_its_next_model_call_or_predictor_end(trial, kind, at, capsys):
    stubborn(KINDS[kind])
    t = await trial(python_class="Stubborn", model=Scripted(lambda _: REPLY), interrupt=Interrupt(at=at)).ready()
    with pytest.raises(Ended):
        t.call(q="?")
    assert t.interrupt.checks <= at + 1, "nothing goes on after it"


async def test_a_call_that_the_interrupt_ended_stays_in_the_recording(trial):
    """It is what the trial died in, and the provider may bill it."""

    def say(request):
        raise Ended

    t = await trial(python_class="dspy.Predict", signature="q -> answer", model=Scripted(say)).ready()
    with pytest.raises(Ended):
        t.call(q="what now?")
    [entry] = t.recording.trace
    assert (entry.predictor, entry.outputs) == ("self", {})
    assert "what now?" in entry.lm_calls[0].messages_json
    assert (t.recording.cost.lm_calls, t.recording.cost.known) == (0, False)


async def test_an_interrupt_ends_dspys_parallel_too(trial, caplog):
    @dspex.register("FansOut")
    class FansOut(dspy.Module):
        def __init__(self):
            super().__init__()
            self.generate = dspy.Predict("q -> answer")

        def forward(self):
            pairs = [(self.generate, dspy.Example(q=str(i)).with_inputs("q")) for i in range(50)]
            return {"made": dspy.Parallel(num_threads=3, disable_progress_bar=True, max_errors=999)(pairs)}

    lm = Scripted(lambda _: chat(answer="a"))
    t = await trial(python_class="FansOut", model=lm, interrupt=Interrupt(at=10)).ready()
    with pytest.raises(Ended):
        t.call()
    assert t.recording.cost.lm_calls < 50


async def test_an_interrupt_ends_a_program_at_its_next_tool_call(trial):
    called = []

    def work(x: int) -> int:
        called.append(x)
        return x

    @dspex.register("Works")
    class Works(dspy.Module):
        def __init__(self):
            super().__init__()
            self.work = dspy.Tool(work)

        def forward(self):
            while True:
                self.work(x=len(called))

    t = await trial(python_class="Works", interrupt=Interrupt(at=5)).ready()
    with pytest.raises(Ended):
        t.call()
    assert called == [0, 1, 2, 3]


async def test_what_comes_out_of_an_interrupted_program_is_the_interrupt(trial):
    """A program may turn it into an exception of its own, which says nothing of the deadline."""

    @dspex.register("Disguises")
    class Disguises(dspy.Module):
        def forward(self):
            try:
                dspy.settings.lm("hello")
            except BaseException as error:
                raise ValueError("something went wrong") from error

    t = await trial(python_class="Disguises", interrupt=Interrupt(at=1)).ready()
    with pytest.raises(Ended):
        t.call()


async def test_a_failed_run_leaves_its_recording(trial):
    @dspex.register("FailsLate")
    class FailsLate(dspy.Module):
        def __init__(self):
            super().__init__()
            self.generate = dspy.Predict("q -> answer")

        def forward(self, q: str):
            self.generate(q=q)
            raise ValueError("after all that")

    t = await trial(python_class="FailsLate").ready()
    with pytest.raises(ValueError, match="after all that"):
        t.call(q="?")
    assert t.tree() == [("generate", 1)]


async def test_asynchronous_modules_are_recorded_in_the_loop_that_the_program_runs(trial):
    """Several calls may be under way in one thread; each has its own time and price."""
    import asyncio

    @dspex.register("Async")
    class Async(dspy.Module):
        def __init__(self):
            super().__init__()
            self.generate = dspy.Predict("q -> answer")

        async def several(self, n):
            return await asyncio.gather(*(self.generate.acall(q=str(i)) for i in range(n)))

        def forward(self, n: int):
            return {"made": len(asyncio.run(self.several(n)))}

    t = trial(python_class="Async")
    assert await t.run(n=5) == {"made": 5}
    assert t.tree() == [("generate", 1)] * 5
    for entry in t.recording.trace:
        assert f"[[ ## q ## ]]\\n{entry.inputs['q']}\\n" in entry.lm_calls[0].messages_json
