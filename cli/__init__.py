"""The `backstop` command: look at captured failures, and drive them back."""
