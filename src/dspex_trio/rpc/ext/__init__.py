"""Services and instruments that most servers want: health, reflection, OpenTelemetry."""
