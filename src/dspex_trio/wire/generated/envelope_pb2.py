"""Generated from dspex/executors/v1/envelope.proto by tools/generate_protos.py. Do not edit."""

from ._pool import load
from . import duration_pb2  # noqa: F401

load(
    globals(),
    b'\n!dspex/executors/v1/envelope.proto\x12\x12dspex.executors.v1\x1a\x1egoo'
    b'gle/protobuf/duration.proto"\x8f\x03\n\rTrialEnvelope\x12\x1d\n\nsession_id\x18'
    b'\x01 \x01(\tR\tsessionId\x12F\n\x0cprogram_spec\x18\x02 \x01(\x0b2#.dspex.executors.v1.'
    b'ProgramEnvelopeR\x0bprogramSpec\x123\n\x07timeout\x18\x04 \x01(\x0b2\x19.google.proto'
    b'buf.DurationR\x07timeout\x12\x19\n\x08trial_id\x18\x05 \x01(\tR\x07trialId\x12K\n\x08metadata'
    b'\x18\x06 \x03(\x0b2/.dspex.executors.v1.TrialEnvelope.MetadataEntryR\x08met'
    b'adata\x12=\n\x07options\x18\x07 \x01(\x0b2#.dspex.executors.v1.OptionsEnvelopeR'
    b'\x07options\x1a;\n\rMetadataEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01(\tR\x05'
    b'value:\x028\x01"\x90\x01\n\x0fProgramEnvelope\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12!\n\x0cpython_'
    b'class\x18\x02 \x01(\tR\x0bpythonClass\x12F\n\x0cconfig_space\x18\x04 \x03(\x0b2#.dspex.execu'
    b'tors.v1.BindingEnvelopeR\x0bconfigSpace"K\n\x0fBindingEnvelope\x12\x1c\n\tp'
    b'arameter\x18\x01 \x01(\tR\tparameter\x12\x1a\n\x08variable\x18\x02 \x01(\tR\x08variable"\x96\x01\n\x0fOp'
    b'tionsEnvelope\x12\x1d\n\nomit_trace\x18\x01 \x01(\x08R\tomitTrace\x12!\n\x0comit_prompts'
    b'\x18\x02 \x01(\x08R\x0bomitPrompts\x12&\n\x0fmax_trace_bytes\x18\x03 \x01(\rR\rmaxTraceBytes\x12'
    b'\x19\n\x08no_cache\x18\x04 \x01(\x08R\x07noCacheb\x06proto3'
)
