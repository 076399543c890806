"""`layer/build [ARCH]`: makes dist/backstop-layer-ARCH.zip and checks it. Everything already made is used again."""

from __future__ import annotations

import argparse
import fcntl
import sys
from pathlib import Path

from layer.recipe import assemble, compiler, interpreter, lock, programs, tools
from layer.recipe.steps import BuildError, cache_folder, say


def build(arch: str) -> Path:
    """Returns the finished zip. Raises: BuildError."""
    locked = lock.read()
    target = compiler.TARGETS[arch]
    host = compiler.TARGETS.get(compiler.host_arch())
    if host is None:
        raise BuildError(
            f"a {compiler.host_arch()} machine cannot build the layer yet; use one of {', '.join(compiler.TARGETS)}"
        )
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "layer.lock").open("w") as guard:
        # A second build at the same time waits, and then finds all made.
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not (interpreter.cached(target).is_dir() and interpreter.cached(host).is_dir()):
            tools.install(tools.missing(tools.BUILD_TOOLS), "building the interpreter")
            compiler.ensure_pip()
        host_programs = programs.build(locked, host, interpreter.build(locked, host))
        target_programs = programs.build(locked, target, interpreter.build(locked, target))
        return assemble.assemble(target, target_programs, host_programs)


def main() -> int:
    parser = argparse.ArgumentParser(prog="layer/build", description="Builds the Lambda layer into dist/.")
    parser.add_argument("arch", nargs="?", default="x86_64", choices=sorted(compiler.TARGETS))
    arguments = parser.parse_args()
    try:
        print(build(arguments.arch))
    except BuildError as error:
        print(f"layer/build: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("interrupted; what was finished is kept")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
