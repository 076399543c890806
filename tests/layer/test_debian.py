"""Where Debian's sources come from, and that nothing but what the lock says is ever used. With real apt programs."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from layer.recipe import debian, tools, update_lock
from layer.recipe.debian import Apt, Mirrors
from layer.recipe.lock import LockedFile, Source
from layer.recipe.steps import BuildError

DEB822 = """\
Types: deb
# a comment: and a colon
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb deb-src
URIs: http://security.example/debian-security/
Suites: bookworm-security
Components: main
  contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
ONE_LINE = """\
# deb http://commented.example/debian bookworm main
deb http://mirror.example/debian/ bookworm main contrib # remark
deb [arch=amd64 signed-by=/k/debian-archive-keyring.gpg] http://security.example/debian-security bookworm-security main
"""
OTHERS = """\
deb https://packages.example/apt bookworm main
deb [signed-by=/etc/apt/keyrings/x.gpg] https://download.example/linux/debian bookworm stable
"""
UBUNTU = """\
Types: deb
URIs: http://archive.example/ubuntu
Suites: noble noble-updates
Components: main universe
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg
"""


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    folder = tmp_path / "apt"
    (folder / "sources.list.d").mkdir(parents=True)
    return folder


# --- the mirror -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [("sources.list.d/debian.sources", DEB822), ("sources.list", ONE_LINE), ("sources.list.d/x.list", ONE_LINE)],
)
def test_the_mirrors_are_the_hosts_own(etc: Path, name: str, text: str) -> None:
    (etc / name).write_text(text)
    (etc / "sources.list.d/others.list").write_text(OTHERS)
    assert debian.find_mirrors(etc, {}) == Mirrors(
        "http://mirror.example/debian", "http://security.example/debian-security"
    )


def test_a_host_that_names_only_the_main_archive_has_the_security_archive_beside_it(etc: Path) -> None:
    (etc / "sources.list").write_text("deb http://mirror.example/debian trixie main\n")
    assert debian.find_mirrors(etc, {}).security == "http://mirror.example/debian-security"


def test_an_entry_that_is_switched_off_is_not_used(etc: Path) -> None:
    (etc / "sources.list.d/debian.sources").write_text(DEB822.replace("Types: deb\n", "Enabled: no\nTypes: deb\n"))
    with pytest.raises(BuildError):
        debian.find_mirrors(etc, {})


@pytest.mark.parametrize("text", ["", UBUNTU, OTHERS])
def test_a_host_without_a_debian_mirror_is_told_what_to_set(etc: Path, text: str) -> None:
    (etc / "sources.list.d/x.sources").write_text(text if text.startswith("Types") else "")
    (etc / "sources.list").write_text("" if text.startswith("Types") else text)
    with pytest.raises(BuildError, match="set BACKSTOP_DEBIAN_MIRROR to the address of one"):
        debian.find_mirrors(etc, {})


def test_the_environment_comes_first(etc: Path) -> None:
    (etc / "sources.list").write_text(ONE_LINE)
    chosen = {
        "BACKSTOP_DEBIAN_MIRROR": "http://chosen.example/d/",
        "BACKSTOP_DEBIAN_SECURITY_MIRROR": "http://chosen.example/s",
    }
    assert debian.find_mirrors(etc, chosen) == Mirrors("http://chosen.example/d", "http://chosen.example/s")
    del chosen["BACKSTOP_DEBIAN_SECURITY_MIRROR"]
    assert debian.find_mirrors(etc, chosen) == Mirrors("http://chosen.example/d", "http://chosen.example/d-security")


def test_a_list_of_mirrors_as_cloud_images_have_it(etc: Path, tmp_path: Path) -> None:
    (tmp_path / "mirrors").write_text("http://first.example/debian/\nhttp://second.example/debian\n")
    line = (
        f"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] mirror+file:{tmp_path}/mirrors trixie main\n"
    )
    (etc / "sources.list").write_text(line)
    assert debian.find_mirrors(etc, {}).debian == "http://first.example/debian"


# --- downloads ------------------------------------------------------------------------------------------------------------


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class named it
        pass


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[Path, Mirrors]]:
    """A mirror's folder, served over HTTP; both archives are in it."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        yield folder, Mirrors(address, address)
        server.shutdown()
        thread.join()


@pytest.fixture
def apt(mirror: tuple[Path, Mirrors], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Apt:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return Apt(mirror[1], tmp_path / "private apt")


def locked(content: bytes, version: str = "1:1.0+x~rc1-1") -> Source:
    file = LockedFile("tool_1.0+x~rc1-1.dsc", len(content), hashlib.sha256(content).hexdigest())
    return Source("tool", version, "debian", "pool/main/t/tool", (file,))


def published(mirror: tuple[Path, Mirrors], source: Source, content: bytes) -> None:
    folder = mirror[0] / source.directory
    folder.mkdir(parents=True, exist_ok=True)
    (folder / source.files[0].name).write_bytes(content)


def test_a_locked_file_is_fetched_once(mirror: tuple[Path, Mirrors], apt: Apt, tmp_path: Path) -> None:
    source = locked(b"content")
    published(mirror, source, b"content")
    path = apt.download(source, source.files[0], tmp_path / "downloads")
    assert path.read_bytes() == b"content"
    (mirror[0] / source.directory / source.files[0].name).unlink()
    assert apt.download(source, source.files[0], tmp_path / "downloads") == path


def test_a_file_that_is_not_what_the_lock_says_is_never_used(
    mirror: tuple[Path, Mirrors], apt: Apt, tmp_path: Path
) -> None:
    source = locked(b"content")
    published(mirror, source, b"another content")
    with pytest.raises(BuildError, match=r"has the SHA-256 [\s\S]*layer/update-lock") as raised:
        apt.download(source, source.files[0], tmp_path / "downloads")
    assert source.files[0].sha256 in str(raised.value)
    assert list((tmp_path / "downloads").iterdir()) == []


def test_a_damaged_download_is_fetched_again(mirror: tuple[Path, Mirrors], apt: Apt, tmp_path: Path) -> None:
    source = locked(b"content")
    published(mirror, source, b"content")
    path = apt.download(source, source.files[0], tmp_path / "downloads")
    path.write_bytes(b"damaged")
    assert apt.download(source, source.files[0], tmp_path / "downloads").read_bytes() == b"content"


def test_a_version_that_the_pool_has_dropped_fails_and_names_the_command(apt: Apt, tmp_path: Path) -> None:
    source = locked(b"content")
    with pytest.raises(BuildError, match="run layer/update-lock") as raised:
        apt.download(source, source.files[0], tmp_path / "downloads")
    assert "tool_1.0+x~rc1-1.dsc of tool 1:1.0+x~rc1-1 could not be fetched" in str(raised.value)
    assert list((tmp_path / "downloads").iterdir()) == []


def test_an_index_that_debian_did_not_sign_is_refused(mirror: tuple[Path, Mirrors], apt: Apt) -> None:
    for suite in ("trixie", "trixie-updates", "trixie-security"):
        folder = mirror[0] / "dists" / suite
        folder.mkdir(parents=True)
        (folder / "InRelease").write_text(f"Origin: Debian\nSuite: {suite}\nCodename: {suite}\nSHA256:\n")
    with pytest.raises(BuildError, match="nothing was locked"):
        apt.refresh(tools.DEBIAN_KEYRING)


def test_a_mirror_that_is_not_there_is_said(apt: Apt) -> None:
    with pytest.raises(BuildError, match="nothing was locked"):
        apt.refresh(tools.DEBIAN_KEYRING)


# --- choosing versions ----------------------------------------------------------------------------------------------------

SHOWSRC = """\
Package: tool
Binary: tool
Version: 1.2-1
Checksums-Sha256:
 {dsc} 5 tool_1.2-1.dsc
 {orig} 6 tool_1.2.orig.tar.xz
 {asc} 7 tool_1.2.orig.tar.xz.asc
Directory: pool/main/t/tool
Package-List:
 tool deb misc optional

Package: tool
Version: 1.10-1~deb13u1
Directory: pool/updates/main/t/tool
Checksums-Sha256:
 {dsc} 5 tool_1.10-1~deb13u1.dsc

Package: other
Version: 9
Directory: pool/main/o/other
Checksums-Sha256:
 {dsc} 5 other_9.dsc
""".format(dsc="a" * 64, orig="b" * 64, asc="c" * 64)


def test_the_index_is_read_per_version_with_archive_and_files() -> None:
    first, second = debian.parse_showsrc(SHOWSRC, "tool")
    assert (first.version, first.archive, first.directory) == ("1.2-1", "debian", "pool/main/t/tool")
    assert first.files == (LockedFile("tool_1.2-1.dsc", 5, "a" * 64), LockedFile("tool_1.2.orig.tar.xz", 6, "b" * 64))
    assert (second.version, second.archive) == ("1.10-1~deb13u1", "debian-security")


def test_versions_are_ordered_as_dpkg_orders_them() -> None:
    versions = ["1.2-1", "1:0.1", "1.10-1~deb13u1", "1.10-1", "1.2-1+deb13u1"]
    ordered = sorted(versions, key=debian.Version)
    assert ordered == ["1.2-1", "1.2-1+deb13u1", "1.10-1~deb13u1", "1.10-1", "1:0.1"]


class _Index(Apt):
    """An apt whose verified index holds what the test says; it downloads for real."""

    listed: tuple[Source, ...] = ()

    def candidates(self, package: str) -> list[Source]:
        return list(self.listed)


def test_the_newest_version_that_can_be_had_is_locked_and_what_was_passed_over_is_said(
    mirror: tuple[Path, Mirrors], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    apt = _Index(mirror[1], tmp_path / "apt")
    old = locked(b"old", "1")
    apt.listed = (locked(b"newest", "3"), locked(b"newer", "2"), old)
    published(mirror, old, b"old")
    assert update_lock.newest(apt, "tool", tmp_path / "downloads") == old
    said = capsys.readouterr().err
    assert "NOT tool 3 (debian)" in said
    assert "NOT tool 2 (debian)" in said


def test_no_version_at_all_is_an_error(mirror: tuple[Path, Mirrors], tmp_path: Path) -> None:
    apt = _Index(mirror[1], tmp_path / "apt")
    apt.listed = (locked(b"gone"),)
    with pytest.raises(BuildError, match="no version of tool"):
        update_lock.newest(apt, "tool", tmp_path / "downloads")
