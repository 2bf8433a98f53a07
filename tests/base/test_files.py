"""Writing never destroys what was there, every failure says what to do, and a lock is gone with its process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from crayon_sdk._base.files import (
    check_writable,
    free_folder,
    free_path,
    hash_of_file,
    locked,
    new_folder,
    read_json,
    read_tensors,
    read_whole,
    replace_file,
    sha256_of,
    sweep,
    write_json,
    write_tensors,
    write_text,
)
from crayon_sdk.errors import FileFormatError, OutputError, OutputExistsError, SettingsError, WorkspaceBusyError

ROOT = Path(__file__).resolve().parents[2]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_write_and_read_back(tmp_path):
    write_text(tmp_path / "deep" / "er" / "a.txt", "größe\n")
    assert (tmp_path / "deep" / "er" / "a.txt").read_text(encoding="utf-8") == "größe\n"
    write_json(tmp_path / "a.json", {"größe": [1, None]})
    assert read_json(tmp_path / "a.json") == {"größe": [1, None]}
    tensors = {"a": torch.rand(3, 4).T, "b": torch.ones(2).expand(5, 2), "c": torch.tensor(1, requires_grad=False)}
    tensors["d"] = tensors["a"]  # shared memory, which safetensors refuses
    write_tensors(tmp_path / "a.safetensors", tensors, {"format": "x"})
    found, metadata = read_tensors(tmp_path / "a.safetensors")
    assert metadata == {"format": "x"}
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert names(tmp_path) == ["a.json", "a.safetensors", "deep"]
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o666 & ~mask


def test_nan_is_refused(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert read_json(tmp_path / "a.json") == 1


def interrupted(path, error):
    with replace_file(path) as temporary:
        temporary.write_text("half of the n")
        raise error


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt()])
def test_an_exception_in_the_middle_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)):
        interrupted(path, error)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]
    with pytest.raises(type(error)):
        interrupted(tmp_path / "b.txt", error)
    assert names(tmp_path) == ["a.txt"]


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "a").write_text("old")
    for path in (tmp_path / "a" / "b.txt", tmp_path / "a" / "b" / "c.txt"):
        with pytest.raises(OutputError, match=r"b.*the folder above it does not exist or is a file.*unchanged"):
            write_text(path, "new")
    with pytest.raises(OutputError, match=r"the folder above it does not exist or is a file"):
        new_folder(tmp_path / "a" / "b", lambda _folder: None)
    assert (tmp_path / "a").read_text() == "old"


def test_a_folder_where_a_file_should_be(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(OutputError, match=r"cannot write '.*/a'"):
        write_text(tmp_path / "a", "new")
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("content", [None, b"", b"{", b'"\xff"'])
def test_json_that_is_none(tmp_path, content):
    path = tmp_path / "a.json"
    match = r"no file at '.*a.json'"
    if content is not None:
        path.write_bytes(content)
        match = r"a.json' is not a readable JSON file"
    with pytest.raises(FileFormatError, match=match):
        read_json(path)


def test_tensors_cut_off_at_any_place(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"a": torch.rand(50)})
    whole = path.read_bytes()
    for length in (0, 1, 7, 8, 30, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(FileFormatError, match=r"not a whole safetensors file.*cut off.*[Mm]ake it again"):
            read_tensors(path)
    with pytest.raises(FileFormatError, match=r"no file at"):
        read_tensors(tmp_path / "b.safetensors")
    with pytest.raises(FileFormatError, match=r"no file at"):
        read_tensors(tmp_path)


# --- folders ---


def fill(text):
    def write(folder):
        (folder / "a.txt").write_text(text)

    return write


def test_a_new_folder(tmp_path):
    new_folder(tmp_path / "deep" / "out", fill("new"))
    assert (tmp_path / "deep" / "out" / "a.txt").read_text() == "new"
    assert names(tmp_path / "deep") == ["out"]


def test_a_folder_is_not_replaced_unless_asked(tmp_path):
    new_folder(tmp_path / "out", fill("old"))
    with pytest.raises(OutputExistsError, match=r"out' exists already; choose another name, or pass overwrite=True"):
        new_folder(tmp_path / "out", fill("new"))
    assert (tmp_path / "out" / "a.txt").read_text() == "old"
    os.symlink(tmp_path / "nowhere", tmp_path / "link")
    with pytest.raises(OutputExistsError, match=r"link' exists already"):
        new_folder(tmp_path / "link", fill("new"))
    (tmp_path / "out" / "more.txt").write_text("old")
    new_folder(tmp_path / "out", fill("new"), overwrite=True)
    assert names(tmp_path / "out") == ["a.txt"]
    assert (tmp_path / "out" / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["link", "out"]


def test_overwriting_a_link_leaves_what_it_points_to(tmp_path):
    new_folder(tmp_path / "real", fill("old"))
    os.symlink(tmp_path / "real", tmp_path / "link")
    new_folder(tmp_path / "link", fill("new"), overwrite=True)
    assert (tmp_path / "real" / "a.txt").read_text() == "old"
    assert (tmp_path / "link" / "a.txt").read_text() == "new"
    assert not (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failure_while_filling_leaves_the_old_folder(tmp_path, overwrite):
    target = tmp_path / "out"
    if overwrite:
        new_folder(target, fill("old"))

    def fails(folder):
        fill("half")(folder)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        new_folder(target, fails, overwrite=overwrite)
    assert names(tmp_path) == (["out"] if overwrite else [])
    assert not overwrite or (target / "a.txt").read_text() == "old"


# --- places that cannot be written ---

TRY_TO_WRITE = """
import os, sys
from pathlib import Path
from crayon_sdk.errors import OutputError
from crayon_sdk._base.files import new_folder, write_text
folder, user = Path(sys.argv[1]), int(sys.argv[2])
if user:
    os.setgid(user)
    os.setuid(user)
for attempt in (lambda: write_text(folder / "a.txt", "new"), lambda: new_folder(folder / "b", lambda made: None)):
    try:
        attempt()
    except OutputError as error:
        sys.stdout.write(str(error) + "\\n")
    else:
        sys.exit("it was written")
"""


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs users and permissions as in Unix")
def test_a_folder_without_permission(tmp_path):
    """As root, permissions mean nothing: then another user tries."""
    folder = tmp_path / "closed"
    folder.mkdir()
    (folder / "a.txt").write_text("old")
    folder.chmod(0o555)
    user = 0
    if os.getuid() == 0:
        user = 65534
        for parent in (tmp_path, *tmp_path.parents):
            if parent.stat().st_uid == 0 and parent != Path(parent.anchor):
                parent.chmod(parent.stat().st_mode | 0o111)  # the other user must be able to get here
    try:
        done = subprocess.run(
            [sys.executable, "-c", TRY_TO_WRITE, str(folder), str(user)], capture_output=True, text=True, cwd=ROOT
        )
        if "ModuleNotFoundError" in done.stderr or "PermissionError" in done.stderr:
            pytest.skip("another user cannot run this Python")
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert len(lines) == 2
        for line in lines:
            assert "the folder is not writable; choose another one or change its permissions" in line
            assert "unchanged" in line
        assert (folder / "a.txt").read_text() == "old"
        assert names(folder) == ["a.txt"]
    finally:
        folder.chmod(0o755)


FULL = r"the disk is full; free some space and run it again.*What was there before is unchanged"


def test_a_full_disk(full_disk):
    small, large = {"a": torch.ones(10)}, {"a": torch.rand(1_000_000)}
    write_tensors(full_disk / "a.safetensors", small)
    write_text(full_disk / "a.txt", "old")
    new_folder(full_disk / "out", fill("old"))
    before = {path: path.read_bytes() for path in full_disk.rglob("*") if path.is_file()}
    attempts = (
        lambda: write_tensors(full_disk / "a.safetensors", large),
        lambda: write_text(full_disk / "a.txt", "x" * 1_000_000),
        lambda: new_folder(full_disk / "out", lambda made: write_tensors(made / "b", large), overwrite=True),
        lambda: new_folder(full_disk / "out", fill("x" * 1_000_000), overwrite=True),
    )
    for attempt in attempts:
        with pytest.raises(OutputError, match=FULL):
            attempt()
        assert {path: path.read_bytes() for path in full_disk.rglob("*") if path.is_file()} == before
        assert names(full_disk) == ["a.safetensors", "a.txt", "out"]


WRITE_TOO_MUCH = """
import resource, signal, sys
from pathlib import Path
from crayon_sdk.errors import OutputError
from crayon_sdk._base.files import write_text
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_text(sys.argv[1], "x" * 100_000)
except OutputError as error:
    sys.stdout.write(str(error))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of file sizes are set as on Linux")
def test_a_file_larger_than_allowed(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", WRITE_TOO_MUCH, str(path)], capture_output=True, text=True, cwd=ROOT)
    assert "a.txt': [Errno 27] File too large. What was there before is unchanged." in done.stdout, done.stderr
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_file_is_hashed_as_others_do(tmp_path):
    (tmp_path / "a").write_bytes(b"hello\n")
    assert hash_of_file(tmp_path / "a") == "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
    assert hash_of_file(tmp_path / "a", of_git=True) == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_sha256_of():
    assert sha256_of("ab", b"c") == sha256_of(b"ab", "c")
    assert sha256_of("ab", "c") != sha256_of("a", "bc")
    assert sha256_of() != sha256_of("")


def test_equal_contents_give_equal_bytes(tmp_path):
    tensors = {"b": torch.arange(6.0).view(2, 3), "a": torch.ones(4, dtype=torch.bool)}
    metadata = {f"key {number}": 'text "ü" \\ \n' * number for number in range(12)}
    for number in range(6):
        write_tensors(tmp_path / f"{number}.safetensors", tensors, metadata)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    found, read = read_tensors(tmp_path / "0.safetensors")
    assert read == metadata
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_without_metadata_it_stays_readable(tmp_path):
    write_tensors(tmp_path / "a.safetensors", {"a": torch.ones(3)})
    assert torch.equal(read_tensors(tmp_path / "a.safetensors")[0]["a"], torch.ones(3))


def test_a_place_for_a_file_is_checked_before_any_work(tmp_path):
    assert free_path(tmp_path / "a.HTML", ".html", overwrite=False) == tmp_path / "a.HTML"
    with pytest.raises(SettingsError, match=r"ends in \.html, got .*a\.png"):
        free_path(tmp_path / "a.png", ".html", overwrite=True)
    (tmp_path / "b.html").touch()
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        free_path(tmp_path / "b.html", ".html", overwrite=False)
    assert free_path(tmp_path / "b.html", ".html", overwrite=True) == tmp_path / "b.html"


def test_read_whole_has_a_limit(tmp_path):
    path = tmp_path / "long"
    path.write_bytes(b"12345")
    assert read_whole(path, 5) == b"12345"
    with pytest.raises(FileFormatError, match="is longer than"):
        read_whole(path, 4)
    with pytest.raises(FileFormatError, match="'/dev/zero' is longer than"):
        read_whole("/dev/zero", 1000)
    with pytest.raises(FileFormatError, match="'/dev/zero' is longer than"):
        read_json("/dev/zero")


def test_a_place_for_a_folder_is_checked_before_any_work(tmp_path):
    assert free_folder(tmp_path / "deep" / "out", overwrite=False) == tmp_path / "deep" / "out"
    assert names(tmp_path) == []
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        free_folder(tmp_path / "out", overwrite=False)
    assert free_folder(tmp_path / "out", overwrite=True) == tmp_path / "out"
    (tmp_path / "file").touch()
    for check in (lambda path: free_folder(path, overwrite=True), check_writable):
        with pytest.raises(OutputError, match="the folder above it does not exist or is a file"):
            check(tmp_path / "file" / "deep" / "out")
    with pytest.raises(OutputError, match="the folder above it does not exist or is a file"):
        free_path(tmp_path / "file" / "a.html", ".html", overwrite=False)
    assert names(tmp_path) == ["file", "out"]


# --- what killed processes leave ---

WRITE = """
import sys, time
from pathlib import Path
from crayon_sdk._base.files import new_folder, replace_file
target = Path(sys.argv[2])

def stay(place):
    (place / "half").write_text("half")
    sys.stdout.write("writing\\n")
    sys.stdout.flush()
    time.sleep(600)

if sys.argv[1] == "folder":
    new_folder(target, stay)
with replace_file(target) as temporary:
    stay(temporary.parent)
"""


@pytest.fixture(params=["folder", "file"])
def writer(request, tmp_path):
    """A process in the middle of writing ``out``."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, request.param, str(tmp_path / "out")], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout.readline().strip() == b"writing"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("again", [lambda path: new_folder(path, fill("new")), lambda path: write_text(path, "new")])
def test_what_a_killed_process_left_is_swept_by_the_next_writing(writer, again, tmp_path):
    again(tmp_path / "other")
    assert len(names(tmp_path)) == 2, "what another process is writing stays"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert next(name for name in names(tmp_path) if name != "other").startswith(".crayon-")
    again(tmp_path / "out")
    assert names(tmp_path) == ["other", "out"]


def test_sweeping_leaves_what_is_not_ours(tmp_path):
    (tmp_path / ".crayon-settings").mkdir()
    (tmp_path / ".crayon-settings" / "mine").touch()
    (tmp_path / ".crayon-original").mkdir()
    (tmp_path / ".out.abcd1234").mkdir()
    (tmp_path / ".crayon-12345678").touch()
    (tmp_path / "real").mkdir()
    (tmp_path / ".crayon-linklink").symlink_to(tmp_path / "real")
    (tmp_path / ".crayon-abcd1234").mkdir()
    (tmp_path / ".crayon-abcd1234" / ".crayon-lock").touch()
    before = set(names(tmp_path))
    sweep(tmp_path)
    sweep(tmp_path / "nowhere")
    # An empty one was made by a process that was killed before it could lock it.
    assert before - set(names(tmp_path)) == {".crayon-abcd1234", ".crayon-original"}


def test_two_threads_write_the_same_file_at_once(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: write_text(tmp_path / "a.txt", f"{number}" * 1000), range(200)))
    assert len(set((tmp_path / "a.txt").read_text())) <= 3
    assert names(tmp_path) == ["a.txt"]


HOLD = """
import sys, time
from pathlib import Path
from crayon_sdk._base.files import locked
with locked(Path(sys.argv[1]), doing="holding"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_second_process_is_told_who_has_it(holder, tmp_path):
    with (
        pytest.raises(WorkspaceBusyError, match=rf"in use by process {holder.pid} \(holding, since 20"),
        locked(tmp_path, doing="waiting", timeout=0.1),
    ):
        pass


def test_lock_survives_nothing_of_kill_9(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with locked(tmp_path, doing="next", timeout=5):
        assert json.loads((tmp_path / ".lock-owner.json").read_text())["doing"] == "next"
    assert not (tmp_path / ".lock-owner.json").exists()


def test_waits_for_the_end_of_the_other(holder, tmp_path):
    started = time.monotonic()
    holder.terminate()
    with locked(tmp_path, doing="next", timeout=60):
        assert time.monotonic() - started < 60


def test_released_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path, doing="failing"):
        raise ZeroDivisionError
    with locked(tmp_path, doing="next", timeout=0.1):
        pass


def test_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"), locked(tmp_path / "file" / "ws", doing="anything"):
        pass


def test_busy_without_a_name_when_the_note_is_damaged(holder, tmp_path):
    (tmp_path / ".lock-owner.json").write_text("{")
    with pytest.raises(WorkspaceBusyError, match="is in use; wait"), locked(tmp_path, doing="x", timeout=0.1):
        pass
