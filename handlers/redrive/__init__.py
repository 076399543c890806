"""Redrive: from the failure queue into the table, and from the table back to done. README.md names the files in reading order."""
