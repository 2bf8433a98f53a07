"""Work with the stand-in for the Hub in a fresh process, where the client reads its settings when it is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

ASK = """
import logging, sys
logging.basicConfig(level=logging.DEBUG)
from crayon_sdk.errors import CrayonError
from crayon_sdk.models.load import load_model
for source in sys.argv[1:]:
    try:
        sys.stdout.write(f"{source} loaded {load_model(source).fingerprint}\\n")
    except CrayonError as error:
        sys.stdout.write(f"{source} {type(error).__name__}: {error}\\n")
"""


def environment_for(
    endpoint: str, home: Path, *, token: str = "", offline: bool = False, xet: bool = False
) -> dict[str, str]:
    """The client's settings: nothing of this machine's own, the stand-in in the Hub's place."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    environment |= {} if xet else {"HF_HUB_DISABLE_XET": "1"}
    return environment | {"HF_HUB_OFFLINE": str(int(offline))} | ({"HF_TOKEN": token} if token else {})


def start(code: str, arguments: Sequence[str], environment: Mapping[str, str], cwd: Path = ROOT) -> subprocess.Popen:
    """Start Python in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=dict(environment),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(code: str, arguments: Sequence[str], environment: Mapping[str, str], cwd: Path = ROOT) -> tuple[str, str]:
    """Run Python to its end; gives what it wrote to stdout and to stderr."""
    process = start(code, arguments, environment, cwd)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out, err


def ask(
    sources: Sequence[str], endpoint: str, home: Path, *, offline: bool = False, token: str = ""
) -> tuple[list[str], str]:
    """Load models in a fresh process; gives a line for each, and everything that was written anywhere."""
    out, err = run(ASK, sources, environment_for(endpoint, home, offline=offline, token=token))
    return out.splitlines(), out + err


PUSHES = """
import json, logging, os, sys, traceback, dataclasses
from pathlib import Path
logging.basicConfig(level=logging.DEBUG)
import huggingface_hub, huggingface_hub.lfs  # before the fork, so that children start at once
from huggingface_hub import logging as hub_logging
from crayon_sdk.errors import CrayonError
from crayon_sdk._base.publishing import find_target, publish
hub_logging.set_verbosity_debug()
jobs, out = json.loads(sys.argv[1]), Path(sys.argv[2])
children = []
for number, job in enumerate(jobs):
    child = os.fork()
    if child:
        children.append(child)
        continue
    os.environ["HF_TOKEN"] = job.pop("token")
    try:
        folder, replaces = Path(job.pop("folder")), job.pop("replaces", [])
        found = dataclasses.asdict(publish(folder, find_target(job.pop("repo_id"), **job), replaces=replaces))
    except CrayonError as error:
        traceback.print_exc()
        found = {"error": type(error).__name__, "message": str(error)}
    except BaseException:
        found = {"error": "not ours", "message": traceback.format_exc()}
    (out / f"{number}.json").write_text(json.dumps(found))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
for child in children:
    os.waitpid(child, 0)
"""


def push_all(
    jobs: Sequence[Mapping[str, Any]], endpoint: str, place: Path, *, xet: bool = False
) -> tuple[list[dict[str, Any]], str]:
    """Publish folders, all at the same time, each in a process of its own.

    A job has "token", "folder", "repo_id", and what `find_target` takes. Gives what was published, or the error, of
    each, and everything that was written anywhere with debug logs on.
    """
    out = place / "results"
    out.mkdir(parents=True)
    written = run(PUSHES, [json.dumps(jobs), str(out)], environment_for(endpoint, place / "home", xet=xet))
    return [json.loads((out / f"{number}.json").read_text()) for number in range(len(jobs))], "".join(written)
