"""How this machine lets us make a private mount and process namespace: as root, in a user namespace, or not at all."""

from __future__ import annotations

import functools
import subprocess

# --kill-child: the namespace's first process, and with it all others, ends when unshare does.
AS_ROOT = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--"]
AS_USER = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--"]


class NoNamespaces(RuntimeError):
    """This user may not make namespaces on this machine; the message says what would help."""


@functools.cache
def unshare_command() -> list[str]:
    """The words to put before a command so that it runs in namespaces of its own. Raises NoNamespaces."""
    refusal = ""
    for command in (AS_ROOT, AS_USER):
        said = refused(command)
        if said is None:
            return command
        refusal = said
    raise NoNamespaces(
        f"AWS's emulator needs a private mount namespace, and this machine refuses one to this user ({refusal}). "
        "Run as root, or allow user namespaces "
        "(Ubuntu 24.04: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0; Docker: --cap-add SYS_ADMIN)."
    )


def refused(command: list[str]) -> str | None:
    """What the system says to such a command; None where it works.

    A mount is tried as well: some systems let an ordinary user make a user namespace, but then forbid what it is for.
    """
    words = [*command, "sh", "-c", "mount -t tmpfs tmpfs /tmp"]
    trial = subprocess.run(words, capture_output=True, text=True, check=False)
    return None if trial.returncode == 0 else trial.stderr.strip()


def may_change_user() -> bool:
    """Managed Instances mode starts processes as another user: in a user namespace of one user there is none."""
    try:
        return unshare_command() is AS_ROOT
    except NoNamespaces:
        return False
