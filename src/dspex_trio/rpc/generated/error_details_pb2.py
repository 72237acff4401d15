"""Generated from google/rpc/error_details.proto by tools/generate_protos.py. Do not edit."""

from ._pool import load
from . import duration_pb2  # noqa: F401

load(
    globals(),
    b'\n\x1egoogle/rpc/error_details.proto\x12\ngoogle.rpc\x1a\x1egoogle/protobu'
    b'f/duration.proto"\xb9\x01\n\tErrorInfo\x12\x16\n\x06reason\x18\x01 \x01(\tR\x06reason\x12\x16\n\x06do'
    b'main\x18\x02 \x01(\tR\x06domain\x12?\n\x08metadata\x18\x03 \x03(\x0b2#.google.rpc.ErrorInfo.'
    b'MetadataEntryR\x08metadata\x1a;\n\rMetadataEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14'
    b'\n\x05value\x18\x02 \x01(\tR\x05value:\x028\x01"G\n\tRetryInfo\x12:\n\x0bretry_delay\x18\x01 \x01(\x0b2\x19'
    b'.google.protobuf.DurationR\nretryDelay"H\n\tDebugInfo\x12#\n\rstack_'
    b'entries\x18\x01 \x03(\tR\x0cstackEntries\x12\x16\n\x06detail\x18\x02 \x01(\tR\x06detail"\x8e\x04\n\x0cQuot'
    b'aFailure\x12B\n\nviolations\x18\x01 \x03(\x0b2".google.rpc.QuotaFailure.Viola'
    b'tionR\nviolations\x1a\xb9\x03\n\tViolation\x12\x18\n\x07subject\x18\x01 \x01(\tR\x07subject\x12 \n\x0b'
    b'description\x18\x02 \x01(\tR\x0bdescription\x12\x1f\n\x0bapi_service\x18\x03 \x01(\tR\napiServ'
    b'ice\x12!\n\x0cquota_metric\x18\x04 \x01(\tR\x0bquotaMetric\x12\x19\n\x08quota_id\x18\x05 \x01(\tR\x07qu'
    b'otaId\x12b\n\x10quota_dimensions\x18\x06 \x03(\x0b27.google.rpc.QuotaFailure.Vi'
    b'olation.QuotaDimensionsEntryR\x0fquotaDimensions\x12\x1f\n\x0bquota_value'
    b'\x18\x07 \x01(\x03R\nquotaValue\x121\n\x12future_quota_value\x18\x08 \x01(\x03H\x00R\x10futureQuot'
    b'aValue\x88\x01\x01\x1aB\n\x14QuotaDimensionsEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value'
    b'\x18\x02 \x01(\tR\x05value:\x028\x01B\x15\n\x13_future_quota_value"\xbd\x01\n\x13PreconditionFai'
    b'lure\x12I\n\nviolations\x18\x01 \x03(\x0b2).google.rpc.PreconditionFailure.Vi'
    b'olationR\nviolations\x1a[\n\tViolation\x12\x12\n\x04type\x18\x01 \x01(\tR\x04type\x12\x18\n\x07subj'
    b'ect\x18\x02 \x01(\tR\x07subject\x12 \n\x0bdescription\x18\x03 \x01(\tR\x0bdescription"\x8c\x02\n\nBad'
    b'Request\x12P\n\x10field_violations\x18\x01 \x03(\x0b2%.google.rpc.BadRequest.Fi'
    b'eldViolationR\x0ffieldViolations\x1a\xab\x01\n\x0eFieldViolation\x12\x14\n\x05field\x18\x01 '
    b'\x01(\tR\x05field\x12 \n\x0bdescription\x18\x02 \x01(\tR\x0bdescription\x12\x16\n\x06reason\x18\x03 \x01(\t'
    b'R\x06reason\x12I\n\x11localized_message\x18\x04 \x01(\x0b2\x1c.google.rpc.LocalizedMe'
    b'ssageR\x10localizedMessage"O\n\x0bRequestInfo\x12\x1d\n\nrequest_id\x18\x01 \x01(\tR\t'
    b'requestId\x12!\n\x0cserving_data\x18\x02 \x01(\tR\x0bservingData"\x90\x01\n\x0cResourceInf'
    b'o\x12#\n\rresource_type\x18\x01 \x01(\tR\x0cresourceType\x12#\n\rresource_name\x18\x02 \x01('
    b'\tR\x0cresourceName\x12\x14\n\x05owner\x18\x03 \x01(\tR\x05owner\x12 \n\x0bdescription\x18\x04 \x01(\tR\x0b'
    b'description"o\n\x04Help\x12+\n\x05links\x18\x01 \x03(\x0b2\x15.google.rpc.Help.LinkR\x05l'
    b'inks\x1a:\n\x04Link\x12 \n\x0bdescription\x18\x01 \x01(\tR\x0bdescription\x12\x10\n\x03url\x18\x02 \x01(\tR'
    b'\x03url"D\n\x10LocalizedMessage\x12\x16\n\x06locale\x18\x01 \x01(\tR\x06locale\x12\x18\n\x07message\x18'
    b'\x02 \x01(\tR\x07messageb\x06proto3'
)
