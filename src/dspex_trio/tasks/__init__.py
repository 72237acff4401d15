"""Small pieces around Trio: nurseries of contexts, signals."""
