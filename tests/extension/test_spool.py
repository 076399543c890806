"""The spool: what was acknowledged is there after a kill, what is torn is dropped, and no disk makes it raise."""

from __future__ import annotations

import errno
import os
import random
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extension import say, spool_file
from extension.spool import Spool

REPOSITORY = Path(__file__).parents[2]
BOUND = 1 << 20


@pytest.fixture(autouse=True)
def _fresh_voice() -> Iterator[None]:
    say.forget()
    yield
    say.forget()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "spool"


def spool_in(folder: Path, max_bytes: int = BOUND, memory_bytes: int = BOUND) -> Spool:
    return Spool(str(folder), max_bytes, memory_bytes)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# What it is for


def test_records_come_back_oldest_first_in_this_life_and_the_next(folder: Path) -> None:
    spool = spool_in(folder)
    for number in range(20):
        assert spool.put(f"id-{number}", b"data %d" % number)
    assert spool.pending() == [f"id-{number}" for number in range(20)]

    later = spool_in(folder)
    assert later.pending() == [f"id-{number}" for number in range(20)]
    assert later.read("id-7") == b"data 7"
    assert later.counters["recovered"] == 20


def test_the_same_id_overwrites_in_its_place(folder: Path) -> None:
    spool = spool_in(folder)
    for record_id in ("a", "b", "a"):
        spool.put(record_id, record_id.encode() * spool.counters["written"])
    assert spool.pending() == ["a", "b"]
    assert spool.read("a") == b"aa"
    assert spool_in(folder).pending() == ["a", "b"]
    assert spool_in(folder).read("a") == b"aa"
    assert len(files(folder)) == 2


def test_an_id_of_an_earlier_life_is_overwritten_too(folder: Path) -> None:
    spool_in(folder).put("a", b"old")
    spool_in(folder).put("a", b"new")
    assert spool_in(folder).read("a") == b"new"
    assert len(files(folder)) == 1


def test_a_provisional_record_is_for_the_next_life_only(folder: Path) -> None:
    spool = spool_in(folder)
    spool.put("in-flight", b"event", provisional=True)
    assert spool.pending() == []
    assert spool.read("in-flight") == b"event"
    assert spool_in(folder).pending() == ["in-flight"]


def test_commit_makes_a_provisional_record_visible_to_all(folder: Path) -> None:
    spool = spool_in(folder)
    spool.put("x", b"event", provisional=True)
    spool.commit("x")
    spool.commit("unknown")
    assert spool.pending() == ["x"]
    assert spool_in(folder).read("x") == b"event"
    assert len(files(folder)) == 1


def test_a_visible_record_replaces_the_provisional_one(folder: Path) -> None:
    spool = spool_in(folder)
    spool.put("x", b"provisional", provisional=True)
    spool.put("x", b"final")
    assert spool.pending() == ["x"]
    assert len(files(folder)) == 1
    assert spool_in(folder).read("x") == b"final"


def test_a_visible_record_is_never_made_invisible_again(folder: Path) -> None:
    spool = spool_in(folder)
    spool.put("x", b"final")
    spool.put("x", b"amended", provisional=True)
    assert spool.pending() == ["x"]
    assert spool.read("x") == b"amended"


def test_the_final_file_wins_where_a_kill_left_both(folder: Path) -> None:
    spool = spool_in(folder)
    spool.put("x", b"final")
    name = files(folder)[0]
    provisional = name.replace(spool_file.VISIBLE, spool_file.PROVISIONAL)
    spool_file.write(str(folder), provisional, "x", b"provisional")
    later = spool_in(folder)
    assert later.pending() == ["x"]
    assert later.read("x") == b"final"
    assert files(folder) == [name]


def test_remove_forgets_the_record_and_its_file(folder: Path) -> None:
    spool = spool_in(folder)
    spool.put("x", b"data")
    spool.remove("x")
    spool.remove("x")
    assert spool.pending() == []
    assert spool.read("x") is None
    assert files(folder) == []


def test_remove_spares_a_record_that_was_amended_meanwhile(folder: Path) -> None:
    spool = spool_in(folder)
    spool.put("x", b"handled error")
    found = spool.read_version("x")
    assert found is not None
    spool.put("x", b"crash")
    spool.remove("x", found[0])
    assert spool.read("x") == b"crash"


def test_nothing_is_touched_before_the_first_use(folder: Path) -> None:
    spool_in(folder)
    assert not folder.exists()


def test_only_the_owner_can_read(folder: Path) -> None:
    folder.mkdir(parents=True, mode=0o755)
    spool_in(folder).put("x", b"data")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / files(folder)[0]).stat().st_mode) == 0o600


# Bounds


def test_over_the_bound_the_oldest_are_dropped_and_counted(folder: Path) -> None:
    spool = spool_in(folder, max_bytes=10 * (100 + spool_file.HEADER_BYTES))
    for number in range(25):
        assert spool.put(f"id-{number}", bytes(100))
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 10 * 116
    assert spool.pending() == [f"id-{number}" for number in range(15, 25)]
    assert spool.counters["dropped"] == 15


def test_a_smaller_bound_holds_for_what_an_earlier_life_left(folder: Path) -> None:
    spool = spool_in(folder)
    for number in range(10):
        spool.put(f"id-{number}", bytes(100))
    assert spool_in(folder, max_bytes=3 * 116).pending() == ["id-7", "id-8", "id-9"]


def test_overwriting_counts_a_record_once(folder: Path) -> None:
    spool = spool_in(folder, max_bytes=2 * 116)
    spool.put("a", bytes(100))
    for _ in range(5):
        spool.put("b", bytes(100))
    assert spool.pending() == ["a", "b"]


def test_a_record_larger_than_the_disk_bound_lives_in_memory(folder: Path) -> None:
    spool = spool_in(folder, max_bytes=100)
    assert not spool.put("big", bytes(5_000))
    assert spool.pending() == ["big"]
    assert spool.read("big") == bytes(5_000)


def test_memory_is_bounded_too(folder: Path) -> None:
    spool = spool_in(folder, max_bytes=0, memory_bytes=1_000)
    for number in range(5):
        spool.put(f"id-{number}", bytes(400))
    spool.put("too big", bytes(1_001))
    assert spool.pending() == ["id-3", "id-4"]
    assert spool.counters["dropped"] == 4


# A disk that does not do as it is told


HOSTILE = ["../x", "a/b", "/etc/passwd", "", ".", "..", ".hidden", "a\0b", "x" * 200, "é", "a\nb"]


@pytest.mark.parametrize("record_id", HOSTILE)
def test_a_hostile_id_never_becomes_a_path(folder: Path, record_id: str) -> None:
    spool = spool_in(folder)
    assert not spool.put(record_id, b"data")
    assert spool.read(record_id) == b"data"
    assert files(folder) == []
    assert files(folder.parent) == ["spool"]
    spool.remove(record_id)
    assert spool.pending() == []


def path_is_a_file(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_text("not a folder")


def parent_is_a_file(folder: Path) -> None:
    folder.parent.write_text("not a folder")


def path_is_a_link(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    (folder.parent / "elsewhere").mkdir()
    folder.symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize("spoil", [path_is_a_file, parent_is_a_file, path_is_a_link])
def test_without_a_folder_records_live_in_memory_and_one_line_says_why(
    folder: Path, spoil: Callable[[Path], None], capfd: pytest.CaptureFixture[str]
) -> None:
    spoil(folder)
    spool = spool_in(folder)
    for number in range(3):
        assert not spool.put(f"id-{number}", b"data")
    spool.put("hidden", b"event", provisional=True)
    assert spool.pending() == ["id-0", "id-1", "id-2"]
    assert spool.read("id-1") == b"data"
    spool.commit("hidden")
    spool.remove("id-0")
    assert spool.pending() == ["id-1", "id-2", "hidden"]
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 1
    assert '"backstop":"warning"' in lines[0]


def test_records_kept_in_memory_move_behind_those_that_a_mended_disk_shows(folder: Path) -> None:
    spool_in(folder).put("old", b"older")
    folder.rename(folder.parent / "aside")
    folder.write_text("not a folder")
    spool = spool_in(folder)
    spool.put("new", b"newer")
    spool.put("old", b"amended")
    folder.unlink()
    (folder.parent / "aside").rename(folder)

    assert set(spool.pending()) == {"old", "new"}
    assert spool.read("old") == b"amended"
    spool.remove("old")
    assert files(folder) == []


def test_a_folder_that_the_function_cleaned_away_is_made_again(folder: Path) -> None:
    spool = spool_in(folder)
    spool.put("lost", b"data")
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert spool.put("kept", b"data")
    assert spool.read("lost") is None
    assert spool.pending() == ["kept"]


def test_foreign_files_are_left_alone(folder: Path) -> None:
    folder.mkdir(parents=True)
    foreign = [
        "README",
        "0123-x.rec",
        f"{1:016x}-.rec",
        f"{1:016x}-a.txt",
        "f" * 16 + "-a.rec",
        "+" + "0" * 15 + "-a.rec",
    ]
    for name in foreign:
        (folder / name).write_bytes(b"garbage")
    (folder / f"{1:016x}-folder.rec").mkdir()
    (folder / f"{2:016x}-link.rec").symlink_to("/etc/passwd")
    os.mkfifo(folder / f"{3:016x}-pipe.rec")
    spool = spool_in(folder)
    assert spool.pending() == []
    assert spool.put("x", b"data")
    assert spool.pending() == ["x"]
    assert set(foreign) < set(files(folder))


def test_a_file_replaced_by_something_else_is_not_followed(folder: Path) -> None:
    spool = spool_in(folder)
    for record_id in ("link", "pipe"):
        spool.put(record_id, b"data")
    for name in files(folder):
        (folder / name).unlink()
        if "link" in name:
            (folder / name).symlink_to("/etc/passwd")
        else:
            os.mkfifo(folder / name)
    assert spool.read("link") is None
    assert spool.read("pipe") is None


def test_half_written_files_of_an_earlier_life_are_removed(folder: Path) -> None:
    folder.mkdir(parents=True)
    leftover, others = folder / "aaaa.tmp", folder / "bbbb.tmp"
    leftover.write_bytes(b"half")
    others.write_bytes(b"half")
    os.utime(leftover, (1_000_000_000, 1_000_000_000))
    os.utime(others, (4_000_000_000, 4_000_000_000))
    assert spool_in(folder).pending() == []
    assert files(folder) == ["bbbb.tmp"]


@given(
    records=st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.binary(max_size=64), min_size=1),
    victim=st.integers(0, 3),
    damage=st.one_of(
        st.tuples(st.just("cut"), st.integers(0, 80)),
        st.tuples(st.just("flip"), st.integers(0, 80 * 8)),
        st.tuples(st.just("append"), st.integers(1, 40)),
        st.tuples(st.just("garbage"), st.integers(0, 80)),
    ),
    seed=st.randoms(use_true_random=False),
)
def test_a_damaged_file_is_dropped_or_read_whole_and_the_rest_still_read(
    records: dict[str, bytes], victim: int, damage: tuple[str, int], seed: random.Random
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "spool"
        before = spool_in(folder)
        for record_id, data in records.items():
            before.put(record_id, data)
        path = sorted(folder.iterdir())[victim % len(records)]
        raw = bytearray(path.read_bytes())
        kind, where = damage
        if kind == "cut":
            del raw[where:]
        elif kind == "flip":
            raw[where // 8 % len(raw)] ^= 1 << where % 8
        elif kind == "append":
            raw += seed.randbytes(where)
        else:
            raw[:] = seed.randbytes(where)
        path.write_bytes(raw)
        damaged = path.name[17:].removesuffix(spool_file.VISIBLE)

        spool = spool_in(folder)
        assert spool.pending() == list(records)
        for record_id, data in records.items():
            found = spool.read(record_id)
            assert found == data or (record_id == damaged and found is None)
        torn = spool.counters["torn"]
        assert spool.pending() == [record_id for record_id in records if not torn or record_id != damaged]
        assert len(list(folder.iterdir())) == len(records) - torn


class FaultyOs:
    """The module `os`, whose calls that change the disk fail where the plan says so."""

    FAILING = frozenset(["open", "write", "rename", "mkdir", "makedirs", "unlink", "listdir", "lstat", "chmod"])

    def __init__(self, plan: list[int]) -> None:
        self.plan = plan
        self.armed = False

    def __getattr__(self, name: str) -> object:
        real: object = getattr(os, name)
        if name not in self.FAILING or not callable(real):
            return real
        return self._failing(real)

    def _failing(self, real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            code = self.plan.pop(0) if self.armed and self.plan else 0
            if code:
                raise OSError(code, os.strerror(code))
            return real(*arguments)

        return call


FAULTS = [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.EDQUOT, errno.EMFILE, errno.ENOENT]


@given(
    plan=st.lists(st.just(0) | st.sampled_from(FAULTS), max_size=40),
    operations=st.lists(
        st.tuples(
            st.sampled_from(["put", "provisional", "commit", "remove"]), st.sampled_from("abc"), st.binary(max_size=20)
        ),
        max_size=15,
    ),
)
def test_whatever_call_fails_the_spool_serves_this_life_from_disk_or_memory(
    plan: list[int], operations: list[tuple[str, str, bytes]]
) -> None:
    faulty = FaultyOs(plan)
    model: dict[str, bytes] = {}
    visible: set[str] = set()
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr("extension.spool.os", faulty)
        patch.setattr("extension.spool_file.os", faulty)
        patch.setattr("extension.say.write_line", lambda line: None)
        spool = spool_in(Path(name) / "spool")
        for operation, record_id, data in operations:
            faulty.armed = True
            if operation in ("put", "provisional"):
                visible |= {record_id} if operation == "put" else set()
                model[record_id] = data
                spool.put(record_id, data, provisional=operation == "provisional")
            elif operation == "commit":
                visible |= {record_id} & set(model)
                spool.commit(record_id)
            else:
                model.pop(record_id, None)
                visible.discard(record_id)
                spool.remove(record_id)
            faulty.armed = False
            assert {i: spool.read(i) for i in "abc" if i in model} == model
            assert set(spool.pending()) == visible


def in_own_mounts(script: str, folder: Path) -> str:
    """Run a script where it may mount file systems without anyone else seeing them. Returns its output."""
    unshare = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    command = [*unshare, sys.executable, "-c", script, str(folder)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": "."},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_full_disk_moves_new_records_to_memory(folder: Path) -> None:
    folder.mkdir(parents=True)
    script = """
import subprocess, sys
from extension.spool import Spool
folder = sys.argv[1]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", folder], check=True)
spool = Spool(folder, 1 << 20)
written = [spool.put(f"id-{n}", bytes(10_000)) for n in range(20)]
assert any(written) and not all(written), written
assert spool.pending() == [f"id-{n}" for n in range(20)]
assert all(spool.read(i) == bytes(10_000) for i in spool.pending())
assert not [n for n in __import__("os").listdir(folder) if n.endswith(".tmp")]
spool.remove("id-0"); spool.remove("id-1")
assert spool.put("after", bytes(10_000)), "there is room again"
"""
    out = in_own_mounts(script, folder)
    assert out.count('"backstop":"warning"') == 1
    assert "No space left" in out


def test_a_read_only_disk_is_said_once_and_what_lies_there_is_still_read(folder: Path) -> None:
    spool_in(folder).put("old", b"data")
    script = """
import subprocess, sys
from extension.spool import Spool
folder = sys.argv[1]
subprocess.run(["mount", "--bind", folder, folder], check=True)
subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
spool = Spool(folder, 1 << 20)
assert not spool.put("new", b"data")
assert spool.pending() == ["old", "new"]
assert spool.read("old") == spool.read("new") == b"data"
spool.remove("old")
assert spool.pending() == ["new"]
"""
    out = in_own_mounts(script, folder)
    assert out.count('"backstop":"warning"') == 1
    assert "Read-only" in out


def test_another_users_folder_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(parents=True)
    monkeypatch.setattr("extension.spool_file.os.geteuid", lambda: os.getuid() + 1)
    spool = spool_in(folder)
    assert not spool.put("x", b"data")
    assert spool.read("x") == b"data"
    assert files(folder) == []


# Threads and kills


def test_threads_do_not_disturb_one_another(folder: Path) -> None:
    spool = spool_in(folder)
    failures: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            for number in range(60):
                record_id = f"{worker}-{number}"
                spool.put(record_id, record_id.encode(), provisional=number % 3 == 0)
                spool.commit(record_id)
                assert spool.read(record_id) == record_id.encode()
                if number % 2:
                    spool.remove(record_id)
                spool.pending()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    kept = {f"{worker}-{number}" for worker in range(6) for number in range(0, 60, 2)}
    assert set(spool.pending()) == kept
    assert set(spool_in(folder).pending()) == kept


WRITER = """
import os, random, sys
from extension.spool import Spool
spool, chance = Spool(sys.argv[1], 1 << 24), random.Random(int(sys.argv[2]))
say = lambda text: os.write(1, text.encode() + b"\\n")
life = sys.argv[2]
for number in range(1_000_000):
    record_id, fill, size = f"id-{chance.randrange(40)}", chance.randrange(256), chance.choice([10, 3_000, 70_000])
    kind = chance.choice(["put", "put", "provisional", "commit", "remove"])
    say(f"do {kind} {record_id} {fill} {size}")
    if kind == "commit":
        spool.commit(record_id)
    elif kind == "remove":
        spool.remove(record_id)
    else:
        assert spool.put(record_id, bytes([fill]) * size, provisional=kind == "provisional")
    say("done")
"""


def apply(model: dict[str, tuple[int, int]], line: str) -> None:
    _, kind, record_id, fill, size = line.split()
    if kind == "remove":
        model.pop(record_id, None)
    elif kind != "commit":
        model[record_id] = (int(fill), int(size))


def test_what_was_acknowledged_survives_sigkill_at_any_moment(folder: Path, pytestconfig: pytest.Config) -> None:
    rounds = 150 if pytestconfig.getoption("--all") else 25
    chance = random.Random(20261124)
    model: dict[str, tuple[int, int]] = {}
    for life in range(rounds):
        writer = subprocess.Popen(
            [sys.executable, "-S", "-c", WRITER, str(folder), str(life)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env={"PYTHONPATH": "."},
        )
        assert writer.stdout is not None
        # Killed while it goes on writing: the moment inside an operation is the scheduler's, and differs each time.
        lines = [writer.stdout.readline().strip() for _ in range(chance.randrange(1, 120))]
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.read().splitlines()
        assert writer.wait() == -signal.SIGKILL
        writer.stdout.close()

        lines = [line for line in lines if line == "done" or line.count(" ") == 4]
        unfinished = lines.pop() if lines[-1] != "done" else None
        for line in lines:
            if line != "done":
                apply(model, line)
        allowed = dict(model)
        if unfinished is not None:
            apply(allowed, unfinished)

        spool = spool_in(folder, 1 << 24)
        found = {record_id: spool.read(record_id) for record_id in spool.pending()}
        assert spool.counters["torn"] == 0
        for record_id in found.keys() | model.keys() | allowed.keys():
            data = found.get(record_id)
            shape = None if data is None else (data[0], len(data))
            assert shape in (model.get(record_id), allowed.get(record_id)), (life, record_id)
            assert data is None or data == data[:1] * len(data)
        model = {record_id: (data[0], len(data)) for record_id, data in found.items() if data is not None}
    assert [name for name in files(folder) if name.endswith(spool_file.TEMPORARY)] == []
