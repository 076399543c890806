"""What the scenarios share: the unpacked layer, one SQS server, a queue and a folder for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness.layer import unpack_layer
from tests.e2e.harness.sqs import Moto, Queue
from tests.e2e.harness.switch import Switch


@pytest.fixture(scope="session")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built layer, unpacked."""
    return unpack_layer(_open_folder(tmp_path_factory.mktemp("layer")))


@pytest.fixture(scope="session")
def moto() -> Iterator[Moto]:
    """One SQS API for all tests; each has a queue of its own."""
    with Moto() as server:
        yield server


@pytest.fixture
def queue(moto: Moto) -> Queue:
    return moto.queue()


@pytest.fixture
def switch(moto: Moto) -> Iterator[Switch]:
    """A way to the SQS API that the test can close."""
    with Switch(moto.port) as relay:
        yield relay


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where one execution environment keeps its /tmp and its output."""
    return _open_folder(tmp_path)


def _open_folder(path: Path) -> Path:
    # On Managed Instances extensions run as another user; the folders above are pytest's, and closed to others.
    path.chmod(0o755)
    return path
