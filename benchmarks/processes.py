"""The processes that are measured: the layer's sidecar and interpreter, and the references."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.stand_in import Lambda, Queue

ROOT = Path(__file__).resolve().parent.parent
LAYER = ROOT / "dist" / "backstop-layer-x86_64.zip"
REFERENCES = Path(__file__).resolve().parent / "references"
SYSTEM_ROOTS = Path("/etc/ssl/certs/ca-certificates.crt")  # Debian, Ubuntu
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "AWS_SESSION_TOKEN": "an/example/token//////////",
}


@contextlib.contextmanager
def unpacked_layer() -> Iterator[Path]:
    """Unpack the layer into a temporary folder, as Lambda does into /opt; yields that folder."""
    if not LAYER.exists():
        raise SystemExit(f"{LAYER.name} is missing: run ./build.sh layer first")
    with tempfile.TemporaryDirectory(prefix="backstop-bench-") as folder, zipfile.ZipFile(LAYER) as archive:
        for member in archive.infolist():
            path = Path(archive.extract(member, folder))
            if mode := member.external_attr >> 16:
                path.chmod(mode & 0o7777)
        yield Path(folder)


def function_environment(runtime_api: str, state: Path, queue: Queue | None, **more: str) -> dict[str, str]:
    """Return the environment that Lambda gives to an extension, with Backstop's settings."""
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "AWS_LAMBDA_RUNTIME_API": runtime_api,
        "AWS_LAMBDA_FUNCTION_NAME": "bench",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "BACKSTOP_STATE_DIR": str(state),
        "BACKSTOP_PROXY_PORT": "0",
        "BACKSTOP_TELEMETRY_PORT": "0",
        **CREDENTIALS,
        **more,
    }
    if queue is not None:
        environment["BACKSTOP_QUEUE_URL"] = environment["QUEUE_URL"] = queue.url
        environment["AWS_ENDPOINT_URL_SQS"] = queue.endpoint
    return environment


@contextlib.contextmanager
def spawned(command: list[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process with its output thrown away; it is killed at the end if it still runs."""
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def sidecar(
    layer: Path, platform: Lambda, queue: Queue | None, roots: Path | None = None, **more: str
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Start the layer's sidecar as Lambda does, up to its first `/next`; yields the process and its state folder.

    `roots` is a file of trusted roots to be used in place of the machine's.
    """
    with tempfile.TemporaryDirectory(prefix="backstop-state-") as state:
        environment = function_environment(platform.runtime_api, Path(state), queue, **more)
        command = [str(layer / "extensions" / "backstop")]
        with spawned(trusting(command, roots) if roots else command, environment) as process:
            platform.await_ready()
            yield process, Path(state)


def trusting(command: list[str], roots: Path) -> list[str]:
    """Return a command that runs with `roots` as the machine's trusted roots, in a mount namespace of its own.

    The sidecar takes its roots from fixed places only, so that no variable of the function can choose them.
    """
    script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    user = [] if os.geteuid() == 0 else ["-Ur"]
    return ["unshare", *user, "-m", "sh", "-c", script, "sh", str(roots), str(SYSTEM_ROOTS), *command]


def proxy_address(state: Path) -> tuple[str, int]:
    """Return the address that the sidecar has published for the runtime."""
    host, _, port = (state / "proxy").read_text(encoding="ascii").strip().rpartition(":")
    return host, int(port)


@contextlib.contextmanager
def relay(upstream_port: int) -> Iterator[tuple[str, int]]:
    """Start the plain TCP relay; yields its address."""
    process = subprocess.Popen(
        [sys.executable, str(REFERENCES / "relay.py"), str(upstream_port)],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        yield "127.0.0.1", int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def few_lines_command() -> list[str]:
    """Return the command of the reference extension, on the interpreter of this virtual environment."""
    return [sys.executable, str(REFERENCES / "few_lines.py")]


def bare_command(layer: Path, code: str = "pass") -> list[str]:
    """Return the command that starts the layer's interpreter to do nothing."""
    return [str(layer / "backstop" / "bin" / "python"), "-c", code]


def resident_kib(pid: int) -> int:
    """Return a process's resident memory, in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise OSError(f"process {pid} shows no memory")
