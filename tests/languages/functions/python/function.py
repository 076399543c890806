"""The function of the language tests, in Python: what it does with an event, the event's `do` says."""

import ctypes
import json
import os
import sys
import time
from typing import Any, NoReturn

if os.environ.get("FAIL_INIT"):
    raise RuntimeError("TABLE_NAME is not set")


class PaymentDeclined(Exception):
    """What the tests look for as the error's type."""


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    do = event["do"]
    print(json.dumps({"requestId": context.aws_request_id, "message": f"asked to {do}"}), flush=True)
    if do == "throw":
        charge(event["message"])
    elif do == "hang":
        time.sleep(900)
    elif do == "exit":
        os._exit(3)
    elif do == "panic":  # an exception that is no Exception: no handler of the runtime's takes it
        sys.exit("the payment library gave up")
    elif do == "crash":  # reads address 0
        ctypes.string_at(0)
    elif do == "memory":
        take_all_memory()
    return {"text": event["text"]}


def charge(message: str) -> NoReturn:
    raise PaymentDeclined(message)


def take_all_memory() -> NoReturn:
    kept = []
    while True:
        kept.append(b"\1" * (4 << 20))
