"""Proof on the installed versions that deadlines stop the work: what `dspex-trio check` runs."""
