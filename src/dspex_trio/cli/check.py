"""`dspex-trio check`: does each step of the ladder work on what is installed here?"""

from __future__ import annotations

import itertools
import json
import platform
from dataclasses import asdict
from importlib import metadata
from typing import Final

import click

from dspex_trio import programs
from dspex_trio.observing.redaction import printable
from dspex_trio.runtime.patches import list_patches
from dspex_trio.selftest.run import DEADLINE, Finding, examine_all
from dspex_trio.threads import hooks

PACKAGES: Final = ("dspex-trio", "dspy", "litellm", "openai", "httpx", "requests", "trio", "anyio")
HEADINGS: Final = ("", "what", "rung", "seen", "answer", "thread", "provider")


async def check(*, as_json: bool) -> int:
    """Run the self-test and print what it finds; the exit code: 0 when everything works, else 1."""
    versions = _versions()
    if not as_json:
        click.echo(", ".join(f"{name} {version}" for name, version in versions.items()))
        click.echo(f"Trials with a deadline of {DEADLINE * 1e3:.0f} ms. Milliseconds after it: when the caller")
        click.echo("had its failure, when the thread was out, when the provider saw the connection closed.")
        click.echo(_line(HEADINGS))
    found: list[Finding] = []

    def tell(finding: Finding) -> None:
        found.append(finding)
        if not as_json:
            click.echo(_line(_cells(finding)))
            if finding.why:
                click.echo(f"        {printable(finding.why)}")

    await examine_all(tell)
    failed = sum(bool(finding.why) for finding in found)
    if as_json:
        click.echo(json.dumps({"versions": versions, "ok": not failed, "findings": [_plain(each) for each in found]}))
    else:
        click.echo(f"{len(found) - failed} of {len(found)} work" + (f", {failed} FAILED" if failed else ""))
    return 1 if failed else 0


def check_patches(*, as_json: bool) -> int:
    """Print what an open runtime changes in its process, as it is while one is open; returns the exit code.

    That is 1 if a change is covered: somebody has put something else in its place since, as a module that patches the
    same does.
    """
    with hooks(), programs.dspy_prepared(memory_cache=True, disk_cache=False):
        patches = list_patches()
    covered = sum(each.state == "covered" for each in patches)
    if as_json:
        click.echo(
            json.dumps({"versions": _versions(), "ok": not covered, "patches": [asdict(each) for each in patches]})
        )
        return 1 if covered else 0
    for (package, reason), group in itertools.groupby(patches, lambda each: (each.package, each.reason)):
        click.echo(f"{package}: {reason}")
        for each in group:
            click.echo(f"    {each.state:13}  {each.where}")
    click.echo(f"{sum(each.state == 'ours' for each in patches)} of {len(patches)} installed, {covered} covered")
    return 1 if covered else 0


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def _cells(finding: Finding) -> tuple[str, ...]:
    return (
        "FAILED" if finding.why else "ok",
        finding.case.what,
        "/".join(sorted(finding.case.rungs)),
        finding.rung,
        *(_milliseconds(each) for each in (finding.answer_ms, finding.thread_ms, finding.close_ms)),
    )


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _line(cells: tuple[str, ...]) -> str:
    mark, what, rung, seen, *times = cells
    return f"{mark:6}  {what:38}  {rung:10}  {seen:8}  " + "  ".join(f"{time:>8}" for time in times).rstrip()


def _plain(finding: Finding) -> dict[str, object]:
    plain = asdict(finding)
    case = plain.pop("case")
    return {**case, "rungs": sorted(case["rungs"]), **plain, "ok": not finding.why}
