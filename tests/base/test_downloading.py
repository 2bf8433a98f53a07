"""Downloads from a real server on loopback: cut lines, wrong bytes, mirrors that are down, a disk that is full."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from crayon_sdk._base.downloading import Remote, download, unpack
from crayon_sdk.errors import DataError, FileFormatError, OutputError, OutputExistsError, SettingsError

CONTENT = bytes(range(256)) * 2000  # half a megabyte
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


class Server:
    """Gives CONTENT under every name; some names are odd."""

    def __init__(self):
        self.asked = []
        self.cuts = 0
        self.mark = '"one"'
        self.content = CONTENT
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                start = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
                outer.asked.append((self.path, self.headers.get("Range")))
                if "missing" in self.path:
                    self.send_error(404)
                    return
                if "page" in self.path:
                    self.send_response(200)
                    self.send_header("Content-Type", "text/html")
                    self.end_headers()
                    self.wfile.write(b"<html>too many people ask</html>")
                    return
                body = outer.content[::-1] if "wrong" in self.path else outer.content
                unchanged = self.headers.get("If-Range", outer.mark) == outer.mark
                begin = int(start[1]) if start and unchanged and "whole" not in self.path else 0
                if begin >= len(body):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(body)}")
                    self.end_headers()
                    return
                self.send_response(206 if begin else 200)
                if begin:
                    told = 0 if "other-part" in self.path else begin
                    self.send_header("Content-Range", f"bytes {told}-{len(body) - 1}/{len(body)}")
                self.send_header("Content-Length", str(len(body) - begin))
                self.send_header("ETag", outer.mark)
                self.end_headers()
                cut = outer.cuts > 0
                outer.cuts -= cut
                self.wfile.write(body[begin : begin + 150_000] if cut else body[begin:])

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def remote(self, *paths, **more):
        return Remote("data.bin", tuple(f"{self.url}/{path}" for path in paths), **more)


@pytest.fixture
def server():
    made = Server()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_a_file_comes_whole_and_once(server, tmp_path):
    found = download(server.remote("data", checksum=MD5, size=len(CONTENT)), tmp_path / "new")
    assert found.read_bytes() == CONTENT
    assert [each.name for each in found.parent.iterdir()] == ["data.bin"]
    assert download(server.remote("data", checksum=MD5), found.parent) == found
    assert len(server.asked) == 1


@pytest.mark.parametrize("checksum", ["", MD5])
def test_a_cut_line_goes_on_where_it_was(server, tmp_path, checksum):
    server.cuts = 2
    found = download(server.remote("data", checksum=checksum), tmp_path)
    assert found.read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [None, "bytes=150000-", "bytes=300000-"]


def test_a_later_call_goes_on(server, tmp_path):
    server.cuts = 3
    with pytest.raises(DataError, match=r"cut after 450,000 of 512,000 .* 450,000 bytes are kept"):
        download(server.remote("data"), tmp_path)
    assert download(server.remote("data"), tmp_path).read_bytes() == CONTENT
    assert server.asked[-1][1] == "bytes=450000-"


def test_a_mirror_that_is_not_the_file_costs_nothing_of_what_is_here(server, tmp_path):
    server.cuts = 3
    with pytest.raises(DataError):
        download(server.remote("data", checksum=MD5), tmp_path)
    with pytest.raises(DataError, match=r"a page, not the file.*another part.*450,000 bytes are kept"):
        download(server.remote("page", "other-part", checksum=MD5), tmp_path)
    assert download(server.remote("other", checksum=MD5), tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == ("/other", "bytes=450000-")


def test_another_file_of_that_name_is_begun_anew(server, tmp_path):
    server.cuts = 3
    with pytest.raises(DataError):
        download(server.remote("data"), tmp_path)
    server.mark, server.content = '"two"', CONTENT[::-1]
    assert download(server.remote("data"), tmp_path).read_bytes() == CONTENT[::-1]
    # From another mirror only where a checksum tells in the end.
    server.cuts = 3
    (tmp_path / "data.bin").unlink()
    with pytest.raises(DataError):
        download(server.remote("data"), tmp_path)
    assert download(server.remote("other"), tmp_path).read_bytes() == CONTENT[::-1]
    assert server.asked[-1] == ("/other", None)


def test_a_server_that_cannot_go_on_begins_anew(server, tmp_path):
    server.cuts = 1
    assert download(server.remote("whole", checksum=MD5), tmp_path).read_bytes() == CONTENT


def test_what_a_mirror_does_not_have_the_next_one_gives(server, tmp_path):
    found = download(server.remote("missing", "wrong", "data", checksum=MD5), tmp_path)
    assert found.read_bytes() == CONTENT
    found.unlink()
    found = download(server.remote("page", "data"), tmp_path)
    assert found.read_bytes() == CONTENT
    down = replace(server.remote("data"), urls=("http://127.0.0.1:9/data", f"{server.url}/data"))
    found.unlink()
    assert download(down, tmp_path).read_bytes() == CONTENT


def test_wrong_bytes_never_get_the_name(server, tmp_path):
    with pytest.raises(DataError, match=rf"does not have the published {MD5.replace(':', ' ')}"):
        download(server.remote("wrong", checksum=MD5), tmp_path)
    with pytest.raises(DataError, match="512,000 bytes instead of 7"):
        download(server.remote("data", size=7), tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "data.bin").write_bytes(b"something else")
    with pytest.raises(FileFormatError, match="delete it"):
        download(server.remote("data", checksum=MD5), tmp_path)
    with pytest.raises(SettingsError, match="http"):
        download(Remote("a", ("file:///etc/hostname",)), tmp_path)


def test_no_space(server, full_disk):
    with pytest.raises(OutputError, match=r"512,000 bytes are needed and [\d,]+ are free"):
        download(server.remote("data", checksum=MD5), full_disk)
    assert not (full_disk / "data.bin").exists()


def packed(path, names, content=b"x" * 3000):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as file:
            for name in names:
                file.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz") as file:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("ending", [".zip", ".tgz"])
def test_archives_are_unpacked_whole_or_not_at_all(tmp_path, ending):
    unpack(packed(tmp_path / f"a{ending}", ["birds/1.jpg", "birds/b/2.jpg"]), tmp_path / "birds")
    assert sorted(each.relative_to(tmp_path).as_posix() for each in tmp_path.rglob("*.jpg")) == [
        "birds/1.jpg",
        "birds/b/2.jpg",
    ]
    unpack(packed(tmp_path / f"b{ending}", ["other/1.jpg"]), tmp_path / "named")
    assert (tmp_path / "named" / "other" / "1.jpg").is_file()
    with pytest.raises(OutputExistsError):
        unpack(tmp_path / f"b{ending}", tmp_path / "named")
    with pytest.raises(FileFormatError, match="leads out"):
        unpack(packed(tmp_path / f"c{ending}", ["../evil"]), tmp_path / "c")
    whole = packed(tmp_path / f"d{ending}", [f"{n}.jpg" for n in range(50)], bytes(range(256)) * 20).read_bytes()
    (tmp_path / f"d{ending}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileFormatError, match="not a whole archive"):
        unpack(tmp_path / f"d{ending}", tmp_path / "d")
    assert not (tmp_path / "c").exists()
    assert not (tmp_path / "d").exists()


def test_an_archive_that_is_larger_than_the_disk(tmp_path, full_disk):
    with pytest.raises(OutputError, match="bytes are needed"):
        unpack(packed(tmp_path / "a.tgz", ["a/big"], bytes(900_000)), full_disk / "a")
    assert not (full_disk / "a").exists()
