"""One table for what is changed in the process: made, seen, and taken back whole."""

import types

import pytest

from dspex_trio.threads import hooks, patches
from dspex_trio.threads.patches.registry import Installed, Patch, install


def doubled(there):
    return f"{there} twice"


def module(**attributes):
    made = types.ModuleType("changed")
    vars(made).update(attributes)
    return made


def states(installed):
    return [each.state for each in installed.states("a package")]


def test_what_is_installed_is_told_and_taken_back_whole():
    owner, environment = module(first="one", second="two"), {"KEPT": "as it is"}
    installed = Installed(
        lambda: (
            Patch(owner, "first", "a reason", doubled),
            Patch(owner, "third", "made of nothing", lambda there: [there]),
            Patch(environment, "NEW", "a setting", lambda _: "set"),
            Patch(environment, "KEPT", "a setting", lambda _: "set", unless=lambda there: there is not None),
        )
    )
    assert states(installed) == ["not installed"] * 4
    installed.install()
    assert (owner.first, owner.third) == ("one twice", [None])
    assert environment == {"KEPT": "as it is", "NEW": "set"}
    assert states(installed) == ["ours", "ours", "ours", "not installed"]
    installed.take_back()
    assert (owner.first, "third" in vars(owner), environment) == ("one", False, {"KEPT": "as it is"})
    assert states(installed) == ["not installed"] * 4


def test_what_somebody_else_has_put_over_ours_is_told_and_stays():
    owner = module(first="one")
    installed = Installed(lambda: [Patch(owner, "first", "a reason", doubled)])
    installed.install()
    owner.first = "theirs"
    assert states(installed) == ["covered"]
    installed.take_back()
    assert owner.first == "theirs"


def test_where_one_change_fails_those_before_it_are_taken_back():
    def fails(_there):
        raise LookupError("another version")

    owner = module(first="one", second="two")
    installed = Installed(lambda: [Patch(owner, "first", "a reason", doubled), Patch(owner, "second", "none", fails)])
    with pytest.raises(LookupError):
        installed.install()
    assert (owner.first, installed.made) == ("one", ())


def test_an_inherited_method_is_inherited_again():
    class Base:
        def method(self):
            return "base"

    class Derived(Base):
        pass

    made = install(Patch(Derived, "method", "a reason", lambda there: lambda self: doubled(there(self))))
    assert Derived().method() == "base twice"
    made.take_back()
    assert "method" not in vars(Derived)


def test_all_that_threads_change_is_ours_while_they_are_open_and_only_then():
    assert {each.state for each in patches()} == {"not installed"}
    with hooks():
        found = patches()
        assert {each.state for each in found} == {"ours"}
    assert {each.state for each in patches()} == {"not installed"}
    assert len({each.where for each in found}) == len(found)
    assert {each.package for each in found} == {"threads"}
    assert {"time.sleep", "socket.socket.recv", "sys.unraisablehook"} <= {each.where for each in found}
    for each in found:
        assert each.reason
        assert "\n" not in each.reason
