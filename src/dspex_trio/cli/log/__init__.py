"""The log of a process of ours: lines that are written by a thread, so that nobody waits for standard error."""
