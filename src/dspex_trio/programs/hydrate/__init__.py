"""From a specification to an instance: class, signature, constructor, state."""
