"""The smaller parts of the recipe: lists of modules, patches, caches, what is installed, what is said."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from layer.recipe import bundle, sources, stdlib, steps, tools
from layer.recipe.lock import LockedFile, Source
from layer.recipe.steps import REPOSITORY, BuildError

# --- modules --------------------------------------------------------------------------------------------------------------


def test_imports_are_found_wherever_they_stand_but_not_for_type_checkers() -> None:
    source = (
        "from __future__ import annotations\nimport os, a.b as c\nfrom d.e import f\nfrom . import g\nfrom .h import i\n"
        "TYPE_CHECKING = False\nif TYPE_CHECKING:\n    import typing\nelse:\n    import j\n"
        "def late():\n    try:\n        import k\n    except ImportError:\n        from l import m\n"
    )
    assert set(stdlib.imports(source)) == {"__future__", "os", "a.b", "d.e", "j", "k", "l"}


def test_a_file_that_is_not_python_is_named(tmp_path: Path) -> None:
    package = tmp_path / "extension"
    package.mkdir()
    (package / "bad.py").write_text("x = 1\ndef\n")
    with pytest.raises(BuildError, match=r"extension/bad.py:2: "):
        stdlib.imported_by(package)


def test_each_import_is_named_with_a_file_that_has_it(tmp_path: Path) -> None:
    package = tmp_path / "extension"
    (package / "deeper").mkdir(parents=True)
    (package / "one.py").write_text("import os\nfrom extension import two\n")
    (package / "deeper/two.py").write_text("import ssl\n")
    assert stdlib.imported_by(package) == {"os": "extension/one.py", "ssl": "extension/deeper/two.py"}


def test_the_list_may_name_packages_whole(tmp_path: Path) -> None:
    for name in ("one.py", "pack/__init__.py", "pack/a.py", "pack/b.py", "other.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert sorted(stdlib.wanted(tmp_path, "# a remark\none # why\n\npack.*\n")) == [
        "one",
        "pack.__init__",
        "pack.a",
        "pack.b",
    ]


def test_a_module_that_this_cpython_does_not_have_is_said(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="names gone, which this CPython does not have"):
        stdlib.wanted(tmp_path, "gone\n")


def test_a_bundle_holds_names_flags_and_code_where_its_entries_say() -> None:
    modules = [("a", False, b"CODE-A"), ("päck", True, b""), ("päck.b", False, b"\0\xff")]
    data = bundle.packed(modules)
    magic, count = bundle.HEADER.unpack_from(data)
    assert (magic, count) == (b"BKSTPPY1", 3)
    for number, (name, is_package, code) in enumerate(modules):
        entry = bundle.ENTRY.unpack_from(data, bundle.HEADER.size + number * bundle.ENTRY.size)
        assert data[entry[0] :].split(b"\0", 1)[0].decode() == name
        assert data[entry[1] : entry[1] + entry[2]] == code
        assert bool(entry[3]) is is_package


# --- patches --------------------------------------------------------------------------------------------------------------

PATCH = """\
Description: a fix
--- a/file.txt
+++ b/file.txt
@@ -1,3 +1,3 @@
 one
-two
+TWO
 three
--- /dev/null
+++ b/new/file.txt
@@ -0,0 +1 @@
+new
"""


def tarball(path: Path, files: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    packer = tarfile.TarFile.gzopen if path.suffix == ".gz" else tarfile.TarFile.xzopen
    with packer(str(path), "w") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))


def package(folder: Path, original: str, patches: dict[str, str], series: str) -> Source:
    """A Debian source package in folder, of the form 3.0 (quilt)."""
    tarball(folder / "tool/tool_1.orig.tar.gz", {"tool-1/file.txt": original})
    debian = {f"debian/patches/{name}": text for name, text in patches.items()}
    tarball(folder / "tool/tool_1-1.debian.tar.xz", {**debian, "debian/patches/series": series})
    names = ("tool_1-1.dsc", "tool_1.orig.tar.gz", "tool_1-1.debian.tar.xz")
    return Source("tool", "1-1", "debian", "pool/main/t/tool", tuple(LockedFile(name, 1, "0" * 64) for name in names))


def test_the_whole_series_is_applied_in_order_and_nothing_that_is_commented_out(tmp_path: Path) -> None:
    second = PATCH.split("--- /dev/null")[0].replace("-two", "-TWO").replace("+TWO", "+2")
    patches = {"1.patch": PATCH, "2.patch": second, "off.patch": "nonsense"}
    source = package(tmp_path, "one\ntwo\nthree\n", patches, "# remark\n1.patch -p1\n#off.patch\n\n2.patch # why\n")
    tree = sources.unpack(source, tmp_path, tmp_path / "src", tmp_path / "log")
    assert (tree / "file.txt").read_text() == "one\n2\nthree\n"
    assert (tree / "new/file.txt").read_text() == "new\n"


@pytest.mark.parametrize("original", ["zero\none\nTWO?\nthree\n", "one \ntwo\nthree\n", ""])
def test_a_patch_that_does_not_apply_exactly_fails_the_build(tmp_path: Path, original: str) -> None:
    source = package(tmp_path, original, {"1.patch": PATCH}, "1.patch\n")
    with pytest.raises(BuildError, match=r"tool 1-1: Debian's patch 1\.patch does not apply"):
        sources.unpack(source, tmp_path, tmp_path / "src", tmp_path / "log")


def test_a_package_without_a_patch_series_is_unpacked_as_it_is(tmp_path: Path) -> None:
    source = package(tmp_path, "one\n", {}, "")
    assert (sources.unpack(source, tmp_path, tmp_path / "src", tmp_path / "log") / "file.txt").read_text() == "one\n"


# --- running, caches, tools ------------------------------------------------------------------------------------------------


def test_a_command_that_fails_is_shown_with_the_end_of_its_output(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"sh ended with 3; the end of .*log") as raised:
        steps.run(["sh", "-c", "seq 100; exit 3"], tmp_path, tmp_path / "log")
    assert str(raised.value).endswith("  99\n  100")
    assert "\n  10\n" not in str(raised.value)


def test_a_command_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no-such-command could not be started"):
        steps.run(["no-such-command"], tmp_path, tmp_path / "log")


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"BACKSTOP_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/lambda-backstop"),
        ({"HOME": "/c"}, "/c/.cache/lambda-backstop"),
    ],
)
def test_the_cache_is_outside_the_tree(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str) -> None:
    for name in ("BACKSTOP_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert steps.cache_folder() == Path(folder)


def test_what_is_missing_is_named_by_its_package() -> None:
    needed = {("sh", "-c", "true"): "dash", ("no-such-command",): "some-package", ("sh", "-c", "exit 2"): "perl"}
    assert tools.missing(needed) == ["perl", "some-package"]


def test_who_is_not_root_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(BuildError, match="sudo apt-get install make perl, then run this again"):
        tools.install(["make", "perl"], "building")


def test_an_architecture_that_is_not_known_is_refused() -> None:
    done = subprocess.run(
        [REPOSITORY / "layer/build", "riscv64"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert "invalid choice: 'riscv64'" in done.stderr


def test_a_second_build_is_fast_and_says_so(layer_zip: Path) -> None:
    done = subprocess.run([REPOSITORY / "layer/build"], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.strip() == str(layer_zip)
    assert "is up to date" in done.stderr or "all checks passed" in done.stderr
