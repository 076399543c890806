"""The finished zip, and that each check of it fails on what it is there for."""

from __future__ import annotations

import dataclasses
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from layer.recipe import checks, elf
from layer.recipe.checks import Archive, Member

PLAIN = stat.S_IFREG | 0o644


@pytest.fixture(scope="module")
def archive(layer_zip: Path) -> Archive:
    return checks.load(layer_zip, "x86_64")


def with_member(archive: Archive, path: str, data: bytes = b"x", mode: int = PLAIN) -> Archive:
    """The archive with one file more, or with that file in the place of the one of the same path."""
    others = tuple(member for member in archive.members if member.path != path)
    return dataclasses.replace(archive, members=(*others, Member(path, mode, data)))


def data_of(archive: Archive, path: str) -> bytes:
    return next(member.data for member in archive.members if member.path == path)


def with_data(archive: Archive, path: str, data: bytes) -> Archive:
    members = tuple(dataclasses.replace(one, data=data) if one.path == path else one for one in archive.members)
    return dataclasses.replace(archive, members=members)


# --- the zip as it is -----------------------------------------------------------------------------------------------------


def test_it_passes_every_check(archive: Archive) -> None:
    assert checks.problems(archive) == []


def test_it_holds_what_the_design_says_and_nothing_else(archive: Archive) -> None:
    assert {member.path.split("/")[0] for member in archive.members} == {"extensions", "backstop-wrapper", "backstop"}
    below = {member.path.split("/")[1] for member in archive.members if member.path.startswith("backstop/")}
    assert below == {"bin", "lib", "extension", "notices"}


def test_it_meets_the_aim_for_its_size(archive: Archive) -> None:
    assert archive.zip_bytes < 7_500_000
    assert sum(len(member.data) for member in archive.members) < 19_000_000


def test_the_licences_of_all_that_is_in_it_are_there(archive: Archive) -> None:
    for name, words in {
        "backstop-LICENSE.txt": b"Apache License",
        "python3.13.txt": b"PYTHON SOFTWARE FOUNDATION LICENSE",
        "openssl.txt": b"Apache License",
        "zlib.txt": b"Jean-loup Gailly",
        "musl.txt": b"Rich Felker",
        "compiler-rt.txt": b"Permission is hereby granted",
        "README.txt": b"OpenSSL",
    }.items():
        assert words in data_of(archive, f"backstop/notices/{name}"), name


def test_no_path_of_the_machine_that_built_it_is_in_it(archive: Archive) -> None:
    for member in archive.members:
        for trace in (b"/root/", b"/home/", b"lambda-backstop/", b"/tmp/bash"):
            assert trace not in member.data, f"{trace!r} in {member.path}"


def test_the_zip_has_no_times_and_is_sorted(layer_zip: Path) -> None:
    with zipfile.ZipFile(layer_zip) as opened:
        infos = opened.infolist()
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
    assert [info.filename for info in infos] == sorted(info.filename for info in infos)


# --- each check on what it is there for -----------------------------------------------------------------------------------


def test_a_zip_that_is_too_big_is_refused(archive: Archive) -> None:
    bigger = dataclasses.replace(archive, zip_bytes=10_000_001)
    assert checks.problems(bigger) == ["the zip has 10,000,001 bytes, at most 10,000,000 are allowed"]


def test_a_layer_that_unpacks_too_big_is_refused(archive: Archive) -> None:
    bigger = with_member(archive, "backstop/lib/big", bytes(25_000_000))
    assert [problem.split(" bytes")[0][:8] for problem in checks.problems(bigger)] == ["unpacked"]


@pytest.mark.parametrize("folder", ["lib", "bin", "python", "nodejs"])
def test_a_file_on_the_functions_own_search_path_is_refused(archive: Archive, folder: str) -> None:
    for path in (f"{folder}/x", f"{folder}/deeper/x", folder):
        assert checks.problems(with_member(archive, path)) == [
            f"{path}: /opt/{folder} is on the function's own search path"
        ]


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "backstop/../../x", "backstop\\x"])
def test_a_file_that_leads_out_of_the_layer_is_refused(archive: Archive, path: str) -> None:
    assert f"{path}: leads out of the layer" in checks.problems(with_member(archive, path))


def test_a_second_extension_is_refused(archive: Archive) -> None:
    assert checks.problems(with_member(archive, "extensions/notes.txt")) == [
        "extensions/notes.txt: Lambda would start it as one more extension"
    ]


def test_a_file_that_is_there_twice_is_refused(archive: Archive) -> None:
    twice = dataclasses.replace(archive, members=(*archive.members, archive.members[0]))
    assert checks.problems(twice) == [f"{archive.members[0].path}: is in the zip twice"]


@pytest.mark.parametrize("path", checks.REQUIRED)
def test_a_part_that_is_missing_is_said(archive: Archive, path: str) -> None:
    rest = tuple(member for member in archive.members if member.path != path)
    assert checks.problems(dataclasses.replace(archive, members=rest)) == [f"{path}: is missing"]


@pytest.mark.parametrize("path", ["backstop/lib/os.py", "backstop/extension/proxy.pyc"])
def test_loose_python_is_refused(archive: Archive, path: str) -> None:
    assert [problem.split(":")[0] for problem in checks.problems(with_member(archive, path))] == [path]


@pytest.mark.parametrize("path", checks.EXECUTABLES)
@pytest.mark.parametrize("mode", [0o644, 0o700, 0o754, 0o777, 0o4755])
def test_a_program_with_another_mode_than_0755_is_refused(archive: Archive, path: str, mode: int) -> None:
    changed = with_member(archive, path, data_of(archive, path), stat.S_IFREG | mode)
    assert checks.problems(changed) == [f"{path}: mode {mode:04o}, should be 0755"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755, 0o666])
def test_a_file_with_another_mode_than_0644_is_refused(archive: Archive, mode: int) -> None:
    changed = with_member(archive, "backstop/lib/x", b"x", stat.S_IFREG | mode)
    assert checks.problems(changed) == [f"backstop/lib/x: mode {mode:04o}, should be 0644"]


def test_a_link_is_refused(archive: Archive) -> None:
    linked = with_member(archive, "backstop/lib/x", b"target", stat.S_IFLNK | 0o777)
    assert checks.problems(linked) == ["backstop/lib/x: not a plain file (mode 120777)"]


# --- what the programs need of the machine --------------------------------------------------------------------------------

PYTHON = "backstop/bin/python"


def test_a_program_that_needs_a_newer_glibc_is_refused(archive: Archive) -> None:
    data = data_of(archive, PYTHON)
    assert data.count(b"\0GLIBC_2.17\0") == 1
    newer = with_data(archive, PYTHON, data.replace(b"\0GLIBC_2.17\0", b"\0GLIBC_2.35\0"))
    problems = checks.problems(newer)
    assert problems
    assert all(problem.startswith(f"{PYTHON}: needs GLIBC_2.35 of lib") for problem in problems)
    limit = with_data(archive, PYTHON, data.replace(b"\0GLIBC_2.17\0", b"\0GLIBC_2.34\0"))
    assert checks.problems(limit) == []


@pytest.mark.parametrize("version", [b"GLIBC_3.00", b"GLIBC_PRIV", b"OPENSSL_3x"])
def test_a_version_that_no_glibc_2_34_has_is_refused(archive: Archive, version: bytes) -> None:
    data = data_of(archive, PYTHON).replace(b"\0GLIBC_2.17\0", b"\0" + version + b"\0")
    assert f"{PYTHON}: needs {version.decode()} of libc.so.6" in " ".join(
        checks.problems(with_data(archive, PYTHON, data))
    )


def test_a_program_that_needs_another_library_is_refused(archive: Archive) -> None:
    data = data_of(archive, PYTHON).replace(b"\0libm.so.6\0", b"\0libz.so.1\0")
    assert f"{PYTHON}: needs libz.so.1" in checks.problems(with_data(archive, PYTHON, data))


def test_a_program_for_another_processor_is_refused(archive: Archive) -> None:
    data = bytearray(data_of(archive, PYTHON))
    struct.pack_into("<H", data, 18, 183)
    assert checks.problems(with_data(archive, PYTHON, bytes(data))) == [f"{PYTHON}: is for aarch64, not for x86_64"]


def test_a_program_that_is_none_is_refused(archive: Archive) -> None:
    assert checks.problems(with_data(archive, PYTHON, b"#!/bin/sh\n")) == [f"{PYTHON}: not an ELF file"]


@pytest.mark.parametrize("length", [4, 16, 63, 64, 200, 4096])
def test_a_program_that_is_cut_is_refused(archive: Archive, length: int) -> None:
    cut = with_data(archive, PYTHON, data_of(archive, PYTHON)[:length])
    assert [problem.split(":")[0] for problem in checks.problems(cut)] == [PYTHON]


def test_an_elf_file_anywhere_in_the_layer_is_looked_at(archive: Archive) -> None:
    data = data_of(archive, PYTHON).replace(b"\0GLIBC_2.17\0", b"\0GLIBC_2.38\0")
    assert any(
        problem.startswith("backstop/lib/x: needs GLIBC_2.38")
        for problem in checks.problems(with_member(archive, "backstop/lib/x", data))
    )


# --- the ELF reader -------------------------------------------------------------------------------------------------------


def test_the_interpreter_needs_glibc_alone(archive: Archive) -> None:
    needs = elf.needs(data_of(archive, PYTHON))
    assert needs.interpreter == "/lib64/ld-linux-x86-64.so.2"
    assert "libc.so.6" in needs.libraries
    assert {version for _, version in needs.versions} <= {f"GLIBC_2.{minor}" for minor in range(2, 18)} | {
        "GLIBC_2.2.5",
        "GLIBC_2.3.2",
        "GLIBC_2.3.3",
        "GLIBC_2.3.4",
    }


@pytest.mark.parametrize("path", ["extensions/backstop", "backstop-wrapper"])
def test_launcher_and_wrapper_need_nothing(archive: Archive, path: str) -> None:
    assert elf.needs(data_of(archive, path)) == elf.Needs("x86_64", None, (), ())


def test_a_program_of_this_machine_is_read_as_its_loader_reads_it() -> None:
    """The loader's own view of this process: every library it needs by name is mapped."""
    needs = elf.needs(Path("/proc/self/exe").resolve().read_bytes())
    mapped = {line.split("/")[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line}
    assert "libc.so.6" in needs.libraries
    assert set(needs.libraries) <= mapped
    assert any(library == "libc.so.6" and version.startswith("GLIBC_2.") for library, version in needs.versions)
