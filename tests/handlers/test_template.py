"""Given the SAM template, then its table is the one the tests use, and its machines' names are all filled in."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from handlers.redrive.request_model import ReplayRequest
from handlers.redrive.table import definition

HANDLERS = Path(__file__).parents[2] / "handlers"
TEMPLATE = HANDLERS / "redrive" / "template.yaml"


class _Intrinsics(yaml.SafeLoader):
    """Reads CloudFormation's short forms (!Ref, !Sub, …) as {"Ref": …}."""


def _short_form(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> object:
    if isinstance(node, yaml.ScalarNode):
        return {suffix: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {suffix: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {suffix: loader.construct_mapping(node, deep=True)}


_Intrinsics.add_multi_constructor("!", _short_form)


@pytest.fixture(scope="module")
def resources() -> dict[str, Any]:
    loaded = yaml.load(TEMPLATE.read_text(encoding="utf-8"), Loader=_Intrinsics)
    found: dict[str, Any] = loaded["Resources"]
    return found


def test_the_templates_table_is_the_tested_one(resources: dict[str, Any]) -> None:
    declared = resources["Failures"]["Properties"]
    tested = definition("Failures")
    assert declared["KeySchema"] == tested["KeySchema"]
    assert declared["AttributeDefinitions"] == tested["AttributeDefinitions"]
    assert declared["GlobalSecondaryIndexes"] == tested["GlobalSecondaryIndexes"]
    assert declared["TimeToLiveSpecification"] == {"AttributeName": "expiresAt", "Enabled": True}


def test_every_name_in_a_definition_is_filled_in_and_the_other_way_round(resources: dict[str, Any]) -> None:
    machines = [one["Properties"] for one in resources.values() if one["Type"] == "AWS::Serverless::StateMachine"]
    assert machines
    for machine in machines:
        text = (TEMPLATE.parent / machine["DefinitionUri"]).read_text(encoding="utf-8")
        names = set(re.findall(r"\$\{([^}]+)\}", text))
        assert names == set(machine["DefinitionSubstitutions"])
        assert json.loads(text)["QueryLanguage"] == "JSONata"
        assert machine["Type"] == "STANDARD"


def test_what_a_schedule_sends_is_a_request_with_the_guards_on(resources: dict[str, Any]) -> None:
    sent = {
        name: json.loads(re.sub(r"\$\{[^}]+\}", "0" * 16, one["Properties"]["Target"]["Input"]["Sub"]))
        for name, one in resources.items()
        if one["Type"] == "AWS::Scheduler::Schedule"
    }
    assert sent["QueueSchedule"]["automatic"] is True
    request = ReplayRequest.model_validate(sent["GroupSchedule"])
    assert (request.canary, request.force, request.confirmUnknown, request.rerunAmbiguous) == (1, False, False, False)


def test_every_handler_is_there(resources: dict[str, Any]) -> None:
    import importlib

    functions = [one["Properties"] for one in resources.values() if one["Type"] == "AWS::Serverless::Function"]
    for function in functions:
        module, name = function["Handler"].rsplit(".", 1)
        assert callable(getattr(importlib.import_module(module), name))


def test_run_time_dependencies_are_declared_the_same_in_both_places() -> None:
    import tomllib

    project = tomllib.loads((HANDLERS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = set(project["optional-dependencies"]["handlers"])
    assert declared == set((HANDLERS / "requirements.txt").read_text(encoding="utf-8").split())
