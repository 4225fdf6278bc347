"""The manifest, the locks, and what a re-run makes of them."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dreamsr.engine.planning import Task
from dreamsr.engine.ranks import Ranks
from dreamsr.engine.resume import Judge
from dreamsr.errors import DiskFullError, DreamSRError
from dreamsr.files import locks
from dreamsr.files.atomic import atomic, write
from dreamsr.files.manifest import Entry, Manifest, file_digest
from dreamsr.files.paths import hidden_stem

ENTRY = Entry("a.png", "a.jpg", "done", "s1", "m", 0)


def test_entries_come_back_and_the_last_one_counts(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    later = replace(ENTRY, settings="s2", warnings=("odd",))
    for entry in (ENTRY, later, replace(ENTRY, status="failed"), replace(ENTRY, output="sub/\udcff\u2603.png")):
        manifest.append(entry)
    again = Manifest(tmp_path)
    assert len(again.entries) == 4
    assert again.entries[3].output == "sub/\udcff\u2603.png"
    assert again.done("a.png") == later
    assert again.since(0, "a.png") == replace(ENTRY, status="failed")
    assert again.since(3, "a.png") is None
    assert again.since(0, "b.png") is None


def test_lines_are_json_objects(tmp_path: Path) -> None:
    Manifest(tmp_path).append(ENTRY)
    (line,) = (tmp_path / ".dreamsr.jsonl").read_text().splitlines()
    assert json.loads(line)["output"] == "a.png"


NAMED_BY_A_LIST = b'{"output": ["b"], "input": "b", "status": "done", "settings": "", "model": "", "seed": 0}\n'


@pytest.mark.parametrize(
    "torn", [b'{"output": "b.p', b"{}\n", b'"text"\n', b"\xff\xfe", b'{"output": "b.png"}\n', NAMED_BY_A_LIST]
)
def test_a_torn_or_foreign_line_costs_itself_alone(torn: bytes, tmp_path: Path) -> None:
    Manifest(tmp_path).append(ENTRY)
    with (tmp_path / ".dreamsr.jsonl").open("ab") as file:
        file.write(torn)
    manifest = Manifest(tmp_path)
    assert [entry.output for entry in manifest.entries] == ["a.png"]
    manifest.append(replace(ENTRY, output="c.png"))
    manifest.refresh()
    assert [entry.output for entry in manifest.entries] == ["a.png", "c.png"]
    assert [entry.output for entry in Manifest(tmp_path).entries] == ["a.png", "c.png"]


@pytest.mark.parametrize("before", [["a.png"], []])
def test_a_line_is_read_when_it_is_whole(before: list[str], tmp_path: Path) -> None:
    for output in before:
        Manifest(tmp_path).append(replace(ENTRY, output=output))
    line = json.dumps({**ENTRY.__dict__, "output": "b.png"}).encode() + b"\n"
    manifest = Manifest(tmp_path)
    for part in (line[:20], line[20:]):
        with (tmp_path / ".dreamsr.jsonl").open("ab") as file:
            file.write(part)
        manifest.refresh()
    assert [entry.output for entry in manifest.entries] == [*before, "b.png"]


def test_keys_of_a_later_version_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".dreamsr.jsonl").write_text(json.dumps({**ENTRY.__dict__, "new": 1}) + "\n")
    assert Manifest(tmp_path).done("a.png") is not None


def test_two_processes_append_whole_lines(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dreamsr.files.manifest import Entry, Manifest\n"
        "book = Manifest(Path('.'))\n"
        "for i in range(100): book.append(Entry(f'{sys.argv[1]}{i}.png', 'x' * 300, 'done', 's', 'm', 0))"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, name], cwd=tmp_path) for name in "ab"]
    assert [process.wait(120) for process in both] == [0, 0]
    lines = (tmp_path / ".dreamsr.jsonl").read_text().splitlines()
    assert {json.loads(line)["output"] for line in lines} == {f"{name}{i}.png" for name in "ab" for i in range(100)}


def test_a_claim_excludes_others_until_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "sub" / ("x" * 250 + ".png")
    claim = locks.claim(path)
    assert claim
    assert locks.claim(path) is None
    assert locks.claim(path.with_name("other.png"))
    locks.release(claim)
    again = locks.claim(path)
    assert again
    locks.release(again)
    assert not list(path.parent.glob(f"{hidden_stem(path)}*"))


@pytest.mark.skipif(sys.platform == "win32", reason="what is open stays there")
def test_the_file_of_a_claim_goes_before_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it could be the file that another process has locked meanwhile."""
    claim = locks.claim(tmp_path / "a.png")
    assert claim
    there: list[bool] = []
    monkeypatch.setattr(claim, "release", lambda: there.append(Path(claim.lock_file).exists()))
    locks.release(claim)
    monkeypatch.undo()
    claim.release()
    assert there == [False]


def test_a_kill_frees_a_claim(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    code = (
        "import os, signal; from pathlib import Path; from dreamsr.files import locks\n"
        "claim = locks.claim(Path('a.png')); print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline().strip() == b"held"
        assert locks.claim(path) is None
        process.kill()
    claim = locks.claim(path)
    assert claim
    locks.release(claim)


def test_sweeping_spares_the_living_and_what_is_not_ours(tmp_path: Path) -> None:
    dead, alive = tmp_path / "dead.png", tmp_path / "alive.png"
    parts = [path.with_name(f"{hidden_stem(path)}-123.part") for path in (dead, alive)]
    others = [tmp_path / name for name in (".movie.mkv.part", ".dreamsr-notes", ".dreamsr.jsonl", "a.part")]
    left = dead.with_name(f"{hidden_stem(dead)}.lock")
    for path in (*parts, *others, left):
        path.write_bytes(b"half")
    claim = locks.claim(alive)
    assert claim
    locks.sweep(tmp_path, target=alive)
    assert all(path.exists() for path in (*parts, *others, left))
    locks.sweep(tmp_path)
    assert [path.exists() for path in parts] == [False, True]
    assert all(path.exists() for path in others)
    assert not left.exists()
    locks.release(claim)


@pytest.mark.parametrize("claimed", [False, True])
def test_what_is_being_written_survives_the_sweep_of_a_job_beside_it(claimed: bool, tmp_path: Path) -> None:
    claim = locks.claim(tmp_path / "report.html") if claimed else None
    code = "from pathlib import Path; from dreamsr.files import locks; locks.sweep(Path('.'))"
    with atomic(tmp_path / "report.html") as part:
        part.write_bytes(b"half")
        locks.sweep(tmp_path)
        assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0
        assert part.read_bytes() == b"half"
    if claim:
        locks.release(claim)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_what_a_killed_process_was_writing_is_swept(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from dreamsr.files.atomic import atomic\n"
        "with atomic(Path('a.safetensors')) as part: part.write_bytes(b'half'); print('begun', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline().strip() == b"begun"
        locks.sweep(tmp_path)
        assert sorted(path.suffix for path in tmp_path.iterdir()) == [".lock", ".part"]
        process.kill()
    locks.sweep(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("reason", [NotImplementedError(), OSError(errno.ENOLCK, "No locks available")])
def test_a_folder_without_locks_is_written_to(
    reason: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise reason

    monkeypatch.setattr(locks, "_take", refuse)
    write(tmp_path / "a.html", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


@pytest.mark.parametrize("reason", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_keeps_no_lock_files(
    reason: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: int, operation: int) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", refuse)
    write(tmp_path / "a.html", b"whole")
    with pytest.raises(DreamSRError, match="cannot be written"):
        locks.claim(tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


@pytest.mark.parametrize("reason", [errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)])
def test_what_is_half_written_is_hidden_and_goes_when_it_fails(reason: int, tmp_path: Path) -> None:
    def fill() -> None:
        with atomic(tmp_path / "a.png") as part:
            part.write_bytes(b"half")
            assert part.name.startswith(".dreamsr-")
            assert part.suffix == ".part"
            raise OSError(reason, os.strerror(reason))

    with pytest.raises(DiskFullError, match=rf"a\.png cannot be written: {os.strerror(reason)}"):
        fill()
    assert not list(tmp_path.iterdir())


def judged(folder: Path, settings: str = "s1", sheet: bool = False, overwrite: bool = False, since: int = 99) -> str:
    task = Task(folder / "a.jpg", folder / "out" / "a.png", "a.jpg", "a.png", sheet=folder / "s.png" if sheet else None)
    verdict = Judge(Manifest(folder / "out"), settings, since, overwrite)(task)
    return ": ".join(filter(None, (verdict.action, verdict.reason)))


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """a.jpg, and out/a.png that was made of it with the settings s1."""
    (tmp_path / "out").mkdir()
    source, target = tmp_path / "a.jpg", tmp_path / "out" / "a.png"
    source.write_bytes(b"input")
    target.write_bytes(b"output")
    status = source.stat()
    entry = replace(
        ENTRY,
        input_sha256=file_digest(source),
        input_bytes=status.st_size,
        input_mtime_ns=status.st_mtime_ns,
        output_bytes=6,
        output_sha256=file_digest(target),
    )
    Manifest(tmp_path / "out").append(entry)
    return tmp_path


@pytest.mark.parametrize(("between", "action"), [("done", "settled"), ("since", "skip")])
def test_what_is_noted_while_a_task_is_judged_is_no_earlier_job(
    between: str, action: str, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread reads the manifest behind one of the judge's two questions.

    A verdict with an entry is final; one without is made again, by the owner of the claim.
    """
    out = finished / "out"
    lines = (out / ".dreamsr.jsonl").read_bytes()
    (out / ".dreamsr.jsonl").write_bytes(b"")
    manifest = Manifest(out)
    (out / ".dreamsr.jsonl").write_bytes(lines)
    asked = getattr(manifest, between)

    def answer(*question: object) -> Entry | None:
        found: Entry | None = asked(*question)
        manifest.refresh()
        return found

    monkeypatch.setattr(manifest, between, answer)
    verdict = Judge(manifest, "s1", 0)(Task(finished / "a.jpg", out / "a.png", "a.jpg", "a.png"))
    assert verdict.action == action
    assert (verdict.entry is None) == (action == "skip")


def test_what_is_done_is_skipped_and_what_changed_is_made_again(finished: Path) -> None:
    assert judged(finished) == "skip"
    assert judged(finished, settings="s2") == "make: the settings changed"
    assert judged(finished, overwrite=True) == "make"
    assert judged(finished, sheet=True) == "make: s.png is missing"
    os.utime(finished / "a.jpg", ns=(1, 1))
    assert judged(finished) == "skip"
    (finished / "a.jpg").write_bytes(b"INPUT")
    assert judged(finished) == "make: the input changed"
    (finished / "out" / "a.png").unlink()
    assert judged(finished) == "make"


def test_what_others_did_since_the_start_is_settled(finished: Path) -> None:
    assert judged(finished, since=0, overwrite=True) == "settled"
    assert judged(finished, since=0, settings="s2") == "make: the settings changed"


def test_a_failure_does_not_make_an_older_output_new(finished: Path) -> None:
    Manifest(finished / "out").append(replace(ENTRY, status="failed", settings="s2"))
    assert judged(finished) == "skip"
    assert judged(finished, settings="s2") == "make: the settings changed"


def test_an_output_that_somebody_changed_is_kept(finished: Path) -> None:
    for retouched in (b"retouched by hand", b"OUTPUT"):
        (finished / "out" / "a.png").write_bytes(retouched)
        assert judged(finished, settings="s2") == "skip: exists and is not what was written"


def test_without_a_note_of_its_bytes_the_length_of_an_output_counts(finished: Path) -> None:
    """As formerly."""
    manifest = Manifest(finished / "out")
    manifest.append(replace(manifest.entries[-1], output_sha256=""))
    assert judged(finished, settings="s2") == "make: the settings changed"
    (finished / "out" / "a.png").write_bytes(b"retouched by hand")
    assert judged(finished, settings="s2") == "skip: exists and is not what was written"


def test_what_was_begun_is_known_by_its_bytes(finished: Path) -> None:
    manifest, target = Manifest(finished / "out"), finished / "out" / "a.png"
    (finished / "other.png").write_bytes(b"OUTPUT")  # as long as the one that is there
    begun = replace(manifest.entries[-1], status="begun", settings="s2")
    begun = replace(begun, output_sha256=file_digest(finished / "other.png"))
    manifest.append(begun)
    manifest.append(replace(ENTRY, output="b.png"))  # of another picture
    manifest.refresh()
    assert (len(manifest.entries), manifest.begun("a.png")) == (2, begun)
    assert judged(finished) == "skip"  # it has not taken its name
    assert judged(finished, settings="s2") == "make: the settings changed"
    target.write_bytes(b"OUTPUT")
    assert judged(finished) == "make: the settings changed"
    assert judged(finished, settings="s2", since=0) == "skip"  # not settled
    target.write_bytes(b"RETOUC")
    assert judged(finished, settings="s2") == "skip: exists and is not what was written"
    target.write_bytes(b"OUTPUT")
    manifest.append(replace(begun, status="failed"))  # a later attempt, which left the file alone
    assert judged(finished, settings="s3") == "make: the settings changed"
    manifest.append(replace(begun, status="done", output_sha256="", settings="s4"))
    assert judged(finished, settings="s4") == "skip"


def test_an_output_without_an_entry_is_kept(finished: Path) -> None:
    (finished / "out" / ".dreamsr.jsonl").unlink()
    assert judged(finished) == "skip: exists"


def test_a_manifest_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / ".dreamsr.jsonl").mkdir()
    with pytest.raises(DreamSRError, match="cannot be"):
        Manifest(tmp_path).append(ENTRY)


def test_ranks_take_their_own_share_first() -> None:
    items = list(range(7))
    shares = [Ranks(rank, 3).own_first(items) for rank in range(3)]
    assert shares == [[0, 3, 6, 1, 4, 2, 5], [1, 4, 2, 5, 0, 3, 6], [2, 5, 0, 3, 6, 1, 4]]
    assert Ranks().own_first(items) == items


def test_ranks_come_from_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "3"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1")):
        assert Ranks.from_environment() == Ranks(0, 1, 0)
        monkeypatch.setenv(name, value)
    assert Ranks.from_environment() == Ranks(3, 4, 1)


def test_a_rank_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    ranks = Ranks(3, 4, 3)
    assert [ranks.device(name) for name in ("auto", "cuda", "cuda:0", "cpu")] == ["cuda:1", "cuda:1", "cuda:0", "cpu"]
    assert Ranks().device("auto") == "auto"
