"""What goes wrong on purpose: links that break, programs that misbehave."""
