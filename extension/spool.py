"""The write-ahead spool: records on disk until the queue has them, so that neither a kill nor a reset loses one.

One file a record (see `spool_file`) in a folder that outlives the process: /tmp survives an environment's reset.
Where the disk cannot be used, records live in a bounded memory, for this life only.
"""

from __future__ import annotations

import _thread
import os
import stat
import time

from extension import say, spool_file

_MAX_ENTRIES = 10_000  # bounds the index, whatever the size of the records


class _Entry:
    """A record in the spool. `name` and `size` are its file's; `data` is there only for one that lives in memory."""

    __slots__ = ("data", "hidden", "name", "size", "version")

    def __init__(self, name: str | None, size: int, hidden: bool) -> None:
        self.name = name
        self.size = size
        self.hidden = hidden
        self.data: bytes | None = None
        self.version = 0


class Spool:
    """Records by id, oldest first. Nothing here raises for anything that a disk can do; every method is thread-safe.

    The folder is made and read at the first use. Over `max_bytes` on disk, or `memory_bytes` in memory, the oldest
    records are dropped and counted.
    """

    def __init__(self, directory: str, max_bytes: int, memory_bytes: int = 4 << 20) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._memory_bytes = memory_bytes
        self._lock = _thread.allocate_lock()
        self._entries: dict[str, _Entry] = {}
        self._on_disk = 0
        self._in_memory = 0
        self._opened = False
        self._last_stamp = 0
        self._born = time.time()
        self.counters = {"written": 0, "removed": 0, "dropped": 0, "torn": 0, "recovered": 0, "disk_errors": 0}

    def put(self, record_id: str, data: bytes, provisional: bool = False) -> bool:
        """Keep a record; one with the same id is overwritten, in its place, and never made invisible again.

        A provisional one is not in `pending()` until `commit`, but a later life sees it. Returns whether it is on disk.
        """
        with self._lock:
            usable = self._open()
            entry = self._entries.get(record_id)
            if entry is None:
                entry = _Entry(None, 0, provisional)
            entry.hidden = entry.hidden and provisional
            entry.version += 1
            if usable and spool_file.is_file_name(record_id) and self._write(record_id, data, entry):
                return True
            self._keep_in_memory(record_id, data, entry)
            return False

    def commit(self, record_id: str) -> None:
        """Make a provisional record visible. Unknown ids are ignored."""
        with self._lock:
            entry = self._entries.get(record_id)
            if entry is None or not entry.hidden:
                return
            entry.hidden = False
            if entry.name is not None:
                name = entry.name.removesuffix(spool_file.PROVISIONAL) + spool_file.VISIBLE
                try:
                    os.rename(self._path(entry.name), self._path(name))
                    entry.name = name
                except OSError as error:
                    self._disk_failed(error)  # a later life sees it under either name

    def remove(self, record_id: str, version: int | None = None) -> None:
        """Forget a record; with `version`, only if it was not overwritten since `read_version` gave that number."""
        with self._lock:
            self._open()
            entry = self._entries.get(record_id)
            if entry is not None and version in (None, entry.version):
                self._forget(record_id, "removed")

    def pending(self) -> list[str]:
        """Return the ids of all visible records, oldest first."""
        with self._lock:
            self._open()
            return [record_id for record_id, entry in self._entries.items() if not entry.hidden]

    def read(self, record_id: str) -> bytes | None:
        """Return a record's data; None if it is not there, or was torn (it is dropped and counted then)."""
        found = self.read_version(record_id)
        return None if found is None else found[1]

    def read_version(self, record_id: str) -> tuple[int, bytes] | None:
        """Return a record's version and data, as `read` does. The version goes up each time that it is overwritten."""
        with self._lock:
            self._open()
            entry = self._entries.get(record_id)
            if entry is None:
                return None
            data = entry.data if entry.data is not None else self._load(record_id, entry)
            return None if data is None else (entry.version, data)

    def version(self, record_id: str) -> int | None:
        """Return a record's version without reading it; None if it is not there."""
        with self._lock:
            entry = self._entries.get(record_id)
            return None if entry is None else entry.version

    # What follows runs under the lock.

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name}"

    def _disk_failed(self, error: OSError) -> None:
        self.counters["disk_errors"] += 1
        say.warn_once(
            "spool", f"{self._directory}: {error.strerror or error}; what cannot be written is kept in memory only"
        )

    def _open(self) -> bool:
        """Make the folder ours and index what an earlier life left. Returns whether the disk can be used."""
        if self._opened:
            return True
        try:
            spool_file.make_folder(self._directory)
            names = os.listdir(self._directory)
        except OSError as error:
            self._disk_failed(error)
            return False
        self._opened = True
        fresh, self._entries = self._entries, {}
        found = [(*parsed, name) for name in names if (parsed := spool_file.parse_name(name)) is not None]
        for stamp, record_id, _, name in sorted(found):
            self._recover(stamp, record_id, name)
        for record_id, entry in fresh.items():  # kept in memory while the disk could not be used
            older = self._entries.pop(record_id, None)
            if older is not None:
                entry.name, entry.size = older.name, older.size
            self._entries[record_id] = entry
        for name in names:
            if name.endswith(spool_file.TEMPORARY):
                spool_file.clean_temporary(self._path(name), self._born)
        self._make_room(0, None)
        return True

    def _recover(self, stamp: int, record_id: str, name: str) -> None:
        try:
            status = os.lstat(self._path(name))
        except OSError:
            return
        if not stat.S_ISREG(status.st_mode):
            return
        self._last_stamp = max(self._last_stamp, stamp)
        if record_id in self._entries:
            # Killed between writing the final file and unlinking the provisional one, which sorts behind it.
            self._unlink(name)
            return
        self.counters["recovered"] += 1
        self._entries[record_id] = _Entry(name, status.st_size, False)
        self._on_disk += status.st_size

    def _unlink(self, name: str | None) -> None:
        if name is None:
            return
        try:
            os.unlink(self._path(name))
        except FileNotFoundError:
            pass
        except OSError as error:
            self._disk_failed(error)

    def _write(self, record_id: str, data: bytes, entry: _Entry) -> bool:
        size = spool_file.HEADER_BYTES + len(data)
        if size > self._max_bytes:
            return False
        self._make_room(size, record_id)
        parsed = spool_file.parse_name(entry.name) if entry.name is not None else None
        if parsed is None:
            self._last_stamp = max(self._last_stamp + 1, time.time_ns())
        stamp = self._last_stamp if parsed is None else parsed[0]
        name = spool_file.make_name(stamp, record_id, entry.hidden)
        try:
            try:
                spool_file.write(self._directory, name, record_id, data)
            except FileNotFoundError:  # a function that cleans /tmp took the folder away
                spool_file.make_folder(self._directory)
                spool_file.write(self._directory, name, record_id, data)
        except OSError as error:
            self._disk_failed(error)
            return False
        if entry.name != name:
            self._unlink(entry.name)
        self._release(entry)
        entry.name, entry.size = name, size
        self._on_disk += size
        self._entries[record_id] = entry
        self.counters["written"] += 1
        return True

    def _make_room(self, size: int, record_id: str | None) -> None:
        """Drop the oldest records on disk until `size` more bytes fit, not counting what `record_id` holds now."""
        own = self._entries.get(record_id) if record_id is not None else None
        spare = own.size if own is not None else 0
        full = own is None and len(self._entries) >= _MAX_ENTRIES
        while full or self._on_disk - spare + size > self._max_bytes:
            oldest = next((i for i, kept in self._entries.items() if kept.name is not None and i != record_id), None)
            if oldest is None:
                return
            say.warn_once("spool", f"over its bound of {self._max_bytes} bytes; the oldest records are dropped")
            self._forget(oldest, "dropped")
            full = own is None and len(self._entries) >= _MAX_ENTRIES

    def _keep_in_memory(self, record_id: str, data: bytes, entry: _Entry) -> None:
        """Keep the data here; an older version on disk stays, better than nothing for a later life."""
        self._in_memory -= len(entry.data or b"")
        entry.data = None
        if len(data) > self._memory_bytes:
            self.counters["dropped"] += 1
            say.warn_once("spool", f"a record of {len(data)} bytes fits neither the disk nor memory and is lost")
            return
        while self._in_memory + len(data) > self._memory_bytes or len(self._entries) >= 2 * _MAX_ENTRIES:
            oldest = next((i for i, kept in self._entries.items() if kept.data is not None and i != record_id), None)
            if oldest is None:
                break
            say.warn_once("spool", f"over its bound of {self._memory_bytes} bytes in memory; the oldest are dropped")
            self._forget(oldest, "dropped")
        entry.data = data
        self._in_memory += len(data)
        self._entries[record_id] = entry

    def _release(self, entry: _Entry) -> None:
        self._on_disk -= entry.size
        self._in_memory -= len(entry.data or b"")
        entry.size, entry.data = 0, None

    def _forget(self, record_id: str, counter: str) -> None:
        entry = self._entries.pop(record_id)
        self._unlink(entry.name)
        self._release(entry)
        self.counters[counter] += 1

    def _load(self, record_id: str, entry: _Entry) -> bytes | None:
        data = None
        try:
            if entry.name is not None:
                data = spool_file.read(self._path(entry.name), record_id, self._max_bytes)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._disk_failed(error)
            return None
        if data is None:
            self._forget(record_id, "torn")
            say.warn_once("spool", "a record's file was torn or taken away, and is dropped")
        return data
