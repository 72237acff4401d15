// grpc.testing.TestService on @grpc/grpc-js. Arguments: the folder of the proto files. Prints its port.
"use strict";

const grpc = require("@grpc/grpc-js");
const { INITIAL, TRAILING, OPTIONS, load } = require("./common.cjs");

const zeros = (size) => ({ type: 0, body: Buffer.alloc(size) });

// Sends back what custom_metadata sends along; the trailers are returned.
function echo(call) {
  const initial = call.metadata.get(INITIAL);
  if (initial.length) {
    const metadata = new grpc.Metadata();
    metadata.set(INITIAL, initial[0]);
    call.sendMetadata(metadata);
  }
  const trailers = new grpc.Metadata();
  for (const value of call.metadata.get(TRAILING)) trailers.add(TRAILING, value);
  return trailers;
}

function failure(request) {
  const status = request.response_status;
  return status && status.code ? { code: status.code, details: status.message } : null;
}

const service = {
  EmptyCall(call, answer) {
    answer(null, {});
  },
  UnaryCall(call, answer) {
    const trailers = echo(call);
    const error = failure(call.request);
    if (error) answer(error);
    else answer(null, { payload: zeros(call.request.response_size) }, trailers);
  },
  StreamingInputCall(call, answer) {
    let total = 0;
    call.on("data", (request) => (total += request.payload.body.length));
    call.on("end", () => answer(null, { aggregated_payload_size: total }));
  },
  StreamingOutputCall(call) {
    for (const one of call.request.response_parameters) call.write({ payload: zeros(one.size) });
    call.end();
  },
  FullDuplexCall(call) {
    const trailers = echo(call);
    call.on("data", (request) => {
      const error = failure(request);
      if (error) call.emit("error", error);
      else for (const one of request.response_parameters) call.write({ payload: zeros(one.size) });
    });
    call.on("end", () => call.end(trailers));
    call.on("cancelled", () => console.log("cancelled"));
  },
};

const server = new grpc.Server(OPTIONS);
server.addService(load(process.argv[2]).TestService.service, service);
server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(port);
});
