"""The web application: the pages, and the requests of their scripts.

All requests run in one event loop, one step at a time: no two people can be given the same item at once.
"""

from __future__ import annotations

import json
import sqlite3
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from jinja2 import Environment, PackageLoader
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from rlaif_framework.annotation.access import PROGRESS, Access, Guard
from rlaif_framework.annotation.answers import Answer, Assignment, Choice
from rlaif_framework.annotation.assignment import AssignmentError, Desk
from rlaif_framework.annotation.differences import compare_words
from rlaif_framework.annotation.item import Item, names_itself
from rlaif_framework.annotation.items import ItemSet
from rlaif_framework.annotation.summary import AnnotationSummary, summarise_answers
from rlaif_framework.annotation.wording import describe_summary
from rlaif_framework.data.messages import is_transcript
from rlaif_framework.data.transcripts import SPEAKERS, split_transcript
from rlaif_framework.report.page import render_markdown

MAX_BODY = 2**16
"""Maximum size of a request in bytes."""

CHOSEN: Mapping[Choice, str] = {
    "first": "response 1",
    "second": "response 2",
    "tie": "a tie",
    "bad": "both bad",
    "skip": "cannot judge",
}

FILES = {"page.js": "text/javascript", "progress.js": "text/javascript", "page.css": "text/css"}


@dataclass(frozen=True)
class PageSettings:
    """What the page shows besides the pairs."""

    instructions: str
    """Markdown."""
    name: str = ""
    """Name of the annotator; empty to ask for it."""
    strength: bool = False
    """If True, ask how much better a response is."""
    min_seconds: float = 0.0
    """Time for which an item must be on the page before it can be answered."""
    show_judge: str = ""
    """Name of the labeler whose opinion is shown after each answer; empty for none."""


def _check_name(name: str) -> str:
    name = " ".join(unicodedata.normalize("NFC", name).split())
    if not name or not name.isprintable():
        raise ValueError("write a name without special characters")
    return name


Name = Annotated[str, Field(max_length=60), AfterValidator(_check_name)]
RequestId = Annotated[str, Field(min_length=8, max_length=64, pattern=r"^[A-Za-z0-9-]+$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    annotator: Name


class _AnswerBody(_Body):
    assignment: int
    choice: Choice
    strength: Literal[1, 2, 3] | None = None
    seconds: float = Field(ge=0, allow_inf_nan=False)
    request: RequestId


class _UndoBody(_Body):
    assignment: int
    request: RequestId


class Annotation:
    """The requests of the page."""

    def __init__(self, desk: Desk, pairs: ItemSet, gold: Mapping[str, Item], settings: PageSettings) -> None:
        self.desk = desk
        self.pairs = pairs
        self.gold = gold
        self.items = {**pairs.items, **gold}
        self.settings = settings
        self._summary: tuple[int, AnnotationSummary] | None = None

    async def open_items(self, request: Request) -> Response:
        """Return the next items of a person."""
        body = _Body.model_validate_json(await _read_body(request))
        return self._respond(self.desk.find_name(body.annotator))

    async def answer(self, request: Request) -> Response:
        """Take an answer, and return the next items."""
        body = _AnswerBody.model_validate_json(await _read_body(request))
        prefers = body.choice in ("first", "second")
        if (body.strength is not None) != (self.settings.strength and prefers):
            raise AssignmentError("reload the page: the strength of preferences is asked for differently now")
        if body.seconds < self.settings.min_seconds:
            raise AssignmentError(f"look at each pair for at least {self.settings.min_seconds:g} seconds")
        annotator = self.desk.find_name(body.annotator)
        given = self.desk.answer(annotator, body.assignment, body.choice, body.strength, body.seconds, body.request)
        return self._respond(annotator, judge=self._find_opinion(given))

    async def undo(self, request: Request) -> Response:
        """Take back an answer, and return its item as the next one."""
        body = _UndoBody.model_validate_json(await _read_body(request))
        if self.settings.show_judge:
            raise AssignmentError("answers cannot be changed after the judge's opinion was shown")
        annotator = self.desk.find_name(body.annotator)
        self.desk.take_back(annotator, body.assignment, body.request)
        return self._respond(annotator)

    async def differences(self, request: Request) -> Response:
        """Return the words in which the responses of an item differ, in the order in which they are shown."""
        assignment = self.desk.find(int(request.path_params["assignment"]))
        first, second = _order(self.items[assignment.item].comparison.responses, assignment)
        return _respond(await run_in_threadpool(compare_words, first, second))

    async def progress(self, request: Request) -> Response:
        """Return the measurements so far."""
        summary = await self.summarise()
        return _respond({"summary": asdict(summary), "lines": describe_summary(summary)})

    async def summarise(self) -> AnnotationSummary:
        """Measure the answers, unless nothing has changed since."""
        version, answers = self.desk.version, self.desk.answers
        if self._summary is None or self._summary[0] != version:
            planned = len(self.desk.order)
            summary = await run_in_threadpool(summarise_answers, answers, self.pairs, self.gold, planned)
            self._summary = version, summary
        return self._summary[1]

    def _respond(self, annotator: str, judge: str | None = None) -> Response:
        last = None if self.settings.show_judge else self.desk.last_answer(annotator)
        opened = self.desk.open_items(annotator)
        content = {
            "items": [self._show(x) for x in opened],
            "last": last.assignment.id if last else None,
            "name": annotator,
            "answered": self.desk.count_answers(annotator),
            "left": self.desk.count_left(annotator),
            "judge": judge,
        }
        return _respond(content)

    def _show(self, assignment: Assignment) -> dict[str, Any]:
        """Return what a person sees of an item, which does not say whether it is a repetition or a gold item."""
        pair = self.items[assignment.item].comparison
        text = pair.prompt.source
        turns = split_transcript(text) if is_transcript(text) else []
        responses = _order(pair.responses, assignment)
        return {
            "id": assignment.id,
            "prompt": [[SPEAKERS[turn.role], turn.content] for turn in turns] or [["", text]],
            "responses": responses,
            "names_itself": [names_itself(response) for response in responses],
        }

    def _find_opinion(self, answer: Answer) -> str | None:
        """Describe an answer and the judge's opinion on its item, for the page that shows the next one."""
        name = self.settings.show_judge
        if not name:
            return None
        stated = self.pairs.opinions[name].get(answer.assignment.item)
        yours = f"Previous pair: you chose {CHOSEN[answer.choice]}"
        if stated is None:
            return f"{yours}; {name} has no opinion"
        shown_first = stated if answer.assignment.first == 0 else 1 - stated
        if shown_first == 0.5:
            return f"{yours}; {name} finds both equal"
        number, share = (1, shown_first) if shown_first > 0.5 else (2, 1 - shown_first)
        return f"{yours}; {name} prefers response {number}, with {100 * share:.0f} %"


def create_app(annotation: Annotation, access: Access) -> Starlette:
    """Create the application."""
    pages = Environment(loader=PackageLoader("rlaif_framework.annotation", "."), autoescape=True)
    settings = annotation.settings
    values = {
        "instructions": render_markdown(settings.instructions),
        "settings": {
            "name": settings.name,
            "strength": settings.strength,
            "min_seconds": settings.min_seconds,
            "undo": not settings.show_judge,
        },
        "pairs": annotation.pairs.name,
    }

    def render(template: str) -> Route:
        text = pages.get_template(f"{template}.html.j2").render(**values)
        path = "/" if template == "page" else f"/{template}"

        async def show(request: Request) -> Response:
            return HTMLResponse(text)

        return Route(path, show)

    def serve(name: str, kind: str) -> Route:
        text, _, _ = PackageLoader("rlaif_framework.annotation", ".").get_source(pages, name)

        async def send(request: Request) -> Response:
            return Response(text, media_type=kind)

        return Route(f"/{name}", send)

    return Starlette(
        routes=[
            render("page"),
            render("progress"),
            *(serve(name, kind) for name, kind in FILES.items()),
            Route("/api/items", annotation.open_items, methods=["POST"]),
            Route("/api/answers", annotation.answer, methods=["POST"]),
            Route("/api/undo", annotation.undo, methods=["POST"]),
            Route("/api/differences/{assignment:int}", annotation.differences),
            Route(PROGRESS, annotation.progress),
        ],
        middleware=[Middleware(Guard, access=access)],
        exception_handlers={
            AssignmentError: _refuse(409),
            ValidationError: _refuse(422),
            BodyError: _refuse(413),
            sqlite3.Error: _refuse(503),
        },
    )


class BodyError(Exception):
    """A request is too large."""


async def _read_body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise BodyError(f"a request has at most {MAX_BODY} bytes")
    return body


def _refuse(status: int) -> Any:
    async def refuse(request: Request, error: Exception) -> Response:
        if isinstance(error, ValidationError):
            found = error.errors(include_url=False, include_input=False, include_context=False)[0]
            return JSONResponse(
                {"error": f"{'.'.join(map(str, found['loc']))}: {found['msg'].removeprefix('Value error, ')}"}, status
            )
        prefix = "the server cannot write the file of answers: " if status == 503 else ""
        return JSONResponse({"error": f"{prefix}{error}"}, status)

    return refuse


def _respond(content: Any) -> Response:
    # Halves of surrogate pairs, which data may have, can be escaped but not encoded.
    return Response(json.dumps(content), media_type="application/json")


def _order(responses: tuple[str, str], assignment: Assignment) -> tuple[str, str]:
    return responses if assignment.first == 0 else (responses[1], responses[0])
