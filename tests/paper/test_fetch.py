"""A data set is brought from a server on loopback and read."""

from __future__ import annotations

import functools
import shutil
import threading
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner
from helpers_published import make_waterbirds

from crayon_sdk.cli.commands import app
from crayon_sdk.errors import DataError
from crayon_sdk.paper.datasets import ABOUT, read_waterbirds
from crayon_sdk.paper.fetch import fetch


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """Both archives of a small copy of Waterbirds, on a server."""
    made = make_waterbirds(tmp_path_factory.mktemp("made"), share=0.002)
    real, place = tmp_path_factory.mktemp("real"), tmp_path_factory.mktemp("mirror")
    shutil.copytree(made, real, dirs_exist_ok=True)  # files in the place of links
    for folder, name, kind in (
        ("waterbird_complete95_forest2water2", "waterbird_complete95_forest2water2", "gztar"),
        ("segmentations", "segmentations", "gztar"),
    ):
        shutil.make_archive(str(place / name), kind, real, folder)
    (place / "segmentations.tar.gz").rename(place / "segmentations.tgz")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(place)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def small(mirror):
    """What is known of the copy: its archives have neither the size nor the checksum of the published ones."""
    archives = ABOUT["waterbirds"].archives
    own = tuple(replace(each, urls=(f"{mirror}{each.name}",), checksum="", size=None) for each in archives)
    return replace(ABOUT["waterbirds"], archives=own)


def test_what_is_brought_is_read(mirror, tmp_path):
    told = []
    found = fetch(small(mirror), tmp_path / "birds", tell=told.append)
    assert found.files == found.unchecked == tuple(each.name for each in ABOUT["waterbirds"].archives)
    assert len(told) == 2
    data = read_waterbirds(found.folder, strict=False)
    assert data.train.has_masks
    assert sorted(each.name for each in found.folder.iterdir()) == [
        "segmentations",
        "waterbird_complete95_forest2water2",
    ]
    again = fetch(small(mirror), tmp_path / "birds")
    assert (again.files, len(again.there)) == ((), 2)


def test_the_command_asks_the_mirror_and_compares(mirror, tmp_path, monkeypatch):
    """The copy's masks are not the published ones: the mirror is refused, and no other one can be reached from here."""
    known = ABOUT["waterbirds"]
    alone = replace(known, archives=tuple(replace(each, urls=()) for each in known.archives))
    monkeypatch.setitem(ABOUT, "waterbirds", alone)
    result = CliRunner().invoke(app, ["paper", "fetch", "waterbirds", "--to", str(tmp_path), "--mirror", mirror])
    assert result.exit_code == 3, result.output
    assert "cannot fetch segmentations.tgz" in result.output
    assert "instead of 39,272,883" in result.output
    assert "non-commercial" in result.output
    assert (tmp_path / "waterbird_complete95_forest2water2" / "metadata.csv").is_file()
    assert not (tmp_path / "segmentations").exists()
    assert CliRunner().invoke(app, ["paper", "fetch", "birds", "--to", str(tmp_path)]).exit_code == 2


def test_what_cannot_be_had_is_said(tmp_path):
    with pytest.raises(DataError, match="run the same again"):
        fetch(small("http://127.0.0.1:9/"), tmp_path)


def test_every_archive_lies_where_its_reader_looks():
    for about in ABOUT.values():
        for archive in about.archives:
            place = archive.into.split("/")[0] or archive.name
            assert place in about.layout, (about.name, place)
            assert all(url.startswith("https://") for url in archive.urls)
