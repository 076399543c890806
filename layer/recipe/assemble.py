"""From the built parts to dist/backstop-layer-<arch>.zip: stage, compile, check, zip."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

from layer.recipe import checks, stdlib
from layer.recipe.compiler import Target
from layer.recipe.steps import LAYER, REPOSITORY, BuildError, say

EXTENSION = REPOSITORY / "extension"
_SKIPPED = ("__pycache__", "tests")


def zip_path(target: Target) -> Path:
    return REPOSITORY / "dist" / f"backstop-layer-{target.layer_arch}.zip"


def assemble(target: Target, programs: Path, host_programs: Path) -> Path:
    """Makes the zip unless it is there and made of just these parts.

    host_programs are for the processor that builds; compiled Python is the same for all.

    Raises:
        BuildError: a check failed; then no zip is left behind.
    """
    zip_file = zip_path(target)
    stamp_file = REPOSITORY / "build" / f"layer-{target.arch}.stamp"
    stamp = f"{_inputs(programs)}\n"
    if zip_file.is_file() and stamp_file.is_file() and stamp_file.read_text() == stamp + _digest(zip_file):
        say(f"{_shown(zip_file)} is up to date")
        return zip_file
    stage = REPOSITORY / "build" / f"layer-{target.arch}.{os.getpid()}"
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    try:
        _stage(stage, programs)
        modules = _modules(programs / "backstop/lib")
        _bundle(stage, modules, host_programs)
        _check_imports(stage, [name for name, *_ in modules], host_programs, runs_here=programs == host_programs)
        partial = zip_file.with_name(f"{zip_file.name}.{os.getpid()}.part")
        partial.parent.mkdir(exist_ok=True)
        try:
            _write_zip(stage, partial)
            problems = checks.problems(checks.load(partial, target.arch))
            if problems:
                raise BuildError("the layer must not be published as it is:\n  " + "\n  ".join(problems))
            partial.replace(zip_file)
        finally:
            partial.unlink(missing_ok=True)
        stamp_file.write_text(stamp + _digest(zip_file))
        unpacked = sum(file.stat().st_size for file in stage.rglob("*") if file.is_file())
        say(
            f"{_shown(zip_file)}: {zip_file.stat().st_size / 1e6:.1f} MB, unpacked {unpacked / 1e6:.1f} MB; all checks passed"
        )
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return zip_file


def _shown(path: Path) -> Path:
    return path.relative_to(REPOSITORY)


def _extension_files() -> list[Path]:
    if not EXTENSION.is_dir():
        return []
    files = [file for file in EXTENSION.rglob("*") if file.suffix in (".py", ".json") and file.is_file()]
    return sorted(file for file in files if not set(file.relative_to(EXTENSION).parts) & set(_SKIPPED))


def _inputs(programs: Path) -> str:
    """A hash of all that goes in. The built parts are in a folder named by their own hash."""
    digest = hashlib.sha256(f"{programs}\0".encode())
    own = [
        *(LAYER / "recipe").glob("*.py"),
        LAYER / "stdlib.txt",
        LAYER / "notices.txt",
        REPOSITORY / "LICENSE",
        REPOSITORY / "NOTICE",
    ]
    for file in sorted(own) + _extension_files():
        if file.is_file():
            digest.update(f"{file.relative_to(REPOSITORY)}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _put(source: Path, target: Path, mode: int = 0o644) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def _stage(stage: Path, programs: Path) -> None:
    _put(programs / "launcher", stage / "extensions/backstop", 0o755)
    _put(programs / "wrapper", stage / "backstop-wrapper", 0o755)
    _put(programs / "backstop/bin/python", stage / "backstop/bin/python", 0o755)
    for file in _extension_files():
        if file.suffix == ".json":
            _put(file, stage / "backstop/extension" / file.relative_to(EXTENSION))
    for file in sorted((programs / "notices").iterdir()):
        _put(file, stage / "backstop/notices" / file.name)
    _put(LAYER / "notices.txt", stage / "backstop/notices/README.txt")
    for name in ("LICENSE", "NOTICE"):
        if (REPOSITORY / name).is_file():
            _put(REPOSITORY / name, stage / "backstop/notices" / f"backstop-{name}.txt")


def _modules(library: Path) -> list[tuple[str, bool, Path, str]]:
    """Every module of the layer: its name, whether it is a package, its source, and its name in tracebacks."""
    files = [(name, file, file.relative_to(library)) for name, file in stdlib.wanted(library).items()]
    for file in _extension_files():
        if file.suffix == ".py":
            shown = file.relative_to(REPOSITORY)
            files.append((".".join(shown.with_suffix("").parts), file, shown))
    ending = ".__init__"
    return [(name.removesuffix(ending), name.endswith(ending), file, str(shown)) for name, file, shown in files]


def _bundle(stage: Path, modules: list[tuple[str, bool, Path, str]], host_programs: Path) -> None:
    target = stage / "backstop/lib/modules.bundle"
    target.parent.mkdir(parents=True, exist_ok=True)
    plan = json.dumps([[name, is_package, str(file), shown] for name, is_package, file, shown in modules])
    command = [host_programs / "backstop/bin/python", LAYER / "recipe/bundle.py", target]
    done = subprocess.run(command, input=plan, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"the layer's interpreter could not compile:\n{done.stderr.strip()}")


def _check_imports(stage: Path, names: list[str], host_programs: Path, runs_here: bool) -> None:
    """Imports, under the staged layer, each module of it and each that the sidecar's files import anywhere."""
    wanted_by = stdlib.imported_by(EXTENSION) if EXTENSION.is_dir() else {}
    python = stage / "backstop/bin/python"
    if not runs_here:  # the other processor's layer, with this processor's interpreter in its place
        python = stage / "backstop/bin/.python-of-this-machine"
        shutil.copy(host_programs / "backstop/bin/python", python)
    program = (
        "import importlib, json, sys\n"
        "failed = {}\n"
        "for name in json.load(sys.stdin):\n"
        "    try:\n"
        "        importlib.import_module(name)\n"
        "    except Exception as error:\n"
        "        failed[name] = f'{type(error).__name__}: {error}'\n"
        "print(json.dumps(failed))\n"
    )
    tried = json.dumps([*names, *wanted_by])
    done = subprocess.run([python, "-c", program], input=tried, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"the layer's interpreter does not run:\n{done.stderr.strip()}")
    if not runs_here:
        python.unlink()
    failed = json.loads(done.stdout.splitlines()[-1])
    if failed:
        lines = [
            f"{name} (imported by {wanted_by.get(name, 'the layer itself')}): {why}" for name, why in failed.items()
        ]
        raise BuildError("the layer lacks what it imports; see layer/stdlib.txt:\n  " + "\n  ".join(lines))


def _write_zip(stage: Path, target: Path) -> None:
    """The same bytes for the same files: sorted, without times."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file in sorted(stage.rglob("*"), key=str):
            if not file.is_file():
                continue
            info = zipfile.ZipInfo(str(file.relative_to(stage)), (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix: the mode is in the upper half of external_attr
            info.external_attr = (0o100000 | (0o755 if os.access(file, os.X_OK) else 0o644)) << 16
            archive.writestr(info, file.read_bytes())
