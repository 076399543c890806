"""Writes the settings' tables in README.md and docs/settings.md from the code, so that they cannot go stale.

`./build.sh update-docs` runs it; tests/test_repository.py fails while a table is out of date.
"""

from __future__ import annotations

from pathlib import Path

from extension.settings import PREFIX, SPECS

ROOT = Path(__file__).resolve().parent.parent
BEGIN = "<!-- settings: written by ./build.sh update-docs -->"
END = "<!-- end of settings -->"
_UNITS = ((1 << 20, "MiB"), (1 << 10, "KiB"))


def _default(kind: str, text: str) -> str:
    """Return a default as a reader wants it: byte counts in MiB, an empty one as a dash."""
    if not text:
        return "–"
    if kind == "bytes":
        for unit, name in _UNITS:
            if int(text) >= unit and int(text) % unit == 0:
                return f"`{text}` ({int(text) // unit} {name})"
    return f"`{text}`"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def short_table() -> str:
    """Return README's table: name, default, meaning."""
    rows = [_row("setting", "default", "meaning"), _row("---", "---", "---")]
    rows += [_row(f"`{PREFIX}{spec.name}`", _default(spec.kind, spec.default), spec.meaning) for spec in SPECS]
    return "\n".join(rows)


def full_table() -> str:
    """Return the table of docs/settings.md: as README's, with what each setting takes."""
    rows = [_row("setting", "takes", "default", "meaning"), _row("---", "---", "---", "---")]
    rows += [
        _row(f"`{PREFIX}{spec.name}`", spec.kind, _default(spec.kind, spec.default), spec.meaning) for spec in SPECS
    ]
    return "\n".join(rows)


PAGES = {ROOT / "README.md": short_table, ROOT / "docs" / "settings.md": full_table}


def renewed(page: Path) -> str:
    """Return the page's text with its table renewed. Raises ValueError where the page lacks the two marks."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page}: put the lines {BEGIN!r} and {END!r} where the table belongs")
    return f"{before}{BEGIN}\n{PAGES[page]()}\n{END}{after}"


def main() -> None:
    for page in PAGES:
        page.write_text(renewed(page), encoding="utf-8")


if __name__ == "__main__":
    main()
