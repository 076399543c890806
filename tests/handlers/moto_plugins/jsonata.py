"""moto's state machines know JSONata's places in the language, but have no evaluator: this gives them jsonata-python.

Seen beside AWS: strings bound to variables are not escaped by moto, which is mended here.
"""

from __future__ import annotations

import json
from typing import Any

import jsonata  # type: ignore[import-untyped]
from moto.stepfunctions.parser.asl.component.common.string import string_expression
from moto.stepfunctions.parser.asl.jsonata import jsonata as moto_jsonata
from moto.stepfunctions.parser.asl.jsonata import validations


def evaluate(expression: str) -> Any:
    """Return the value of an expression as plain JSON. Raises moto's JSONataException."""
    try:
        compiled = jsonata.Jsonata(expression)
        # Step Functions' own additions (Developer Guide, "Transforming data with JSONata"), as far as our definitions use them.
        compiled.register_lambda("parse", json.loads)
        value = compiled.evaluate(None)
        return json.loads(json.dumps(value, default=_plain))
    except Exception as error:
        raise moto_jsonata.JSONataException("States.QueryEvaluationError", str(error)) from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return dict(value)
    if hasattr(value, "__iter__"):
        return list(value)
    raise TypeError(f"no JSON value: {type(value).__name__}")


def _declare(bindings: dict[str, Any]) -> str:
    return "".join(f"{name}:={json.dumps(value, separators=(',', ':'))};" for name, value in bindings.items())


def install() -> None:
    for module in (moto_jsonata, string_expression, validations):
        for name, replacement in (
            ("eval_jsonata_expression", evaluate),
            ("encode_jsonata_variable_declarations", _declare),
        ):
            if hasattr(module, name):
                setattr(module, name, replacement)
