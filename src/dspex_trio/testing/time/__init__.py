"""Virtual time, schedules by seed, timelines and leak checks; knows nothing of DSPy or of trials."""
