"""A Python runtime for the sandbox, of the standard library alone; errors have the shape that AWS's own runtime gives them.

Handlers get (event, context). A generator function is a streamed response: each piece of bytes or text it yields is sent at once.
"""

from __future__ import annotations

import base64
import http.client
import importlib.util
import inspect
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

_API = os.environ["AWS_LAMBDA_RUNTIME_API"]
_PREFIX = "/2018-06-01/runtime/"
_INVOCATION_ID = "Lambda-Runtime-Invocation-Id"
Handler = Callable[[Any, Any], Any]


class Context:
    """What handlers get beside the event. Only what the Runtime API tells."""

    def __init__(self, headers: http.client.HTTPMessage) -> None:
        self.aws_request_id = headers.get("Lambda-Runtime-Aws-Request-Id", "")
        self.invoked_function_arn = headers.get("Lambda-Runtime-Invoked-Function-Arn", "")
        self.tenant_id = headers.get("Lambda-Runtime-Aws-Tenant-Id")
        self.client_context = json.loads(headers.get("Lambda-Runtime-Client-Context") or "null")
        self.function_name = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "")
        self.memory_limit_in_mb = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
        self._deadline_ms = int(headers.get("Lambda-Runtime-Deadline-Ms", "0"))

    def get_remaining_time_in_millis(self) -> int:
        return max(0, self._deadline_ms - int(time.time() * 1000))


class Client:
    """One connection to the Runtime API, kept."""

    def __init__(self) -> None:
        self._connection = http.client.HTTPConnection(_API)

    def next(self) -> tuple[http.client.HTTPMessage, bytes]:
        self._connection.request("GET", f"{_PREFIX}invocation/next")
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            sys.exit(f"invocation/next was answered {answer.status}: {body.decode()}")
        return answer.headers, body

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> int:
        self._connection.request("POST", _PREFIX + path, body, {"Content-Type": "application/json", **headers})
        answer = self._connection.getresponse()
        answer.read()
        return answer.status

    def stream(self, path: str, parts: Iterable[object], headers: dict[str, str]) -> None:
        """Chunked, each piece as it comes. An exception on the way is told in the trailers."""
        connection = self._connection
        connection.putrequest("POST", _PREFIX + path)
        fixed = {
            "Content-Type": "application/octet-stream",
            "Lambda-Runtime-Function-Response-Mode": "streaming",
            "Transfer-Encoding": "chunked",
            "Trailer": "Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body",
        }
        for name, value in {**fixed, **headers}.items():
            connection.putheader(name, value)
        connection.endheaders()
        trailers = b""
        try:
            for part in parts:
                data = part if isinstance(part, bytes) else str(part).encode()
                if data:
                    connection.send(b"%x\r\n%s\r\n" % (len(data), data))
        except Exception as error:
            body = json.dumps(describe(error))
            print(body)
            encoded = base64.b64encode(body.encode()).decode()
            trailers = (
                f"Lambda-Runtime-Function-Error-Type: Function.{type(error).__name__}\r\n"
                f"Lambda-Runtime-Function-Error-Body: {encoded}\r\n"
            ).encode()
        connection.send(b"0\r\n" + trailers + b"\r\n")
        connection.getresponse().read()


def describe(error: BaseException) -> dict[str, Any]:
    """errorMessage, errorType and stackTrace, as AWS's runtime has them."""
    frames = traceback.format_list(traceback.extract_tb(error.__traceback__))
    return {"errorMessage": str(error), "errorType": type(error).__name__, "requestId": "", "stackTrace": frames}


def serve(handler: Handler) -> NoReturn:
    client = Client()
    json_logs = os.environ.get("AWS_LAMBDA_LOG_FORMAT") == "JSON"
    while True:
        headers, event = client.next()
        context = Context(headers)
        echoed = {_INVOCATION_ID: headers[_INVOCATION_ID]} if headers.get(_INVOCATION_ID) else {}
        os.environ["_X_AMZN_TRACE_ID"] = headers.get("Lambda-Runtime-Trace-Id", "")
        path = f"invocation/{context.aws_request_id}"
        try:
            result = handler(json.loads(event), context)
            if inspect.isgenerator(result):
                client.stream(f"{path}/response", result, echoed)
                continue
            body = json.dumps(result, separators=(",", ":")).encode()
        except Exception as error:
            described = {**describe(error), "requestId": context.aws_request_id}
            if json_logs:
                print(json.dumps({"level": "ERROR", "requestId": context.aws_request_id, "message": str(error)}))
            else:
                print(f"[ERROR] {type(error).__name__}: {error}")
            client.post(f"{path}/error", json.dumps(described).encode(), echoed)
        else:
            client.post(f"{path}/response", body, echoed)


def load() -> Handler:
    file, _, name = os.environ["_HANDLER"].rpartition(".")
    root = os.environ["LAMBDA_TASK_ROOT"]
    sys.path.insert(0, root)
    spec = importlib.util.spec_from_file_location(file, f"{root}/{file}.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"Unable to import module '{file}'")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file] = module
    spec.loader.exec_module(module)
    handler: Handler = getattr(module, name)
    return handler


def main() -> None:
    try:
        handler = load()
    except Exception as error:
        headers = {"Lambda-Runtime-Function-Error-Type": f"Runtime.{type(error).__name__}"}
        print(f"[ERROR] {type(error).__name__}: {error}")
        Client().post("init/error", json.dumps(describe(error)).encode(), headers)
        sys.exit(1)
    if os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start":
        connection = http.client.HTTPConnection(_API)
        connection.request("GET", f"{_PREFIX}restore/next")
        connection.getresponse().read()
    for _ in range(int(os.environ.get("AWS_LAMBDA_MAX_CONCURRENCY", "1")) - 1):
        threading.Thread(target=serve, args=(handler,), daemon=True).start()
    serve(handler)


if __name__ == "__main__":
    main()
