"""A model provider on loopback: OpenAI's chat completions over HTTP/1.1, on Trio. What it says is up to its users."""

from dspex_trio.testing.http_provider.http import CallerGone, Exchange, Request
from dspex_trio.testing.http_provider.server import Server

__all__ = ["CallerGone", "Exchange", "Request", "Server"]
