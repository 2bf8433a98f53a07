"""A PostgreSQL server of the tests' own, in a temporary folder and as a user that is not root."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@contextlib.contextmanager
def postgres_server() -> Iterator[Callable[[], str]]:
    """Start a server; a function that makes one more database in it and gives its URL. Skips where there is none."""
    psycopg = pytest.importorskip("psycopg", reason="needs the extra postgres")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    program = shutil.which("initdb") or (str(found[-1]) if found else None)
    if program is None:
        pytest.skip("no PostgreSQL server here; install Debian's postgresql")
    programs = Path(program).resolve().parent
    who: dict[str, Any] = {}
    if os.geteuid() == 0:  # which the server refuses
        who = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        if who:
            shutil.chown(folder, who["user"], who["group"])
        free.close()
        place = str(Path(folder) / "data")
        how = {"cwd": folder, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **who}
        made = subprocess.run(
            [str(programs / "initdb"), "-D", place, "-U", "crayon", "-A", "trust", "--no-sync", "--locale", "C"], **how
        )
        assert made.returncode == 0, made.stdout
        settings = [f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}"]
        options = [each for setting in settings for each in ("-c", setting)]
        how["stdout"] = subprocess.DEVNULL
        server = subprocess.Popen([str(programs / "postgres"), "-D", place, *options], **how)
        url, number = f"postgresql://crayon:secret@127.0.0.1:{port}", 0

        def new() -> str:
            nonlocal number
            number += 1
            with psycopg.connect(f"{url}/postgres", autocommit=True) as database:
                database.execute(f"CREATE DATABASE answers{number}")
            return f"{url}/answers{number}"

        try:
            end = time.monotonic() + 60
            while True:
                try:
                    psycopg.connect(f"{url}/postgres", connect_timeout=5).close()
                    break
                except psycopg.OperationalError:
                    assert server.poll() is None, "the server ended"
                    assert time.monotonic() < end, "the server is too slow"
                    time.sleep(0.1)
            yield new
        finally:
            server.send_signal(signal.SIGQUIT)  # at once: nothing is to be kept
            server.wait(30)
