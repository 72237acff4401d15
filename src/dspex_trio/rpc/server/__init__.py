"""The server's side: listeners, connections, calls, deadlines, drain."""
