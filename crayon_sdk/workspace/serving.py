"""The app over a workspace: made, served until it is stopped, and its answers taken home."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from crayon_sdk._base.files import locked, sha256_of
from crayon_sdk.annotate.access import Access, Role, is_loopback
from crayon_sdk.annotate.desk import Desk
from crayon_sdk.annotate.drawing import Drawing
from crayon_sdk.annotate.follower import Follower
from crayon_sdk.annotate.store import AnswerStore
from crayon_sdk.annotate.tasks import Task, make_tasks
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.errors import CrayonError, MissingExtraError, OutputError, SettingsError, install_extra
from crayon_sdk.explain.asking import Method, Question, checked_words, foresee, suggest
from crayon_sdk.workspace.workspace import Workspace

if TYPE_CHECKING:
    from crayon_sdk.annotate.server import Round

__all__ = ["STORE", "Links", "annotate", "export"]

Kind = Literal["both", "image", "neuron", "spot"]
STORE = "annotate.sqlite"
"""Where a workspace keeps the answers of the app."""

_KINDS: dict[str, tuple[Literal["image", "neuron", "spot"], ...]] = {
    "both": ("image", "neuron"),
    "image": ("image",),
    "neuron": ("neuron",),
    "spot": ("spot",),
}
_PICTURES: frozenset[Literal["image", "spot"]] = frozenset({"image", "spot"})
"""Kinds of tasks whose answers can be foretold."""
_LOCK = ".annotate.lock"
_ALL = 2**31
_EXPORT_EVERY = 30.0  # seconds
_AHEAD, _AHEAD_ACTIVE = 8, 2  # pictures that are on their way; what is at hand is not chosen anew
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Links:
    """Where the app is.

    Attributes:
        answer: The page to answer on: name -> link. The name "" is for anybody, who then says a name.
        owner: The owner's page.
        tasks: How many tasks there are of each kind ("image", "neuron", "spot").
        open: How many of them lack votes.
    """

    answer: dict[str, str]
    owner: str
    tasks: dict[str, int]
    open: dict[str, int]


def export(workspace: Workspace, *, store: str | None = None) -> int:
    """Take what the app was told into the answers of a workspace; needs no server.

    Args:
        workspace: Takes them.
        store: ``postgresql://`` URL of the database that they lie in; default the file in the workspace.

    Returns:
        How many answers are new there.

    Raises:
        FileFormatError: The app's file is broken.
        MismatchError: The database is of another workspace.
        OutputError: The database cannot be reached.
        WorkspaceBusyError: The app is running; it exports by itself.
    """
    if store is None and not (workspace.folder / STORE).exists():
        return 0
    with _store(workspace, store) as opened:
        return _take_home(workspace, opened)


def annotate(
    workspace: Workspace,
    *,
    kind: Kind = "both",
    votes: int = 1,
    order: Method = "random",
    limit: int | None = None,
    seed: int = 0,
    group_patches: bool = False,
    question: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8730,
    people: Sequence[str] = (),
    require_token: bool = False,
    hold: float = 600.0,
    store: str | None = None,
    ready: Callable[[Links], None] = lambda links: None,
) -> int:
    """Serve the app until it is stopped (Ctrl-C), then take its answers into the workspace.

    Answers are on the disk (``annotate.sqlite``) when they are acknowledged. They are taken into
    ``answers.jsonl`` every half minute, when the owner asks for it, at the end, and at the next start
    after a crash.

    Args:
        workspace: Has been explained.
        kind: Ask about "image" maps, about "neuron" patches, about "both": pictures first, then patches; or about the
            brightest "spot" of every map.
        votes: How many different people are to answer each, at least 1.
        order: "random", "uncertain", "coverage", "active" or, with a limit, "typical"; see `Workspace.suggest`. With
            "active" what comes next is chosen anew after every answer, by those of all people. With "both"
            it is that of the pictures, and patches are asked about at random.
        limit: Ask about the first so many of each kind only; with "active" about so many in all, what was answered
            before included.
        seed: Of the order.
        group_patches: Show all patches of a neuron together, and ask once.
        question: The words, for everything that is asked, with ``{label}`` for the class.
        host: Address to listen on. One that other machines reach needs a token, which is in the links.
        port: 0 takes a free one.
        people: Names; each gets a link of their own. Without, there is one link, and everybody says a name.
        require_token: Ask for a token on this machine too, as behind a web server.
        hold: Seconds after which what was handed out and not answered is free again.
        store: ``postgresql://USER@HOST/DATABASE`` of a PostgreSQL database of its own: then several apps, also on other
            machines with a copy of the workspace, work on the same answers and ask nothing twice. Default the file.
        ready: Called with the links when the app can be reached.

    Returns:
        How many answers are new in the workspace, those of earlier exports of this run included.

    Raises:
        MismatchError: The database holds answers about another model or other pictures.
        MissingExtraError: FastAPI or uvicorn is not installed, or psycopg where ``store`` is given.
        OutputError: The port is taken, or the store cannot be written or reached.
        SettingsError: A setting is out of range, or nothing is to be asked.
        StaleError: There are no maps or patches yet.
        WorkspaceBusyError: The app is running already.
    """
    _check(kind, votes, limit, hold, port, people, question)
    uvicorn, create_app = _libraries()
    with _store(workspace, store) as opened, _listening(host, port) as listener:
        before = len(workspace.answers(missing_ok=True))  # they are in the store, and are taken home
        _take_home(workspace, opened)
        dataset, sources, tasks = workspace.dataset(), [], []
        for each in _KINDS[kind]:
            by: Method = "random" if kind == "both" and each == "neuron" else order
            asked = _first_order(workspace, each, by, limit=limit, seed=seed)
            sources.append(workspace.patches() if each == "neuron" else workspace.maps())
            tasks += make_tasks(dataset, sources[-1], asked, question=question, group_patches=group_patches)
        if not tasks:
            raise SettingsError("there is nothing to ask: no picture has a map with evidence")
        voters = _voters(tasks, workspace.answers())
        clock = time.time if opened.shared else time.monotonic  # one that other machines have as well
        desks = _desks(tasks, votes=votes, limit=limit, voters=voters, hold=hold, clock=clock)
        access = _access(opened, people, required=require_token or not is_loopback(host))
        drawing = Drawing(dataset, sources)
        # Loads what drawing needs, and says before anybody waits that a picture cannot be read.
        drawing.jpeg(tasks[0], 0, "patch" if tasks[0].kind == "neuron" else "original", "large")
        work = _round(workspace, opened, tasks, desks, drawing, order=order, seed=seed)
        how = {
            "lifespan": "off",
            "http": "h11",  # which takes headers up to a size only
            "ws": "none",
            "log_config": None,
            "access_log": False,
            "server_header": False,
            "timeout_graceful_shutdown": 5,
        }
        server = uvicorn.Server(uvicorn.Config(create_app(work, access), **how))
        ready(_links(listener, access, desks, people))
        # Ctrl-C ends the server, which then passes it on to whoever ran it.
        with _exporting(work), _following(work), contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
        return len(workspace.answers()) - before


def _check(
    kind: str, votes: int, limit: int | None, hold: float, port: int, people: Sequence[str], question: str | None
) -> None:
    if kind not in _KINDS:
        raise SettingsError(f"expected kind {', '.join(map(repr, _KINDS))}, got {kind!r}")
    if question is not None:
        checked_words(question)
    if votes < 1 or (limit is not None and limit < 1) or not hold > 0 or not 0 <= port < 65536:
        raise SettingsError(
            "expected votes >= 1, limit >= 1, hold > 0 and a port from 0 to 65535, "
            f"got {votes}, {limit}, {hold} and {port}"
        )
    for name in people:
        if name != " ".join(name.split()) or not name.isprintable() or not 1 <= len(name) <= 60:
            raise SettingsError(f"expected names of 1 to 60 printable characters, got {name!r}")


def _libraries() -> tuple[Any, Any]:
    try:
        import fastapi  # noqa: F401 - said here which extra is lacking, not in the middle of the import below
        import uvicorn
    except ImportError as error:
        raise MissingExtraError(f"the annotation app needs {error.name}: {install_extra('annotate')}") from error
    from crayon_sdk.annotate.server import create_app

    return uvicorn, create_app


@contextlib.contextmanager
def _store(workspace: Workspace, address: str | None) -> Iterator[AnswerStore]:
    """The app's file, for one process at a time; or a database, for any number."""
    if address is not None and "://" not in address:
        raise SettingsError(f"expected store to be a URL postgresql://USER@HOST/DATABASE, got {address!r}")
    alone = locked(workspace.folder, doing="annotate", timeout=1.0, name=_LOCK)
    with alone if address is None else contextlib.nullcontext():
        store = AnswerStore(workspace.folder / STORE if address is None else address)
        try:
            if address is not None:
                store.claim(sha256_of(*(value for _, value in sorted(workspace.ledger.base().items()))))
            yield store
        finally:
            store.close()


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sets TCP_NODELAY on what it accepts; else every answer waits some 40 ms for
    # the other side to acknowledge the headers.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere it would let two programs share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
        listener.listen(128)  # whoever comes before the server is ready waits a moment
        yield listener
    except OSError as error:
        raise OutputError(
            f"{host}:{port} cannot be listened on ({error.strerror or error}); choose another --port or --host"
        ) from error
    finally:
        listener.close()


def _first_order(
    workspace: Workspace, kind: Literal["image", "neuron", "spot"], order: Method, *, limit: int | None, seed: int
) -> tuple[Question, ...]:
    """What is asked, in the order in which nobody has answered yet; "active" chooses from all there is."""
    if order != "active" or kind == "neuron":
        count = _ALL if limit is None else limit
        return workspace.suggest(count=count, kind=kind, votes=_ALL, seed=seed, method=order)
    how: dict[str, Any] = {"count": _ALL, "votes": _ALL, "seed": seed, "method": order, "kind": kind}
    return suggest(workspace.maps(), AnnotationSet(), workspace.answering.outlook, **how)


def _desks(
    tasks: Sequence[Task],
    *,
    votes: int,
    limit: int | None,
    voters: dict[str, set[str]],
    hold: float,
    clock: Callable[[], float],
) -> dict[str, Desk]:
    """A desk for each kind of task, in the order of the tasks."""
    own: dict[str, list[str]] = defaultdict(list)
    for task in tasks:
        own[task.kind].append(task.id)
    how: dict[str, Any] = {"votes": votes, "limit": limit, "voters": voters, "hold": hold, "clock": clock}
    return {kind: Desk(ids, **how) for kind, ids in own.items()}


def _round(
    workspace: Workspace,
    store: AnswerStore,
    tasks: Sequence[Task],
    desks: dict[str, Desk],
    drawing: Drawing,
    *,
    order: Method,
    seed: int,
) -> Round:
    from crayon_sdk.annotate.server import Round

    taking = threading.Lock()

    def take() -> int:
        with taking:
            return _take_home(workspace, store)

    title = workspace.folder.resolve().name
    model = workspace.manifest.model_fingerprint
    lock, active = threading.RLock(), order == "active"
    follower = _follower(workspace, store, tasks, desks, lock, order=order, seed=seed)
    ahead = _AHEAD_ACTIVE if active else _AHEAD
    return Round(tasks, desks, store, drawing, model, title, take, lock, follower, ahead)


def _follower(
    workspace: Workspace,
    store: AnswerStore,
    tasks: Sequence[Task],
    desks: dict[str, Desk],
    lock: Any,
    *,
    order: Method,
    seed: int,
) -> Follower | None:
    """Says after every answer how far one can see, and chooses anew what is asked where the order is "active".

    ``None`` where nobody has looked at the pictures, and nobody needs to for this order.
    """
    own_tasks = {
        kind: {each.sample: each.id for each in tasks if each.kind == kind} for kind in _PICTURES & desks.keys()
    }
    if not own_tasks:
        return None
    outlook = workspace.answering.known_outlook() if order == "random" else workspace.answering.outlook()
    if outlook is None:
        return None
    how: dict[str, Any] = {"count": _ALL, "votes": _ALL, "seed": seed, "method": "active"}
    maps, model, own = workspace.maps(), workspace.manifest.model_fingerprint, frozenset(store.answers())
    others = AnnotationSet(answer for answer in workspace.answers() if answer not in own)

    def follow() -> dict[str, dict[str, Any]]:
        answers = others.merge(store.answers().for_model(model, strict=False))
        told: dict[str, dict[str, Any]] = {}
        for kind, first in own_tasks.items():
            seen = foresee(maps, answers, outlook, kind=kind)
            if order == "active":
                asked = suggest(maps, answers, lambda: outlook, kind=kind, **how) if seen.chooses else ()
                chosen = [first[each.id] for each in asked] or list(first.values())
                with lock:
                    desks[kind].reorder(chosen)
            told[kind] = {"words": seen.in_words, "enough": seen.enough}
        return told

    return Follower(follow)


@contextlib.contextmanager
def _following(work: Round) -> Iterator[None]:
    """Follow the answers, where anything follows from them."""
    with work.follower.following() if work.follower is not None else contextlib.nullcontext():
        yield


def _take_home(workspace: Workspace, store: AnswerStore) -> int:
    return workspace.take_answers(store.answers(), withdrawn=store.answers(withdrawn=True), source="annotate")


@contextlib.contextmanager
def _exporting(work: Round) -> Iterator[None]:
    """Export every now and then, and at the end whatever happens."""
    over, exported = threading.Event(), [work.store.state()]

    def watch() -> None:
        while not over.wait(_EXPORT_EVERY):
            state = work.store.state()
            if state != exported[0]:
                try:
                    work.export()
                    exported[0] = state
                except CrayonError as error:  # such as a workspace that is training: next time
                    _log.info("not exported yet: %s", error)

    thread = threading.Thread(target=watch, name="crayon-annotate-export", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        try:
            work.export()
        except CrayonError as error:
            shared = work.store.shared
            where, again = (work.store.database.name, " with the same --store") if shared else (STORE, "")
            raise type(error)(
                f"{error} The answers are safe in {where}; take them in later: crayon annotate --export-only{again}"
            ) from error


def _voters(tasks: Sequence[Task], answers: AnnotationSet) -> dict[str, set[str]]:
    """Who answered each task before, programs aside: of several patches, all of them."""
    about_picture: dict[tuple[str, str], set[str]] = defaultdict(set)
    about_patch: dict[tuple[int, int], set[str]] = defaultdict(set)
    for each in (*answers.image_answers, *answers.spot_answers):
        about_picture[each.kind, each.id].update([] if each.simulated else [each.annotator])
    for patch in answers.neuron_answers:
        about_patch[patch.neuron, patch.patch].update([] if patch.simulated else [patch.annotator])
    found = {}
    for task in tasks:
        if task.kind == "neuron":
            found[task.id] = set.intersection(*(about_patch[neuron, rank] for neuron, rank, _ in task.about))
        else:
            found[task.id] = about_picture[task.kind, task.sample]
    return found


def _access(store: AnswerStore, people: Sequence[str], *, required: bool) -> Access:
    if not required:
        return Access(required=False)
    tokens = {store.token("owner"): Role(owner=True)}
    for name in people:
        tokens[store.token(f"person {name}")] = Role(person=name)
    if not people:
        tokens[store.token("people")] = Role()
    return Access(required=True, tokens=tokens)


def _links(listener: socket.socket, access: Access, desks: dict[str, Desk], people: Sequence[str]) -> Links:
    host, port = listener.getsockname()[:2]
    shown = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host  # noqa: S104
    place = f"http://{shown}:{port}/"
    by_role = {(role.owner, role.person): f"?token={quote(token)}" for token, role in access.tokens.items()}
    names = people or ("",)
    answer = {name: place + by_role.get((False, name or None), _as_name(name)) for name in names}
    tasks = {kind: len(desk) for kind, desk in desks.items()}
    lacking = {kind: len(desk) - desk.done for kind, desk in desks.items()}
    return Links(answer, f"{place}owner{by_role.get((True, None), '')}", tasks, lacking)


def _as_name(name: str) -> str:
    """Without tokens, a link of one's own only fills the name in."""
    return f"?name={quote(name)}" if name else ""
