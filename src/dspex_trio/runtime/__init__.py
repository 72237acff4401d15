"""The composition root: settings, what is wired of them, serving, and the client."""
