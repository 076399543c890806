"""What an error answer of AWS says, in JSON (Smithy, "AWS JSON 1.0 protocol") or in XML (S3, "REST Error Responses")."""

from __future__ import annotations

from extension import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from extension.https import Answer

_MAX_MESSAGE = 1_024
_MAX_CODE = 128


class Failure:
    """An error that AWS answered: the HTTP status, the bare code (no namespace, no `Exception`) and the message."""

    __slots__ = ("code", "message", "status")

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status = status
        self.code = code
        self.message = message


def read_object(body: bytes) -> dict[str, Any]:
    """Return the members of a JSON object; none if `body` is not one."""
    try:
        fields = fastjson.loads(body.decode())
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def failure_of(answer: Answer) -> Failure | None:
    """Read an error; None for an answer of status 2xx. What is no AWS error (a middleman's page) is `HTTP <status>`."""
    status = answer.head.status
    if 200 <= status < 300:
        return None
    if answer.body.lstrip()[:1] == b"<":
        text = answer.body.decode("utf-8", "replace")
        code = _between(text, "<Code>", "</Code>")
        return Failure(
            status, plain_code(code) or f"HTTP {status}", _between(text, "<Message>", "</Message>")[:_MAX_MESSAGE]
        )
    fields = read_object(answer.body)
    named = (fields.get("__type"), fields.get("code"), answer.head.text(b"x-amzn-errortype"))
    code = next((name for name in named if isinstance(name, str) and name), "")
    texts = (fields.get("message"), fields.get("Message"))
    message = next((text for text in texts if isinstance(text, str)), "")
    return Failure(status, plain_code(code) or f"HTTP {status}", message[:_MAX_MESSAGE])


def _between(text: str, begin: str, end: str) -> str:
    return text.partition(begin)[2].partition(end)[0]


def plain_code(code: str) -> str:
    """Return an error code without its namespace, its documentation URL and the suffix `Exception`."""
    return code.rpartition("#")[2].partition(":")[0].strip()[:_MAX_CODE].removesuffix("Exception")
