"""The two small C programs, launcher and wrapper: static against musl, so that they run in any image, even an empty one."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from layer.recipe import compiler
from layer.recipe.compiler import Target
from layer.recipe.lock import LOCK_FILE, Lock
from layer.recipe.steps import LAYER, cache_folder, run, say

PROGRAMS = {
    "launcher": ("launcher.c", "idle.c", "common.c"),
    "wrapper": ("wrapper.c", "common.c"),
}
_HEADERS = ("idle.h", "common.h")
_FLAGS = "-static -Os -std=c11 -g0 -s -fno-sanitize=undefined -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror"


def cached(target: Target) -> Path:
    """The folder in the cache with launcher and wrapper, as they are now in the tree."""
    names = sorted({name for files in PROGRAMS.values() for name in files} | set(_HEADERS))
    digest = hashlib.sha256(LOCK_FILE.read_bytes())
    for file in (*(LAYER / name for name in names), Path(__file__), Path(compiler.__file__)):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return cache_folder() / "programs" / digest.hexdigest()[:16] / target.arch


def build(lock: Lock, target: Target) -> Path:
    """Compiles both unless the cache has them; returns their folder. Raises: BuildError."""
    folder = cached(target)
    if folder.is_dir():
        return folder
    say("compiling launcher and wrapper")
    zig = compiler.fetch(lock.compiler)
    working = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    shutil.rmtree(working, ignore_errors=True)
    (working / "result").mkdir(parents=True)
    try:
        for program, files in PROGRAMS.items():
            command = [zig, "cc", "-target", target.musl, *_FLAGS.split(), "-o", working / "result" / program, *files]
            run(command, LAYER, working / "build.log", compiler.environment(working))
        notices = working / "result" / "notices"
        notices.mkdir()
        for name, file in (("musl", "lib/libc/musl/COPYRIGHT"), ("compiler-rt", "LICENSE")):
            shutil.copy(zig.parent / file, notices / f"{name}.txt")
        if not folder.exists():
            (working / "result").rename(folder)
    finally:
        shutil.rmtree(working, ignore_errors=True)
    return folder
