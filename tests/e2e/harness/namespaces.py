"""How this machine lets us make a private mount and process namespace: as root, in a user namespace, or not at all."""

from __future__ import annotations

import functools
import os
import subprocess

# --kill-child: the namespace's first process, and with it all others, ends when unshare does.
_AS_ROOT = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--"]
_AS_USER = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--"]


class NoNamespaces(RuntimeError):
    """This user may not make namespaces on this machine; the message says what would help."""


@functools.cache
def unshare_command() -> list[str]:
    """The words to put before a command so that it runs in namespaces of its own. Raises NoNamespaces."""
    command = _AS_ROOT if os.geteuid() == 0 else _AS_USER
    # A mount is tried as well: some systems let an ordinary user make a user namespace, but then forbid what it is for.
    trial = subprocess.run(
        [*command, "sh", "-c", "mount -t tmpfs tmpfs /tmp"], capture_output=True, text=True, check=False
    )
    if trial.returncode != 0:
        raise NoNamespaces(
            "AWS's emulator needs a private mount namespace, and this machine refuses one to this user "
            f"({trial.stderr.strip()}). Run as root, or allow user namespaces "
            "(Ubuntu 24.04: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0; Docker: --cap-add SYS_ADMIN)."
        )
    return command


def is_root() -> bool:
    """Managed Instances mode starts processes as another user, which only root can."""
    return os.geteuid() == 0
