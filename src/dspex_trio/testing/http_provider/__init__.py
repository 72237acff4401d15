"""A model provider on loopback: OpenAI's chat completions over HTTP/1.1, on Trio. What it says is up to its users."""

from dspex_trio.testing.http_provider.http import CallerGone, HttpExchange, HttpRequest
from dspex_trio.testing.http_provider.server import Server

__all__ = ["CallerGone", "HttpExchange", "HttpRequest", "Server"]
