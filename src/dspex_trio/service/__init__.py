"""The servicers: the thin joint between gRPC, the wire and the rooms."""
