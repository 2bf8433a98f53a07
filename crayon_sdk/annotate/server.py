"""The app over HTTP: one page, its tasks, pictures and answers, and the owner's page.

Made of parts that know nothing of HTTP; here they are only put behind addresses. No address holds the name
of a file: what can be asked for is listed, and everything else is not there.
"""

# No "from __future__ import annotations" here: FastAPI reads the hints of functions made inside functions.
import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crayon_sdk import __version__
from crayon_sdk._base.text import one_line
from crayon_sdk.annotate.access import HEADERS, MAX_BODY, TOO_LONG, Access, Role, problem_with
from crayon_sdk.annotate.desk import Desk
from crayon_sdk.annotate.drawing import Drawing, Panel, Size
from crayon_sdk.annotate.follower import Follower
from crayon_sdk.annotate.monitoring import disagreements, people
from crayon_sdk.annotate.store import AnswerStore, Given
from crayon_sdk.annotate.tasks import Task, records_of
from crayon_sdk.answers.annotations import AnnotationSet
from crayon_sdk.answers.relevance import KINDS
from crayon_sdk.errors import CrayonError

__all__ = ["Round", "create_app"]

_STATIC = Path(__file__).parent / "static"
_FILES = {
    "common.js": "text/javascript",
    "queue.js": "text/javascript",
    "app.js": "text/javascript",
    "owner.js": "text/javascript",
    "app.css": "text/css",
    "icon.svg": "image/svg+xml",
}
_PUBLIC = frozenset({"/", "/owner", *(f"/{name}" for name in _FILES)})
"""What is sent to whoever asks, token or not; everything else needs one where tokens are required."""
_SHOWN_DISAGREEMENTS = 50
_log = logging.getLogger(__name__)


@dataclass
class Seen:
    """What a process knows of a store that others write to as well.

    Attributes:
        state: Of the store.
        pairs: Task and person of the answers that counted.
    """

    state: tuple[int, int] = (0, 0)
    pairs: set[tuple[str, str]] = field(default_factory=set)


@dataclass(frozen=True)
class Round:
    """One round of answering: what is asked, what was answered, and how it is kept.

    Attributes:
        tasks: In the order in which they are asked.
        desks: Who gets what next, for each kind of task ("image", "neuron", "spot"), in the order in which
            they are asked.
        store: Keeps what is answered.
        drawing: Draws the pictures.
        model: Fingerprint of the model they are about.
        title: Shown at the top of the pages.
        export: Writes the answers to the workspace, and says how many are new there.
        lock: Held while the desk and the store change.
        follower: Is told when answers come or go, and says what follows from them; ``None`` where nothing does.
        ahead: How many tasks a page may have at hand beside the present one. Those are not chosen anew.
        seen: What is known of a store that other processes write to.
    """

    tasks: Sequence[Task]
    desks: Mapping[str, Desk]
    store: AnswerStore
    drawing: Drawing
    model: str
    title: str
    export: Callable[[], int]
    lock: Any
    follower: Follower | None = None
    ahead: int = 8

    seen: Seen = field(default_factory=Seen)

    def hand_out(self, person: str, count: int, held: Sequence[str]) -> list[str]:
        """Tasks for a person: of the next kind when there are not enough of the first."""
        given: list[str] = []
        with self.together():
            for desk in self.desks.values():
                given += desk.hand_out(person, count - len(given), held)
        return given

    def answered(self, kind: str, task: str, person: str) -> None:
        """Count an answer that is in the store."""
        self.desks[kind].answered(task, person)
        self.seen.pairs.add((task, person))

    def taken_back(self, kind: str, task: str, person: str) -> None:
        """Uncount an answer that was taken back in the store; its task is the person's again."""
        self.desks[kind].withdrawn(task, person)
        self.desks[kind].hold(task, person)
        self.seen.pairs.discard((task, person))

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Change who has what in hand; with a shared store, by what the other processes know, and for them to know.

        Nothing is asked twice: until the block ends, no other process hands anything out.

        Raises:
            OutputError: The store cannot be written.
        """
        with self.lock:
            if not self.store.shared:
                yield
                return
            with self.store.changing():
                self._catch_up()
                known = self.store.held()
                for desk in self.desks.values():
                    desk.holders = known
                yield
                after = {task: each for desk in self.desks.values() for task, each in desk.holders.items()}
                self.store.hold(known, after)

    def _catch_up(self) -> None:
        """Count what was answered and taken back in other processes."""
        state = self.store.state()
        if state == self.seen.state:
            return
        if state[1] == self.seen.state[1]:
            new, gone = set(self.store.counting(self.seen.state[0])), set[tuple[str, str]]()
        else:
            now = set(self.store.counting())
            new, gone = now - self.seen.pairs, self.seen.pairs - now
        for desk in self.desks.values():
            for task, person in gone:
                desk.withdrawn(task, person)
            for task, person in new:
                desk.answered(task, person)
        self.seen.pairs = (self.seen.pairs | new) - gone
        self.seen.state = state

    def changed(self) -> None:
        """Say that an answer came or went."""
        if self.follower is not None:
            self.follower.changed()


def _plain_name(name: str) -> str:
    plain = " ".join(name.split())
    if not plain or not plain.isprintable():
        raise ValueError("expected a name of printable characters")
    return plain


Name = Annotated[str, Field(min_length=1, max_length=60), AfterValidator(_plain_name)]
Uid = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{8,64}$")]
TaskId = Annotated[str, Field(pattern=r"^[0-9a-f]{20}$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """Why a request was refused, in words."""

    detail: str


class Join(_Body):
    """Who somebody is."""

    person: Name


class Wanted(_Body):
    """What somebody is to get."""

    person: Name
    count: int = Field(ge=0, le=96)
    held: list[TaskId] = Field(default=[], max_length=200)


class Release(_Body):
    """What somebody gives back unanswered."""

    person: Name
    tasks: list[TaskId] = Field(max_length=200)


class Click(_Body):
    """One answer."""

    uid: Uid
    task: TaskId
    answer: Literal["yes", "no", "unsure"]
    seconds: float | None = Field(default=None, ge=0, le=86400, allow_inf_nan=False)


class Answers(_Body):
    """Answers of one person."""

    person: Name
    source: Literal["annotate", "grid"] = "annotate"
    answers: list[Click] = Field(min_length=1, max_length=96)


class Undo(_Body):
    """An answer to take back."""

    person: Name
    uid: Uid | None = None


def create_app(work: Round, access: Access) -> FastAPI:
    """Make the app.

    Args:
        work: What is asked, and where it is kept.
        access: Who may do what.
    """
    problems: dict[int | str, dict[str, Any]] = {"4XX": {"model": Problem}}
    app = FastAPI(title="crayon annotate", version=__version__, docs_url=None, redoc_url=None, responses=problems)
    app.state.cookie = f"crayon-{work.store.token('cookie')[:8]}"
    app.add_middleware(_Guard, access=access, cookie=app.state.cookie)
    app.add_exception_handler(CrayonError, _say_crayon_error)
    app.add_exception_handler(RequestValidationError, _say_what_is_wrong)
    _add_pages(app, work, access)
    _add_answering(app, work)
    _add_owner(app, work)
    return app


class _Guard:
    """Before the app: refuses before anything is read, counts what is read, adds `HEADERS` to every answer."""

    def __init__(self, app: ASGIApp, access: Access, cookie: str) -> None:
        self._app, self._access, self._cookie = app, access, cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request, read = Request(scope), 0

        async def counted() -> Message:
            # What the length says is not what comes: the bytes are counted.
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MAX_BODY:
                raise HTTPException(413, TOO_LONG)
            return message

        async def signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        problem = problem_with(request.method, request.headers, known_hosts_only=not self._access.required)
        if problem is None:
            given = request.headers.get("authorization", "").removeprefix("Bearer ") or request.cookies.get(
                self._cookie
            )
            request.state.role = self._access.role(given)
            if request.state.role is None and scope["path"] not in _PUBLIC:
                problem = 401, "Open the link that you were given: it lets you in."
        if problem is not None:
            await JSONResponse({"detail": problem[1]}, status_code=problem[0])(scope, receive, signed)
            return
        await self._app(scope, counted, signed)


def _say_crayon_error(request: Request, error: Exception) -> JSONResponse:
    _log.warning("%s: %s", request.url.path, error)
    return JSONResponse({"detail": str(error)}, status_code=409)


def _say_what_is_wrong(request: Request, error: Exception) -> JSONResponse:
    """The first field that is wrong, and why; not what was sent, which may be no JSON (NaN) and no text."""
    problem: Any = error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": (), "msg": str(error)}
    where = ".".join(str(each) for each in problem["loc"] if each != "body")
    said = problem["msg"].removeprefix("Value error, ")
    return JSONResponse({"detail": one_line(f"{where}: {said}" if where else said, 300)}, status_code=422)


def _role(request: Request) -> Role:
    """Who asks; the guard has let nobody else through."""
    role: Role = request.state.role
    return role


def _owner(role: Annotated[Role, Depends(_role)]) -> Role:
    if not role.owner:
        raise HTTPException(403, "This is for the owner of the round.")
    return role


Visitor = Annotated[Role, Depends(_role)]


def _add_pages(app: FastAPI, work: Round, access: Access) -> None:
    def page(name: str, request: Request, token: str | None) -> Response:
        if token is not None and access.required:
            return _let_in(app.state.cookie, access, request, token)
        return Response((_STATIC / name).read_text(encoding="utf-8"), media_type="text/html")

    @app.get("/", include_in_schema=False)
    def answering_page(request: Request, token: str | None = None) -> Response:
        return page("index.html", request, token)

    @app.get("/owner", include_in_schema=False)
    def owner_page(request: Request, token: str | None = None) -> Response:
        return page("owner.html", request, token)

    for name, kind in _FILES.items():
        app.add_api_route(f"/{name}", _file(name, kind), include_in_schema=False)
    # Browsers ask for it beside whatever they show that is no page.
    app.add_api_route("/favicon.ico", _file("icon.svg", _FILES["icon.svg"]), include_in_schema=False)


def _file(name: str, kind: str) -> Callable[[], Response]:
    def send() -> Response:
        return Response((_STATIC / name).read_bytes(), media_type=kind, headers={"Cache-Control": "no-cache"})

    return send


def _let_in(cookie: str, access: Access, request: Request, token: str) -> Response:
    """Turn the token of a link into a cookie, so that it stands in no address and no history."""
    if access.role(token) is None:
        raise HTTPException(401, "This link is not valid (any more); ask for a new one.")
    response = RedirectResponse(request.url.path, status_code=303)
    secure = request.url.scheme == "https"
    response.set_cookie(cookie, token, max_age=30 * 86400, httponly=True, samesite="strict", secure=secure)
    return response


def _add_answering(app: FastAPI, work: Round) -> None:
    by_id = {task.id: task for task in work.tasks}

    @app.get("/api/session")
    def session(role: Visitor) -> dict[str, Any]:
        """What the page must know before anybody answers."""
        kinds = {kind: len(desk) for kind, desk in work.desks.items()}
        about = {"title": work.title, "kinds": kinds, "votes": _votes(work), "ahead": work.ahead}
        return about | {"person": role.person, "owner": role.owner}

    @app.post("/api/join")
    def join(body: Join, role: Visitor) -> dict[str, Any]:
        """Whether a name has answered before, so that two people do not share one unawares."""
        person = _allowed(role, body.person)
        return {"person": person, "answered": work.store.count(person)}

    @app.post("/api/tasks")
    def tasks(body: Wanted, role: Visitor) -> dict[str, Any]:
        """What to answer next. Tasks that are held are held on."""
        person = _allowed(role, body.person)
        with work.lock:
            given = work.hand_out(person, body.count, body.held)
            return {"tasks": [_shown(by_id[task]) for task in given], **_progress(work, person)}

    @app.post("/api/release")
    def release(body: Release, role: Visitor) -> dict[str, Any]:
        """Give tasks back that were not answered, as when the page is closed."""
        person = _allowed(role, body.person)
        with work.together():
            for task in body.tasks:
                if task in by_id:
                    work.desks[by_id[task].kind].release(task, person)
            return _progress(work, person)

    @app.post("/api/answers")
    def answers(body: Answers, role: Visitor) -> dict[str, Any]:
        """Keep answers. What is acknowledged ("kept") is on the disk; sending it again changes nothing.

        "unknown" are those about what is not asked; "changed" those that say something else than what is
        stored of the same person about the same task under the same number.
        """
        person = _allowed(role, body.person)
        known = [click for click in body.answers if click.task in by_id]
        unknown = [click.uid for click in body.answers if click.task not in by_id]
        now = datetime.now(timezone.utc)
        given = [_given(by_id[click.task], click, person, body.source, work.model, now) for click in known]
        kept: list[str] = []
        changed: list[str] = []
        with work.lock:
            work.store.add(given)
            for click in given:
                said, counts = work.store.find(person, click.task, click.uid) or ("", False)
                (kept if said == click.answer else changed).append(click.uid)
                if counts:  # one that was sent again may have been taken back since
                    work.answered(by_id[click.task].kind, click.task, person)
            work.changed()
            return {"kept": kept, "unknown": unknown, "changed": changed, **_progress(work, person)}

    @app.post("/api/undo")
    def undo(body: Undo, role: Visitor) -> dict[str, Any]:
        """Take an answer back, the latest or the named one; its task is the person's again."""
        person = _allowed(role, body.person)
        with work.together():
            row = work.store.withdraw(person, body.uid)
            task = None
            if row is not None and row.task in by_id:
                work.taken_back(by_id[row.task].kind, row.task, person)
                work.changed()
                task = _shown(by_id[row.task]) | {"answer": row.answer}
            return {"undone": row.uid if row else None, "task": task, **_progress(work, person)}

    _add_picture(app, work, by_id)


def _add_picture(app: FastAPI, work: Round, by_id: dict[str, Task]) -> None:
    @app.get("/api/pictures/{task}/{number}/{panel}", response_class=Response)
    def picture(
        task: Annotated[TaskId, InPath()],
        number: Annotated[int, InPath(ge=0, le=1000)],
        panel: Panel,
        role: Visitor,
        size: Annotated[Size, Query()] = "large",
    ) -> Response:
        """One picture of a task, as JPEG."""
        known = by_id.get(task)
        fits = known is not None and number < known.pictures and (panel == "patch") == (known.kind == "neuron")
        if known is None or not fits:
            raise HTTPException(404, "There is no such picture.")
        headers = {"Cache-Control": "private, max-age=3600"}
        return Response(work.drawing.jpeg(known, number, panel, size), media_type="image/jpeg", headers=headers)


def _add_owner(app: FastAPI, work: Round) -> None:
    by_id = {task.id: task for task in work.tasks}

    @lru_cache(maxsize=1)
    def counted(state: tuple[int, int]) -> dict[str, Any]:
        """What follows from the answers alone: worked out once, however often the page asks."""
        rows = work.store.rows()
        split = [(by_id[task], said) for task, said in disagreements(rows).items() if task in by_id]
        return {
            "answers": len(rows),
            "agreement": _agreement(work.store.answers()),
            "people": [each.to_dict() for each in people(rows)],
            "disagreements": len(split),
            "shown": [
                _shown(task) | {"sample": task.sample, "said": said} for task, said in split[:_SHOWN_DISAGREEMENTS]
            ],
        }

    @app.get("/api/owner", dependencies=[Depends(_owner)])
    def summary() -> dict[str, Any]:
        """Counts, people, agreement, and tasks that people disagree about."""
        with work.lock:
            kinds = {kind: {"tasks": len(desk), "done": desk.done} for kind, desk in work.desks.items()}
        return {"title": work.title, "kinds": kinds, "votes": _votes(work)} | counted(work.store.state())

    @app.post("/api/owner/export", dependencies=[Depends(_owner)])
    def export() -> dict[str, int]:
        """Write the answers to answers.jsonl of the workspace."""
        return {"new": work.export()}


def _allowed(role: Role, person: str) -> str:
    if role.person is not None and role.person != person:
        raise HTTPException(403, f"This link is {role.person}'s.")
    return person


def _given(task: Task, click: Click, person: str, source: str, model: str, now: datetime) -> Given:
    about: dict[str, Any] = {"answer": click.answer, "seconds": click.seconds, "source": source}
    records = records_of(task, person=person, model=model, time=now, **about)
    return Given(click.uid, task.id, person, click.answer, click.seconds, source, now.isoformat(), records)


def _shown(task: Task) -> dict[str, Any]:
    """What a page may know of a task: not the name of the file, which may give the answer away."""
    return {"id": task.id, "kind": task.kind, "question": task.question, "pictures": task.pictures}


def _votes(work: Round) -> int:
    return next(iter(work.desks.values())).votes


def _progress(work: Round, person: str) -> dict[str, Any]:
    """How far somebody is, in each kind of task; and what follows from the answers of all."""
    desks = work.desks.items()
    far = {kind: {"answered": desk.given(person), "left": desk.left(person)} for kind, desk in desks}
    return {"progress": far, **(work.follower.told if work.follower is not None else {})}


def _agreement(answers: AnnotationSet) -> dict[str, dict[str, Any]]:
    """How far people agree, for each kind of what they were asked about."""
    found: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        if len(answers.only(kind).annotators) >= 2:
            each = answers.agreement(kind)
            found[kind] = {"percent": each.percent, "kappa": each.kappa}
    return found
