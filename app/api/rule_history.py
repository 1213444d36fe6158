"""What was published of rule packs, by whom and with whose approval; and the way back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from msgspec import Struct
from starlette.concurrency import run_in_threadpool

from app.api import views
from app.api.people import RuleReader, RuleWriter
from app.api.problems import Problem
from app.api.rule_drafts import checked, compared, hand, insist, view
from app.rulebook import RuleBook
from app.store import Store
from app.store.publications import Publication

router = APIRouter(tags=["rules"])


class PublicationList(Struct, frozen=True, kw_only=True):
    publications: list[Publication]
    """Without their texts, newest first."""
    next: str | None
    in_force: list[int]
    """Numbers of those that new calls run by here."""


class PackText(Struct, frozen=True, kw_only=True):
    """A pack in force as it was written."""

    id: str
    version: str
    file: str
    text: str


@router.get("/api/rules/publications")
def publications(
    request: Request,
    _person: RuleReader,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[str | None, Query(pattern="^[0-9]{1,18}$")] = None,
) -> Response:
    """All packs' publications. ``next`` of an answer is ``before`` of the page that follows."""
    store: Store = request.app.state.store
    book: RuleBook = request.app.state.rules
    found, more = store.publications.page(limit, None if before is None else int(before))
    return views.answer(
        PublicationList(
            publications=found,
            next=None if more is None else str(more),
            in_force=[one.id for one in book.sources.published],
        )
    )


@router.get("/api/rules/publications/{publication_id}")
def publication(publication_id: int, request: Request, _person: RuleReader) -> Response:
    """One, with its text."""
    store: Store = request.app.state.store
    return views.answer(store.publications.get(_known(publication_id)))


@router.get("/api/rules/publications/{publication_id}/diff")
async def diff(
    publication_id: int,
    request: Request,
    _person: RuleReader,
    since: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
) -> Response:
    """What it changed of the one before it of the same pack, or of the one named by ``since``."""
    store: Store = request.app.state.store
    after = await run_in_threadpool(store.publications.get, _known(publication_id))
    before = (
        await run_in_threadpool(store.publications.before, after)
        if since is None
        else await run_in_threadpool(store.publications.get, since)
    )
    return views.answer(await compared(request, before.text if before else "", after.text))


@router.post("/api/rules/publications/{publication_id}/rollback", status_code=201)
async def rollback(publication_id: int, request: Request, person: RuleWriter) -> Response:
    """Ask for an earlier text to be in force again: a draft, submitted, which a second person approves."""
    store: Store = request.app.state.store
    book: RuleBook = request.app.state.rules
    wanted = await run_in_threadpool(store.publications.get, _known(publication_id))
    if wanted.origin == "withdrawn":
        raise Problem("unknown_publication")
    # First of all: what cannot be submitted leaves no draft behind.
    insist(await checked(request, wanted, await book.current()))
    base = next((part.version for part in book.pack.parts if part.id == wanted.pack_id), None)
    note = f"← #{wanted.id} {wanted.version}"
    draft = await run_in_threadpool(
        store.drafts.bring_back,
        hand(request, person),
        wanted.id,
        wanted.pack_id,
        wanted.text,
        note,
        base,
    )
    response = views.answer(view(draft, person))
    response.status_code = 201
    return response


@router.get("/api/rules/packs/{pack_id}")
def pack(pack_id: str, request: Request, _person: RuleReader) -> Response:
    """A pack in force as it was written."""
    book: RuleBook = request.app.state.rules
    part = next((part for part in book.pack.parts if part.id == pack_id), None)
    source = next((one for one in book.sources.texts if part is not None and one.file == part.file), None)
    if part is None or source is None:
        raise Problem("unknown_pack")
    return views.answer(PackText(id=part.id, version=part.version, file=part.file, text=source.text))


def _known(publication_id: int) -> int:
    if not 0 < publication_id < 2**63:
        raise Problem("unknown_publication")
    return publication_id
