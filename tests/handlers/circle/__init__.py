"""The whole circle on one machine: a function fails, is captured, is fixed, and its events are driven back."""
