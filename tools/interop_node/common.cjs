// What the client and the server share: the service, from the same files as everybody's, and the sizes of the cases.
"use strict";

const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

function load(protos) {
  const definition = loader.loadSync("grpc/testing/test.proto", { includeDirs: [protos], keepCase: true, arrays: true });
  return grpc.loadPackageDefinition(definition).grpc.testing;
}

module.exports = {
  load,
  INITIAL: "x-grpc-test-echo-initial",
  TRAILING: "x-grpc-test-echo-trailing-bin",
  OPTIONS: { "grpc.max_receive_message_length": -1, "grpc.use_local_subchannel_pool": 1 },
};
