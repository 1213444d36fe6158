"""Drafts of rule packs, from the first word to the approval of a second person; what may follow what says
``app.drafts``. Every step is in the audit, written together with what it does.
"""

from __future__ import annotations

from typing import Annotated

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import Response
from msgspec import Struct, structs
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from app.api import views
from app.api.people import RulePublisher, RuleWriter, address_of
from app.api.problems import Problem
from app.drafts import LONGEST_NOTE, LONGEST_TEXT, Draft, DraftError, may_approve
from app.errors import StoreError
from app.rule_jobs import Check, Checked, Compare, Compared, Failed, Wrong
from app.rulebook import RuleBook, Sources
from app.store import Person, Store
from app.store.drafts import Hand
from app.store.publications import Publication, Replaced
from app.workbench import Workbench
from detectors.rules import Problem as PackProblem
from detectors.rules.loader import Source
from detectors.rules.outline import declared_id

router = APIRouter(tags=["rules"])
log = structlog.get_logger(__name__)

TRIES = 3
"""An approval is checked beside all other packs; where another is published meanwhile, once more."""

PackId = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9._-]+$")]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
Note = Annotated[str, Field(max_length=LONGEST_NOTE)]


class NewDraft(BaseModel, extra="forbid"):
    pack: PackId | None = None
    """The pack in force to begin from; with ``text``, the one that it is to replace."""
    text: Text | None = None
    note: Note = ""


class Edit(BaseModel, extra="forbid"):
    text: Text
    note: Note = ""
    seen: Digest


class Step(BaseModel, extra="forbid"):
    seen: Digest
    """Digest of the text as it was looked at."""


class Return(Step, extra="forbid"):
    reason: Note = ""


class DraftView(Draft, frozen=True, kw_only=True):
    may_approve: bool
    """Whether whoever asks had no hand in it."""


class DraftList(Struct, frozen=True, kw_only=True):
    drafts: list[DraftView]
    """Without their texts."""


class DraftCheck(Struct, frozen=True, kw_only=True):
    """What is wrong with a draft; nothing, where both lists are empty."""

    problems: list[PackProblem]
    """Lines and columns from 1; those of other files, where it does not go together with them."""
    failed: list[Failed]
    version: str | None = None
    rules: int = 0
    scripts: int = 0
    dialogues: int = 0
    own: str = ""
    """What problems call the draft's own text."""


class Published(Struct, frozen=True, kw_only=True):
    draft: DraftView
    publication: Publication
    in_force: bool
    """Whether this process runs new calls by it already; others follow within seconds."""


@router.get("/api/rules/drafts")
def drafts(request: Request, person: RuleWriter) -> Response:
    """Those that are open, and the last that are over; newest first."""
    store: Store = request.app.state.store
    return views.answer(DraftList(drafts=[view(draft, person) for draft in store.drafts.all()]))


@router.post("/api/rules/drafts", status_code=201)
async def add(new: NewDraft, request: Request, person: RuleWriter) -> Response:
    """Begin a draft: from a text, or from a pack in force."""
    store: Store = request.app.state.store
    book: RuleBook = request.app.state.rules
    text, wanted = new.text, new.pack
    if text is not None:
        _bounded(text)
        wanted = wanted or declared_id(text)
        if wanted is None or len(wanted) > 100:
            raise Problem("draft_refused", problems=[_no_id()])
    source = await run_in_threadpool(book.sources.of, wanted or "")
    if text is None:
        if source is None:
            raise Problem("unknown_pack")
        text = source.text
    assert wanted is not None
    base = next((part.version for part in book.pack.parts if part.id == wanted), None)
    made = await run_in_threadpool(
        lambda: store.drafts.add(hand(request, person), wanted, text, new.note, base=base)
    )
    return _told(made, person, 201)


@router.get("/api/rules/drafts/{draft_id}")
def draft(draft_id: int, request: Request, person: RuleWriter) -> Response:
    store: Store = request.app.state.store
    return _told(store.drafts.get(_known(draft_id)), person)


@router.put("/api/rules/drafts/{draft_id}")
def edit(draft_id: int, change: Edit, request: Request, person: RuleWriter) -> Response:
    """Another text. It may have errors; ``check`` tells them."""
    store: Store = request.app.state.store
    _bounded(change.text)
    done = store.drafts.edit(hand(request, person), _known(draft_id), change.text, change.note, change.seen)
    return _told(done, person)


@router.post("/api/rules/drafts/{draft_id}/check")
async def check(draft_id: int, request: Request, _person: RuleWriter) -> Response:
    """Compile it beside the other packs in force, and run its dialogues; nothing changes."""
    found = await _get(request, draft_id)
    book: RuleBook = request.app.state.rules
    return views.answer(await checked(request, found, await book.current()))


@router.get("/api/rules/drafts/{draft_id}/diff")
async def diff(draft_id: int, request: Request, _person: RuleWriter) -> Response:
    """What it would change of the pack in force."""
    found = await _get(request, draft_id)
    book: RuleBook = request.app.state.rules
    source = await run_in_threadpool((await book.current()).of, found.pack_id)
    return views.answer(await compared(request, "" if source is None else source.text, found.text))


@router.post("/api/rules/drafts/{draft_id}/submit")
async def submit(draft_id: int, step: Step, request: Request, person: RuleWriter) -> Response:
    """Show it to those who may approve it. It must be in order, and its own dialogues must pass."""
    store: Store = request.app.state.store
    book: RuleBook = request.app.state.rules
    found = await _get(request, draft_id)
    if found.digest != step.seen or found.state != "draft":
        raise Problem("draft_changed")
    insist(await checked(request, found, await book.current()))
    done = await run_in_threadpool(store.drafts.submit, hand(request, person), found.id, step.seen)
    return _told(done, person)


@router.post("/api/rules/drafts/{draft_id}/return")
def give_back(draft_id: int, step: Return, request: Request, person: RuleWriter) -> Response:
    """Open it to changes again: take it back, or refuse to approve it."""
    store: Store = request.app.state.store
    done = store.drafts.give_back(hand(request, person), _known(draft_id), step.seen, step.reason)
    return _told(done, person)


@router.post("/api/rules/drafts/{draft_id}/discard")
def discard(draft_id: int, step: Step, request: Request, person: RuleWriter) -> Response:
    store: Store = request.app.state.store
    return _told(store.drafts.discard(hand(request, person), _known(draft_id), step.seen), person)


@router.post("/api/rules/drafts/{draft_id}/approve")
async def approve(draft_id: int, step: Step, request: Request, person: RulePublisher) -> Response:
    """Put it in force. Only for somebody who had no hand in it; calls in progress keep their rules."""
    store: Store = request.app.state.store
    book: RuleBook = request.app.state.rules
    found = await _get(request, draft_id)
    if found.state != "submitted" or found.digest != step.seen:
        raise Problem("draft_changed")
    if not may_approve(found, person.username):
        raise Problem("own_draft")
    for left in reversed(range(TRIES)):
        # Beside the packs of this moment: what went together when it was submitted need not do so now.
        sources = await book.current()
        result = await checked(request, found, sources)
        insist(result)
        try:
            done, publication = await run_in_threadpool(
                store.publications.publish,
                hand(request, person),
                found.id,
                step.seen,
                result.version or "",
                sources.head,
                await run_in_threadpool(_replaced, book, sources, found.pack_id),
            )
            break
        except DraftError as error:
            if error.code != "rules_moved" or not left:
                raise
        except StoreError:
            # The connection may have been lost after the commit was written.
            found_done = await run_in_threadpool(_published_by, store, found.id, person)
            if found_done is None:
                raise
            done, publication = found_done
            break
    # It is in the store: whoever starts from now on takes it. This process takes it now, or, where the
    # database went away at once, at its next look; published it is all the same.
    try:
        await book.reload(person.username, address_of(request))
    except StoreError as error:
        log.warning("rules.not_asked", error=str(error))
    in_force = any(one.id == publication.id for one in book.sources.published) and book.refused is None
    log.info("rules.published", pack=publication.pack_id, version=publication.version)
    return views.answer(Published(draft=view(done, person), publication=publication, in_force=in_force))


# ── shared with the routes about what was published ───────────────────────────────────────────────


def hand(request: Request, person: Person) -> Hand:
    return Hand(person.username, address_of(request))


def view(draft: Draft, person: Person) -> DraftView:
    return DraftView(**structs.asdict(draft), may_approve=may_approve(draft, person.username))


async def compared(request: Request, before: str, after: str) -> Compared:
    bench: Workbench = request.app.state.bench
    answer = await bench.done(Compare(before, after))
    assert isinstance(answer, Compared)
    return answer


async def checked(request: Request, draft: Draft | Publication, sources: Sources) -> DraftCheck:
    """What is wrong with a text beside these sources. Raises ``DraftError``."""
    bench: Workbench = request.app.state.bench
    own = f"{draft.pack_id}.yaml"
    texts = await run_in_threadpool(sources.instead, draft.pack_id, draft.text)
    answer = await bench.done(Check(texts, own))
    if isinstance(answer, Wrong):
        return DraftCheck(problems=[*sources.problems, *answer.problems], failed=[], own=own)
    assert isinstance(answer, Checked)
    if answer.pack_id != draft.pack_id:
        message = f"expected the id {draft.pack_id!r}, whose place it takes, came {answer.pack_id!r}"
        return DraftCheck(problems=[PackProblem(own, 1, 1, message)], failed=[], own=own)
    return DraftCheck(
        problems=list(sources.problems),
        failed=list(answer.failed),
        version=answer.version,
        rules=answer.rules,
        scripts=answer.scripts,
        dialogues=answer.dialogues,
        own=own,
    )


def insist(check: DraftCheck) -> None:
    """Raises ``Problem`` where anything is wrong."""
    if check.problems:
        raise Problem("draft_refused", problems=[structs.asdict(one) for one in check.problems])
    if check.failed:
        raise Problem("dialogues_failed", failed=[structs.asdict(one) for one in check.failed])


async def _get(request: Request, draft_id: int) -> Draft:
    store: Store = request.app.state.store
    return await run_in_threadpool(store.drafts.get, _known(draft_id))


def _known(draft_id: int) -> int:
    """A number that a database can hold."""
    if not 0 < draft_id < 2**63:
        raise Problem("unknown_draft")
    return draft_id


def _bounded(text: str) -> None:
    if len(text.encode(errors="replace")) > LONGEST_TEXT:
        raise Problem("draft_too_long")


def _no_id() -> dict[str, object]:
    return structs.asdict(PackProblem("", 1, 1, "expected a pack with an id, or its id beside it"))


def _published_by(store: Store, draft_id: int, person: Person) -> tuple[Draft, Publication] | None:
    """What an approval of theirs came to, where it is in force. May raise ``StoreError``."""
    _, packs = store.publications.in_force()
    made = next((one for one in packs if one.draft_id == draft_id), None)
    if made is None or made.approver != person.username:
        return None
    return store.drafts.get(draft_id), made


def _replaced(book: RuleBook, sources: Sources, wanted: str) -> Replaced | None:
    """The file in whose place it comes."""
    file: Source | None = sources.file_of(wanted)
    if file is None:
        return None
    version = next((part.version for part in book.pack.parts if part.file == file.file), "")
    return Replaced(version, file.text)


def _told(draft: Draft, person: Person, status: int = 200) -> Response:
    response = views.answer(view(draft, person))
    response.status_code = status
    return response
