"""layer/sources.lock: read strictly, written so that it reads back."""

from __future__ import annotations

import re

import pytest

from layer.recipe import lock
from layer.recipe.lock import Compiler, Lock, LockedFile, Source
from layer.recipe.steps import BuildError

A_FILE = LockedFile("zlib_1.dsc", 12, "ab" * 32)
A_LOCK = Lock(
    Compiler("ziglang", "0.17.1", (LockedFile("ziglang-0.17.1-py3-none-any_x86_64.whl", 3, "cd" * 32),)),
    (Source("zlib", "1:1.3.dfsg+really1.3.1-1~x", "debian-security", "pool/updates/main/z/zlib", (A_FILE,)),),
)


def test_a_lock_reads_back_as_it_was_written() -> None:
    assert lock.parse(lock.render(A_LOCK)) == A_LOCK


def test_the_lock_in_the_tree_is_as_update_lock_writes_it() -> None:
    committed = lock.read()
    assert lock.render(committed) == lock.LOCK_FILE.read_text()


def test_the_lock_in_the_tree_has_all_that_a_build_needs() -> None:
    committed = lock.read()
    assert sorted(source.package for source in committed.sources) == ["openssl", "python3.13", "zlib"]
    for source in committed.sources:
        assert source.file(r"\.dsc$").size > 0
        assert source.file(r"\.orig\.tar\.\w+$").size > 0
        assert source.file(r"\.debian\.tar\.\w+$").size > 0
        # The security patches of a point release are in the version: 3.13.5-2+deb13u5, 3.5.7-1~deb13u2.
        assert re.search(r"-\d", source.version)
    assert [name.rsplit("_", 2)[-2:] for name in sorted(file.name for file in committed.compiler.files)] != []
    for machine in ("x86_64", "aarch64"):
        assert any(file.name.endswith(f"_{machine}.whl") for file in committed.compiler.files)


def test_the_lock_names_no_host() -> None:
    text = lock.LOCK_FILE.read_text()
    assert "://" not in text
    assert not re.search(r"\b[a-z0-9-]+\.(org|com|net|io)\b", text)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("format = 1", "format = 2", "format is 2, this recipe reads 1"),
        ("format = 1", "", "'format' is missing"),
        ("format = 1", "format = ", "Invalid value"),
        ("[compiler]", "[other]", "'compiler' is missing"),
        ('version = "0.17.1"', "", "'version' is missing"),
        ('version = "0.17.1"', "version = 17", "version is 17"),
        ('version = "0.17.1"', 'version = "0.17.1 --pre"', "version is '0.17.1 --pre'"),
        ("ab" * 32, "ab" * 31, "the sha256 of zlib_1.dsc is not 64 hex digits"),
        ("ab" * 32, "AB" * 32, "the sha256 of zlib_1.dsc is not 64 hex digits"),
        ("size = 12", "size = -1", "the size of zlib_1.dsc is -1"),
        ("size = 12", 'size = "12"', "the size of zlib_1.dsc is '12'"),
        ('"zlib_1.dsc"', '"../zlib_1.dsc"', "name is '../zlib_1.dsc'"),
        ('"zlib_1.dsc"', '"a/zlib_1.dsc"', "a/zlib_1.dsc is not a plain file name"),
        ('"debian-security"', '"elsewhere"', "archive is 'elsewhere'"),
        ('"pool/updates/main/z/zlib"', '"pool/../../x"', "directory is 'pool/../../x'"),
    ],
)
def test_what_is_wrong_in_a_lock_is_said_with_the_command_that_writes_a_new_one(
    old: str, new: str, complaint: str
) -> None:
    text = lock.render(A_LOCK)
    assert text.count(old) == 1
    with pytest.raises(BuildError) as raised:
        lock.parse(text.replace(old, new))
    assert complaint in str(raised.value)
    assert "layer/update-lock" in str(raised.value)


def test_a_package_named_twice_is_an_error() -> None:
    twice = Lock(A_LOCK.compiler, A_LOCK.sources * 2)
    with pytest.raises(BuildError, match="twice"):
        lock.parse(lock.render(twice))


def test_a_missing_package_is_said() -> None:
    with pytest.raises(BuildError, match="has no source package openssl; run layer/update-lock"):
        A_LOCK.source("openssl")
