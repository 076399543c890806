"""backstop/bin/python: isolated from the function, complete for the sidecar, and never the function's end."""

from __future__ import annotations

import hmac
import json
import shutil
import signal
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from layer.recipe import bundle
from tests.layer.servers import PATIENCE_S, ExtensionsApi


def python(layer: Path, *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> Any:
    """Runs the layer's interpreter with arguments; it must succeed and print one JSON value."""
    command: list[str | bytes | Path] = [layer / "backstop/bin/python", *arguments]
    done = subprocess.run(
        command, env=env or {}, cwd=cwd, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def evaluated(layer: Path, expression: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> Any:
    return python(layer, "-c", f"import json, os, sys; print(json.dumps({expression}))", env=env, cwd=cwd)


# --- isolation ------------------------------------------------------------------------------------------------------------


def test_the_functions_own_python_settings_have_no_power(layer: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('sitecustomize ran')")
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    (tmp_path / "startup.py").write_text("raise SystemExit('startup ran')")
    nonsense = {
        "PYTHONPATH": str(tmp_path),
        "PYTHONHOME": "/nowhere",
        "PYTHONSTARTUP": str(tmp_path / "startup.py"),
        "PYTHONINSPECT": "1",
        "PYTHONVERBOSE": "1",
        "PYTHONMALLOC": "debug",
        "PYTHONIOENCODING": "utf-16",
        "PYTHONUTF8": "0",
        "PYTHONOPTIMIZE": "0",
        "PYTHONHASHSEED": "nonsense",
        "PYTHONPLATLIBDIR": "elsewhere",
        "PYTHONUSERBASE": str(tmp_path),
        "PYTHONDEVMODE": "1",
        "HOME": str(tmp_path),
    }
    plain = evaluated(layer, "[sys.path, sys.prefix, sys.flags, sys.stdout.encoding]")
    assert evaluated(layer, "[sys.path, sys.prefix, sys.flags, sys.stdout.encoding]", nonsense, tmp_path) == plain


def test_the_search_path_is_the_layers_own_and_nothing_else(layer: Path) -> None:
    assert evaluated(layer, "sys.path") == [f"{layer}/backstop/lib", f"{layer}/backstop"]
    assert evaluated(layer, "[sys.prefix, sys.exec_prefix, sys.executable]") == [
        f"{layer}/backstop",
        f"{layer}/backstop",
        f"{layer}/backstop/bin/python",
    ]


def test_there_is_no_site_and_no_user_folder(layer: Path) -> None:
    flags = evaluated(
        layer,
        "{name: getattr(sys.flags, name) for name in dir(sys.flags) if name[0] != '_' and not callable(getattr(sys.flags, name))}",
    )
    assert (flags["no_site"], flags["no_user_site"], flags["isolated"], flags["ignore_environment"]) == (1, 1, 1, 1)
    assert evaluated(layer, "'site' in sys.modules") is False


@pytest.mark.parametrize("locale", ["C", "POSIX", "en_US.ISO-8859-1", "no_such_LOCALE"])
def test_text_is_utf_8_whatever_the_locale(layer: Path, locale: str) -> None:
    assert evaluated(
        layer, "['ü€', sys.getfilesystemencoding(), sys.stdout.encoding]", {"LANG": locale, "LC_ALL": locale}
    ) == [
        "ü€",
        "utf-8",
        "utf-8",
    ]


def test_openssl_reads_no_configuration_of_the_functions(layer: Path, tmp_path: Path) -> None:
    config = tmp_path / "openssl.cnf"
    config.write_text("openssl_conf = broken\n[broken]\nproviders = missing\n")
    program = "__import__('ssl').create_default_context().minimum_version.name"
    assert evaluated(layer, program, {"OPENSSL_CONF": str(config)}) == "TLSv1_2"


def test_a_broken_pipe_is_an_error_and_not_the_end(layer: Path) -> None:
    program = (
        "import os\nread, write = os.pipe()\nos.close(read)\n"
        "try:\n    os.write(write, b'x')\nexcept BrokenPipeError:\n    print('true')\n"
    )
    assert python(layer, "-c", program) is True


def test_it_behaves_like_python_with_arguments(layer: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import json, sys\nprint(json.dumps(sys.argv))\nsys.exit(0)\n")
    assert python(layer, str(script), "a", "") == [str(script), "a", ""]
    done = subprocess.run([layer / "backstop/bin/python", "-c", "raise SystemExit(7)"], check=False, timeout=PATIENCE_S)
    assert done.returncode == 7


# --- what is in it --------------------------------------------------------------------------------------------------------


def test_every_built_in_module_can_be_imported(layer: Path) -> None:
    program = (
        "import importlib, json, sys\n"
        "for name in sys.builtin_module_names: importlib.import_module(name)\n"
        "print(json.dumps(sorted(sys.builtin_module_names)))\n"
    )
    names = python(layer, "-c", program)
    assert {
        "_ssl",
        "_hashlib",
        "_socket",
        "_json",
        "_datetime",
        "select",
        "zlib",
        "unicodedata",
        "_random",
        "binascii",
    } <= set(names)


def test_every_module_of_the_bundle_can_be_imported(layer: Path) -> None:
    names = [name for name, _, _ in unpacked((layer / "backstop/lib/modules.bundle").read_bytes())]
    assert {"extension.__main__", "encodings.utf_8", "ssl"} <= set(names)
    program = f"import importlib, json\nprint(json.dumps([n for n in {names!r} if not importlib.import_module(n)]))"
    assert python(layer, "-c", program) == []


def test_tls_hashes_compression_and_names_work(layer: Path) -> None:
    assert evaluated(layer, "__import__('hashlib').sha256(b'abc').hexdigest()[:8]") == "ba7816bf"
    expected = hmac.new(b"key", b"message", "sha256").hexdigest()
    assert evaluated(layer, "__import__('hmac').new(b'key', b'message', 'sha256').hexdigest()") == expected
    assert evaluated(layer, "len(__import__('gzip').decompress(__import__('gzip').compress(b'x' * 1000)))") == 1000
    assert evaluated(layer, "__import__('ssl').OPENSSL_VERSION").startswith("OpenSSL 3.5.")
    assert evaluated(layer, "__import__('ssl').get_default_verify_paths().openssl_cafile") == "/etc/pki/tls/cert.pem"
    assert ["127.0.0.1", 80] in [
        entry[4] for entry in evaluated(layer, "__import__('_socket').getaddrinfo('localhost', 80)")
    ]


def test_what_the_sidecar_watches_processes_and_sockets_with_is_there(layer: Path) -> None:
    names = ["pidfd_open", "splice", "sendfile", "eventfd", "fork", "posix_spawn", "getrandom"]
    assert evaluated(layer, f"[name for name in {names!r} if not hasattr(os, name)]") == []


def test_the_garbage_collector_is_on_once_python_has_started(layer: Path) -> None:
    assert evaluated(layer, "__import__('gc').isenabled()") is True


# --- when it fails --------------------------------------------------------------------------------------------------------


def unpacked(data: bytes) -> list[bundle.Module]:
    """The modules of a bundle."""
    magic, count = bundle.HEADER.unpack_from(data)
    assert magic == bundle.MAGIC
    modules = []
    for number in range(count):
        name, code, size, is_package = bundle.ENTRY.unpack_from(data, bundle.HEADER.size + number * bundle.ENTRY.size)
        modules.append((data[name : data.index(b"\0", name)].decode(), bool(is_package), data[code : code + size]))
    return modules


@pytest.fixture
def changed(layer: Path, tmp_path: Path) -> Path:
    """A copy of the layer that a test may change."""
    return shutil.copytree(layer, tmp_path / "changed")


def put_sidecar(root: Path, source: str) -> None:
    """Replaces the sidecar by another program: a module extension.__main__ with a function main."""
    program = (
        "import marshal, sys; sys.stdout.buffer.write(marshal.dumps(compile(sys.stdin.read(), 'main.py', 'exec')))"
    )
    command: list[str | bytes | Path] = [root / "backstop/bin/python", "-c", program]
    code = subprocess.run(command, input=source.encode(), capture_output=True, check=True, timeout=PATIENCE_S).stdout
    path = root / "backstop/lib/modules.bundle"
    kept = [module for module in unpacked(path.read_bytes()) if module[0] not in ("extension", "extension.__main__")]
    empty = next(code for name, _, code in kept if name == "zipimport")
    path.write_bytes(bundle.packed([*kept, ("extension", True, empty), ("extension.__main__", False, code)]))


def start(root: Path, api: ExtensionsApi, state: Path) -> subprocess.Popen[bytes]:
    env = {"AWS_LAMBDA_RUNTIME_API": api.address, "BACKSTOP_STATE_DIR": str(state)}
    return subprocess.Popen([root / "extensions/backstop"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


REGISTERED = "import os\nos.environ['BACKSTOP_EXTENSION_ID'] = 'given-before'\n"
FALLS = {
    "an exception": ("raise ValueError('a bug')", "the sidecar ended with an exception"),
    "SystemExit": ("raise SystemExit(3)", "the sidecar asked to exit"),
    "SystemExit 0": ("raise SystemExit", "the sidecar asked to exit"),
    "SIGSEGV": ("os.kill(os.getpid(), 11)", "the sidecar was stopped by SIGSEGV"),
    "abort": ("os.abort()", "the sidecar was stopped by SIGABRT"),
    "SIGSEGV in a thread": (
        "import _thread, select; _thread.start_new_thread(os.kill, (os.getpid(), 11)); select.poll().poll()",
        "the sidecar was stopped by SIGSEGV",
    ),
}


@pytest.mark.parametrize("fall", FALLS)
def test_a_sidecar_that_falls_becomes_an_idle_extension_under_the_same_identifier(
    changed: Path, state: Path, fall: str
) -> None:
    statement, why = FALLS[fall]
    put_sidecar(changed, f"{REGISTERED}def main():\n    {statement}\n")
    with ExtensionsApi() as api:
        process = start(changed, api, state)
        first, headers, _ = api.request()
        assert (first, headers["lambda-extension-identifier"]) == (
            "GET /2020-01-01/extension/event/next",
            "given-before",
        )
        status = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
        assert status["Threads"].strip() == "1"
        assert int(status["SigBlk"], 16) == 0  # else SIGTERM or a second fault could not end it
        api.answer_event("SHUTDOWN")
        out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert json.loads(out.splitlines()[-1]) == {"backstop": "warning", "what": "sidecar", "why": why}


def test_a_sidecar_that_cannot_be_imported_becomes_an_idle_extension(changed: Path, state: Path) -> None:
    put_sidecar(changed, "import no_such_module\n")
    with ExtensionsApi() as api:
        process = start(changed, api, state)
        assert api.request()[0] == "POST /2020-01-01/extension/register"
        api.answer_registered("i")
        api.request()
        api.answer_event("SHUTDOWN")
        out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert json.loads(out)["why"] == "the sidecar could not be imported"
    assert b"no_such_module" in err


def test_the_end_of_the_sidecar_ends_the_process_even_if_threads_still_run(changed: Path, state: Path) -> None:
    wait = "import _thread, select; _thread.start_new_thread(select.poll().poll, ()); print('bye', flush=False)"
    put_sidecar(changed, f"def main():\n    {wait}\n")
    with ExtensionsApi() as api:
        process = start(changed, api, state)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (0, b"bye\n", b"")


def test_sigterm_ends_it(changed: Path, state: Path) -> None:
    put_sidecar(changed, "import select\ndef main():\n    print('here', flush=True)\n    select.poll().poll()\n")
    with ExtensionsApi() as api:
        process = start(changed, api, state)
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        process.terminate()
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == -signal.SIGTERM


def broken(data: bytes, how: str) -> bytes:
    first = bundle.HEADER.size
    return {
        "missing": b"",
        "empty": b"",
        "cut in the header": data[:6],
        "cut in the entries": data[: first + 100],
        "cut in the code": data[:-1],
        "another magic": b"X" + data[1:],
        "more entries than there is room for": data[:8] + struct.pack("<I", 0xFFFFFFFF) + data[12:],
        "a name outside": data[:first] + struct.pack("<I", len(data)) + data[first + 4 :],
        "code outside": data[: first + 4] + struct.pack("<II", len(data) - 1, 2) + data[first + 12 :],
        "code far outside": data[: first + 4] + struct.pack("<II", 0xFFFFFFFF, 0xFFFFFFFF) + data[first + 12 :],
    }[how]


@pytest.mark.parametrize(
    "how",
    [
        "missing",
        "empty",
        "cut in the header",
        "cut in the entries",
        "cut in the code",
        "another magic",
        "more entries than there is room for",
        "a name outside",
        "code outside",
        "code far outside",
    ],
)
def test_a_broken_bundle_ends_in_an_idle_extension(changed: Path, state: Path, how: str) -> None:
    path = changed / "backstop/lib/modules.bundle"
    data = path.read_bytes()
    path.unlink()
    if how != "missing":
        path.write_bytes(broken(data, how))
    with ExtensionsApi() as api:
        process = start(changed, api, state)
        assert api.request()[0] == "POST /2020-01-01/extension/register"
        api.answer_registered("i")
        api.request()
        api.answer_event("SHUTDOWN")
        out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert json.loads(out)["why"].startswith("Python cannot start: ")
