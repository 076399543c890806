"""The layer as `./build.sh layer` made it, unpacked as Lambda would unpack it under /opt."""

from __future__ import annotations

import platform
import zipfile
from pathlib import Path

_NAMES = {"x86_64": "x86_64", "aarch64": "arm64"}
DIST = Path(__file__).parents[3] / "dist"


class LayerMissing(RuntimeError):
    """The layer is not built; the message names the command that builds it."""


def layer_zip() -> Path:
    """Path of the built layer for this machine. Raises LayerMissing."""
    path = DIST / f"backstop-layer-{_NAMES.get(platform.machine(), platform.machine())}.zip"
    if not path.is_file():
        raise LayerMissing(f"{path} is not there; build it with `./build.sh layer`")
    return path


def unpack_layer(folder: Path) -> Path:
    """Unpacks the built layer into `folder`, with the file modes that the zip gives, readable for every user."""
    with zipfile.ZipFile(layer_zip()) as archive:
        for member in archive.infolist():
            path = Path(archive.extract(member, folder))
            mode = member.external_attr >> 16 & 0o777
            if mode and path.is_file():
                path.chmod(mode)
    folder.chmod(0o755)
    return folder
