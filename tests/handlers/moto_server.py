"""`python -m tests.handlers.moto_server PORT LOG`: moto's server with the plugins, and three functions that write
down each invocation.

`fixed` succeeds, `broken` fails, `poison` fails. One line of LOG for each invocation: function, request id, event.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from moto.server import main

from tests.handlers import moto_plugins
from tests.handlers.moto_plugins.functions import FunctionFailed, Invocation, registry


def serve(port: int, log: Path) -> None:
    """Serve until killed."""
    moto_plugins.install()
    lock = threading.Lock()

    def run(invocation: Invocation) -> bytes:
        line = b" ".join((invocation.function.encode(), invocation.request_id.encode(), invocation.payload))
        with lock, log.open("ab") as file:
            file.write(line + b"\n")
        if invocation.function != "fixed":
            raise FunctionFailed({"errorType": "ValueError", "errorMessage": "no stock"})
        return b"null"

    registry.functions.update(dict.fromkeys(("fixed", "broken", "poison"), run))
    main(["-H", "127.0.0.1", "-p", str(port)])


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
