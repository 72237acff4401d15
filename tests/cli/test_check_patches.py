"""`dspex-trio check --patches`: what is changed in the process, and who has changed the same."""

import json
import time

from click.testing import CliRunner

from dspex_trio.cli.main import main
from dspex_trio.runtime import patches as listed
from dspex_trio.threads import PatchState


def test_every_change_is_listed_with_its_reason():
    before = time.sleep
    done = CliRunner().invoke(main, ["check", "--patches"])
    assert done.exit_code == 0, done.output
    assert "threads: a sleep ends with its trial\n    ours           time.sleep\n" in done.output
    assert "ours           dspy.cache" in done.output
    assert " installed, 0 covered" in done.output.splitlines()[-1]
    assert time.sleep is before


def test_a_change_that_somebody_has_covered_is_a_failure(monkeypatch):
    found = [PatchState("threads", "time.sleep", "a sleep ends with its trial", "covered")]
    monkeypatch.setattr("dspex_trio.cli.check.list_patches", lambda: found)
    done = CliRunner().invoke(main, ["check", "--patches", "--json"])
    assert done.exit_code == 1
    told = json.loads(done.output)
    assert not told["ok"]
    assert told["patches"] == [
        {"package": "threads", "where": "time.sleep", "reason": "a sleep ends with its trial", "state": "covered"}
    ]


def test_the_table_of_the_docs_groups_what_has_one_reason():
    found = [PatchState("threads", name, "a reason", "ours") for name in ("a.b", "c.d")]
    assert listed.as_markdown(found).splitlines()[2:] == ["| `threads` | `a.b`, `c.d` | a reason |"]
