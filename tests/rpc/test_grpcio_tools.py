"""The standard services as tools see them: a grpcurl made of grpcio and protobuf's own pool, and a health probe."""

import threading

import grpc
import pytest
import trio
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

from dspex_trio import rpc
from dspex_trio.rpc.generated import health_pb2, reflection_v1_pb2, reflection_v1alpha_pb2

from .greeter import Greeter, serving_tcp

SECONDS = 20


class Curl:
    """What grpcurl does: it asks a server for its descriptors, knows nothing else, and calls methods with JSON."""

    def __init__(self, channel, version, module):
        self.channel = channel
        self.module = module
        self.ask = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=module.ServerReflectionRequest.SerializeToString,
            response_deserializer=module.ServerReflectionResponse.FromString,
        )

    def answers(self, *questions):
        requests = [self.module.ServerReflectionRequest(**question) for question in questions]
        return list(self.ask(iter(requests), timeout=SECONDS))

    def services(self):
        (answer,) = self.answers({"list_services": ""})
        return [service.name for service in answer.list_services_response.service]

    def pool(self, symbol):
        """A pool with the file that defines a symbol and all that it imports."""
        (answer,) = self.answers({"file_containing_symbol": symbol})
        files = {}
        for data in answer.file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            files[file.name] = file
        pool = descriptor_pool.DescriptorPool()
        added = set()

        def add(name):
            if name not in added:
                added.add(name)
                for dependency in files[name].dependency:
                    add(dependency)
                pool.Add(files[name])

        for name in files:
            add(name)
        return pool

    def call(self, path, text):
        """Call a method by its path, with a request in JSON; its replies in JSON."""
        service, method = path.split("/")
        found = self.pool(service).FindServiceByName(service).FindMethodByName(method)
        request = json_format.Parse(text, message_factory.GetMessageClass(found.input_type)())
        reply = message_factory.GetMessageClass(found.output_type)
        begin = self.channel.unary_stream(
            f"/{path}", request_serializer=type(request).SerializeToString, response_deserializer=reply.FromString
        )
        return [json_format.MessageToDict(one) for one in begin(request, timeout=SECONDS)]


async def grpcio_with(port, use):
    """Run blocking code with a grpcio channel to a port."""

    def run():
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            return use(channel)

    return await trio.to_thread.run_sync(run)


@pytest.mark.parametrize(("version", "module"), [("v1", reflection_v1_pb2), ("v1alpha", reflection_v1alpha_pb2)])
async def test_a_tool_that_knows_no_proto_file_lists_and_calls_everything(version, module):
    """Old tools ask v1alpha only, new ones v1 first; the messages of both live in pools that no tool can look into."""
    servicers = [Greeter(), rpc.Health()]

    def use(channel):
        curl = Curl(channel, version, module)
        services = curl.services()
        greetings = curl.call("greeting.Greeter/SayHello", '{"name": "ada"}')
        watched = curl.call("greeting.Greeter/Watch", '{"name": "n", "times": 2}')
        health = curl.call("grpc.health.v1.Health/Check", "{}")
        return services, greetings, watched, health

    async with serving_tcp(*servicers, *rpc.reflection(servicers)) as port:
        services, greetings, watched, health = await grpcio_with(port, use)
    assert services == [
        "greeting.Greeter",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ]
    assert greetings == [{"text": "hello ada"}]
    assert watched == [{"text": "n 0"}, {"text": "n 1"}]
    assert health == [{"status": "SERVING"}]


async def test_a_tool_is_told_what_there_is_not_and_goes_on():
    """An unknown name is an answer on the stream, not its end: grpcurl asks for several symbols on one."""
    servicers = [Greeter()]

    def use(channel):
        return Curl(channel, "v1", reflection_v1_pb2).answers(
            {"file_containing_symbol": "no.Such"}, {"file_by_filename": "greeting/greeter.proto"}
        )

    async with serving_tcp(*servicers, *rpc.reflection(servicers)) as port:
        missing, found = await grpcio_with(port, use)
    assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert len(found.file_descriptor_response.file_descriptor_proto) > 1


def probe(channel, kind, name):
    return getattr(channel, kind)(
        f"/grpc.health.v1.Health/{name}",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )


async def test_a_grpcio_probe_sees_readiness_and_liveness_apart():
    """What Kubernetes' gRPC probes do, with a service name each."""
    health = rpc.Health()
    health.set_ready(False)

    def use(channel):
        check = probe(channel, "unary_unary", "Check")
        states = [
            check(health_pb2.HealthCheckRequest(service=name), timeout=SECONDS).status
            for name in ("", rpc.READINESS, rpc.LIVENESS)
        ]
        with pytest.raises(grpc.RpcError) as caught:
            check(health_pb2.HealthCheckRequest(service="nobody"), timeout=SECONDS)
        return states, caught.value.code()

    async with serving_tcp(health) as port:
        states, unknown = await grpcio_with(port, use)
    response = health_pb2.HealthCheckResponse
    assert states == [response.NOT_SERVING, response.NOT_SERVING, response.SERVING]
    assert unknown is grpc.StatusCode.NOT_FOUND


async def test_a_grpcio_watch_sees_not_serving_before_the_server_goes():
    """Load balancers watch; a drain that closed first would lose the calls they still send."""
    health, drain = rpc.Health(), rpc.Drain()
    drain.before(health.shut_down)
    first = threading.Event()

    def use(channel):
        watch = probe(channel, "unary_stream", "Watch")(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        states = [next(watch).status]
        first.set()
        with pytest.raises(grpc.RpcError) as caught:
            states.extend(response.status for response in watch)
        return states, caught.value.code()

    async def go():
        await trio.to_thread.run_sync(first.wait, SECONDS)
        drain.start()

    async with serving_tcp(health, drain=drain) as port, trio.open_nursery() as nursery:
        nursery.start_soon(go)
        states, end = await grpcio_with(port, use)
    assert states == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]
    assert end is grpc.StatusCode.UNAVAILABLE
