"""One record as one file: its name, its checksum, how it is written whole or not at all, how it is read without trust.

No fsync: what must be survived is SIGKILL, after which the page cache is still there.
"""

from __future__ import annotations

import errno
import os
import stat

VISIBLE, PROVISIONAL, TEMPORARY = ".rec", ".pro", ".tmp"
HEADER_BYTES = 16  # magic, length of the data (8, big endian), checksum (4)
_MAGIC = b"BSP1"
_STAMP_DIGITS = 16
_LAST_STAMP = (1 << 63) - 1
_HEX = frozenset("0123456789abcdef")
_ID_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
_MAX_ID = 128
_OWN = os.O_NOFOLLOW | os.O_CLOEXEC


def header(record_id: str, data: bytes) -> bytes:
    """Return what stands before a record's data in its file. The checksum covers the id and the data."""
    from binascii import crc32

    checksum = crc32(data, crc32(record_id.encode()))
    return _MAGIC + len(data).to_bytes(8, "big") + checksum.to_bytes(4, "big")


def is_file_name(record_id: str) -> bool:
    """Tell whether an id can be part of a file name: 1 to 128 of `A-Za-z0-9-_.`, not beginning with a dot."""
    return 0 < len(record_id) <= _MAX_ID and record_id[0] != "." and _ID_CHARACTERS.issuperset(record_id)


def make_name(stamp: int, record_id: str, provisional: bool) -> str:
    """Return the name of a record's file: names sort by their stamp, which is a moment in ns since 1970."""
    return f"{stamp:0{_STAMP_DIGITS}x}-{record_id}{PROVISIONAL if provisional else VISIBLE}"


def parse_name(name: str) -> tuple[int, str, bool] | None:
    """Return a file's stamp, its record's id, and whether it is provisional; None for what is not ours."""
    stamp, dash, rest = name.partition("-")
    record_id, suffix = rest[:-4], rest[-4:]
    if not dash or len(stamp) != _STAMP_DIGITS or not _HEX.issuperset(stamp) or not is_file_name(record_id):
        return None
    moment = int(stamp, 16)
    if suffix not in (VISIBLE, PROVISIONAL) or moment >= _LAST_STAMP:
        return None
    return moment, record_id, suffix == PROVISIONAL


def make_folder(directory: str) -> None:
    """Make a folder that only we can read, or check that it is one. Raises OSError."""
    try:
        os.mkdir(directory, 0o700)
    except FileNotFoundError:
        os.makedirs(directory, 0o700)
    except FileExistsError:
        pass
    status = os.lstat(directory)
    if not stat.S_ISDIR(status.st_mode):
        raise OSError(errno.ENOTDIR, "not a folder")
    if status.st_uid != os.geteuid():
        raise OSError(errno.EPERM, "belongs to another user, who could read the payloads")
    if status.st_mode & 0o077:
        os.chmod(directory, 0o700)


def write(directory: str, name: str, record_id: str, data: bytes) -> None:
    """Write a record under a temporary name, then rename it: it is there whole or not at all. Raises OSError."""
    temporary = f"{directory}/{os.urandom(8).hex()}{TEMPORARY}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OWN, 0o600)
    try:
        try:
            for part in (header(record_id, data), data):
                left = memoryview(part)
                while left:
                    left = left[os.write(descriptor, left) :]
        finally:
            os.close(descriptor)
        os.rename(temporary, f"{directory}/{name}")
    except BaseException:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        raise


def read(path: str, record_id: str, max_bytes: int) -> bytes | None:
    """Return a record's data; None if the file is not what was written under this id, or is over `max_bytes`.

    Raises OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | _OWN)
    try:
        status = os.fstat(descriptor)
        length = status.st_size - HEADER_BYTES
        if not stat.S_ISREG(status.st_mode) or not 0 <= length <= max_bytes:
            return None
        head = os.read(descriptor, HEADER_BYTES)
        parts = []
        while length > 0 and (part := os.read(descriptor, length)):
            parts.append(part)
            length -= len(part)
    finally:
        os.close(descriptor)
    data = parts[0] if len(parts) == 1 else b"".join(parts)
    return data if head == header(record_id, data) else None


def clean_temporary(path: str, born: float) -> None:
    """Remove what an earlier life left half-written: temporary files from before `born` (seconds since 1970)."""
    try:
        if os.lstat(path).st_mtime < born:
            os.unlink(path)
    except OSError:
        return
