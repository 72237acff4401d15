"""The Python-side runtime of dspex: DSPy trials over gRPC on Trio, with deadlines that stop the work."""
