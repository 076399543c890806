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


def assemble(target: Target, interpreter: Path, host_interpreter: Path, programs: Path) -> Path:
    """Makes the zip unless it is there and made of just these parts.

    host_interpreter is the one that runs here; compiled Python is the same for all processors.

    Raises:
        BuildError: a check failed; then no zip is left behind.
    """
    zip_file = zip_path(target)
    stamp_file = REPOSITORY / "build" / f"layer-{target.arch}.stamp"
    stamp = f"{_inputs(interpreter, programs)}\n"
    if zip_file.is_file() and stamp_file.is_file() and stamp_file.read_text() == stamp + _digest(zip_file):
        say(f"{_shown(zip_file)} is up to date")
        return zip_file
    stage = REPOSITORY / "build" / f"layer-{target.arch}.{os.getpid()}"
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    try:
        _stage(stage, interpreter, programs)
        _compile(stage, interpreter, host_interpreter)
        _check_imports(stage, host_interpreter, runs_here=interpreter == host_interpreter)
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


def _inputs(interpreter: Path, programs: Path) -> str:
    """A hash of all that goes in. The built parts are named by their own hashes."""
    digest = hashlib.sha256(f"{interpreter}\0{programs}\0".encode())
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


def _stage(stage: Path, interpreter: Path, programs: Path) -> None:
    _put(programs / "launcher", stage / "extensions/backstop", 0o755)
    _put(programs / "wrapper", stage / "backstop-wrapper", 0o755)
    _put(interpreter / "backstop/bin/python", stage / "backstop/bin/python", 0o755)
    for file in _extension_files():
        if file.suffix == ".json":
            _put(file, stage / "backstop/extension" / file.relative_to(EXTENSION))
    for file in sorted((interpreter / "notices").iterdir()) + sorted((programs / "notices").iterdir()):
        _put(file, stage / "backstop/notices" / file.name)
    _put(LAYER / "notices.txt", stage / "backstop/notices/README.txt")
    for name in ("LICENSE", "NOTICE"):
        if (REPOSITORY / name).is_file():
            _put(REPOSITORY / name, stage / "backstop/notices" / f"backstop-{name}.txt")


def _compile(stage: Path, interpreter: Path, host_interpreter: Path) -> None:
    library = interpreter / "backstop/lib"
    jobs = [(file, f"lib/{name}.pyc", f"{name}.py") for name, file in stdlib.wanted(library).items()]
    for file in _extension_files():
        if file.suffix == ".py":
            name = file.relative_to(EXTENSION).with_suffix("")
            jobs.append((file, f"extension/{name}.pyc", f"extension/{name}.py"))
    plan = json.dumps([[str(source), str(stage / "backstop" / target), shown] for source, target, shown in jobs])
    python = host_interpreter / "backstop/bin/python"
    done = subprocess.run([python, LAYER / "recipe/compile.py"], input=plan, text=True, capture_output=True)
    if done.returncode != 0:
        raise BuildError(f"the layer's interpreter could not compile:\n{done.stderr.strip()}")


def _check_imports(stage: Path, host_interpreter: Path, runs_here: bool) -> None:
    """Imports, under the staged layer, each module of it and each that the sidecar's files import anywhere."""
    outside = stdlib.imported_by(EXTENSION) if EXTENSION.is_dir() else {}
    inside = [
        str(file.relative_to(stage / "backstop/lib").with_suffix("")).replace("/", ".").removesuffix(".__init__")
        for file in sorted((stage / "backstop/lib").rglob("*.pyc"))
    ]
    python = stage / "backstop/bin/python"
    if not runs_here:  # the other processor's layer, with this processor's interpreter in its place
        python = stage / "backstop/bin/.python-of-this-machine"
        shutil.copy(host_interpreter / "backstop/bin/python", python)
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
    names = json.dumps([*inside, *outside])
    done = subprocess.run([python, "-c", program], input=names, text=True, capture_output=True)
    if done.returncode != 0:
        raise BuildError(f"the layer's interpreter does not run:\n{done.stderr.strip()}")
    if not runs_here:
        python.unlink()
    failed = json.loads(done.stdout)
    if failed:
        lines = [f"{name} (imported by {outside.get(name, 'the list itself')}): {why}" for name, why in failed.items()]
        raise BuildError("layer/stdlib.txt lacks what is imported:\n  " + "\n  ".join(lines))


def _write_zip(stage: Path, target: Path) -> None:
    """The same bytes for the same files: sorted, without times."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file in sorted(stage.rglob("*")):
            if not file.is_file():
                continue
            info = zipfile.ZipInfo(str(file.relative_to(stage)), (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix: the mode is in the upper half of external_attr
            info.external_attr = (0o100000 | (0o755 if os.access(file, os.X_OK) else 0o644)) << 16
            archive.writestr(info, file.read_bytes())
