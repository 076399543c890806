"""Watches the runtime's process, so that a crash is known at once and not only at the deadline.

The wrapper leaves the runtime's process id and its pid namespace in STATE_DIR. A pidfd of a process that is not a child tells
only that it ended (its exit status needs Linux 6.15). Where process ids are not shared, nothing is watched here:
telemetry, the runtime's connection and the deadline are what is left.
"""

from __future__ import annotations

import _thread
import os
import select

from extension import say
from extension.flag import Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PID_FILE = "runtime.pid"


class Lifeline:
    """Watches one runtime; `on_exit` is called once, when its process has ended."""

    def __init__(self, state_dir: str, on_exit: Callable[[], None]) -> None:
        self._path = f"{state_dir}/{PID_FILE}"
        self._on_exit = on_exit
        self._lock = _thread.allocate_lock()
        self._pid = 0
        self._told = Flag()
        self.watching = False

    def begin(self) -> None:
        """Read the wrapper's file and start to watch; called when the wrapper asks for the proxy. Never raises."""
        with self._lock:
            if self.watching:
                return
            try:
                descriptor = self._open()
                if descriptor is not None:
                    _thread.start_new_thread(self._watch, (descriptor,))
                    self.watching = True
                return
            except ProcessLookupError:
                pass  # it ended between its wrapper's ping and our look
            except Exception as error:
                say.warn_once("runtime watch", f"the runtime's process cannot be watched: {error}")
                return
        self._tell()

    def settle(self, timeout_s: float) -> None:
        """Where the process has ended, wait until its end has been told: SHUTDOWN can overtake the thread that tells it."""
        if self.watching and not self._told.is_set and _has_ended(self._pid):
            self._told.wait(timeout_s)

    def _open(self) -> int | None:
        with open(self._path, encoding="ascii") as file:
            pid, _, namespace = file.read(256).strip().partition(" ")
        if namespace != os.readlink("/proc/self/ns/pid"):
            return None  # the number means another process here, or none
        self._pid = int(pid)
        return os.pidfd_open(self._pid)

    def _watch(self, descriptor: int) -> None:
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll()
            os.close(descriptor)
        except BaseException as error:
            say.fault("runtime watch", error)
            return
        self._tell()

    def _tell(self) -> None:
        try:
            self._on_exit()
        except BaseException as error:
            say.fault("runtime watch", error)
        finally:
            self._told.set()


def _has_ended(pid: int) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))
    finally:
        os.close(descriptor)
