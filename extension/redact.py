"""Cuts values out of an event before anything of it is stored (DESIGN, rule 9): by JSON path or by key name, also inside strings
that hold JSON. What is left keeps its numbers, duplicate keys and order to the letter.

Pure. A rule is `$.a.b`, `$.items[0].card`, `$.items[*].card`, `$.a['b c']`, `$..card`, or a bare key name, which means that key
anywhere, whatever its case.
"""

from __future__ import annotations

import _json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

MARK = "***"
_ANY = object()
_DEEP = object()
_MAX_DEPTH = 200
_MIN_SECRET = 4


class Number(str):
    """A number as it was written."""

    __slots__ = ()


class _Exact:
    strict = True
    object_hook = None
    object_pairs_hook = tuple
    parse_float = Number
    parse_int = Number
    memo: dict[str, str] = {}

    @staticmethod
    def parse_constant(name: str) -> object:
        raise ValueError(f"{name} is not JSON")


_scan: Callable[[str, int], tuple[Any, int]] = _json.make_scanner(_Exact)  # type: ignore[arg-type]

Rule = tuple[object, ...]


def parse_rule(text: str) -> Rule:
    """Read one rule. Raises ValueError for a path that cannot be understood."""
    if not text.startswith("$"):
        if not text or any(letter in text for letter in "[]'\""):
            raise ValueError(f"{text!r} is neither a key name nor a JSON path that begins with $")
        return (_DEEP, text)
    steps: list[object] = []
    rest = text[1:]
    while rest:
        if rest.startswith(".."):
            steps.append(_DEEP)
            rest = "." + rest[2:]
        if rest[0] == "[":
            inside, close, rest = rest[1:].partition("]")
            if not close:
                raise ValueError(f"{text!r}: a bracket is not closed")
            steps.append(_bracket(inside, text))
        elif rest[0] == ".":
            end = min((at for at in (rest.find(".", 1), rest.find("[", 1)) if at > 0), default=len(rest))
            name, rest = rest[1:end], rest[end:]
            if not name:
                raise ValueError(f"{text!r}: a name is missing after a dot")
            steps.append(_ANY if name == "*" else name)
        else:
            raise ValueError(f"{text!r}: use .name or [number] after {text[: len(text) - len(rest)]!r}")
    if not steps or steps[-1] is _DEEP:
        raise ValueError(f"{text!r} names nothing that could be cut")
    return tuple(steps)


def _bracket(inside: str, text: str) -> object:
    if inside == "*":
        return _ANY
    if inside.isdigit():
        return int(inside)
    if len(inside) > 2 and inside[0] == inside[-1] and inside[0] in "'\"":
        return inside[1:-1]
    raise ValueError(f"{text!r}: [{inside}] is neither a number, '*' nor a quoted name")


def anywhere(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Return the rules that name a key wherever it stands: they hold for an error as well as for an event."""
    return tuple(rule for rule in rules if rule[0] is _DEEP)


class Redaction:
    """What was cut: the JSON text that is left, the places, and the cut strings (to be kept out of logs and errors too)."""

    __slots__ = ("paths", "secrets", "text")

    def __init__(self, text: str, paths: list[str], secrets: set[str]) -> None:
        self.text = text
        self.paths = paths
        self.secrets = secrets


def redact(text: str, rules: tuple[Rule, ...]) -> Redaction:
    """Cut what the rules name out of JSON text. Raises ValueError where the text is not JSON, or nested too deeply."""
    start = len(text) - len(text.lstrip(" \t\n\r"))
    try:
        value, end = _scan(text, start)
    except (StopIteration, ValueError, RecursionError, SystemError, ImportError):
        raise ValueError("not JSON") from None
    if text[end:].strip(" \t\n\r"):
        raise ValueError("not JSON")
    work = _Work()
    value = work.walk(value, [(rule, 0) for rule in rules], "$", 0)
    return Redaction("".join(_write(value)), work.paths, work.secrets)


class _Work:
    """One redaction under way. A state is a rule and how many of its steps are done."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.secrets: set[str] = set()

    def walk(self, value: Any, states: list[tuple[Rule, int]], path: str, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deeply to be redacted")
        if isinstance(value, tuple):
            return tuple(
                (key, self._child(inner, _advance(states, key), f"{path}.{key}", depth)) for key, inner in value
            )
        if isinstance(value, list):
            return [
                self._child(inner, _advance(states, index), f"{path}[{index}]", depth)
                for index, inner in enumerate(value)
            ]
        if isinstance(value, str) and not isinstance(value, Number) and value.lstrip()[:1] in ("{", "[", '"'):
            return self._inside_string(value, states, path, depth)
        return value

    def _child(self, value: Any, found: tuple[bool, list[tuple[Rule, int]]], path: str, depth: int) -> Any:
        cut, states = found
        if not cut:
            return self.walk(value, states, path, depth + 1)
        self.paths.append(path)
        self._note(value)
        return MARK

    def _inside_string(self, value: str, states: list[tuple[Rule, int]], path: str, depth: int) -> str:
        try:
            inner, end = _scan(value, len(value) - len(value.lstrip(" \t\n\r")))
        except (StopIteration, ValueError, RecursionError, SystemError, ImportError):
            return value
        if value[end:].strip(" \t\n\r"):
            return value
        before = len(self.paths)
        changed = self.walk(inner, states, path, depth + 1)
        return value if len(self.paths) == before else "".join(_write(changed))

    def _note(self, value: Any) -> None:
        """Remember the strings and numbers that were cut."""
        if isinstance(value, str):
            if len(value) >= _MIN_SECRET:
                self.secrets.add(value)
        elif isinstance(value, tuple):
            for _, inner in value:
                self._note(inner)
        elif isinstance(value, list):
            for inner in value:
                self._note(inner)


def _advance(states: list[tuple[Rule, int]], key: str | int) -> tuple[bool, list[tuple[Rule, int]]]:
    """Take one step down. Returns whether a rule ends here, and the states of what is below."""
    below: list[tuple[Rule, int]] = []
    for rule, done in states:
        deep = rule[done] is _DEEP
        if deep:
            below.append((rule, done))
        at = done + deep
        if _matches(rule[at], key, anywhere=len(rule) == 2 and deep):
            if at + 1 == len(rule):
                return True, []
            below.append((rule, at + 1))
    return False, below


def _matches(step: object, key: str | int, *, anywhere: bool) -> bool:
    if step is _ANY:
        return True
    if anywhere and isinstance(step, str) and isinstance(key, str):
        return step.lower() == key.lower()
    return type(step) is type(key) and step == key


def _write(value: Any) -> Iterator[str]:
    if isinstance(value, Number):
        yield value
    elif isinstance(value, str):
        yield _json.encode_basestring_ascii(value)
    elif isinstance(value, tuple):
        yield "{"
        for index, (key, inner) in enumerate(value):
            yield ("," if index else "") + _json.encode_basestring_ascii(key) + ":"
            yield from _write(inner)
        yield "}"
    elif isinstance(value, list):
        yield "["
        for index, inner in enumerate(value):
            if index:
                yield ","
            yield from _write(inner)
        yield "]"
    else:
        yield {True: "true", False: "false", None: "null"}[value]


def scrub(text: str, secrets: set[str]) -> str:
    """Replace every cut value that shows up in another text (a log line, an error message)."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MARK)
    return text
