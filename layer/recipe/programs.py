"""The layer's three programs, compiled and linked: launcher and wrapper, and the interpreter around CPython's archives.

Launcher and wrapper are static against musl, so that they run in any image, even an empty one. The interpreter stays dynamic:
a static glibc has no name service.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from layer.recipe import compiler
from layer.recipe.compiler import Target
from layer.recipe.lock import LOCK_FILE, Lock
from layer.recipe.steps import LAYER, cache_folder, run, say

SMALL_PROGRAMS = {
    "launcher": ("launcher.c", "idle.c", "common.c"),
    "wrapper": ("wrapper.c", "common.c"),
}
ARCHIVES = ("libpython3.13.a", "libHacl_Hash_SHA2.a", "libssl.a", "libcrypto.a", "libz.a")
_STRICT = ["-std=c11", "-g0", "-fno-sanitize=undefined", "-Wall", "-Wextra", "-Werror"]
_SMALL = ["-static", "-Os", "-s", "-Wpedantic", "-Wshadow", "-Wconversion"]
# No extension module is ever loaded, so what nothing in the interpreter refers to can go.
_LINK = ["-Wl,--gc-sections", "-Wl,-s", "-Wl,--hash-style=gnu", "-ldl", "-lm", "-lutil", "-lpthread"]


def cached(target: Target, interpreter: Path) -> Path:
    """The folder in the cache with the programs as they are now in the tree, for a CPython built as `interpreter`."""
    digest = hashlib.sha256(LOCK_FILE.read_bytes() + str(interpreter).encode())
    for file in (*sorted(LAYER.glob("*.[ch]")), Path(__file__), Path(compiler.__file__)):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return cache_folder() / "programs" / digest.hexdigest()[:16] / target.arch


def build(lock: Lock, target: Target, interpreter: Path) -> Path:
    """Makes launcher, wrapper, notices/ and backstop/bin/python unless the cache has them; returns their folder.

    backstop/lib leads to the whole standard library as source, so that this interpreter runs where it is: the recipe compiles
    the layer's Python with it.

    Raises:
        BuildError: something does not compile.
    """
    folder = cached(target, interpreter)
    if folder.is_dir():
        return folder
    say(f"compiling launcher, wrapper and interpreter for {target.arch}")
    zig = compiler.fetch(lock.compiler)
    working = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    shutil.rmtree(working, ignore_errors=True)
    result = working / "result"
    result.mkdir(parents=True)
    log, environment = working / "build.log", compiler.environment(working)
    try:
        for program, files in SMALL_PROGRAMS.items():
            command: list[str | Path] = [zig, "cc", "-target", target.musl, *_STRICT, *_SMALL]
            run([*command, "-o", result / program, *files], LAYER, log, environment)
        home = result / "backstop"
        (home / "bin").mkdir(parents=True)
        (home / "lib").symlink_to(interpreter / "lib")
        archives = [interpreter / "archives" / name for name in ARCHIVES]
        include = interpreter / "include"
        command = [
            zig,
            "cc",
            "-target",
            target.gnu,
            *_STRICT,
            "-O2",
            "-DNDEBUG",
            f"-I{include}",
            f"-I{include}/internal",
        ]
        run([*command, "-o", home / "bin/python", "interpreter.c", *archives, *_LINK], LAYER, log, environment)
        notices = result / "notices"
        shutil.copytree(interpreter / "notices", notices)
        for name, file in (("musl", "lib/libc/musl/COPYRIGHT"), ("compiler-rt", "LICENSE")):
            shutil.copy(zig.parent / file, notices / f"{name}.txt")
        if not folder.exists():
            result.rename(folder)
    finally:
        shutil.rmtree(working, ignore_errors=True)
    return folder
