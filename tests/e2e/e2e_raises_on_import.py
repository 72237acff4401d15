"""A module under an allowed prefix whose import fails."""

raise RuntimeError("this module cannot be imported")
