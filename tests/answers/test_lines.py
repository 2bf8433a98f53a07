"""Bytes on the disk: torn lines, appending, and failures in the middle of a write."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from crayon_sdk.answers.lines import append_lines, read_lines
from crayon_sdk.errors import FileFormatError, OutputError

ONE, TWO = b'{"a": "\xc3\xa4"}\n', b'{"b": 2}\n'


def test_append_makes_file_and_folder(tmp_path):
    path = tmp_path / "new" / "answers.jsonl"
    append_lines(path, ONE)
    append_lines(path, TWO)
    assert path.read_bytes() == ONE + TWO
    assert [entry.name for entry in path.parent.iterdir()] == ["answers.jsonl"]


@pytest.mark.parametrize("cut", range(len(ONE + TWO) + 1))
def test_append_repairs_every_truncation(tmp_path, cut):
    path = tmp_path / "answers.jsonl"
    start = (ONE + TWO)[:cut]
    path.write_bytes(start)
    append_lines(path, TWO)
    last = start.rpartition(b"\n")[2]
    torn_file = tmp_path / "answers.jsonl.torn"
    if last in (b"", ONE.strip(), TWO.strip()):
        expected = start + (b"\n" if last else b"") + TWO
        assert not torn_file.exists()
    else:
        expected = start[: len(start) - len(last)] + TWO
        assert torn_file.read_bytes() == last + b"\n"
    assert path.read_bytes() == expected
    assert read_lines(path).torn is None


def test_torn_pieces_pile_up_beside_the_file(tmp_path):
    path = tmp_path / "answers.jsonl"
    for piece in (b'{"x', b'{"y'):
        with open(path, "ab") as file:
            file.write(piece)
        append_lines(path, ONE)
    assert path.read_bytes() == ONE * 2
    assert Path(f"{path}.torn").read_bytes() == b'{"x\n{"y\n'


def test_long_torn_line_is_moved_whole(tmp_path):
    path = tmp_path / "answers.jsonl"
    torn = b'{"a": "' + b"x" * 200_000
    path.write_bytes(ONE + torn)
    append_lines(path, TWO)
    assert path.read_bytes() == ONE + TWO
    assert Path(f"{path}.torn").read_bytes() == torn + b"\n"


def test_zeros_after_a_power_failure_are_torn(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(ONE + bytes(50))
    assert read_lines(path).torn == bytes(50)
    append_lines(path, TWO)
    assert path.read_bytes() == ONE + TWO


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\nxyz", b'["yes", "no"]', b"id,answer\na,yes\n", b"hello", ONE + b"# end"]
)
def test_other_files_are_left_alone(tmp_path, content):
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"exists and is not a file of answers.*nothing was added"):
        append_lines(path, ONE)
    assert path.read_bytes() == content
    assert read_lines(path).torn is None
    assert [entry.name for entry in tmp_path.iterdir()] == ["other"]


def test_byte_order_mark_line_ends_and_blank_lines(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + ONE.strip() + b"\r\n\r\n  \n" + TWO.strip())
    lines = read_lines(path)
    assert list(lines) == [(1, ONE.strip()), (4, TWO.strip())]
    assert lines.torn is None
    append_lines(path, ONE)
    assert [line for _, line in read_lines(path)] == [ONE.strip(), TWO.strip(), ONE.strip()]
    path.write_bytes(b"\xef\xbb\xbf" + ONE[:4])
    append_lines(path, TWO)
    assert list(read_lines(path)) == [(1, TWO.strip())]


def test_empty_file(tmp_path):
    path = tmp_path / "answers.jsonl"
    for content in (b"", b"\n", b"\xef\xbb\xbf", b"  \r\n\n"):
        path.write_bytes(content)
        assert list(read_lines(path)) == []
        assert read_lines(path).torn is None
        append_lines(path, ONE)
        assert [line for _, line in read_lines(path)] == [ONE.strip()]


def test_unreadable_places(tmp_path):
    with pytest.raises(FileFormatError, match="no file at"):
        read_lines(tmp_path / "none.jsonl")
    with pytest.raises(FileFormatError, match="cannot be read as a file of answers"):
        read_lines(tmp_path)
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_lines("a\0b")


def test_unwritable_places(tmp_path):
    with pytest.raises(OutputError, match="cannot write"):
        append_lines(tmp_path, ONE)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot write"):
        append_lines(tmp_path / "file" / "answers.jsonl", ONE)
    with pytest.raises(OutputError, match="cannot write"):
        append_lines("a\0b", ONE)


def test_full_disk():
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(OutputError, match="the disk is full"):
        append_lines("/dev/full", ONE)


def test_a_write_that_stops_half_way_is_taken_back(tmp_path):
    resource = pytest.importorskip("resource", reason="limits on file sizes are a POSIX matter")
    path = tmp_path / "answers.jsonl"
    append_lines(path, ONE)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(ONE) + 4, hard))
    try:
        with pytest.raises(OutputError, match="cannot write"):
            append_lines(path, TWO)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == ONE
    append_lines(path, TWO)
    assert path.read_bytes() == ONE + TWO


def test_what_was_appended_outlives_the_process(tmp_path):
    path = tmp_path / "answers.jsonl"
    code = "import os, sys; from crayon_sdk.answers import lines as files; files.append_lines(sys.argv[1], b'{}\\n'); "
    code += "os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 9
    assert path.read_bytes() == b"{}\n"


def test_appending_waits_for_its_turn(tmp_path):
    fcntl = pytest.importorskip("fcntl", reason="no advisory locks here")
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b'{"half')
    writer = threading.Thread(target=append_lines, args=(path, TWO))
    with open(path, "ab", buffering=0) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        writer.start()
        writer.join(timeout=0.3)
        assert writer.is_alive()
        other.write(b'": 1}\n')
    writer.join(timeout=30)
    assert path.read_bytes() == b'{"half": 1}\n' + TWO


def _append_many(path, name, count):
    for number in range(count):
        append_lines(path, f'{{"{name}": {number}}}\n'.encode() * 2)


def test_processes_share_one_file(tmp_path):
    pytest.importorskip("fcntl", reason="no advisory locks here")
    path = tmp_path / "answers.jsonl"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_append_many, args=(path, name, 30)) for name in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    lines = [line for _, line in read_lines(path)]
    assert len(lines) == 120
    assert lines[::2] == lines[1::2]
    assert not Path(f"{path}.torn").exists()
