"""zlib, OpenSSL and CPython, built once and kept in the cache under the hash of the lock and of this recipe."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from layer.recipe import compiler, sources
from layer.recipe.compiler import Target
from layer.recipe.debian import Apt, find_mirrors
from layer.recipe.lock import LOCK_FILE, Lock
from layer.recipe.steps import LAYER, BuildError, cache_folder, run, say

# What the result depends on. Everything that changes its bytes has to be in here.
RECIPE_FILES = (
    LOCK_FILE,
    LAYER / "Setup.local",
    LAYER / "recipe/compiler.py",
    LAYER / "recipe/interpreter.py",
    LAYER / "recipe/sources.py",
)

# Left out of OpenSSL, by reason. AWS speaks TLS 1.2 and 1.3 with AES-GCM, ChaCha20 and the NIST curves.
OPENSSL_WITHOUT = {
    "one static library, no files beside it, no configuration of the function's": (
        "shared module dso engine legacy autoload-config tests apps docs ui-console"
    ),
    "old protocols": "ssl3 tls1 tls1_1 dtls quic srp psk comp",
    "old or national ciphers": (
        "idea cast seed camellia aria rc2 rc4 md4 mdc2 rmd160 whirlpool bf sm2 sm3 sm4 gost ocb dsa"
    ),
    "no use for a TLS client": "ts cms ct async fips ml-dsa slh-dsa",
}

# What configure would find out by running programs. It is Linux that the layer runs on, not the machine that builds: under
# `nice`, for one, configure finds a broken nice().
CONFIGURE_ANSWERS = {
    "ac_cv_aligned_required": "no",
    "ac_cv_broken_mbstowcs": "no",
    "ac_cv_broken_nice": "no",
    "ac_cv_broken_poll": "no",
    "ac_cv_broken_sem_getvalue": "no",
    "ac_cv_buggy_getaddrinfo": "no",
    "ac_cv_computed_gotos": "yes",
    "ac_cv_file__dev_ptc": "no",
    "ac_cv_file__dev_ptmx": "yes",
    "ac_cv_have_chflags": "no",
    "ac_cv_have_lchflags": "no",
    "ac_cv_posix_semaphores_enabled": "yes",
    "ac_cv_pthread_is_default": "yes",
    "ac_cv_rshift_extends_sign": "yes",
    "ac_cv_working_openssl_hashlib": "yes",
    "ac_cv_working_openssl_ssl": "yes",
    "ac_cv_working_tzset": "yes",
    "ac_cv_x87_double_rounding": "no",
}

SECTIONS = "-ffunction-sections -fdata-sections"


def cache_key() -> str:
    """16 hex digits that change with the lock and the recipe."""
    digest = hashlib.sha256()
    for file in RECIPE_FILES:
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def cached(target: Target) -> Path:
    """Where CPython for target is, or will be once it is built: a folder with archives/ (all of it as static libraries),
    include/, lib/ (the whole patched standard library, as source) and notices/."""
    return cache_folder() / "interpreter" / cache_key() / target.arch


def build(lock: Lock, target: Target) -> Path:
    """Builds the interpreter unless the cache has it; returns its folder. Raises: BuildError."""
    folder = cached(target)
    if folder.is_dir():
        return folder
    if target.arch != compiler.host_arch():
        raise BuildError(f"building for {target.arch} on a {compiler.host_arch()} machine is not supported yet")
    say(f"building CPython for {target.arch}: minutes, once for each change of layer/sources.lock or of the recipe")
    downloads = cache_folder() / "downloads"
    apt = Apt(find_mirrors())
    for source in lock.sources:
        sources.fetch(apt, source, downloads)
    zig = compiler.fetch(lock.compiler)
    # Built in a folder of its own and renamed at the end: what is in the cache is whole.
    working = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    for left_over in folder.parent.glob("*.part"):  # of a build that was killed: ours is the only one under way
        shutil.rmtree(left_over, ignore_errors=True)
    working.mkdir(parents=True)
    try:
        _Build(lock, target, zig, downloads, working).all(working / "result")
        if not folder.exists():
            (working / "result").rename(folder)
    except BuildError:
        kept = cache_folder() / "failed-build"
        shutil.rmtree(kept, ignore_errors=True)
        working.rename(kept)
        say(f"the build folder was kept as {kept}")
        raise
    finally:
        shutil.rmtree(working, ignore_errors=True)
    return folder


class _Build:
    """One build in one working folder."""

    def __init__(self, lock: Lock, target: Target, zig: Path, downloads: Path, working: Path) -> None:
        self.lock, self.target, self.zig, self.downloads, self.working = lock, target, zig, downloads, working
        self.log = cache_folder() / f"interpreter-{target.arch}.log"
        self.log.unlink(missing_ok=True)
        self.deps = working / "deps"
        self.environment = compiler.write_tools(zig, target, working / "tools", compiler.environment(working))
        self.jobs = f"-j{min(2, os.cpu_count() or 1)}"

    def all(self, result: Path) -> None:
        trees = {
            source.package: sources.unpack(source, self.downloads, self.working / "src", self.log)
            for source in self.lock.sources
        }
        python = trees["python3.13"]
        self._timed("zlib", lambda: self._zlib(trees["zlib"]))
        self._timed("OpenSSL", lambda: self._openssl(trees["openssl"]))
        self._timed("CPython", lambda: self._cpython(python))
        self._collect(trees, result)

    def _timed(self, name: str, work: Callable[[], None]) -> None:
        started = time.monotonic()
        work()
        say(f"{name}: built in {time.monotonic() - started:.0f} s")

    def _zlib(self, tree: Path) -> None:
        environment = {**self.environment, "CFLAGS": f"-O2 {SECTIONS}"}
        run(["./configure", "--static"], tree, self.log, environment)
        run(["make", self.jobs, "libz.a"], tree, self.log, environment)
        for name, folder in (("libz.a", "lib"), ("zlib.h", "include"), ("zconf.h", "include")):
            (self.deps / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(tree / name, self.deps / folder)

    def _openssl(self, tree: Path) -> None:
        # These places end up in the binary. /etc/pki/tls is where Amazon Linux keeps its certificates.
        places = ["--prefix=/opt/backstop", "--libdir=lib", "--openssldir=/etc/pki/tls"]
        without = [f"no-{word}" for words in OPENSSL_WITHOUT.values() for word in words.split()]
        configure = ["perl", "Configure", self.target.openssl, *places, *without, "-O2", *SECTIONS.split()]
        run(configure, tree, self.log, self.environment)
        run(["make", self.jobs, "build_libs"], tree, self.log, self.environment)
        run(["make", "install_dev", f"DESTDIR={self.working / 'openssl'}"], tree, self.log, self.environment)
        shutil.copytree(self.working / "openssl/opt/backstop", self.deps, dirs_exist_ok=True)

    def _cpython(self, tree: Path) -> None:
        environment = {
            **self.environment,
            **CONFIGURE_ANSWERS,
            "MODULE_BUILDTYPE": "static",
            "PKG_CONFIG": "/bin/false",
            "ZLIB_CFLAGS": f"-I{self.deps}/include",
            "ZLIB_LIBS": f"{self.deps}/lib/libz.a",
        }
        configure = [
            "./configure",
            "--prefix=/opt/backstop",
            "--disable-test-modules",
            "--disable-shared",
            "--without-ensurepip",
            "--without-doc-strings",
            "--without-readline",
            "--without-static-libpython",
            f"--with-openssl={self.deps}",
            "OPT=-DNDEBUG -fwrapv -g0 -O2",
            f"CFLAGS={SECTIONS}",
        ]
        # The time of the build would make every build a different file.
        build_info = tree / "Modules/getbuildinfo.c"
        build_info.write_text('#define DATE "Jan 01 1980"\n#define TIME "00:00:00"\n' + build_info.read_text())
        run(configure, tree, self.log, environment)
        shutil.copy(LAYER / "Setup.local", tree / "Modules")
        # All of CPython but its main(): ours is linked to it in programs.py.
        run(["make", self.jobs, "libpython3.13.a"], tree, self.log, environment)

    def _collect(self, trees: dict[str, Path], result: Path) -> None:
        python = trees["python3.13"]
        archives = result / "archives"
        archives.mkdir(parents=True)
        for folder in (self.deps / "lib", python, python / "Modules/_hacl"):
            for archive in folder.glob("*.a"):
                shutil.copy(archive, archives)
        shutil.copytree(python / "Include", result / "include")
        shutil.copy(python / "pyconfig.h", result / "include")
        unwanted = ("test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "__pycache__")
        shutil.copytree(python / "Lib", result / "lib", ignore=shutil.ignore_patterns(*unwanted))
        notices = result / "notices"
        notices.mkdir()
        for package, name in (("python3.13", "LICENSE"), ("openssl", "LICENSE.txt"), ("zlib", "LICENSE")):
            shutil.copy(trees[package] / name, notices / f"{package}.txt")
        shutil.copy(python / "Doc/license.rst", notices / "python3.13-incorporated.txt")
