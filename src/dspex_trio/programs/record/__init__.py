"""What a program does while it runs: trace, language-model calls, usage, cost, events."""
