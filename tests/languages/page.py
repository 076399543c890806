"""Renews the tables of docs/languages.md from the code: `python -m tests.languages.page`. A test fails while they are old."""

from __future__ import annotations

from pathlib import Path

from tests.languages.clients import CLIENTS
from tests.languages.matrix import all_expected, table
from tests.languages.traffic import BY_NATURE

PAGE = Path(__file__).parents[2] / "docs" / "languages.md"


def renewed() -> str:
    """The page's text with every part between its marks renewed. Raises ValueError where a mark is missing."""
    text = PAGE.read_text(encoding="utf-8")
    for name, part in (("clients", _clients()), ("matrix", table(all_expected())), ("by nature", _by_nature())):
        before, begin, rest = text.partition(f"<!-- {name}: written by python -m tests.languages.page -->\n")
        _, end, after = rest.partition(f"\n<!-- end of {name} -->")
        if not begin or not end:
            raise ValueError(f"{PAGE} lacks the marks of {name!r}")
        text = f"{before}{begin}{part}{end}{after}"
    return text


def _clients() -> str:
    rows = ["| language | runtime client | version |", "| --- | --- | --- |"]
    for client in CLIENTS:
        package = f"`{client.package}`" if client.version else client.package
        rows.append(f"| {client.title} | {package} | {client.version or '–'} |")
    return "\n".join(rows)


def _by_nature() -> str:
    return "\n".join(f"- {rule.what}" for rule in BY_NATURE)


if __name__ == "__main__":
    PAGE.write_text(renewed(), encoding="utf-8")
