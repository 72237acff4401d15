"""Stopping what runs in a thread: jobs, slots, and the steps of the ladder."""
