"""What can be seen of trials: records, logs, spans and metrics, and the ids that tie them together."""
