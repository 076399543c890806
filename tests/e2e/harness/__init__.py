"""Starts AWS's Runtime Interface Emulator, a function and an SQS API as real processes. README.md names the files."""
