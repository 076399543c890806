"""Builds the functions of the language tests, each once, into the cache folder: `python -m tests.languages.build [LANGUAGE ...]`.

`./build.sh test --all` does so. The tests themselves use no package registry: where something is not built, they name this command.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.e2e.harness.fetch import cache_dir
from tests.languages import tools
from tests.languages.recipes import RECIPES, BuildFailed
from tests.languages.tools import Tool, ToolMissing

COMMAND = "python -m tests.languages.build"
_CODE = Path(__file__).parent
# What the recipes themselves are, besides the functions' sources.
_RECIPE_FILES = ("recipes.py", "trees.py")


class NotBuilt(RuntimeError):
    """A language's function is not in the cache; the message names the command that builds it."""


def built(language: str) -> Path:
    """The folder of a language's function (see recipes.py). Raises NotBuilt."""
    path = _place(language)
    if not path.is_dir():
        raise NotBuilt(f"the {language} function is not in {path.parent}; build it with `{COMMAND} {language}`")
    return path


def build(language: str) -> bool:
    """Builds a language's function unless that was done. Returns whether there was something to do.

    Raises ToolMissing or BuildFailed.
    """
    recipe = RECIPES[language]
    if _is_built(language):
        return False
    tools.provide(recipe.tools)
    path = _place(language)
    if path.is_dir():  # it only was not known for which tools
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        out, scratch = Path(folder, "out"), Path(folder, "scratch")
        for part in (out / "lang", out / "runtime", out / "task", scratch):
            part.mkdir(parents=True)
        recipe.build(out, scratch)
        _open_to_all(out)
        out.rename(path)
    return True


def _is_built(language: str) -> bool:
    return not any(shutil.which(tool.command) is None for tool in RECIPES[language].tools) and _place(language).is_dir()


def _place(language: str) -> Path:
    """Where a language's function is, or will be: its name changes with its sources, its recipe and its tools."""
    recipe = RECIPES[language]
    digest = hashlib.sha256(f"{platform.machine()}\n{recipe.made_with}\n".encode())
    files = [_CODE / name for name in _RECIPE_FILES]
    for source in recipe.sources:
        files += sorted(path for path in source.rglob("*") if path.is_file())
    for file in files:
        digest.update(f"{file.name}\n".encode() + file.read_bytes())
    for tool in recipe.tools:
        digest.update(_version(tool).encode())
    return cache_dir() / "languages" / f"{language}-{digest.hexdigest()[:16]}"


def _version(tool: Tool) -> str:
    if not tool.at_least:
        return ""
    return tools.version_text(tool) if shutil.which(tool.command) else "missing"


def _open_to_all(folder: Path) -> None:
    # On Managed Instances the emulator runs functions as another user.
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o444))


def main() -> int:
    """Builds what was asked for, one compiler at a time, with progress on standard error. Returns the exit status."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("languages", nargs="*", choices=[[], *RECIPES], metavar="LANGUAGE", help=", ".join(RECIPES))
    wanted: list[str] = parser.parse_args().languages or list(RECIPES)
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:4.0f}s] {text}", file=sys.stderr, flush=True)

    cache_dir().mkdir(parents=True, exist_ok=True)
    failed = False
    with (cache_dir() / "languages.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two commands started at once must not build the same twice
        for language in wanted:
            if not _is_built(language):
                say(f"building the {language} function")
            try:
                done = build(language)
                say(f"the {language} function is {'built' if done else 'there already'}")
            except (ToolMissing, BuildFailed) as error:
                failed = True
                say(f"the {language} function cannot be built: {error}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
