"""backstop-wrapper: what AWS_LAMBDA_EXEC_WRAPPER runs. It may help, and must never hinder."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.layer.servers import Ping

REAL_API = "169.254.100.1:9001"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
# The runtime of these tests: says what it was given.
SHOW = (
    "import json, os, sys\n"
    "score = open('/proc/self/oom_score_adj').read().strip()\n"
    "print(json.dumps({'argv': sys.argv[1:], 'api': os.environ['AWS_LAMBDA_RUNTIME_API'], 'pid': os.getpid(),\n"
    "                  'oom': int(score), 'env': len(os.environ)}))\n"
)
RUNTIME = [sys.executable, "-I", "-S", "-c", SHOW]


def environment(state: Path, **more: str) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "AWS_LAMBDA_RUNTIME_API": REAL_API, "BACKSTOP_STATE_DIR": str(state), **more}


def run(layer: Path, command: list[Any], env: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([layer / "backstop-wrapper", *command], env=env, capture_output=True, check=False, timeout=30)


def shown(layer: Path, state: Path, *arguments: str, **more: str) -> dict[str, Any]:
    """Runs the wrapper with the test's runtime, which must succeed and say nothing but what it was given."""
    done = run(layer, [*RUNTIME, *arguments], environment(state, **more))
    assert (done.returncode, done.stderr) == (0, b"")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


# --- the proxy's address ------------------------------------------------------------------------------------------------


def test_a_proxy_that_answers_takes_the_place_of_the_real_api(layer: Path, state: Path) -> None:
    with Ping(NO_CONTENT) as proxy:
        (state / "proxy").write_text(f"{proxy.address}\n")
        assert shown(layer, state)["api"] == proxy.address
        assert proxy.requests == [b"GET /.backstop/ping HTTP/1.1\r\nHost: backstop\r\nConnection: close\r\n\r\n"]


def test_without_an_address_the_runtime_keeps_the_real_api(layer: Path, state: Path) -> None:
    assert shown(layer, state)["api"] == REAL_API


def test_a_dead_port_leaves_the_real_api(layer: Path, state: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    (state / "proxy").write_text(f"127.0.0.1:{port}\n")
    assert shown(layer, state)["api"] == REAL_API


@pytest.mark.parametrize("said", [b"", b"H", b"HTTP/1.1 20"], ids=["nothing", "one byte", "nearly enough"])
def test_a_port_that_accepts_but_does_not_answer_costs_50_ms(layer: Path, state: Path, said: bytes) -> None:
    with Ping(said) as proxy:
        (state / "proxy").write_text(f"{proxy.address}\n")
        assert shown(layer, state)["api"] == REAL_API
        # 50 ms, and what a busy machine adds.
        assert 0.03 < proxy.waited_s.get(timeout=20) < 2.0


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.0 204 No Content\r\n\r\n",
        b"HTTP/1.1 500 No\r\n\r\n",
        b"\0" * 64,
        b"SSH-2.0-x\r\n",
    ],
)
def test_any_other_answer_leaves_the_real_api(layer: Path, state: Path, answer: bytes) -> None:
    with Ping(answer) as proxy:
        (state / "proxy").write_text(f"{proxy.address}\n")
        assert shown(layer, state)["api"] == REAL_API


@pytest.mark.parametrize(
    "written",
    [
        "",
        "\n",
        "127.0.0.1:{port}",  # torn: the line's end is missing
        "127.0.0.1:{port} \n",
        " 127.0.0.1:{port}\n",
        "127.0.0.1:{port}\n\n",
        "localhost:{port}\n",
        "127.0.0.1:0{port}x\n",
        "127.0.0.1:-{port}\n",
        "127.0.0.1:0\n",
        "127.0.0.1:65536\n",
        "127.0.0.1:99999999999999999999\n",
        "127.0.0.1\n",
        "127.0.0:{port}\n",
        "0.0.0.0:{port}\n",  # not this machine's loopback, though it leads there
        "[::1]:{port}\n",
        "x" * 4096 + "\n",
    ],
)
def test_an_address_that_is_not_one_line_of_loopback_and_port_is_not_asked(
    layer: Path, state: Path, written: str
) -> None:
    with Ping(NO_CONTENT) as proxy:
        (state / "proxy").write_text(written.format(port=proxy.port))
        assert shown(layer, state)["api"] == REAL_API
        assert proxy.requests == []


def test_an_address_file_that_is_a_pipe_does_not_hold_the_start(layer: Path, state: Path) -> None:
    os.mkfifo(state / "proxy")
    assert shown(layer, state)["api"] == REAL_API


# --- the runtime's process ----------------------------------------------------------------------------------------------


def test_it_leaves_the_runtimes_pid_and_namespace_before_it_pings(layer: Path, state: Path) -> None:
    seen: list[str] = []
    with Ping(NO_CONTENT, before_answer=lambda: seen.append((state / "runtime.pid").read_text())) as proxy:
        (state / "proxy").write_text(f"{proxy.address}\n")
        pid = shown(layer, state)["pid"]
    assert seen == [f"{pid} {os.readlink('/proc/self/ns/pid')}\n"]


def test_the_pid_is_left_without_a_proxy_too_and_nothing_beside_it(layer: Path, state: Path) -> None:
    pid = shown(layer, state)["pid"]
    assert (state / "runtime.pid").read_text().split()[0] == str(pid)
    assert [file.name for file in state.iterdir()] == ["runtime.pid"]


def test_the_pid_of_an_earlier_life_is_replaced_and_a_link_is_not_followed(
    layer: Path, state: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_text("not ours")
    (state / "runtime.pid").symlink_to(other)
    pid = shown(layer, state)["pid"]
    assert other.read_text() == "not ours"
    assert (state / "runtime.pid").read_text().startswith(f"{pid} ")


def test_the_sidecar_can_read_the_pid_whatever_the_umask(layer: Path, state: Path) -> None:
    command: list[str | bytes | Path] = [layer / "backstop-wrapper", "/bin/true"]
    subprocess.run(command, env=environment(state), umask=0o777, check=True, timeout=30)
    assert stat.S_IMODE((state / "runtime.pid").stat().st_mode) == 0o644


@pytest.mark.parametrize("folder", ["missing", "file"])
def test_a_state_folder_that_cannot_be_used_is_passed_over(layer: Path, tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("")
    assert shown(layer, tmp_path / folder)["api"] == REAL_API


def test_the_runtime_is_the_first_to_go_when_memory_runs_out(layer: Path, state: Path) -> None:
    assert shown(layer, state)["oom"] == 1000


# --- switched off ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["1", "true", "YES", "On"])
def test_disabled_it_is_a_plain_exec(layer: Path, state: Path, value: str) -> None:
    with Ping(NO_CONTENT) as proxy:
        (state / "proxy").write_text(f"{proxy.address}\n")
        given = shown(layer, state, BACKSTOP_DISABLE=value)
        assert given["api"] == REAL_API
        assert proxy.requests == []
    assert given["oom"] == int(Path("/proc/self/oom_score_adj").read_text())
    assert not (state / "runtime.pid").exists()


@pytest.mark.parametrize("value", ["0", "", "no", "2", "1 "])
def test_any_other_value_does_not_disable(layer: Path, state: Path, value: str) -> None:
    shown(layer, state, BACKSTOP_DISABLE=value)
    assert (state / "runtime.pid").exists()


# --- the next wrapper -----------------------------------------------------------------------------------------------------


@pytest.fixture
def next_wrapper(tmp_path: Path) -> Path:
    script = tmp_path / "next wrapper"
    script.write_text('#!/bin/sh\necho "next saw $# words, api $AWS_LAMBDA_RUNTIME_API" >&2\nexec "$@"\n')
    script.chmod(0o755)
    return script


def test_the_next_wrapper_gets_the_runtimes_command_line_and_the_proxy(
    layer: Path, state: Path, next_wrapper: Path
) -> None:
    with Ping(NO_CONTENT) as proxy:
        (state / "proxy").write_text(f"{proxy.address}\n")
        done = run(layer, [*RUNTIME, "a b"], environment(state, BACKSTOP_NEXT_WRAPPER=str(next_wrapper)))
    assert done.stderr.decode() == f"next saw {len(RUNTIME) + 1} words, api {proxy.address}\n"
    assert json.loads(done.stdout)["argv"] == ["a b"]


def test_the_next_wrapper_runs_when_backstop_is_disabled(layer: Path, state: Path, next_wrapper: Path) -> None:
    env = environment(state, BACKSTOP_NEXT_WRAPPER=str(next_wrapper), BACKSTOP_DISABLE="1")
    assert run(layer, RUNTIME, env).stderr.decode() == f"next saw {len(RUNTIME)} words, api {REAL_API}\n"


def test_a_next_wrapper_that_cannot_run_is_said_and_the_runtime_runs(layer: Path, state: Path) -> None:
    done = run(layer, RUNTIME, environment(state, BACKSTOP_NEXT_WRAPPER="/no/such/wrapper"))
    assert done.returncode == 0
    assert json.loads(done.stdout)["argv"] == []
    assert b"BACKSTOP_NEXT_WRAPPER=/no/such/wrapper cannot be executed (No such file or directory)" in done.stderr


def test_an_empty_next_wrapper_is_none(layer: Path, state: Path) -> None:
    shown(layer, state, BACKSTOP_NEXT_WRAPPER="")


# --- the command line -----------------------------------------------------------------------------------------------------


def test_arguments_arrive_as_they_are(layer: Path, state: Path) -> None:
    odd = [
        "",
        " ",
        "a b",
        '"quoted"',
        "'",
        "$HOME",
        "*",
        "--",
        "-c",
        "line\nbreak",
        "tab\t",
        "\\",
        "ünïcode",
        "x" * 100_000,
    ]
    assert shown(layer, state, *odd)["argv"] == odd


def test_bytes_that_are_no_utf_8_pass_in_arguments_and_environment(layer: Path, state: Path) -> None:
    odd = b"\xff\xfe=\x01"
    env = {os.fsencode(name): os.fsencode(value) for name, value in environment(state).items()}
    script = 'printf "%s|%s" "$1" "$ODD"'
    command: list[str | bytes | Path] = [layer / "backstop-wrapper", "/bin/sh", "-c", script, "sh", odd]
    done = subprocess.run(command, env={**env, b"ODD": odd}, capture_output=True, check=True, timeout=30)
    assert done.stdout == odd + b"|" + odd


def test_the_environment_is_otherwise_as_it_was(layer: Path, state: Path) -> None:
    env = environment(state, EMPTY="", BACKSTOP_TAGS="a:b")
    plain = subprocess.run(["/usr/bin/env"], env=env, capture_output=True, check=True).stdout
    with Ping(NO_CONTENT) as proxy:
        (state / "proxy").write_text(f"{proxy.address}\n")
        wrapped = run(layer, ["/usr/bin/env"], env).stdout
    assert wrapped.decode() == plain.decode().replace(REAL_API, proxy.address)


def test_the_runtimes_own_exit_code_and_pid_are_kept(layer: Path, state: Path) -> None:
    process = subprocess.Popen(
        [layer / "backstop-wrapper", "/bin/sh", "-c", "exit $(($$ % 200))"], env=environment(state)
    )
    assert process.wait(30) == process.pid % 200


def test_a_name_is_looked_up_in_path(layer: Path, state: Path) -> None:
    assert run(layer, ["true"], environment(state)).returncode == 0


def test_a_script_without_a_first_line_is_run_by_sh(layer: Path, state: Path, tmp_path: Path) -> None:
    script = tmp_path / "bootstrap"
    script.write_text('echo "hello $1"\n')
    script.chmod(0o755)
    assert run(layer, [script, "you"], environment(state)).stdout == b"hello you\n"


@pytest.mark.parametrize(
    ("made", "code"),
    [
        ("missing", 127),
        ("not executable", 126),
        ("folder", 126),
        ("interpreter missing", 126),
        ("name not in PATH", 127),
    ],
)
def test_what_cannot_be_executed_ends_as_in_a_shell(
    layer: Path, state: Path, tmp_path: Path, made: str, code: int
) -> None:
    bootstrap = tmp_path / "bootstrap"
    if made == "folder":
        bootstrap.mkdir()
    elif made != "missing":
        bootstrap.write_text("#!/no/such/interpreter\n")
        bootstrap.chmod(0o644 if made == "not executable" else 0o755)
    command = "backstop-no-such-command" if made == "name not in PATH" else str(bootstrap)
    done = run(layer, [command], environment(state))
    assert done.returncode == code
    assert done.stderr.startswith(f"backstop-wrapper: {command}: ".encode())


def test_without_a_command_it_says_what_it_is_for(layer: Path, state: Path) -> None:
    done = run(layer, [], environment(state))
    assert done.returncode == 127
    assert b"AWS_LAMBDA_EXEC_WRAPPER" in done.stderr
