"""``python -m benchmarks.appended``: the real server, whose events come from a plan instead of telephones.

It waits for ``plan.json`` (a ``Plan``) in its data folder, then hands the plan's events to the real outlet,
each at its moment, as the runner would: they are stored, told to every browser and read back like any others.
When all are told it writes ``played.json`` beside it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import get_args

import msgspec
from fastapi import FastAPI
from msgspec import Struct

from app import cli
from app.build import Service
from app.build import build as build_
from app.models import Progress as Fetching
from app.settings import Settings
from benchmarks.scripted import scripted
from streams.events import (
    Alert,
    CallEnded,
    CallInfo,
    CallStarted,
    Emotion,
    Evidence,
    Feeling,
    Latency,
    OutletEvent,
    Progress,
    Severity,
    SpeechStarted,
    SpeechStopped,
    Step,
    Transcript,
)

PLAN, PLAYED = "plan.json", "played.json"
POLL_S = 0.1

QUEUES = ("理财专线", "投诉受理", "借记卡服务", "信用卡服务", "贷款咨询", "综合服务")
TEAMS = ("一组", "二组", "三组", "四组", "五组")
CALLER = (
    "我上个月的年费到现在还没有退",
    "这个收益是保证的吗",
    "我等了二十分钟了",
    "好的，谢谢你",
    "你们到底管不管",
)
ANSWER = (
    "请您稍等，我马上为您核实",
    "这款产品不保本，收益会有波动",
    "非常抱歉给您带来不便",
    "请问还有什么可以帮您",
)
STEPS = (
    ("greet", "问候"),
    ("verify", "核实身份"),
    ("risk", "提示风险"),
    ("confirm", "确认意愿"),
    ("close", "结束语"),
)
RULES: tuple[tuple[Severity, str, str, str], ...] = (
    ("critical", "redline.guaranteed_return", "承诺保本保收益", "Guaranteed return promised"),
    ("warning", "signal.complaint", "投诉意向", "Intends to complain"),
    ("info", "opportunity.wealth", "理财商机", "Wealth opportunity"),
)


class Plan(Struct, frozen=True, kw_only=True):
    calls: int
    """Live at any time."""
    events_per_call_s: float
    """Of speech, text, emotion and script, for each call."""
    alerts_s: float
    """Of all calls together, at even distances."""
    seconds: float
    seed: int = 1
    changes: bool = True
    """Whether calls end and others begin meanwhile."""
    waited: bool = True
    """Whether the telephony says how long the customers waited."""


class Played(Struct, frozen=True, kw_only=True):
    events: int
    alerts: int
    late_s: float
    """The latest that anything was handed to the outlet."""


# ── what happens ──────────────────────────────────────────────────────────────────────────────────


class Talk:
    """One call that is live, and what is next in it. Media time is the time since its start."""

    def __init__(self, number: int, chance: random.Random, plan: Plan, began_s: float) -> None:
        self.number, self.call_id = number, f"bench-{number:05d}"
        self._chance, self._plan, self._began_s = chance, plan, began_s
        self._said = 0
        self._speaker: tuple[str, int] | None = None
        self._level = chance.uniform(0.5, 5.0)
        self._step = 0
        self._part = chance.randrange(6)

    def info(self) -> CallInfo:
        agent = self.number % 600
        attributes = {}
        if self._plan.waited:
            attributes["waited_s"] = str(round(self._chance.expovariate(1 / 12)))
        return CallInfo(
            call_id=self.call_id,
            protocol="bench",
            agent=f"{8001 + agent}",
            team=TEAMS[agent // 8 % len(TEAMS)],
            queue=QUEUES[agent % len(QUEUES)],
            customer=f"尾号 {self._chance.randrange(10_000):04d}",
            customer_level=self._chance.choice((None, "金卡", "VIP", "私行")),
            direction=self._chance.choice(("inbound", "inbound", "outbound")),
            attributes=attributes,
        )

    def next(self, at_s: float) -> list[OutletEvent]:
        """A turn: starts to speak, two partials, stops, final, emotion; now and then a step of the script."""
        ms = self.ms(at_s)
        phase, self._part = self._part, (self._part + 1) % 6
        if phase == 0:
            role = self._chance.choice(("agent", "customer"))
            self._speaker = (role, ms)
            return [SpeechStarted(call_id=self.call_id, channel=role, media_ms=ms)]  # type: ignore[arg-type]
        if self._speaker is None:
            return []
        role, start = self._speaker
        words = self._chance.choice(ANSWER if role == "agent" else CALLER)
        if phase in (1, 2):
            return [self._text(role, start, ms, words[: 4 * phase], final=False)]
        if phase == 3:
            return [SpeechStopped(call_id=self.call_id, channel=role, media_ms=ms)]  # type: ignore[arg-type]
        if phase == 4:
            self._said += 1
            return [self._text(role, start, ms, words, final=True)]
        if role == "agent" and self._said % 4 == 0:
            self._step = min(len(STEPS), self._step + 1)
            return [self._progress(ms)]
        return [self._emotion(start, ms)]

    def alert(self, number: int, at_s: float) -> Alert:
        """Its id ends with the moment (``time.monotonic_ns``) at which it is handed to the outlet."""
        severity, rule, zh, en = RULES[min(2, int(self._chance.expovariate(1.0)))][0:4]
        ms = self.ms(at_s)
        return Alert(
            id=f"bench-{number:07d}-{time.monotonic_ns():020d}",
            call_id=self.call_id,
            rule_id=rule,
            rule_version="1+bench",
            name={"zh": zh, "en": en},
            severity=severity,
            role="agent",
            media_start_ms=max(0, ms - 900),
            media_end_ms=ms,
            evidence=Evidence(
                text="这款产品您放心，保本的，收益稳赚不赔", matched=("保本",), spans=((8, 10),)
            ),
            latency_ms=Latency(vad=420.0, queue=30.0, asr=210.0, rules=1.2),
        )

    def ms(self, at_s: float) -> int:
        return max(0, round((at_s - self._began_s) * 1000))

    def _text(self, role: str, start: int, end: int, text: str, final: bool) -> Transcript:
        return Transcript(
            call_id=self.call_id,
            utterance_id=f"{self.call_id}:{role}:{start}",
            role=role,  # type: ignore[arg-type]
            start_ms=start,
            end_ms=end,
            text=text,
            final=final,
            confidence=0.9,
        )

    def _emotion(self, start: int, end: int) -> Emotion:
        before = self._level
        self._level = min(10.0, max(0.0, before + self._chance.gauss(0.0, 0.9)))
        feelings = get_args(Feeling)
        return Emotion(
            call_id=self.call_id,
            role="customer",
            utterance_id=f"{self.call_id}:customer:{start}",
            media_start_ms=start,
            media_end_ms=end,
            feeling=feelings[5] if self._level > 6.5 else feelings[4] if self._level > 4 else feelings[0],
            level=round(self._level, 1),
            trend=round(self._level - before, 1),
            voice=None,
            words=round(self._level, 1),
        )

    def _progress(self, ms: int) -> Progress:
        steps = tuple(
            Step(
                id=name,
                name={"zh": zh, "en": name},
                state="done" if place < self._step else "due" if place == self._step else "waiting",
                due_ms=ms + 20_000 if place == self._step else None,
            )
            for place, (name, zh) in enumerate(STEPS)
        )
        return Progress(
            call_id=self.call_id,
            script="sale",
            name={"zh": "理财销售", "en": "Sale"},
            media_ms=ms,
            steps=steps,
        )


def script(plan: Plan) -> Iterator[tuple[float, list[OutletEvent]]]:
    """What is handed to the outlet at which second, in order; what is due in the same moment together."""
    chance = random.Random(plan.seed)
    talks = [Talk(number, chance, plan, 0.0) for number in range(plan.calls)]
    yield 0.0, [CallStarted(call=talk.info()) for talk in talks]
    tick_s = 0.02
    alerts = begun = 0
    begun = plan.calls
    # Every call at its own moments, spread evenly.
    due = [chance.random() / plan.events_per_call_s if plan.events_per_call_s else 1e9 for _ in talks]
    for tick in range(round(plan.seconds / tick_s)):
        at_s = tick * tick_s
        events: list[OutletEvent] = []
        for place, talk in enumerate(talks):
            if due[place] > at_s:
                continue
            due[place] += 1 / plan.events_per_call_s
            events += talk.next(at_s)
        while alerts < plan.alerts_s * at_s:
            events.append(chance.choice(talks).alert(alerts, at_s))
            alerts += 1
        if plan.changes and tick % round(1 / tick_s) == 1:
            place = chance.randrange(len(talks))
            over = talks[place]
            events.append(CallEnded(call_id=over.call_id, media_ms=over.ms(at_s)))
            talks[place] = Talk(begun, chance, plan, at_s)
            begun += 1
            events.append(CallStarted(call=talks[place].info()))
        if events:
            yield at_s, events


async def play(service: Service) -> None:
    folder = service.settings.data_dir
    while not (folder / PLAN).exists():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(POLL_S)
    plan = msgspec.json.decode((folder / PLAN).read_bytes(), type=Plan)
    began = time.monotonic()
    count = alerts = 0
    late = 0.0
    under_way: set[asyncio.Task[object]] = set()
    for at_s, events in script(plan):
        await asyncio.sleep(max(0.0, began + at_s - time.monotonic()))
        late = max(late, time.monotonic() - began - at_s)
        count += len(events)
        alerts += sum(isinstance(event, Alert) for event in events)
        # As many calls do, one does not wait for what another stores.
        task: asyncio.Task[object] = asyncio.create_task(service.outlet.append(_now(events)))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)
    written = msgspec.json.encode(Played(events=count, alerts=alerts, late_s=round(late, 3)))
    (folder / f"{PLAYED}.part").write_bytes(written)
    (folder / f"{PLAYED}.part").rename(folder / PLAYED)


def _now(events: Sequence[OutletEvent]) -> list[OutletEvent]:
    """Alerts are made with the tick before; their moment is this one."""
    return [
        msgspec.structs.replace(event, id=f"{event.id[:14]}{time.monotonic_ns():020d}")
        if isinstance(event, Alert)
        else event
        for event in events
    ]


class AppendingService(Service):
    @asynccontextmanager
    async def running(self, app: FastAPI | None = None) -> AsyncIterator[None]:
        async with super().running(app):
            playing = asyncio.create_task(play(self), name="plan")
            try:
                yield
            finally:
                playing.cancel()
                with suppress(asyncio.CancelledError):
                    await playing


def build(settings: Settings, progress: Fetching) -> Service:
    service = build_(settings, progress, transcriber=scripted())
    return AppendingService(**{field.name: getattr(service, field.name) for field in fields(service)})


def begin(folder: Path, plan: Plan) -> None:
    """Let the server whose data folder this is play ``plan``."""
    (folder / f"{PLAN}.part").write_bytes(msgspec.json.encode(plan))
    (folder / f"{PLAN}.part").rename(folder / PLAN)


def played(folder: Path) -> Played | None:
    """What it has played; ``None`` while it plays."""
    path = folder / PLAYED
    return msgspec.json.decode(path.read_bytes(), type=Played) if path.exists() else None


if __name__ == "__main__":
    cli.serve_with(build, announce=True)
