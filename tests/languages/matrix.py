"""The matrix as a table: from what must be captured (the page in docs/), and from what a test run saw (printed at its end)."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.languages.cells import NOTES, ROWS, Row, expected
from tests.languages.clients import CLIENTS

# (row, language) → the condition that was captured, or None for a success of which nothing was.
Conditions = Mapping[tuple[str, str], str | None]
SEEN = pytest.StashKey[dict[tuple[str, str], str | None]]()


def all_expected() -> Conditions:
    """What the whole matrix must be."""
    return {(row.name, client.language): expected(row, client.language).condition for row in ROWS for client in CLIENTS}


def table(conditions: Conditions) -> str:
    """The matrix in Markdown, a column for each language that `conditions` has, and the notes below it."""
    clients = [client for client in CLIENTS if any(language == client.language for _, language in conditions)]
    head = ["", *(client.title for client in clients)]
    body = [[row.title, *(_text(row, client.language, conditions) for client in clients)] for row in ROWS]
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    lines = [_line(head, widths), "|" + "|".join("-" * (width + 2) for width in widths) + "|"]
    lines += [_line(cells, widths) for cells in body]
    notes = [f"{number}. {text}" for number, text in enumerate(NOTES.values(), 1)]
    return "\n".join([*lines, "", *notes])


def _text(row: Row, language: str, conditions: Conditions) -> str:
    if (row.name, language) not in conditions:
        return "NOT SEEN"
    condition = conditions[row.name, language]
    note = expected(row, language).note
    text = "not captured" if condition is None else condition
    return f"{text} ({list(NOTES).index(note) + 1})" if note else text


def _line(cells: list[str], widths: list[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
