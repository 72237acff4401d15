"""The demo: real trials end to end on one machine, answered by a small model behind a local HTTP server."""
