"""gRPC over HTTP/2 on Trio: server and channel, with deadlines, cancellation and limits that hold.

It builds on purerpc's model of services and on h2, is the only importer of both, and knows nothing of trials.
"""

from dspex_trio.rpc.client.attached import Attached
from dspex_trio.rpc.client.channel import Channel, open_channel
from dspex_trio.rpc.client.stubs import MessageStream, ReplyStream, RequestStream, SingleReply
from dspex_trio.rpc.client.target import Target
from dspex_trio.rpc.client.together import each_in_a_task
from dspex_trio.rpc.ext.health import LIVENESS, READINESS, Health
from dspex_trio.rpc.ext.reflection import reflection
from dspex_trio.rpc.memory import memory_link
from dspex_trio.rpc.metadata import Metadata, MetadataLike
from dspex_trio.rpc.server.call import Call
from dspex_trio.rpc.server.drain import Drain
from dspex_trio.rpc.server.interceptors import Interceptor, Proceed, bearer_token
from dspex_trio.rpc.server.listeners import Listener, open_tcp, open_unix, place
from dspex_trio.rpc.server.service import Reply, Servicer, replied, service_names
from dspex_trio.rpc.server.serving import serve
from dspex_trio.rpc.settings import ChannelSettings, ServerSettings
from dspex_trio.rpc.status import RpcError, StatusCode
from dspex_trio.rpc.tls import client_tls, server_tls

__all__ = [
    "LIVENESS",
    "READINESS",
    "Attached",
    "Call",
    "Channel",
    "ChannelSettings",
    "Drain",
    "Health",
    "Interceptor",
    "Listener",
    "MessageStream",
    "Metadata",
    "MetadataLike",
    "Proceed",
    "Reply",
    "ReplyStream",
    "RequestStream",
    "RpcError",
    "ServerSettings",
    "Servicer",
    "SingleReply",
    "StatusCode",
    "Target",
    "bearer_token",
    "client_tls",
    "each_in_a_task",
    "memory_link",
    "open_channel",
    "open_tcp",
    "open_unix",
    "place",
    "reflection",
    "replied",
    "serve",
    "server_tls",
    "service_names",
]
