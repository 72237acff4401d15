// One case on @grpc/grpc-js's channel. Arguments: the folder of the proto files, a port, the case, rounds of a soak.
// Ends with 0, or says on stderr what was amiss.
"use strict";

const assert = require("node:assert/strict");
const { once } = require("node:events");
const { promisify } = require("node:util");
const grpc = require("@grpc/grpc-js");
const { INITIAL, TRAILING, OPTIONS, load } = require("./common.cjs");

const GZIP = 2;
const REQUEST_SIZES = [27182, 8, 1828, 45904];
const RESPONSE_SIZES = [31415, 9, 2653, 58979];
const SPECIAL_MESSAGE = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP \u{1F608}\t\n";
const { status } = grpc;

const [, , protos, port, name, rounds] = process.argv;
const testing = load(protos);
const open = (options = {}, service = testing.TestService) =>
  new service(`127.0.0.1:${port}`, grpc.credentials.createInsecure(), { ...OPTIONS, ...options });
const deadline = () => ({ deadline: Date.now() + 20000 });
const zeros = (size) => ({ body: Buffer.alloc(size) });
const large = (more = {}) => ({ response_size: 314159, payload: zeros(271828), ...more });
const ping = (size, ...replies) => ({
  payload: zeros(size),
  response_parameters: replies.map((reply) => ({ size: reply })),
});

const call = (client, method, request, metadata = new grpc.Metadata()) =>
  promisify(client[method].bind(client))(request, metadata, deadline());

async function unary(client, more) {
  const reply = await call(client, "UnaryCall", large(more));
  assert.ok(reply.payload.body.equals(Buffer.alloc(314159)));
}

async function fails(code, details, work) {
  const error = await work.then(() => null, (found) => found);
  assert.ok(error, "the call succeeded");
  assert.equal(error.code, code);
  if (details !== null) assert.equal(error.details, details);
}

// All replies of a streaming call; rejects when it fails.
async function replies(stream) {
  const found = [];
  for await (const reply of stream) found.push(reply.payload.body.length);
  return found;
}

function failure(stream) {
  stream.on("data", () => {});
  return once(stream, "end");
}

const cases = {
  async empty_unary(client) {
    assert.deepEqual(await call(client, "EmptyCall", {}), {});
  },
  async large_unary(client) {
    await unary(client);
  },
  async client_compressed_unary(client) {
    await fails(status.INVALID_ARGUMENT, null, call(client, "UnaryCall", large({ expect_compressed: { value: true } })));
    // Each on a channel of its own: the server looks at the connection that was opened last.
    await unary(open({ "grpc.default_compression_algorithm": GZIP }), { expect_compressed: { value: true } });
    await unary(open(), { expect_compressed: { value: false } });
  },
  async server_compressed_unary(client) {
    await unary(client, { response_compressed: { value: true } });
    await unary(client, { response_compressed: { value: false } });
  },
  async client_streaming(client) {
    const total = await new Promise((done, fail) => {
      const stream = client.StreamingInputCall(deadline(), (error, reply) => (error ? fail(error) : done(reply)));
      for (const size of REQUEST_SIZES) stream.write({ payload: zeros(size) });
      stream.end();
    });
    assert.equal(total.aggregated_payload_size, 74922);
  },
  async server_streaming(client) {
    const stream = client.StreamingOutputCall(ping(0, ...RESPONSE_SIZES), deadline());
    assert.deepEqual(await replies(stream), RESPONSE_SIZES);
  },
  async server_compressed_streaming(client) {
    const parameters = [
      { size: 31415, compressed: { value: true } },
      { size: 92653, compressed: { value: false } },
    ];
    const stream = client.StreamingOutputCall({ response_parameters: parameters }, deadline());
    assert.deepEqual(await replies(stream), [31415, 92653]);
  },
  async ping_pong(client) {
    const stream = client.FullDuplexCall(deadline());
    for (const [index, size] of REQUEST_SIZES.entries()) {
      stream.write(ping(size, RESPONSE_SIZES[index]));
      const [reply] = await once(stream, "data");
      assert.equal(reply.payload.body.length, RESPONSE_SIZES[index]);
    }
    stream.end();
    await once(stream, "end");
  },
  async empty_stream(client) {
    const stream = client.FullDuplexCall(deadline());
    stream.end();
    assert.deepEqual(await replies(stream), []);
  },
  async custom_metadata(client) {
    const metadata = new grpc.Metadata();
    metadata.set(INITIAL, "test_initial_metadata_value");
    metadata.set(TRAILING, Buffer.from([0xab, 0xab, 0xab]));
    const check = async (stream) => {
      const [[initial], [final]] = await Promise.all([once(stream, "metadata"), once(stream, "status")]);
      assert.deepEqual(initial.get(INITIAL), ["test_initial_metadata_value"]);
      assert.deepEqual(final.metadata.get(TRAILING), [Buffer.from([0xab, 0xab, 0xab])]);
    };
    await new Promise((done, fail) => {
      const stream = client.UnaryCall(large(), metadata, deadline(), (error) => error && fail(error));
      check(stream).then(done, fail);
    });
    const stream = client.FullDuplexCall(metadata, deadline());
    stream.on("data", () => {});
    stream.write(ping(271828, 314159));
    stream.end();
    await check(stream);
  },
  async status_code_and_message(client) {
    const asked = { response_status: { code: 2, message: "test status message" } };
    await fails(status.UNKNOWN, "test status message", call(client, "UnaryCall", asked));
    const stream = client.FullDuplexCall(deadline());
    stream.write(asked);
    stream.end();
    await fails(status.UNKNOWN, "test status message", failure(stream));
  },
  async special_status_message(client) {
    const asked = { response_status: { code: 2, message: SPECIAL_MESSAGE } };
    await fails(status.UNKNOWN, SPECIAL_MESSAGE, call(client, "UnaryCall", asked));
  },
  async unimplemented_method(client) {
    await fails(status.UNIMPLEMENTED, null, call(client, "UnimplementedCall", {}));
  },
  async unimplemented_service() {
    const client = open({}, testing.UnimplementedService);
    await fails(status.UNIMPLEMENTED, null, call(client, "UnimplementedCall", {}));
  },
  async cancel_after_begin(client) {
    const ended = new Promise((done, fail) => {
      const stream = client.StreamingInputCall(deadline(), (error) => (error ? fail(error) : done()));
      setImmediate(() => stream.cancel());
    });
    await fails(status.CANCELLED, null, ended);
  },
  async cancel_after_first_response(client) {
    const stream = client.FullDuplexCall(deadline());
    stream.write(ping(27182, 31415));
    await once(stream, "data");
    stream.cancel();
    await fails(status.CANCELLED, null, once(stream, "end"));
  },
  async timeout_on_sleeping_server(client) {
    const stream = client.FullDuplexCall({ deadline: Date.now() + 1 });
    stream.write(ping(27182));
    await fails(status.DEADLINE_EXCEEDED, null, failure(stream));
  },
  async rpc_soak(client) {
    for (let round = 0; round < Number(rounds); round++) await unary(client);
  },
  async channel_soak() {
    for (let round = 0; round < Number(rounds); round++) {
      const client = open();
      await unary(client);
      client.close();
    }
  },
};

cases[name](open()).then(
  () => process.exit(0),
  (error) => {
    console.error(String(error.message).split("\n")[0]);
    process.exit(1);
  },
);
