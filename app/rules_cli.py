"""``duting rules``: what those who write rules work with."""

from __future__ import annotations

import json as json_
import sys
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from app import settings as settings_
from app.errors import SettingsError

if TYPE_CHECKING:
    from app.backtest import Report
    from detectors.backtest import Hit
    from detectors.dialogues import TestResult
    from detectors.rules import Pack

rules_app = typer.Typer(no_args_is_help=True, help="Check, test and compare rule packs.")

SHOWN = 20
"""Places of one rule that the table names; ``--json`` has all of them."""

Packs = Annotated[
    list[Path] | None, typer.Argument(help="YAML files, or folders of them; the built-in pack if left out")
]


@rules_app.command("check")
def check_packs(packs: Packs = None) -> None:
    """Say whether packs are valid; every error with file, line, column and what was expected."""
    pack = _load(packs)
    for part in pack.parts:
        rules = [rule for rule in pack.rules if rule.version == part.version]
        scripts = [s for s in pack.scripts if any(node.rule.version == part.version for node in s.nodes)]
        modes = [(len([r for r in rules if r.mode == mode]), mode) for mode in ("live", "shadow", "off")]
        counted = ", ".join(f"{count} {mode}" for count, mode in modes if count)
        dialogues = sum(len(one.tests) for one in rules) + sum(len(one.tests) for one in scripts)
        said = [f"{len(rules)} rules" + (f" ({counted})" if counted else "")]
        said += [f"{len(scripts)} scripts"] if scripts else []
        said += [f"{dialogues} dialogues"] if dialogues else []
        print(f"{part.id} {part.version}: {', '.join(said)}, no errors")
    if len(pack.parts) > 1:
        print(f"together {pack.version}: {len(pack.rules)} rules, no errors")


@rules_app.command("test")
def run_dialogues(
    packs: Packs = None,
    rule: Annotated[
        list[str] | None,
        typer.Option("--rule", help="only dialogues of this rule or script; redline.* for many"),
    ] = None,
) -> None:
    """Run the test dialogues that packs carry; exit status 1 if one fails."""
    from detectors.dialogues import run_tests
    from detectors.rules.loader import pack_files
    from detectors.rules.model import Rule
    from detectors.rules.script import Script

    whole = _load(packs)  # all together first: what is wrong with them is told before anything runs
    tested: list[Rule | Script] = [*whole.rules, *whole.scripts]
    wanted = {r.id for r in tested if not rule or any(fnmatchcase(r.id, one) for one in rule)}
    if rule and not wanted:
        raise SettingsError(f"no rule is called {' or '.join(rule)}; `duting rules check` names the packs")
    passed = failed = 0
    for file in pack_files(_paths(packs)) if len(whole.parts) > 1 else [None]:
        # A dialogue says what its own pack finds, whichever others run beside it.
        pack = whole if file is None else _load([file])
        results = run_tests(pack, wanted)
        for result in results:
            if not result.passed:
                print(_failure(pack.parts[0].file, result))
        passed += sum(result.passed for result in results)
        failed += sum(not result.passed for result in results)
    off = {r.id for r in whole.rules if r.mode == "off"}
    untested = sorted(r.id for r in tested if r.id in wanted - off and not r.tests)
    if untested:
        print(f"without a dialogue: {', '.join(untested)}", file=sys.stderr)
    print(f"{passed} passed, {failed} failed")
    if failed:
        raise typer.Exit(1)


def _failure(file: str, result: TestResult) -> str:
    said = [f"  {result.name}"]
    if result.missing:
        said.append(f"  missing     {', '.join(result.missing)}")
    if result.unexpected:
        said.append(f"  unexpected  {', '.join(result.unexpected)}")
    return "\n".join((f"FAILED {file}:{result.line} {result.rule_id}", *said))


@rules_app.command("list")
def in_force() -> None:
    """What is in force here: each pack, its version, and whether it comes from a file or was published."""
    from app.errors import PackRefused
    from app.rulebook import RuleBook, shown
    from app.store import Store
    from detectors.rules.outline import pack_id

    settings = settings_.load()
    store = Store.open(settings.database)
    try:
        book = RuleBook.open(settings.rules, store.publications)
        published = {shown(one): one for one in book.sources.published}
        replaced = {pack_id(file.text): file.file for file in book.sources.replaced}
        for part in book.pack.parts:
            one = published.get(part.file)
            if one is None:
                print(f"{part.id} {part.version}: file {part.file}")
                continue
            file = f", in place of the file {replaced[part.id]}" if part.id in replaced else ""
            said = f"published #{one.id} {one.at}, by {one.author}, approved by {one.approver}"
            print(f"{part.id} {part.version}: {said}{file}")
    except PackRefused as error:
        raise PackRefused(f"nothing is in force, a server would not start: {error}") from None
    finally:
        store.close()


@rules_app.command("published")
def published(
    text: Annotated[int | None, typer.Option("--text", help="print the text of this publication")] = None,
    most: Annotated[int, typer.Option(min=1, max=1000, help="at most so many, the newest")] = 20,
) -> None:
    """What was published over the dashboard, newest first: version, author, who approved it."""
    from app.drafts import DraftError
    from app.store import Store

    store = Store.open(settings_.load().database)
    try:
        if text is not None:
            try:
                sys.stdout.write(store.publications.get(text).text)
            except DraftError:
                raise SettingsError(f"there is no publication #{text}") from None
            return
        current = {one.id for one in store.publications.in_force()[1]}
        found, _ = store.publications.page(most)
        for one in found:
            of = f" of #{one.of}" if one.of else ""
            mark = "in force" if one.id in current else ""
            said = f"#{one.id}  {one.at}  {one.pack_id} {one.version or '(file)'}  {one.origin}{of}"
            print(f"{said}  by {one.author}, approved by {one.approver}  {mark}".rstrip())
        if not found:
            print("nothing was published: the rules come from files", file=sys.stderr)
    finally:
        store.close()


@rules_app.command("unpublish")
def unpublish(pack: Annotated[str, typer.Argument(help="id of the pack, such as bank.zh")]) -> None:
    """Put the file of a pack in force again, in place of what was published. No second person is asked.

    For an emergency: whoever has this command could change the file as well. It is in the audit and in the
    history; running servers take it within seconds.
    """
    from app.store import Store
    from app.store.drafts import Hand

    store = Store.open(settings_.load().database)
    try:
        done = store.publications.withdraw(Hand("(command)", None), pack)
    finally:
        store.close()
    if done is None:
        raise SettingsError(f"no pack {pack!r} is published; `duting rules published` lists what is")
    print(f"{pack}: #{done.id}, the file is in force again")


@rules_app.command("schema")
def schema() -> None:
    """Print the JSON Schema of rule packs, for editors: they complete and check while one writes."""
    from detectors.rules.schema import schema as pack_schema

    print(json_.dumps(pack_schema(), ensure_ascii=False, indent=2))


@rules_app.command("backtest")
def backtest(
    packs: Annotated[list[Path], typer.Argument(help="the pack to try: YAML files, or folders of them")],
    since: Annotated[
        str | None, typer.Option(help="only calls from then on: 2026-03-01, or 7d, 24h ago")
    ] = None,
    calls: Annotated[int | None, typer.Option(min=1, help="at most so many, the newest")] = None,
    call: Annotated[list[str] | None, typer.Option("--call", help="only this call; may be repeated")] = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
) -> None:
    """Run a pack over stored calls and compare its hits with those of the rules that ran then."""
    from rich.progress import track

    from app import backtest as backtests
    from app.store import Store

    pack = _load(packs)
    begin = None if since is None else backtests.since(since)
    store = Store.open(settings_.load().database)
    try:
        ids = call or store.rules.calls_to_replay(begin, calls)
        err = Console(stderr=True)
        steps = iter(track(range(len(ids)), "backtest", console=err, transient=not err.is_terminal))

        def one_more(_done: int) -> None:
            next(steps, None)

        report = backtests.backtest(store, pack, ids, one_more, begin)
    finally:
        store.close()
    if json:
        print(json_.dumps(backtests.as_json(report), ensure_ascii=False, indent=2))
    else:
        _show(report)


def _show(report: Report) -> None:
    from rich.table import Table

    out = Console(highlight=False)
    out.print(
        f"{report.pack} {report.version}: {report.calls} calls, {report.seconds / 60:.0f} minutes; "
        f"they ran under {', '.join(report.versions) or 'rules that found nothing'}",
        markup=False,
        soft_wrap=True,
    )
    found = [diff for diff in report.rules if diff.same or diff.new or diff.gone]
    table = Table(box=None, pad_edge=False)
    names = [diff.rule_id + (" *" if diff.limited else "") for diff in found]
    # Also where the output is narrow, or goes into a file: an id cut short names nothing.
    table.add_column("rule", no_wrap=True, min_width=max(map(len, names), default=4))
    for name in ("same", "new", "gone"):
        table.add_column(name, justify="right")
    for name, diff in zip(names, found, strict=True):
        table.add_row(name, _counted(diff.same), _counted(diff.new), _counted(diff.gone))
    out.print(table)
    for diff in found:
        for kind, hits in (("new ", diff.new), ("gone", diff.gone)):
            for line in _places(hits):
                out.print(f"{kind}  {diff.rule_id}  {line}", markup=False, soft_wrap=True)
    if any(diff.limited for diff in found):
        out.print(
            "* limited: the store does not hold all that these rules look at (sound, hold, masked numbers); "
            "what is gone may only not be seen again",
            markup=False,
            soft_wrap=True,
        )


def _counted(hits: Sequence[Hit]) -> str:
    """``3``, or ``3 (1 false)`` where people had found one to be a false alarm."""
    from app.backtest import false_alarms

    false = false_alarms(hits)
    return f"{len(hits)} ({false} false)" if false else str(len(hits))


def _places(hits: Iterable[Hit]) -> list[str]:
    lines = [f"{hit.call_id}  {_clock(hit.start_ms)}–{_clock(hit.end_ms)}" for hit in hits]
    more = len(lines) - SHOWN
    return lines if more <= 0 else [*lines[:SHOWN], f"… and {more} more, see --json"]


def _clock(ms: int) -> str:
    return f"{ms // 60_000}:{ms // 1000 % 60:02}.{ms % 1000 // 100}"


def _paths(packs: list[Path] | None) -> list[Path]:
    from detectors.rules import DEFAULT_PACK

    return packs or [DEFAULT_PACK]


def _load(packs: list[Path] | None) -> Pack:
    from app.errors import PackRefused
    from detectors.rules import PackError, load_packs

    try:
        return load_packs(_paths(packs))
    except PackError as error:
        raise PackRefused(str(error)) from None
