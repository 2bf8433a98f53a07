"""What the commands share: options from the settings, output, errors and exit codes."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, get_args, get_origin

import click
from click.shell_completion import CompletionItem

from crayon_sdk import errors
from crayon_sdk._base.launch import is_main, launched
from crayon_sdk._base.methods import SETTINGS
from crayon_sdk._base.progress import hidden, lines
from crayon_sdk._base.settings import Setting, alternatives
from crayon_sdk._base.showing import fitted
from crayon_sdk._base.text import KINDS_OF_TASKS, first_line, unknown_name, visible
from crayon_sdk.cli import STOPPED
from crayon_sdk.cli.allocator import keep_memory
from crayon_sdk.cli.options import CONFIG, keys, merged, read_config, said
from crayon_sdk.cli.wording import told
from crayon_sdk.errors import shortened

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from crayon_sdk.answers.relevance import Kind
    from crayon_sdk.explain.asking import Asked, Foresight
    from crayon_sdk.workspace.answering import Answering
    from crayon_sdk.workspace.workspace import Workspace

    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # older versions of click know no [...] here

__all__ = [
    "EXIT_CODES",
    "Assignment",
    "Command",
    "Commands",
    "MethodsCommand",
    "Shell",
    "command",
    "foresight_facts",
    "foresight_line",
    "foresights",
    "how_far",
    "next_step",
    "only_from",
    "section_options",
]

EXIT_CODES = {
    0: "done",
    1: "a fault of crayon itself, with its traceback: please report it",
    2: "a wrong option, setting or command",
    3: "model, pictures, answers or a file cannot be used",
    4: "files do not belong together, or are stale: the message says what to run",
    5: "something cannot be written, exists already, or the workspace is in use",
    6: "training could not go on",
    7: "the Hugging Face Hub refused, or cannot be reached",
    130: "stopped with Ctrl-C",
    143: "stopped by SIGTERM",
}
_CODES: tuple[tuple[type[errors.CrayonError], int], ...] = (
    (errors.SettingsError, 2),
    (errors.MissingExtraError, 2),
    (errors.MismatchError, 4),
    (errors.OutputError, 5),
    (errors.TrainingError, 6),
    (errors.HubError, 7),
    (errors.CrayonError, 3),
)


_LONGEST = 4000  # characters of a message
_TOGETHER = ("explain", "correct", "evaluate")  # take any number of processes


class Command(click.Command):
    """Turns what it raises into a message, in the words of its options, and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _reported():
            return super().invoke(ctx)


class MethodsCommand(Command):
    """Its help lists the settings of the methods, which have no option of their own."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the settings, then the example."""
        for method in SETTINGS:
            with formatter.section(f"Settings of {method} (--set {method}.KEY=VALUE, or [{method}] in {CONFIG})"):
                formatter.write_dl([(name, setting.sentence) for name, setting in keys(method).items()])
        super().format_epilog(ctx, formatter)


class Commands(click.Group):
    """Turns what a command raises into a message and an exit code."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the arguments."""
        with _reported():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _reported():
            return super().invoke(ctx)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find a command; a misspelt one gets the nearest name."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            ctx.fail(f"No such command {name!r}: {unknown_name(name, self.list_commands(ctx), 'command')}")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Commands in the order in which one needs them."""
        return list(self.commands)


@contextlib.contextmanager
def _reported() -> Iterator[None]:
    """Turn what is raised into a message and an exit code; whoever is outside of that sees the exit only."""
    try:
        yield
    except errors.CrayonError as error:
        _fail(told(str(error)), next(code for kind, code in _CODES if isinstance(error, kind)))
    except KeyboardInterrupt as error:
        _fail(visible(str(error)) or STOPPED, 130)
    except click.ClickException as error:
        # Written past the type: newer versions of click call the attribute final.
        vars(error)["message"] = visible(shortened(f"{error.message}{_as_setting(error)}", _LONGEST))
        raise


def _as_setting(error: click.ClickException) -> str:
    """Say how a setting of a corrector is set, which has no option of its own."""
    if isinstance(error, click.NoSuchOption) and error.ctx is not None and error.ctx.command.name == "correct":
        key = error.option_name.lstrip("-").replace("-", "_")
        ways = [f"--set {section}.{key}=VALUE" for section in SETTINGS if key in keys(section)]
        return f"; it is set with {' or '.join(ways)}" if ways else ""
    return ""


def _fail(message: str, code: int) -> NoReturn:
    index, size = launched()
    click.echo(f"crayon: {f'process {index} of {size}: ' if size > 1 else ''}{message}", err=True)
    sys.exit(code)


class Shell:
    """What a command is run with: where it works, what the file of settings says, how it talks.

    Args:
        folder: The workspace.
        config: A file of settings; default ``crayon.toml`` in the workspace.
        as_json: Results as JSON on stdout.
        quiet: Only results and errors.
        verbose: Also what is logged.
    """

    def __init__(self, folder: Path, config: Path | None, *, as_json: bool, quiet: bool, verbose: bool) -> None:
        self.folder, self.as_json, self.quiet, self.verbose = folder, as_json, quiet, verbose
        self._config_file = config

    @functools.cached_property
    def config(self) -> dict[str, dict[str, Any]]:
        """What the file of settings says, by section."""
        default = self.folder / CONFIG
        return read_config(self._config_file or (default if default.is_file() else None))

    def options(self, section: str, given: dict[str, Any]) -> dict[str, Any]:
        """All settings of a section by name: the file's, and on top the command line's."""
        found = merged(section, self.config.get(section, {}), given)
        return {name: getattr(found, name) for name in keys(section)}

    def section(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        """What was set in a section, by name, without defaults."""
        found = merged(name, self.config.get(name, {}), given)
        return {key: getattr(found, key) for key in said(self.config.get(name, {}), given)}

    def workspace(self) -> Workspace:
        """The workspace."""
        from crayon_sdk.workspace.workspace import Workspace

        keep_memory()
        return Workspace(self.folder)

    def answering(self) -> Answering:
        """The answers of the workspace, in and out; alone they need nothing that loads torch."""
        from crayon_sdk.workspace.answering import Answering
        from crayon_sdk.workspace.holdings import Holdings
        from crayon_sdk.workspace.inputs import Inputs
        from crayon_sdk.workspace.ledger import Ledger

        ledger = Ledger(self.folder)
        return Answering(ledger, Inputs(ledger), Holdings(ledger))

    def say(self, text: str) -> None:
        """Tell people something, on stderr."""
        if not self.quiet:
            click.echo(visible(text), err=True)

    def result(self, values: dict[str, Any], *shown: RenderableType) -> None:
        """Give the result, on stdout: as JSON for machines, or as it is shown to people."""
        if not is_main():
            return
        if self.as_json:
            # Escapes are JSON's own: what is read back is what was there.
            click.echo(visible(json.dumps(values, indent=2, ensure_ascii=False, default=str)))
            return
        from rich.console import Console
        from rich.table import Table

        console = Console(highlight=False, soft_wrap=False, markup=False)  # a name may hold brackets
        for each in shown:
            # A line stays a line: its end is for whoever reads it.
            if isinstance(each, str):
                console.print(visible(each), markup=False, soft_wrap=True)
            else:
                console.print(_Visible(fitted(each, console) if isinstance(each, Table) else each))


class _Visible:
    """What rich draws, with the escapes of others made visible; those of its styles come after."""

    def __init__(self, shown: RenderableType) -> None:
        self.shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        for each in console.render(self.shown, options):
            yield each if each.control else Segment(visible(each.text), each.style)


def how_far(workspace: Workspace) -> str:
    """How much of what there is to ask is answered, in words."""
    found = begun(workspace.asked())
    return " and ".join(f"{each.answered:,} of {each.total:,} {KINDS_OF_TASKS[kind]}" for kind, each in found.items())


def begun(asked: Mapping[Kind, Asked]) -> dict[Kind, Asked]:
    """What there is to say about: spots only where somebody has answered about one, for most people never do."""
    return {kind: each for kind, each in asked.items() if kind != "spot" or each.answered}


def foresights(workspace: Workspace, *, look: bool = False) -> dict[Kind, Foresight]:
    """What can be foretold of each kind that somebody has answered about.

    Args:
        workspace: Whose answers.
        look: By one pass of the model, where nobody has looked at the pictures; else such a kind is left out.
    """
    given = workspace.answers()
    kinds: tuple[Kind, ...] = ("image", "spot")
    found = {kind: workspace.foresight(kind, look=look) for kind in kinds if len(given.only(kind))}
    return {kind: each for kind, each in found.items() if each is not None}


def foresight_facts(found: Foresight) -> dict[str, Any]:
    """As JSON takes it."""
    return asdict(found) | {"enough": found.enough, "words": found.in_words}


def foresight_line(kind: Kind, found: Foresight) -> str:
    """As people read it."""
    return f"About {KINDS_OF_TASKS[kind]}: {found.in_words}"


def next_step(workspace: Workspace) -> str:
    """The command to go on with after answering: the correction that there are answers for."""
    answers = workspace.answers()
    if not len(answers):
        return workspace.command("annotate")
    method = "both" if len(answers.only("image", "spot")) and answers.neuron_answers else "pruning"
    return workspace.command("correct") + (f" --method {method}" if answers.neuron_answers else "")


def command(
    name: str,
    *,
    example: str,
    section: str | None = None,
    workspace: Literal["alone", "first", "names", ""] = "alone",
    kind: type[Command] = Command,
) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command of a function that takes a `Shell` and its own options.

    Args:
        name: What it is called.
        example: Shown in its help.
        section: Of the settings; an option for each.
        workspace: How the workspace may also be named without -w: "alone", as the only argument; "first", before
            arguments of a fixed number; "names", before any number of names, where it is no name; "" not at all.
        kind: Of the command.
    """

    def decorate(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def run(
            *,
            where: Path | tuple[Path, ...] | None = None,
            folder: Path | None,
            config: Path | None,
            as_json: bool,
            quiet: bool,
            verbose: bool,
            **given: Any,
        ) -> None:
            typed = click.get_current_context().get_parameter_source("folder") == click.core.ParameterSource.COMMANDLINE
            places = where if isinstance(where, tuple) else () if where is None else (where,)
            if workspace == "names" and not typed and _leads(given["names"], folder or Path()):
                places, given["names"] = (Path(given["names"][0]),), given["names"][1:]
            twice = workspace == "names" and typed and _leads(given["names"], folder or Path())
            if len(places) + typed > 1 or twice:
                raise click.UsageError("name the workspace once: as an argument or with -w")
            if launched()[1] > 1 and name not in _TOGETHER:
                raise errors.SettingsError(
                    f"crayon {name} works in one process, and {launched()[1]} were launched; run it without the "
                    f"launcher, which is for {', '.join(_TOGETHER)}"
                )
            quiet = quiet or not is_main()
            shell = Shell((*places, folder or Path())[0], config, as_json=as_json, quiet=quiet, verbose=verbose)
            with _logging(quiet=quiet, verbose=verbose), hidden(quiet), lines(shell.say):
                function(shell, **given)

        made: Any = run
        for decorator in reversed(_shared(workspace)):
            made = decorator(made)
        if section is not None:
            made = section_options(section)(made)
        return click.command(name, cls=kind, epilog=f"\b\nExample: {example}")(made)

    return decorate


def _leads(names: tuple[str, ...], here: Path) -> bool:
    """Whether the first of the names is a workspace, and not a correction of the one that is meant otherwise."""
    if not names or not (Path(names[0]) / "workspace.json").is_file():
        return False
    return Path(names[0]).name != names[0] or not (here / "corrections" / names[0]).is_dir()


def _shared(workspace: str) -> list[Callable[[Any], Any]]:
    path = click.Path(path_type=Path)
    many = -1 if workspace == "first" else 1  # click fills what follows first
    argument = click.argument("where", metavar="[WORKSPACE]", required=False, type=path, nargs=many)
    return [
        *([argument] if workspace in ("alone", "first") else []),
        click.option(
            "-w",
            "--workspace",
            "folder",
            type=path,
            envvar="CRAYON_WORKSPACE",
            help="The folder; default the current one.",
        ),
        click.option("--config", type=path, help=f"File of settings; default {CONFIG} in the workspace."),
        click.option("--json", "as_json", is_flag=True, help="Result as JSON on stdout."),
        click.option("-q", "--quiet", is_flag=True, help="Only results and errors."),
        click.option("-v", "--verbose", is_flag=True, help="Also what is going on."),
    ]


@contextlib.contextmanager
def only_from(level: int) -> Iterator[logging.Logger]:
    """Let the package say nothing below a level inside the block.

    Args:
        level: Such as ``logging.ERROR``.
    """
    logger = logging.getLogger("crayon_sdk")
    before = logger.level
    logger.setLevel(level)
    try:
        yield logger
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def _logging(*, quiet: bool, verbose: bool) -> Iterator[None]:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Told("crayon: %(message)s"))
    warn = warnings.showwarning
    if not quiet:
        warnings.showwarning = lambda message, kind, *_: click.echo(f"crayon: {_warned(message, kind)}", err=True)
    with only_from(logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING) as logger:
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            warnings.showwarning = warn


class _Told(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return told(super().format(record))


def _warned(message: Warning | str, category: type[Warning]) -> str:
    """A warning of a library, in one line and without its source code."""
    if category.__name__ == "DecompressionBombWarning":
        return "a picture is so large that Pillow warns of it; it is read all the same, and needs as much memory"
    return told(first_line(message if isinstance(message, Warning) else category(message)))


def section_options(section: str) -> Callable[[Any], Any]:
    """An option for every setting of a section; what is not given is ``None``."""

    def decorate(function: Any) -> Any:
        for setting in reversed(keys(section).values()):
            function = _option(setting)(function)
        return function

    return decorate


def _option(setting: Setting) -> Callable[[Any], Any]:
    name, text, default = setting.name, setting.text, setting.default
    flag = f"--{name.replace('_', '-')}"
    kinds = [get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in alternatives(setting.hint)]
    help_text = (
        text if default in (None, "", ()) or isinstance(default, bool) else f"{text.rstrip('.')}; default {default}."
    )
    if kinds == [bool]:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=help_text)
    if get_origin(kinds[0]) is tuple:
        return click.option(flag, name, multiple=True, callback=_none_if_empty, help=help_text)
    if get_origin(kinds[0]) is dict:
        return click.option(flag, name, type=_Json(), help=help_text)
    if get_origin(kinds[0]) is Literal and len(kinds) == 1:
        return click.option(flag, name, type=click.Choice([str(word) for word in get_args(kinds[0])]), help=help_text)
    return click.option(flag, name, type=kinds[0] if len(kinds) == 1 else str, help=help_text)


def _none_if_empty(
    context: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...] | None:
    return value or None


class _Json(_ParamType):
    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            found = json.loads(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(f"not JSON: {error}. {self._expected(param)}", param, ctx)
        if not isinstance(found, dict):
            self.fail(self._expected(param), param, ctx)
        return found

    @staticmethod
    def _expected(param: click.Parameter | None) -> str:
        text = getattr(param, "help", None) or ""
        example = re.search(r"\{.*\}", text)  # every such option shows one
        return f"Expected a JSON object such as '{example[0]}'" if example else "Expected a JSON object"


class Assignment(_ParamType):
    """``SECTION.KEY=VALUE``, with the keys of the correctors offered for completion."""

    name = "section.key=value"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the keys."""
        return [
            CompletionItem(f"{section}.{key}=", help=setting.sentence)
            for section in SETTINGS
            for key, setting in keys(section).items()
            if f"{section}.{key}".startswith(incomplete)
        ]
