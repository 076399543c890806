"""What the proxy notes of an exchange in passing: events, errors, outcomes. It sees bytes, and never holds them up."""

from __future__ import annotations

from extension import outcome, routes, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from extension.flag import Flag
    from extension.http1 import Body, RequestHead, ResponseHead
    from extension.inflight import Invocation, Table

    Judge = Callable[[str, bytes], outcome.Outcome | None]

_MAX_ERROR = 262_144
_MAX_ANSWER = 1_048_576


class Kept:
    """The start of a body that is noted in passing, up to a bound."""

    __slots__ = ("_limit", "_parts", "cut", "size")

    def __init__(self, limit: int = _MAX_ERROR) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self.size = 0
        self.cut = False

    def add(self, part: bytes) -> None:
        room = self._limit - self.size
        if len(part) > room:
            self.cut = True
            part = part[: max(room, 0)]
        self._parts.append(part)
        self.size += len(part)

    def bytes(self) -> bytes:
        return b"".join(self._parts)


class Watch:
    """What is noted of one exchange. An invocation is entered in the table before the runtime can answer it, and ended after."""

    __slots__ = (
        "_answer",
        "_asked",
        "_error",
        "_id",
        "_judge",
        "_kind",
        "_over",
        "_refusal",
        "_request",
        "_table",
        "invocation",
    )

    def __init__(self, table: Table, request: RequestHead, judge: Judge | None = None) -> None:
        """`judge` looks into an answer that Lambda took as a success, and may find a failure in it."""
        route = routes.route(request)
        self._table = table
        self._request = request
        self._kind = route.kind
        self._id = route.request_id
        self._error = Kept()
        self._refusal = Kept()
        self._judge = judge
        self._answer = Kept(_MAX_ANSWER)
        self.invocation: Invocation | None = None
        self._over: Flag | None = None
        self._asked = 0
        if self._kind == routes.NEXT:
            table.asked_next()
        elif self._id is not None:
            self._over, self._asked = table.answer_begins(self._id)

    def request_part(self, part: bytes) -> None:
        """A piece of the runtime's body: kept where it is an error, or an answer that is to be looked into."""
        if self._kind in (routes.ERROR, routes.INIT_ERROR):
            self._error.add(part)
        elif self._judge is not None and self._kind == routes.RESPONSE:
            self._answer.add(part)

    def response_head(self, head: ResponseHead) -> None:
        """Lambda's answer begins."""
        if self._kind == routes.NEXT:
            self.invocation = self._table.open(head)

    def response_part(self, head: ResponseHead, part: bytes) -> None:
        """A piece of Lambda's answer: the event, or the reason of a refusal."""
        if self.invocation is not None:
            self._table.keep(self.invocation, part)
        elif head.status >= 400 and self._kind == routes.RESPONSE:
            self._refusal.add(part)

    def response_whole(self) -> None:
        """Lambda's answer is here to its last byte; it may not have been passed on yet."""
        if self.invocation is not None:
            self._table.whole(self.invocation)

    @property
    def waits_for_event(self) -> bool:
        """Whether this is GET /next: if the runtime goes away, nobody may take the event in its place."""
        return self._kind == routes.NEXT

    def done(self, head: ResponseHead, request_body: Body) -> None:
        """Lambda's answer is whole. A request that broke off has no outcome: its process's end will tell."""
        if not request_body.complete and head.status < 400:
            return
        if self._kind == routes.RESPONSE and self._id is not None:
            trailers = dict(request_body.trailers)
            ended = outcome.of_response(
                head.status, self._refusal.bytes(), _trailer_type(trailers), _trailer_error(trailers)
            )
            if ended is not None and not ended.failed:
                ended = self._looked_into(self._id) or ended
        elif self._kind == routes.ERROR and self._id is not None and head.status < 300:
            ended = self._posted(outcome.HANDLED_ERROR)
        elif self._kind == routes.INIT_ERROR and head.status < 300:
            posted = self._posted(outcome.INIT_ERROR)
            self._table.init_error(posted.error, posted.error_type, cut=posted.error_cut)
            return
        else:
            return
        if ended is not None and self._id is not None:
            self._table.posted(self._id, ended, self._asked)

    def _looked_into(self, request_id: str) -> outcome.Outcome | None:
        if self._judge is None:
            return None
        try:
            return self._judge(request_id, self._answer.bytes())
        except Exception as error:  # then it is the success that Lambda takes it for
            say.fault("looking into an answer", error)
            return None

    def give_up(self) -> None:
        """Nothing more is noted of this exchange: nobody may wait for what it would have told."""
        if self.invocation is not None:
            self.invocation.released.set()
        elif self._id is not None:
            self._table.suspect(self._id)

    def over(self) -> None:
        """The exchange has ended, well or not."""
        if self._over is not None:
            self._over.set()

    def _posted(self, condition: str) -> outcome.Outcome:
        error_type = self._request.text(b"lambda-runtime-function-error-type")
        return outcome.Outcome(condition, self._error.bytes() or None, error_type, error_cut=self._error.cut)


def _trailer_type(trailers: dict[bytes, bytes]) -> str | None:
    value = trailers.get(b"lambda-runtime-function-error-type")
    return None if value is None else value.decode("utf-8", "replace")


def _trailer_error(trailers: dict[bytes, bytes]) -> bytes | None:
    value = trailers.get(b"lambda-runtime-function-error-body")
    if value is None:
        return None
    from binascii import Error, a2b_base64

    try:
        return a2b_base64(value)
    except (Error, ValueError):
        return value
