"""Backstop's sidecar: the extension process that lives beside a Lambda function. Standard library only."""

__version__ = "0.1.0"
