"""What the page about snakepit tells to write can be written."""

import ast
import heapq
import re
from math import ceil
from pathlib import Path

import pytest

from dspex_trio.cli.main import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/snakepit.md").read_text()


def blocks(language):
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", PAGE)


def test_the_first_call_needs_nothing_that_a_pool_of_0_13_lacks():
    """It has no variables: a program that is bound to some fails there."""
    first = next(code for code in blocks("elixir") if "Snakepit.execute(" in code)
    assert "config_space" not in first
    assert "session_id" not in first


def test_keys_are_read_where_the_release_runs():
    [configuration] = [code for code in blocks("elixir") if "config :snakepit" in code]
    assert "fetch_env!" in configuration
    assert configuration.startswith("# config/runtime.exs\n")


def test_the_example_for_kubernetes_opens_no_port_that_anybody_may_use():
    [example] = blocks("yaml")
    [command] = re.findall(r"(?s)command: (\[\"dspex-trio\".*?\])", example)
    name, verb, *arguments = ast.literal_eval(command)
    assert (name, verb) == ("dspex-trio", "serve")
    serve = main.commands[verb]
    given = serve.make_context(verb, arguments, resilient_parsing=True).params
    assert given["host"] == "0.0.0.0"  # noqa: S104 - in the example
    assert (given["tls_certificate"], given["tls_key"]) == ("/tls/tls.crt", "/tls/tls.key")
    assert "name: DSPEX_TRIO_TOKEN, valueFrom" in example
    assert "grpc:" not in example  # the kubelet's own probes speak no TLS
    assert example.count('"-tls"') == 3
    unknown = [each for each in arguments if each.startswith("--") and each not in options(serve)]
    assert unknown == []


def options(command):
    return {name for parameter in command.params for name in parameter.opts}


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
@pytest.mark.parametrize("callers", [1, 2, 4, 7, 80])
def test_nobody_gives_up_before_the_last_of_those_that_call_at_once_has_its_answer(callers, workers):
    """A queue in order of arrival, every trial as long as it may be: the page covers that, and no less would."""
    [formula] = re.findall(r"timeout: +>= (.*), up to", PAGE)
    [queue_formula] = re.findall(r"pool_queue_timeout: +>= (.*)\n", PAGE)
    names = {"ceil": ceil, "callers": callers, "workers": workers, "timeout_ms": 1_000}
    timeout, queue_timeout = (eval(each, {}, names) for each in (formula, queue_formula))  # noqa: S307 - our own page
    free = [0] * workers
    for _ in range(callers):
        begun = heapq.heappop(free)
        heapq.heappush(free, begun + 1_000)
    assert begun == queue_timeout
    assert begun + 1_000 == timeout - 1_000
