"""What the layer's tests share: the built layer, unpacked into a folder that is not /opt."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

LAYER_ZIP = Path(__file__).resolve().parents[2] / "dist" / "backstop-layer-x86_64.zip"


@pytest.fixture(scope="session")
def layer_zip() -> Path:
    if not LAYER_ZIP.is_file():
        pytest.fail("the layer is not built: run ./build.sh layer (./build.sh test does so by itself)", pytrace=False)
    return LAYER_ZIP


@pytest.fixture(scope="session")
def layer(layer_zip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layer's root. Tests only read it; what they change they copy first."""
    root = tmp_path_factory.mktemp("layer")
    with zipfile.ZipFile(layer_zip) as archive:
        for member in archive.infolist():
            Path(archive.extract(member, root)).chmod(member.external_attr >> 16 & 0o777)
    return root


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """An empty STATE_DIR."""
    folder = tmp_path / "state"
    folder.mkdir()
    return folder
