"""Recorded trials, run again and compared."""
