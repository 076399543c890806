"""Reads from an ELF file what a machine must have to run it: shared libraries and symbol versions.

Source: System V ABI, chapters "Object Files" and "Dynamic Linking"; Linux Standard Base, "Symbol Versioning".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_DYNAMIC, _INTERP, _LOAD = 2, 3, 1
_NEEDED, _STRTAB, _VERNEED, _VERNEEDNUM = 1, 5, 0x6FFFFFFE, 0x6FFFFFFF
_MACHINES = {62: "x86_64", 183: "aarch64"}


class NotElf(ValueError):
    """The bytes are not a 64-bit little-endian ELF file, or are cut."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What an ELF file asks of the machine. A static one has no interpreter, libraries or versions."""

    machine: str
    interpreter: str | None
    libraries: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]  # (library, version), such as ("libc.so.6", "GLIBC_2.17")


def is_elf(data: bytes) -> bool:
    return data[:4] == b"\x7fELF"


def needs(data: bytes) -> Needs:
    """Raises: NotElf."""
    if not is_elf(data) or data[4:6] != b"\x02\x01":
        raise NotElf("not a 64-bit little-endian ELF file")
    try:
        return _needs(data)
    except (struct.error, IndexError, ValueError) as error:
        raise NotElf(f"broken ELF file: {error}") from error


def _needs(data: bytes) -> Needs:
    machine = struct.unpack_from("<H", data, 18)[0]
    segments = list(_segments(data))
    interpreter = next((_text(data, offset) for kind, offset, *_ in segments if kind == _INTERP), None)
    dynamic = list(_dynamic(data, segments))
    values = dict(dynamic)
    name = _MACHINES.get(machine, f"machine {machine}")
    if _STRTAB not in values:
        return Needs(name, interpreter, (), ())
    strings = _offset(segments, values[_STRTAB])
    libraries = tuple(_text(data, strings + value) for tag, value in dynamic if tag == _NEEDED)
    versions: list[tuple[str, str]] = []
    if _VERNEED in values:
        at = _offset(segments, values[_VERNEED])
        for _ in range(values[_VERNEEDNUM]):
            _, count, file, aux, following = struct.unpack_from("<HHIII", data, at)
            entry = at + aux
            for _ in range(count):
                _, _, _, version, next_entry = struct.unpack_from("<IHHII", data, entry)
                versions.append((_text(data, strings + file), _text(data, strings + version)))
                entry += next_entry
            at += following
    return Needs(name, interpreter, libraries, tuple(versions))


def _segments(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Program headers as (type, file offset, address, size in the file)."""
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    for number in range(count):
        kind, _, offset, address, _, file_size = struct.unpack_from("<IIQQQQ", data, table + number * size)
        yield kind, offset, address, file_size


def _dynamic(data: bytes, segments: list[tuple[int, int, int, int]]) -> Iterator[tuple[int, int]]:
    for kind, offset, _, size in segments:
        if kind == _DYNAMIC:
            for at in range(offset, offset + size, 16):
                tag, value = struct.unpack_from("<qQ", data, at)
                if tag == 0:
                    return
                yield tag, value


def _offset(segments: list[tuple[int, int, int, int]], address: int) -> int:
    for kind, offset, start, size in segments:
        if kind == _LOAD and start <= address < start + size:
            return offset + address - start
    raise ValueError(f"no segment holds the address {address:#x}")


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode("ascii")
