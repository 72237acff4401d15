# Generated code is no test, though some of its modules are called test_*.
collect_ignore = ["generated"]


def pytest_terminal_summary(terminalreporter):
    """Say how many of h2spec's cases passed."""

    def cases(outcome):
        found = [dict(report.user_properties) for report in terminalreporter.stats.get(outcome, [])]
        return [properties["h2spec"] for properties in found if "h2spec" in properties]

    passed, failed = cases("passed"), cases("failed")
    if passed or failed:
        terminalreporter.write_line(f"h2spec: {len(passed)} of {len(passed) + len(failed)} cases pass")
        for case in failed:
            terminalreporter.write_line(f"  failed: {case}")
