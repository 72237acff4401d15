"""The client's side: channels, connections, calls, stubs."""
