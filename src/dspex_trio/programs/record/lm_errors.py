"""What an error of a language model means: whether it passes, what it cost, and whether streaming was its reason."""

from __future__ import annotations

import http.client
import socket
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from types import WrapperDescriptorType
from typing import Final

import dspy
from dspy import lm15

from dspex_trio.model.values import type_name
from dspex_trio.programs.dspy.private import execution, finite_seconds, retry_after_seconds, to_lm15_error

# What clients of HTTP raise for a connection that failed or a server that did not answer in time; by name, since a
# worker need not have them. Subclasses count.
_PASSING: Final = frozenset(
    {
        *(("httpx", name) for name in ("TimeoutException", "NetworkError", "RemoteProtocolError", "ProxyError")),
        *(("httpcore", name) for name in ("TimeoutException", "NetworkError", "RemoteProtocolError", "ProxyError")),
        *(("requests", name) for name in ("ConnectionError", "Timeout", "ChunkedEncodingError")),
        *(("urllib3", name) for name in ("TimeoutError", "ProtocolError", "NewConnectionError", "MaxRetryError")),
        *(("aiohttp", name) for name in ("ClientConnectionError", "ClientPayloadError", "ServerTimeoutError")),
        *(("openai", name) for name in ("APIConnectionError", "RateLimitError", "InternalServerError")),
        *(("anthropic", name) for name in ("APIConnectionError", "RateLimitError", "InternalServerError")),
        *(("grpc", name) for name in ("FutureTimeoutError",)),
        *(("trio", name) for name in ("TooSlowError",)),
    }
)
_ALSO_PASSING: Final = (TimeoutError, ConnectionError, socket.gaierror, http.client.IncompleteRead)
_PASSING_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
# A gateway's, or of a provider that has too much to do: it would have said the same without streaming.
_NOT_OF_STREAMING: Final = frozenset({502, 503, 504, 529})
_MOST_LINKS: Final = 10
_DSPY: Final = str(Path(dspy.__file__).parent)
_PLAIN: Final = frozenset({str, int, float, bool, bytes, type(None)})
_CALLS: Final = frozenset({"__call__", "acall", "forward", "aforward"})


def came_through_an_lm(error: BaseException) -> bool:
    """Whether a language model's own code raised it: DSPy's attempt to get a reply is on its traceback, or an LM's."""
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        if code.co_filename == execution.__file__ and code.co_name in {"_attempt", "_aattempt"}:
            return True
        of_dspy = code.co_filename.startswith(_DSPY)
        if code.co_name in _CALLS and not of_dspy and isinstance(step.tb_frame.f_locals.get("self"), dspy.BaseLM):
            return True
        step = step.tb_next
    return False


def passes(error: BaseException) -> bool:
    """Whether another try may help: a limit of rate, a server's trouble, a timeout, a connection that failed."""
    if isinstance(error, dspy.LMError) and not isinstance(error, dspy.LMUnexpectedError):
        return bool(dspy.is_retryable_lm_error(error))
    return any(_passes(link) for link in _links(error))


def _passes(error: BaseException) -> bool:
    if isinstance(error, urllib.error.HTTPError):
        return error.code in _PASSING_STATUS
    if isinstance(error, urllib.error.URLError):
        return not isinstance(error.reason, BaseException) or _passes(error.reason)
    if (status := _status(error)) is not None:
        return status in _PASSING_STATUS
    if isinstance(error, _ALSO_PASSING):
        return True
    return any((cls.__module__.partition(".")[0], cls.__name__) in _PASSING for cls in type(error).__mro__)


def retry_after(error: BaseException) -> float | None:
    """Seconds after which the provider says that it may be asked again; None if it says nothing."""
    for link in _links(error, context=True):
        if (seconds := finite_seconds(getattr(link, "retry_after", None))) is not None:
            return float(seconds)
        headers = getattr(getattr(link, "response", link), "headers", None) or ()
        named = [value for name, value in dict(headers).items() if str(name).lower() == "retry-after"]
        if named and (seconds := retry_after_seconds(named[0])) is not None:
            return float(seconds)
    return None


def refused(error: BaseException) -> bool:
    """Whether the provider answered that it will not, so that there is nothing to be paid.

    litellm makes a status of its own for a reply that broke off or cannot be read: those may be billed.
    """
    if not isinstance(error, dspy.LMProviderError) or isinstance(error, dspy.LMTimeoutError):
        return False
    if isinstance(error, dspy.LMAuthError | dspy.LMBillingError | dspy.LMRateLimitError | dspy.LMInvalidRequestError):
        return True
    return _answered(error, error.status)


def _answered(error: BaseException, status: object) -> bool:
    """Whether an HTTP answer refused the request, as `status` says if that is none that litellm made."""
    links = list(_links(error, context=True))
    if not any(_of(link, "litellm") for link in links):
        return _refusal(status)
    return any(not _of(link, "litellm") and _refusal(_status(link, response=True)) for link in links)


def _refusal(status: object) -> bool:
    return isinstance(status, int) and status >= http.client.BAD_REQUEST


def may_be_of_streaming(error: Exception) -> bool:
    """Whether the provider might have answered, had it not been asked to stream."""
    known = to_lm15_error(error)
    if isinstance(
        known, lm15.AuthError | lm15.BillingError | lm15.RateLimitError | lm15.ContextLengthError | lm15.TimeoutError
    ):
        return False
    return getattr(known, "status", None) not in _NOT_OF_STREAMING


def is_of_streaming(error: Exception) -> bool:
    """Whether a provider that answers without streaming, and did not with it, will do so the next time."""
    return not isinstance(to_lm15_error(error), lm15.ServerError | lm15.TransportError)


def is_free(error: Exception) -> bool:
    """Whether a request that failed so was refused before anything was made of it."""
    known = to_lm15_error(error)
    if isinstance(known, lm15.InvalidRequestError | lm15.UnsupportedFeatureError):
        return True
    return isinstance(known, lm15.ProviderError) and _answered(error, known.status)


def said(error: BaseException) -> str:
    """The error's type and text, the latter where none of its class's own code is needed to know it."""
    if isinstance(error, dspy.LMError | lm15.LM15Error):
        text = str(error.message)
    elif _of(error, "litellm") or _of(error, "openai"):
        text = str(getattr(error, "message", ""))
    else:
        builtin = isinstance(type(error).__str__, WrapperDescriptorType)
        text = str(error) if builtin and all(type(each) in _PLAIN for each in error.args) else ""
    status = f" {found}" if (found := getattr(error, "status", None)) and isinstance(found, int) else ""
    return f"{type_name(type(error))}{status}: {text}" if text else f"{type_name(type(error))}{status}"


def _links(error: BaseException, *, context: bool = False) -> Iterator[BaseException]:
    link: BaseException | None = error
    for _ in range(_MOST_LINKS):
        if link is None:
            return
        yield link
        link = link.__cause__ or (link.__context__ if context else None)


def _of(error: BaseException, package: str) -> bool:
    return type(error).__module__.partition(".")[0] == package


def _status(error: BaseException, *, response: bool = False) -> int | None:
    """The HTTP status of the answer that an error tells of."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is None and not response:
        status = getattr(error, "status_code", None)
    return status if type(status) is int else None
