"""Rules by which a dead-letter queue's messages are sorted. Pure.

```yaml
rules:
  - name: retired tenant
    when: "body.tenant == 'acme'"          # JMESPath over {body, text, attributes, system, id}
    do: delete
  - name: wrong currency
    when: "body.currency == 'DEM'"
    do: resend
    set: {currency: EUR}                   # dotted paths into the JSON body
    remove: [legacy.rate]
    to: https://sqs.…/orders               # without it: the queue given on the command line
default: skip
```
The first rule that holds decides. `resend` and `quarantine` send and then delete, `delete` only deletes, `skip`
leaves the message where it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Action(StrEnum):
    """What is done with a message."""

    RESEND = "resend"
    DELETE = "delete"
    SKIP = "skip"
    QUARANTINE = "quarantine"


class Rule(BaseModel):
    """One rule."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=100)
    when: str
    do: Action
    to: str | None = None
    set: dict[str, Any] = {}
    remove: list[str] = []

    @field_validator("when")
    @classmethod
    def _expression(cls, value: str) -> str:
        try:
            jmespath.compile(value)
        except JMESPathError as error:
            raise ValueError(f"not a JMESPath expression: {error}") from None
        return value

    @model_validator(mode="after")
    def _changes_are_resent(self) -> Rule:
        if (self.set or self.remove or self.to) and self.do is not Action.RESEND:
            raise ValueError("set, remove and to are only for do: resend")
        return self


class Rules(BaseModel):
    """A file of rules."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rules: list[Rule] = Field(min_length=1)
    default: Action = Action.SKIP

    @model_validator(mode="after")
    def _names_differ(self) -> Rules:
        names = [rule.name for rule in self.rules]
        if len(names) != len(set(names)):
            raise ValueError("two rules have the same name")
        if self.default is Action.RESEND:
            raise ValueError("the default cannot be resend: say by a rule what is resent")
        return self


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done with a message. `body` is the text to send, the very same where nothing is changed."""

    action: Action
    rule: str
    body: str
    to: str | None = None
    note: str | None = None


DEFAULT = "(default)"


def document(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the expressions see of an SQS message (ReceiveMessage's shape)."""
    try:
        body = json.loads(message["Body"])
    except (ValueError, RecursionError):
        body = None
    attributes = {
        name: value.get("StringValue", "(binary)") for name, value in message.get("MessageAttributes", {}).items()
    }
    return {
        "id": message["MessageId"],
        "body": body,
        "text": message["Body"],
        "attributes": attributes,
        "system": dict(message.get("Attributes", {})),
    }


def decide(rules: Rules, message: Mapping[str, Any]) -> Decision:
    """Return what the first rule that holds says. A change that cannot be made leaves the message where it is, with
    a note."""
    seen = document(message)
    for rule in rules.rules:
        if not _holds(rule.when, seen):
            continue
        if not rule.set and not rule.remove:
            return Decision(rule.do, rule.name, message["Body"], rule.to)
        try:
            changed = _changed(seen["body"], rule)
        except ValueError as error:
            return Decision(Action.SKIP, rule.name, message["Body"], note=str(error))
        return Decision(rule.do, rule.name, changed, rule.to)
    return Decision(rules.default, DEFAULT, message["Body"])


def _holds(expression: str, seen: Mapping[str, Any]) -> bool:
    try:
        value = jmespath.search(expression, seen)
    except JMESPathError:
        return False  # a function that does not take what this message has there
    return value is not None and value is not False and value not in ("", [], {})


def _changed(body: Any, rule: Rule) -> str:
    if not isinstance(body, dict):
        raise ValueError("the body is no JSON object: nothing can be set or removed in it")
    for path, value in rule.set.items():
        *parents, last = path.split(".")
        _parent(body, parents, make=True)[last] = value
    for path in rule.remove:
        *parents, last = path.split(".")
        _parent(body, parents, make=False).pop(last, None)
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def _parent(body: dict[str, Any], names: list[str], *, make: bool) -> dict[str, Any]:
    place = body
    for name in names:
        inner = place.get(name)
        if inner is None:
            inner = {}
            if make:
                place[name] = inner
        if not isinstance(inner, dict):
            raise ValueError(f"{name} in the body is no object")
        place = inner
    return place
