"""What moto lacks, added from outside. `install()` adds all of it once per process; it works embedded and under
moto's server.

`jsonata`: state machines in JSONata. `functions`: Lambda runs Python callables instead of an echo. `transactions`:
DynamoDB transactions
that do not copy the whole table. `move_tasks`: SQS message move tasks.
"""

from __future__ import annotations

from tests.handlers.moto_plugins import functions, jsonata, move_tasks, transactions


def install() -> None:
    """Add every plugin; adding twice is the same as once."""
    for plugin in (jsonata, functions, transactions, move_tasks):
        plugin.install()
