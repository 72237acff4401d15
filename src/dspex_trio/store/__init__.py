"""The session store that is ours: in memory, with a file, behind its service."""
