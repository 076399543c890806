"""A local Lambda execution environment: real processes, and Lambda's local APIs. README.md names the files."""
