"""Generated from grpc/testing/messages.proto by tools/generate_protos.py. Do not edit."""

from ._pool import load

load(
    globals(),
    b'\n\x1bgrpc/testing/messages.proto\x12\x0cgrpc.testing"!\n\tBoolValue\x12\x14\n\x05'
    b'value\x18\x01 \x01(\x08R\x05value"L\n\x07Payload\x12-\n\x04type\x18\x01 \x01(\x0e2\x19.grpc.testing.P'
    b'ayloadTypeR\x04type\x12\x12\n\x04body\x18\x02 \x01(\x0cR\x04body":\n\nEchoStatus\x12\x12\n\x04code\x18\x01'
    b' \x01(\x05R\x04code\x12\x18\n\x07message\x18\x02 \x01(\tR\x07message"\xed\x03\n\rSimpleRequest\x12>\n\rre'
    b'sponse_type\x18\x01 \x01(\x0e2\x19.grpc.testing.PayloadTypeR\x0cresponseType\x12#'
    b'\n\rresponse_size\x18\x02 \x01(\x05R\x0cresponseSize\x12/\n\x07payload\x18\x03 \x01(\x0b2\x15.grpc.'
    b'testing.PayloadR\x07payload\x12#\n\rfill_username\x18\x04 \x01(\x08R\x0cfillUsernam'
    b'e\x12(\n\x10fill_oauth_scope\x18\x05 \x01(\x08R\x0efillOauthScope\x12H\n\x13response_comp'
    b'ressed\x18\x06 \x01(\x0b2\x17.grpc.testing.BoolValueR\x12responseCompressed\x12A\n'
    b'\x0fresponse_status\x18\x07 \x01(\x0b2\x18.grpc.testing.EchoStatusR\x0eresponseSt'
    b'atus\x12D\n\x11expect_compressed\x18\x08 \x01(\x0b2\x17.grpc.testing.BoolValueR\x10ex'
    b'pectCompressed\x12$\n\x0efill_server_id\x18\t \x01(\x08R\x0cfillServerId"\xb7\x01\n\x0eSim'
    b'pleResponse\x12/\n\x07payload\x18\x01 \x01(\x0b2\x15.grpc.testing.PayloadR\x07payload'
    b'\x12\x1a\n\x08username\x18\x02 \x01(\tR\x08username\x12\x1f\n\x0boauth_scope\x18\x03 \x01(\tR\noauthScop'
    b'e\x12\x1b\n\tserver_id\x18\x04 \x01(\tR\x08serverId\x12\x1a\n\x08hostname\x18\x06 \x01(\tR\x08hostname"\x92'
    b'\x01\n\x19StreamingInputCallRequest\x12/\n\x07payload\x18\x01 \x01(\x0b2\x15.grpc.testing'
    b'.PayloadR\x07payload\x12D\n\x11expect_compressed\x18\x02 \x01(\x0b2\x17.grpc.testing.'
    b'BoolValueR\x10expectCompressed"T\n\x1aStreamingInputCallResponse\x126\n'
    b'\x17aggregated_payload_size\x18\x01 \x01(\x05R\x15aggregatedPayloadSize"\x82\x01\n\x12Re'
    b'sponseParameters\x12\x12\n\x04size\x18\x01 \x01(\x05R\x04size\x12\x1f\n\x0binterval_us\x18\x02 \x01(\x05R\ni'
    b'ntervalUs\x127\n\ncompressed\x18\x03 \x01(\x0b2\x17.grpc.testing.BoolValueR\ncomp'
    b'ressed"\xa3\x02\n\x1aStreamingOutputCallRequest\x12>\n\rresponse_type\x18\x01 \x01(\x0e'
    b'2\x19.grpc.testing.PayloadTypeR\x0cresponseType\x12Q\n\x13response_parame'
    b'ters\x18\x02 \x03(\x0b2 .grpc.testing.ResponseParametersR\x12responseParame'
    b'ters\x12/\n\x07payload\x18\x03 \x01(\x0b2\x15.grpc.testing.PayloadR\x07payload\x12A\n\x0fres'
    b'ponse_status\x18\x07 \x01(\x0b2\x18.grpc.testing.EchoStatusR\x0eresponseStatus'
    b'"N\n\x1bStreamingOutputCallResponse\x12/\n\x07payload\x18\x01 \x01(\x0b2\x15.grpc.test'
    b'ing.PayloadR\x07payload*\x1f\n\x0bPayloadType\x12\x10\n\x0cCOMPRESSABLE\x10\x00b\x06proto'
    b'3'
)
