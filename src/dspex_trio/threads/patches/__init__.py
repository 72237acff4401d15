"""Changes of Python's own blocking calls, so that a job's threads can be woken out of them."""
