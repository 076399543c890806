"""Telemetry from the platform: the listener it is delivered to, and the attribution of each line to its invocation."""
