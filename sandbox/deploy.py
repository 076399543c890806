"""From what a command line names to a Function: layers unpacked, a runtime chosen, a Backstop layer attached."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

RUNTIMES = Path(__file__).parent / "runtimes"
WRAPPER = "/opt/backstop-wrapper"
_HANDLERS = {
    "python": (("index.py", "index.handler"), ("lambda_function.py", "lambda_function.lambda_handler")),
    "node": (("index.mjs", "index.handler"), ("index.cjs", "index.handler"), ("index.js", "index.handler")),
    "bash": (("handler.sh", "handler.handler"), ("function.sh", "function.handler")),
}


class CannotDeploy(ValueError):
    """What was named does not make a function; the message says what to do."""


def unpack_layers(layers: Iterable[Path], opt: Path) -> None:
    """Unpack each zip, or copy each folder, into `opt`, in order, as Lambda does; later ones replace files of earlier ones."""
    opt.mkdir(parents=True, exist_ok=True)
    opt.chmod(0o755)
    for layer in layers:
        if not zipfile.is_zipfile(layer):
            raise CannotDeploy(f"{layer} is not a zip file")
        with zipfile.ZipFile(layer) as archive:
            for member in archive.infolist():
                path = Path(archive.extract(member, opt))
                mode = member.external_attr >> 16 & 0o777
                if mode and path.is_file():
                    path.chmod(mode)


def runtime_folder(runtime: str) -> Path | None:
    """The folder that becomes /var/runtime; None for `provided`, where the function or a layer has the bootstrap."""
    if runtime == "provided":
        return None
    folder = RUNTIMES / runtime
    if not folder.is_dir():
        known = ", ".join(sorted([*(path.name for path in RUNTIMES.iterdir()), "provided"]))
        raise CannotDeploy(f"no runtime {runtime!r}; there are {known}")
    return folder


def guess_handler(runtime: str, task: Path) -> str:
    """The handler's usual name for the files that are there."""
    for file, handler in _HANDLERS.get(runtime, ()):
        if (task / file).is_file():
            return handler
    if runtime == "provided":
        return "handler"
    expected = " or ".join(file for file, _ in _HANDLERS[runtime])
    raise CannotDeploy(f"{task} has no {expected}; name the handler with --handler")


def attach(opt: Path, environment: Mapping[str, str], queue_url: str, endpoint: str) -> dict[str, str]:
    """The variables that attach a Backstop layer, where one is in `opt`; those that are given already stay as they are."""
    if not (opt / Path(WRAPPER).name).is_file():
        return dict(environment)
    return {
        "AWS_LAMBDA_EXEC_WRAPPER": WRAPPER,
        "BACKSTOP_QUEUE_URL": queue_url,
        "AWS_ENDPOINT_URL_SQS": endpoint,
        # Free ports: on AWS each environment has a network of its own.
        "BACKSTOP_PROXY_PORT": "0",
        "BACKSTOP_TELEMETRY_PORT": "0",
        **environment,
    }
