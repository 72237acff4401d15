"""Everything that depends on DSPy's version: private names, patches, adapters."""
