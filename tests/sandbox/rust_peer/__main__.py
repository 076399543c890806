"""Builds the program and prints its path."""

from tests.sandbox.rust_peer import build

if __name__ == "__main__":
    print(build())
