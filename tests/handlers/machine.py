"""State machines on moto: the definitions beside the handlers, with the handlers themselves as the functions they name."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3

from tests.handlers.moto_plugins.functions import Function, json_function, registry

if TYPE_CHECKING:
    from types_boto3_stepfunctions import SFNClient

HANDLERS = Path(__file__).parents[2] / "handlers" / "redrive"
_ARN = "arn:aws:lambda:eu-central-1:123456789012:function:"
_ROLE = "arn:aws:iam::123456789012:role/states"


class Context:
    """What a handler needs of Lambda's context."""

    def __init__(self, seconds: float = 900) -> None:
        self._ends = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        return int((self._ends - time.monotonic()) * 1000)


def handler_function(handler: Callable[[Any, Any], Any]) -> Function:
    """A Lambda handler as a function of moto's."""
    return json_function(lambda event: handler(event, Context()))


def make_function(name: str, function: Function) -> str:
    """Create a function that moto runs; returns its ARN."""
    registry.functions[name] = function
    iam = boto3.client("iam")
    try:
        role = iam.get_role(RoleName="lambda")["Role"]["Arn"]
    except iam.exceptions.NoSuchEntityException:
        role = iam.create_role(RoleName="lambda", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    boto3.client("lambda").create_function(
        FunctionName=name, Role=role, Code={"ZipFile": b"none"}, Handler="x.y", Runtime="python3.13"
    )
    return _ARN + name


def filled(definition: str, names: Mapping[str, str]) -> str:
    """Return a definition with its ${names} filled in, as AWS SAM's DefinitionSubstitutions does."""
    text = (HANDLERS / definition).read_text()
    for name, value in names.items():
        text = text.replace(f"${{{name}}}", value)
    assert "${" not in text, "a name of the definition was not filled in"
    return text


def for_moto(definition: str) -> str:
    """Return a definition as moto 5.2 can read it: its grammar knows ResultWriter in JSONPath only, so it is left out there."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: without(inner) for name, inner in value.items() if name != "ResultWriter"}
        return [without(inner) for inner in value] if isinstance(value, list) else value

    return json.dumps(without(json.loads(definition)))


class Machine:
    """A state machine and its executions."""

    def __init__(self, definition: str, names: Mapping[str, str]) -> None:
        self.client: SFNClient = boto3.client("stepfunctions")
        self.arn = self.client.create_state_machine(
            name=f"machine-{uuid.uuid4().hex[:8]}", definition=for_moto(filled(definition, names)), roleArn=_ROLE
        )["stateMachineArn"]

    def start(self, value: Any, name: str | None = None) -> str:
        started = self.client.start_execution(
            stateMachineArn=self.arn, name=name or f"e-{uuid.uuid4().hex[:8]}", input=json.dumps(value)
        )
        return started["executionArn"]

    def wait(self, execution: str, timeout_s: float = 30) -> dict[str, Any]:
        """Return a finished execution: status, error, cause, output (parsed)."""
        deadline = time.monotonic() + timeout_s
        while (found := self.client.describe_execution(executionArn=execution))["status"] == "RUNNING":
            assert time.monotonic() < deadline, self.states(execution)
            time.sleep(0.02)
        return {**found, "output": json.loads(found.get("output") or "null")}

    def run(self, value: Any, timeout_s: float = 30) -> dict[str, Any]:
        return self.wait(self.start(value), timeout_s)

    def states(self, execution: str) -> list[str]:
        """The states an execution has entered, in order."""
        events = self.client.get_execution_history(executionArn=execution, maxResults=1000)["events"]
        return [event["stateEnteredEventDetails"]["name"] for event in events if "stateEnteredEventDetails" in event]
