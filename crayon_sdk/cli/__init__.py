"""The command ``crayon``: a thin shell over [`Workspace`][crayon_sdk.workspace.workspace.Workspace].

Results go to stdout, everything else to stderr. Heavy packages are imported inside the
commands, so that ``crayon --help`` answers at once. Nothing at all is imported here before
`main` listens to Ctrl-C.

Tested by what a user types: `steps`, `answers`, `doctor` and `common` in ``test_cli_workspace``; `commands`, `wording`,
`tools` and `allocator` in ``test_cli``; `demo_model` and `demo_pictures` in ``test_demo``.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crayon_sdk.cli.commands import app

__all__ = ["app", "main"]

STOPPED = "stopped; nothing is half-written, run it again to go on"


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from crayon_sdk.cli import commands

    return commands.app


def main() -> None:
    """Run the command line; the entry point of ``crayon``."""
    stopped_by = signal.SIGINT

    def interrupt(number: int, frame: FrameType | None) -> None:
        if _importing(frame):
            # An import that is broken off leaves modules half-loaded, and libraries catch what breaks it
            # off. Nothing can be half-written at once: to be killed does no harm at any moment.
            _leave(128 + number)
        raise KeyboardInterrupt

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal stopped_by
        stopped_by = signal.SIGTERM
        if _importing(frame):
            _leave(128 + number)
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so shells start what runs in the background
            raise KeyboardInterrupt
        # Whoever waits for Ctrl-C at the moment (the training loop, to end its step) hears of it.
        signal.raise_signal(signal.SIGINT)

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, end)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # stderr does so by itself
    code: Any = 0
    try:
        import traceback

        from crayon_sdk._base.text import visible
        from crayon_sdk.cli.commands import app

        app(prog_name="crayon")
    except SystemExit as stop:
        code = stop.code
    except KeyboardInterrupt:  # between two lines of click
        print(f"crayon: {STOPPED}", file=sys.stderr)
        code = 128 + signal.SIGINT
    except Exception:  # a fault of ours; what it quotes may come from outside
        print(visible(traceback.format_exc()), end="", file=sys.stderr)
        code = 1
    if code == 128 + signal.SIGINT and stopped_by == signal.SIGTERM:
        code = 128 + signal.SIGTERM
    # All is done: what libraries do while Python ends must not be broken off.
    if signal.getsignal(signal.SIGINT) is interrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def _importing(frame: FrameType | None) -> bool:
    """Whether an import is going on, as a signal finds the program."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _leave(code: int) -> None:
    """End at once, with nothing on the way out."""
    os.write(2, f"crayon: {STOPPED}\n".encode())
    os._exit(code)
