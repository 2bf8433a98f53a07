"""The app over HTTP: one page, its tasks, pictures and answers, and the owner's page.

Made of parts that know nothing of HTTP; here they are only put behind addresses. No address holds the name
of a file: what can be asked for is listed, and everything else is not there.
"""

# No "from __future__ import annotations" here: FastAPI reads the hints of functions made inside functions.
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi import Path as InPath
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from crayon_sdk import __version__
from crayon_sdk.annotate.access import HEADERS, Access, Role, problem_with
from crayon_sdk.annotate.desk import Desk
from crayon_sdk.annotate.drawing import Drawing, Panel, Size
from crayon_sdk.annotate.monitoring import disagreements, people
from crayon_sdk.annotate.store import AnswerStore, Given
from crayon_sdk.annotate.tasks import Task, records_of
from crayon_sdk.annotations import AnnotationSet
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
_SHOWN_DISAGREEMENTS = 50
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Round:
    """One round of answering: what is asked, what was answered, and how it is kept.

    Attributes:
        tasks: In the order in which they are asked.
        desk: Hands them out.
        store: Keeps what is answered.
        drawing: Draws the pictures.
        model: Fingerprint of the model they are about.
        title: Shown at the top of the pages.
        export: Writes the answers to the workspace, and says how many are new there.
        lock: Held while the desk and the store change.
    """

    tasks: Sequence[Task]
    desk: Desk
    store: AnswerStore
    drawing: Drawing
    model: str
    title: str
    export: Callable[[], int]
    lock: Any


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
    seconds: float | None = Field(default=None, ge=0, le=86400)


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
    app = FastAPI(title="crayon annotate", version=__version__, docs_url=None, redoc_url=None)
    app.state.cookie = f"crayon-{work.store.token('cookie')[:8]}"
    app.middleware("http")(_guard(access))
    app.add_exception_handler(CrayonError, _say_crayon_error)
    may_answer, must_own = _roles(access, app.state.cookie)
    _add_pages(app, work, access)
    _add_answering(app, work, may_answer)
    _add_owner(app, work, must_own)
    return app


def _guard(access: Access) -> Callable[[Request, Any], Any]:
    async def guard(request: Request, call_next: Any) -> Response:
        problem = problem_with(request.method, request.headers, known_hosts_only=not access.required)
        if problem is not None:
            response: Response = JSONResponse({"detail": problem[1]}, status_code=problem[0])
        else:
            response = await call_next(request)
        response.headers.update(HEADERS)
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    return guard


def _say_crayon_error(request: Request, error: Exception) -> JSONResponse:
    _log.warning("%s: %s", request.url.path, error)
    return JSONResponse({"detail": str(error)}, status_code=409)


def _roles(access: Access, cookie: str) -> tuple[Callable[..., Role], Callable[..., Role]]:
    def may_answer(
        request: Request, authorization: Annotated[str | None, Header(description="Bearer TOKEN")] = None
    ) -> Role:
        token = (authorization or "").removeprefix("Bearer ") or request.cookies.get(cookie)
        role = access.role(token)
        if role is None:
            raise HTTPException(401, "Open the link that you were given: it lets you in.")
        return role

    def must_own(role: Annotated[Role, Depends(may_answer)]) -> Role:
        if not role.owner:
            raise HTTPException(403, "This is for the owner of the round.")
        return role

    return may_answer, must_own


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


def _add_answering(app: FastAPI, work: Round, may_answer: Callable[..., Role]) -> None:
    by_id = {task.id: task for task in work.tasks}
    Visitor = Annotated[Role, Depends(may_answer)]  # noqa: N806 - a type

    @app.get("/api/session")
    def session(role: Visitor) -> dict[str, Any]:
        """What the page must know before anybody answers."""
        kind = work.tasks[0].kind if work.tasks else "image"
        about = {"title": work.title, "kind": kind, "votes": work.desk.votes, "tasks": len(work.tasks)}
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
            given = work.desk.hand_out(person, body.count, body.held)
            return {"tasks": [_shown(by_id[task]) for task in given], **_progress(work, person)}

    @app.post("/api/release")
    def release(body: Release, role: Visitor) -> dict[str, Any]:
        """Give tasks back that were not answered, as when the page is closed."""
        person = _allowed(role, body.person)
        with work.lock:
            for task in body.tasks:
                work.desk.release(task, person)
            return _progress(work, person)

    @app.post("/api/answers")
    def answers(body: Answers, role: Visitor) -> dict[str, Any]:
        """Keep answers. When this is acknowledged they are on the disk; sending them again changes nothing."""
        person = _allowed(role, body.person)
        known = [click for click in body.answers if click.task in by_id]
        now = datetime.now(timezone.utc)
        given = [_given(by_id[click.task], click, person, body.source, work.model, now) for click in known]
        with work.lock:
            work.store.add(given)
            # One that was sent again may have been taken back since: the store knows what counts.
            for click in known:
                if work.store.counts(click.uid):
                    work.desk.answered(click.task, person)
            unknown = [click.uid for click in body.answers if click.task not in by_id]
            return {"kept": [click.uid for click in known], "unknown": unknown, **_progress(work, person)}

    @app.post("/api/undo")
    def undo(body: Undo, role: Visitor) -> dict[str, Any]:
        """Take an answer back, the latest or the named one; its task is the person's again."""
        person = _allowed(role, body.person)
        with work.lock:
            row = work.store.withdraw(person, body.uid)
            task = None
            if row is not None and row.task in by_id:
                work.desk.withdrawn(row.task, person)
                work.desk.hold(row.task, person)
                task = _shown(by_id[row.task]) | {"answer": row.answer}
            return {"undone": row.uid if row else None, "task": task, **_progress(work, person)}

    _add_picture(app, work, by_id, may_answer)


def _add_picture(app: FastAPI, work: Round, by_id: dict[str, Task], may_answer: Callable[..., Role]) -> None:
    @app.get("/api/pictures/{task}/{number}/{panel}", response_class=Response)
    def picture(
        task: Annotated[TaskId, InPath()],
        number: Annotated[int, InPath(ge=0, le=1000)],
        panel: Panel,
        role: Annotated[Role, Depends(may_answer)],
        size: Annotated[Size, Query()] = "large",
    ) -> Response:
        """One picture of a task, as JPEG."""
        known = by_id.get(task)
        fits = known is not None and number < known.pictures and (panel == "patch") == (known.kind == "neuron")
        if known is None or not fits:
            raise HTTPException(404, "There is no such picture.")
        headers = {"Cache-Control": "private, max-age=3600"}
        return Response(work.drawing.jpeg(known, number, panel, size), media_type="image/jpeg", headers=headers)


def _add_owner(app: FastAPI, work: Round, must_own: Callable[..., Role]) -> None:
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

    @app.get("/api/owner", dependencies=[Depends(must_own)])
    def summary() -> dict[str, Any]:
        """Counts, people, agreement, and tasks that people disagree about."""
        with work.lock:
            about = {"title": work.title, "tasks": len(work.desk), "done": work.desk.done, "votes": work.desk.votes}
        return about | counted(work.store.state())

    @app.post("/api/owner/export", dependencies=[Depends(must_own)])
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


def _progress(work: Round, person: str) -> dict[str, int]:
    return {"answered": work.desk.given(person), "left": work.desk.left(person)}


def _agreement(answers: AnnotationSet) -> dict[str, Any] | None:
    kind: Literal["image", "neuron"] = "image" if answers.image_answers else "neuron"
    if len(answers.annotators) < 2:
        return None
    found = answers.agreement(kind)
    return {"percent": found.percent, "kappa": found.kappa}
