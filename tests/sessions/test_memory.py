import math

import pytest

from dspex_trio.store.memory import MemoryStore
from dspex_trio.store.records import (
    Conflict,
    Exists,
    Full,
    NotStored,
    Refused,
    SessionDropped,
    SessionKept,
    StoreLimits,
    VariableDropped,
    VariableKept,
)


class Clock:
    def __init__(self):
        self.time = 1000.0

    def __call__(self):
        return self.time


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(clock):
    store = MemoryStore(clock=clock, now=clock)
    store.initialize("s")
    return store


def test_a_variable_counts_its_writes_from_one(store):
    first = store.register("s", "t", "float", 1, constraints={"min": 0}, metadata={"by": "test"})
    assert (first.variable.value, first.variable.version) == (1.0, 1)
    second = store.set("s", "t", 2, metadata={"why": "better"})
    assert (second.variable.value, second.variable.version) == (2.0, 2)
    assert second.variable.metadata == {"by": "test", "why": "better"}
    assert store.get("s", "t") is second
    assert first.variable.value == 1.0


def test_a_variable_is_found_by_name_and_by_id(store):
    record = store.register("s", "t", "float", 1)
    assert store.get("s", record.variable.id) is record
    assert store.get_many("s", ["t", record.variable.id, "other"]) == {
        "t": record,
        record.variable.id: record,
        "other": None,
    }


def test_sessions_are_apart(store):
    store.initialize("other")
    store.register("s", "t", "float", 1)
    store.register("other", "t", "string", "x")
    assert store.get("s", "t").variable.value == 1.0
    assert store.get("other", "t").variable.value == "x"


def test_initialising_again_keeps_what_there_is(store):
    store.register("s", "t", "float", 1)
    store.initialize("s", {"a": "b"})
    assert store.get("s", "t")
    assert store.session("s").metadata == {"a": "b"}


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.get("s", "missing"),
        lambda store: store.set("s", "missing", 1),
        lambda store: store.delete("s", "missing"),
        lambda store: store.get("nowhere", "t"),
        lambda store: store.get_many("nowhere", []),
        lambda store: store.set("nowhere", "t", 1),
        lambda store: store.set_many("nowhere", {}, atomic=True),
        lambda store: store.register("nowhere", "t", "float", 1),
        lambda store: store.list("nowhere"),
        lambda store: store.session("nowhere"),
        lambda store: store.watch("nowhere", print),
    ],
)
def test_what_is_not_there_is_said_to_be_missing(store, call):
    with pytest.raises(NotStored, match=r"(Variable not found: missing|Session not found: nowhere)"):
        call(store)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("", "float", 1), "the variable name '' has 0 characters"),
        (("n" * 600, "float", 1), "has 600 characters; it takes 1 to 512"),
        (("t", "decimal", 1), "'decimal' is no type; the types are float, integer"),
        (("t", "", 1), "'' is no type"),
        (("t", "float", "x"), "variable 't': 'x' is no float"),
        (("t", "float", None), "None is no float"),
        (("t", "map", {"f": print}), "value.f: builtin_function_or_method cannot be expressed"),
    ],
)
def test_what_cannot_be_registered_is_refused_and_leaves_nothing(store, arguments, text):
    with pytest.raises(Refused, match=text):
        store.register("s", *arguments)
    assert store.list("s") == []


@pytest.mark.parametrize("constraints", [{"min": 2}, {"min": "0"}, {"pattern": "("}])
def test_constraints_hold_from_the_first_value_on(store, constraints):
    with pytest.raises(Refused, match="variable 't': "):
        store.register("s", "t", "float", 1, constraints=constraints)


def test_a_name_is_registered_once(store):
    store.register("s", "t", "float", 1)
    with pytest.raises(Exists, match="Variable already exists: t"):
        store.register("s", "t", "float", 2)
    store.delete("s", "t")
    store.register("s", "t", "string", "now something else")


def test_a_refused_write_changes_nothing(store):
    before = store.register("s", "t", "float", 1, constraints={"max": 2})
    for value in (3, "x", math.nan):
        with pytest.raises(Refused):
            store.set("s", "t", value)
    assert store.get("s", "t") is before


def test_a_writer_can_say_which_version_it_saw(store):
    """Two optimisers that read, think and write must not overwrite each other unseen."""
    store.register("s", "t", "float", 1)
    store.set("s", "t", 2, expected_version=1)
    with pytest.raises(Conflict, match="variable 't' has version 2, not 1"):
        store.set("s", "t", 3, expected_version=1)
    assert store.get("s", "t").variable.value == 2.0


def test_an_atomic_write_sets_all_or_none(store):
    store.register("s", "a", "float", 1)
    store.register("s", "b", "float", 1, constraints={"max": 2})
    made, errors = store.set_many("s", {"a": 2, "b": 9, "c": 1}, atomic=True)
    assert made == {}
    assert errors.keys() == {"b", "c"}
    assert store.get("s", "a").variable.version == 1
    made, errors = store.set_many("s", {"a": 2, "b": 2}, atomic=True)
    assert {name: record.variable.version for name, record in made.items()} == {"a": 2, "b": 2}
    assert errors == {}


def test_a_write_that_is_not_atomic_sets_what_it_can(store):
    store.register("s", "a", "float", 1)
    store.register("s", "b", "float", 1, constraints={"max": 2})
    made, errors = store.set_many("s", {"a": 2, "b": 9}, atomic=False)
    assert store.get("s", "a").variable.value == 2.0
    assert store.get("s", "b").variable.value == 1.0
    assert (made.keys(), errors.keys()) == ({"a"}, {"b"})


def test_one_write_cannot_set_a_variable_twice(store):
    """Under its name and its id, which of the two would win?"""
    record = store.register("s", "a", "float", 1)
    made, errors = store.set_many("s", {"a": 2, record.variable.id: 3}, atomic=True)
    assert (made, len(errors)) == ({}, 1)
    assert store.get("s", "a") is record


def test_variables_are_listed_in_order_and_by_pattern(store):
    for name in ("temp_b", "temp_a", "other", "x[1]"):
        store.register("s", name, "float", 1)
    assert [record.variable.name for record in store.list("s")] == ["temp_b", "temp_a", "other", "x[1]"]
    assert [record.variable.name for record in store.list("s", "temp_*")] == ["temp_b", "temp_a"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("", ["a", "ab", "abcab", "x[1]", "*"]),
        ("*", ["a", "ab", "abcab", "x[1]", "*"]),
        ("a", ["a"]),
        ("a*", ["a", "ab", "abcab"]),
        ("*b", ["ab", "abcab"]),
        ("ab*ab", ["abcab"]),
        ("*c*", ["abcab"]),
        ("a*b*a*b", ["abcab"]),
        ("**", ["a", "ab", "abcab", "x[1]", "*"]),
        ("x[1]", ["x[1]"]),
        ("?", []),
        ("abcab*abcab", []),
    ],
)
def test_a_star_stands_for_anything_and_nothing_else_is_special(store, pattern, names):
    for name in ("a", "ab", "abcab", "x[1]", "*"):
        store.register("s", name, "float", 1)
    assert [record.variable.name for record in store.list("s", pattern)] == names


def test_no_pattern_takes_long(store):
    """As a regular expression this one would never come to an end."""
    store.register("s", "a" * 500, "float", 1)
    assert store.list("s", "a*" * 200 + "b") == []
    assert len(store.list("s", "a*" * 250)) == 1
    with pytest.raises(Refused, match="the pattern has 1000 characters; it takes 512"):
        store.list("s", "a" * 1000)


def test_a_stored_value_is_not_the_writers_object(store):
    value = {"a": [1]}
    store.register("s", "m", "map", value)
    value["a"].append(2)
    assert store.get("s", "m").variable.value == {"a": [1]}


def test_a_watcher_is_told_of_every_change_in_order(store):
    store.register("s", "a", "float", 1)
    changes = []
    stop = store.watch("s", changes.append)
    store.set("s", "a", 2)
    store.register("s", "b", "float", 1)
    store.delete("s", "a")
    stop()
    store.set("s", "b", 2)
    assert [(change.kind, change.record.variable.name) for change in changes] == [
        ("updated", "a"),
        ("registered", "b"),
        ("deleted", "a"),
    ]


def test_a_watcher_learns_that_the_session_is_gone(store):
    changes = []
    store.watch("s", changes.append)
    assert store.cleanup("s") == 1
    assert changes == [None]
    assert store.cleanup("s") == 0


def test_a_session_that_nobody_touches_is_dropped(store, clock):
    store.initialize("busy")
    store.initialize("watched")
    store.watch("watched", lambda change: None)
    for _ in range(3):
        clock.time += store.limits.idle_seconds - 1
        store.session("busy")
    assert len(store) == 2
    with pytest.raises(NotStored):
        store.session("s")
    store.session("watched")


def test_a_session_can_ask_for_an_earlier_end(store, clock):
    store.initialize("short", idle_seconds=10)
    clock.time += 9
    store.session("short")
    clock.time += 9
    store.session("short")
    clock.time += 11
    with pytest.raises(NotStored):
        store.session("short")
    store.session("s")


def test_a_session_cannot_ask_for_a_later_end_than_the_store_gives(store, clock):
    store.initialize("long", idle_seconds=1e9)
    clock.time += store.limits.idle_seconds + 1
    assert store.cleanup("long") == 0


def test_initialising_again_changes_the_time_to_live_only_when_it_says_so(store, clock):
    store.initialize("t", idle_seconds=10)
    store.initialize("t", {"a": "b"})
    clock.time += 11
    store.initialize("t", idle_seconds=100)
    assert store.session("t").metadata == {}, "the first one was over"
    store.initialize("t", idle_seconds=10)
    clock.time += 11
    assert store.cleanup("t") == 0


def test_a_session_lives_on_from_the_moment_its_last_watcher_goes(store, clock):
    stop = store.watch("s", lambda change: None)
    clock.time += 2 * store.limits.idle_seconds
    stop()
    clock.time += store.limits.idle_seconds - 1
    store.session("s")


def test_sessions_that_nobody_asks_for_are_dropped_by_the_way(store, clock):
    for number in range(10):
        store.initialize(f"old{number}", idle_seconds=10)
    clock.time += 70
    store.session("s")
    assert len(store) == 1


def test_sessions_that_are_over_make_room_for_new_ones_at_once(clock):
    store = MemoryStore(StoreLimits(max_sessions=1), clock=clock)
    store.initialize("s", idle_seconds=10)
    clock.time += 11
    store.initialize("t")


def test_every_limit_is_kept_and_named(clock):
    limits = StoreLimits(max_sessions=2, max_variables=2, max_session_bytes=200, max_watchers=1)
    store = MemoryStore(limits, clock=clock)
    store.initialize("s")
    store.initialize("t")
    with pytest.raises(Full, match="2 sessions"):
        store.initialize("u")
    store.initialize("t")
    store.register("s", "a", "string", "x")
    with pytest.raises(Full, match="the limit is 200"):
        store.register("s", "b", "string", "x" * 200)
    store.register("s", "b", "string", "x" * 100)
    with pytest.raises(Full, match="2 variables"):
        store.register("s", "c", "string", "")
    with pytest.raises(Full, match="the limit is 200"):
        store.set("s", "a", "y" * 100)
    assert store.set_many("s", {"a": "y" * 60, "b": "z" * 130}, atomic=True)[1].keys() == {"b"}
    store.watch("s", print)
    with pytest.raises(Full, match="1 watchers"):
        store.watch("s", repr)


def test_the_metadata_of_sessions_takes_room_too(clock):
    """A peer may initialise a session as often as it likes, with other keys each time."""
    store = MemoryStore(StoreLimits(max_session_bytes=200, max_bytes=300), clock=clock)
    store.initialize("s", {"a": "x" * 100})
    with pytest.raises(Full, match="session 's' would hold"):
        store.initialize("s", {"b": "x" * 100})
    assert store.session("s").metadata == {"a": "x" * 100}
    store.initialize("t", {"a": "x" * 100})
    with pytest.raises(Full, match=r"the store would hold 3[0-9]+ bytes; the limit is 300"):
        store.initialize("u", {"a": "x" * 100})
    with pytest.raises(NotStored):
        store.session("u")
    with pytest.raises(Full, match="the store would hold"):
        store.register("t", "v", "string", "x" * 76)
    store.cleanup("s")
    store.register("t", "v", "string", "x" * 50)
    with pytest.raises(Refused, match="the metadata key"):
        store.initialize("t", {"": "x"})


def test_what_is_noted_brings_the_store_back(clock):
    """The notes are what a file holds: the last one of each thing, sessions first."""
    notes = []
    store = MemoryStore(clock=clock, now=clock, note=notes.append)
    store.initialize("s", {"by": "test"}, idle_seconds=100)
    store.register("s", "b", "float", 1, constraints={"max": 9}, metadata={"unit": "K"})
    store.register("s", "a", "map", {"x": [None, b"\xff", 2**70]})
    store.register("s", "gone", "float", 1)
    store.set("s", "b", 2)
    store.set_many("s", {"a": {}, "b": 3}, atomic=True)
    store.delete("s", "gone")
    store.initialize("gone")
    store.register("gone", "v", "float", 1)
    store.cleanup("gone")
    sessions, variables = {}, {}
    for note in notes:
        match note:
            case SessionKept():
                sessions[note.session_id] = note
            case SessionDropped():
                del sessions[note.session_id]
                variables = {key: kept for key, kept in variables.items() if key[0] != note.session_id}
            case VariableKept():
                variables[note.session_id, note.record.variable.name] = note
            case VariableDropped():
                del variables[note.session_id, note.name]
    clock.time += 60
    other = MemoryStore(clock=clock, now=clock)
    other.restore([*sessions.values(), *variables.values()])
    assert other.list("s") == store.list("s")
    assert other.get("s", store.get("s", "b").variable.id).variable.version == 3
    assert other.session("s").size == store.session("s").size
    assert other.session("s").metadata == {"by": "test"}
    assert other.register("s", "new", "float", 1).variable.id not in [r.variable.id for r in store.list("s")]
    clock.time += 101
    assert other.cleanup("s") == 0


def test_the_time_that_a_store_was_down_counts_for_its_sessions(clock):
    store = MemoryStore(clock=clock, now=clock)
    store.restore([SessionKept("s", {}, clock.time, clock.time - 99, 100.0)])
    clock.time += 2
    with pytest.raises(NotStored):
        store.session("s")


def test_reading_is_noted_now_and_then_only(clock):
    """A session that is only read from lives on too, and a file must not be written for each read."""
    notes = []
    store = MemoryStore(clock=clock, now=clock, note=notes.append)
    store.initialize("s", idle_seconds=160)
    for _ in range(100):
        clock.time += 1
        store.session("s")
    assert len(notes) == 11


def test_space_is_given_back(store):
    before = store.session("s").size
    store.register("s", "a", "string", "x" * 1000)
    store.set("s", "a", "x" * 10)
    store.delete("s", "a")
    assert store.session("s").size == before == 0
