"""Generated from grpc/health/v1/health.proto by tools/generate_protos.py. Do not edit."""

from ._pool import load

load(
    globals(),
    b'\n\x1bgrpc/health/v1/health.proto\x12\x0egrpc.health.v1".\n\x12HealthCheck'
    b'Request\x12\x18\n\x07service\x18\x01 \x01(\tR\x07service"\xb1\x01\n\x13HealthCheckResponse\x12I\n'
    b'\x06status\x18\x01 \x01(\x0e21.grpc.health.v1.HealthCheckResponse.ServingSt'
    b'atusR\x06status"O\n\rServingStatus\x12\x0b\n\x07UNKNOWN\x10\x00\x12\x0b\n\x07SERVING\x10\x01\x12\x0f\n\x0bN'
    b'OT_SERVING\x10\x02\x12\x13\n\x0fSERVICE_UNKNOWN\x10\x03"\x13\n\x11HealthListRequest"\xc4\x01\n\x12H'
    b'ealthListResponse\x12L\n\x08statuses\x18\x01 \x03(\x0b20.grpc.health.v1.HealthL'
    b'istResponse.StatusesEntryR\x08statuses\x1a`\n\rStatusesEntry\x12\x10\n\x03key\x18'
    b'\x01 \x01(\tR\x03key\x129\n\x05value\x18\x02 \x01(\x0b2#.grpc.health.v1.HealthCheckRespon'
    b'seR\x05value:\x028\x012\xfd\x01\n\x06Health\x12P\n\x05Check\x12".grpc.health.v1.HealthChe'
    b'ckRequest\x1a#.grpc.health.v1.HealthCheckResponse\x12M\n\x04List\x12!.grp'
    b'c.health.v1.HealthListRequest\x1a".grpc.health.v1.HealthListRes'
    b'ponse\x12R\n\x05Watch\x12".grpc.health.v1.HealthCheckRequest\x1a#.grpc.he'
    b'alth.v1.HealthCheckResponse0\x01b\x06proto3'
)
