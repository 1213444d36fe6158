"""The composition root: what the service is made of, and the order of the path, in plain code.

ingest ───► listen ─► transcribe ─► detect ─► raise ─► outlet ─► dashboard
telephones  └──────────── LocalRunner ─────────────┘   store     feed
Assembly    JudgingProcess: is it speech?   RecordingProcess

In a cluster the middle is elsewhere, behind the topics of a broker:

ingest ───► GatewayRunner ═► ReadingWorker ═► FollowingWorker ═► Publisher ─► outlet ─► dashboard
telephones  listen     speech              transcripts        alerts,         store,    feed
Assembly               └════ signals ═════════════▲           markers, hints  Redis
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from msgspec.structs import replace

from app import models
from app.api.application import application
from app.api.listen import Rooms
from app.cluster import Gateway, Membership, prepare
from app.ears import Listening, Sinks
from app.errors import PackRefused
from app.escalation import Escalation
from app.head import OnnxHead
from app.ingest.assembly import Assembly, Began
from app.ingest.audiosocket_server import AudioSocketServer
from app.ingest.hints import Hints
from app.ingest.keys import Keys
from app.ingest.protocols import ROUTES
from app.ingest.session import Lines
from app.judging import JudgingProcess
from app.listener import listening_socket
from app.live import Live, LocalLive
from app.outlet import LocalOutlet, Outlet, close_interrupted
from app.peaks import Measuring
from app.recording import RecordingProcess
from app.redis_live import RedisLive
from app.redis_outlet import RedisOutlet
from app.rulebook import RuleBook
from app.sealing import Keyring
from app.settings import Settings, prepare_processor
from app.store import Store
from app.store.times import Patience, read
from app.takeover import Takeovers
from app.telephony import Switchboard
from app.transcoding import TranscodingProcess
from app.workbench import Workbench
from detectors.privacy import redact
from detectors.rules import DEFAULT_PACK, Pack, PackError, load_packs
from streams import silero
from streams.bias import bias
from streams.events import CallInfo, Health, OutletEvent, Published
from streams.gateway import GatewayRunner
from streams.kafka import Publisher, Sender
from streams.local import LocalRunner
from streams.transcribe import Transcriber, WhisperTranscriber

Progress = models.Progress


@dataclass(frozen=True)
class Service:
    """Everything that runs, and the web application that starts and stops it."""

    settings: Settings
    store: Store
    outlet: Outlet
    runner: LocalRunner | GatewayRunner
    judging: JudgingProcess
    audio: RecordingProcess | None
    transcoding: TranscodingProcess | None
    """Of the recordings, once the calls are over."""
    rules: RuleBook
    live: Live
    lines: Lines
    switchboard: Switchboard
    rooms: Rooms
    """Where people listen to running calls."""
    escalation: Escalation
    bench: Workbench
    """Where rules are worked on beside the calls."""
    takeovers: Takeovers
    measuring: Measuring
    """Of recordings, for the waveforms of pages."""
    gateway: Gateway | None = None
    """Beside the runner of a cluster's gateway."""
    audiosockets: AudioSocketServer | None = None
    """Where Asterisk's are served."""

    def health(self) -> Health:
        """How the service does at this moment."""
        return replace(self.runner.health(), rules=self.rules.pack.version)

    @property
    def web(self) -> FastAPI:
        return application(
            self.settings,
            self.store,
            self.outlet,
            self.rules,
            routes=[route(self.lines) for route in ROUTES],
            health=self.health,
            ready=self.missing,
            live=self.live,
            rooms=self.rooms,
            switchboard=self.switchboard,
            bench=self.bench,
            takeovers=self.takeovers,
            measuring=self.measuring,
            lifespan=self.running,
        )

    def missing(self) -> str | None:
        """What keeps the service from taking calls; ``None``: nothing."""
        return self.gateway.membership.missing() if self.gateway is not None else None

    @asynccontextmanager
    async def running(self, _: FastAPI | None = None) -> AsyncIterator[None]:
        # Where nobody else hears calls, those that a crash cut off are closed as interrupted.
        await self.outlet.start()
        if self.gateway is not None and isinstance(self.runner, GatewayRunner):
            await self.gateway.start(self.runner)
        elif isinstance(self.outlet, RedisOutlet):
            await close_interrupted(self.store, self.outlet)
        if self.audio is not None:
            await self.audio.open()
        if self.transcoding is not None:
            await self.transcoding.open()
        self.judging.start()
        await self.runner.start()
        await self.lines.assembly.start()
        if self.lines.hints is not None:
            await self.lines.hints.start()
        if self.lines.keys is not None:
            await self.lines.keys.start()
        if self.audiosockets is not None:
            await self.audiosockets.start()
        await self.switchboard.start()
        await self.escalation.start()
        await self.takeovers.start(self.store.beside.unanswered)
        watching = asyncio.create_task(self.rules.watch(self.settings.rules_poll_s), name="rules")
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            await self.escalation.stop()
            await self.bench.aclose()
            await self.takeovers.aclose()
            await self.measuring.aclose()
            if self.audiosockets is not None:
                await self.audiosockets.stop()
            await self.switchboard.stop()
            if self.lines.keys is not None:
                await self.lines.keys.stop()
            if self.lines.hints is not None:
                await self.lines.hints.stop()
            await self.rooms.aclose()
            await self.lines.aclose()
            await self.lines.assembly.stop()
            await self.runner.stop()
            if self.gateway is not None and isinstance(self.runner, GatewayRunner):
                await self.gateway.stop(self.runner)
            await self.judging.aclose()
            if self.audio is not None:
                await self.audio.aclose()
            if self.transcoding is not None:
                await self.transcoding.aclose()
            await self.outlet.stop()
            await self.live.aclose()
            self.store.close()


def build(
    settings: Settings,
    progress: Progress,
    transcriber: Transcriber | None = None,
    on_published: Callable[[Published], None] | None = None,
) -> Service:
    """Put the service together.

    ``transcriber`` replaces the model (tests, capacity benchmarks); ``on_published`` is told every event
    once it is stored, in order.

    Raises ``DutingError`` with what was expected, what came and what to do.
    """
    # Said before the model is loaded: that the port is in use, and what cannot be reached.
    port = settings.audiosocket_port
    listener = None if port is None else listening_socket(settings.host, port, "DUTING_AUDIOSOCKET_PORT")
    if settings.redis_url is not None:
        asyncio.run(reachable(settings))
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    store = Store.open(settings.database)
    book = rule_book(settings, store)
    store.log.patience = Patience(
        critical=settings.escalate_critical_s or None,
        warning=settings.escalate_warning_s or None,
        info=settings.escalate_info_s or None,
    )
    outlet, live = shared(settings, store)
    silero.network()  # read now: what is wrong with it is said before a call begins
    judging = JudgingProcess(settings.log_level, settings.log_json)
    audio = (
        RecordingProcess(settings.recordings, settings.log_level, settings.log_json)
        if settings.keep_audio
        else None
    )
    transcoding = (
        TranscodingProcess(settings.recordings, settings.opus_after_s, settings.log_level, settings.log_json)
        if settings.keep_audio
        else None
    )
    listening = Listening()
    sound = Sinks([audio, listening]) if audio is not None else listening

    async def emit(events: Sequence[OutletEvent]) -> None:
        version = book.pack.version
        told = [replace(event, rules=version) if isinstance(event, Health) else event for event in events]
        for published in await outlet.append(told):
            if on_published is not None:
                on_published(published)

    def prompt(call: CallInfo) -> str:
        return bias(call, book.pack.hot_words())

    runner: LocalRunner | GatewayRunner
    gateway: Gateway | None = None
    if settings.kafka_url is None:
        runner = LocalRunner(
            transcriber=transcriber or model(settings, progress),
            detector=book.panel,
            prompt=prompt,
            redact=redact,
            emit=emit,
            audio=sound,
            most_calls=settings.max_calls,
            judge=judging,
            seal=Keyring.of(settings.pii_keys).sealer,
        )
    else:
        name = f"gateway-{secrets.token_hex(4)}"
        sender = Sender(settings.brokers, name)
        membership = Membership(live, store.calls.live, sender.send, emit)
        runner = GatewayRunner(
            name=name,
            prompt=prompt,
            send=sender.send,
            recognition=lambda: membership.recognition,
            audio=sound,
            most_calls=settings.max_calls,
            judge=judging,
        )
        publisher = Publisher(settings.brokers, name, emit, sender)
        gateway = Gateway(sender, publisher, membership)
    book.record = store.audit.record
    book.on_loaded = lambda: emit([runner.health()])

    async def earlier(call_id: str) -> Began | None:
        found = await asyncio.to_thread(store.calls.began, call_id)
        return None if found is None else Began(read(found[0]).timestamp(), found[1])

    assembly = Assembly(runner, earlier if gateway is not None else None)
    keys = Keys(lambda: store.tokens.hashes("ingest"))
    lines = Lines(settings, assembly, settings.token(), Hints(outlet), keys)
    audiosockets = AudioSocketServer(lines, listener) if listener is not None else None

    async def stored(call_id: str) -> str | None:
        return await asyncio.to_thread(store.calls.state, call_id)

    switchboard = Switchboard(
        assembly,
        live,
        stored,
        shared=runner.shares_calls,
        elsewhere=gateway.membership.hears if gateway is not None else lambda _: False,
    )
    return Service(
        settings,
        store,
        outlet,
        runner,
        judging,
        audio,
        transcoding,
        book,
        live,
        lines,
        switchboard,
        Rooms(listening),
        Escalation(store, outlet),
        Workbench(store),
        Takeovers(settings, outlet.append),
        Measuring(),
        gateway,
        audiosockets,
    )


async def reachable(settings: Settings) -> None:
    """Redis and Kafka are there, and the topics are in order; else ``LiveError`` or ``ClusterError``."""
    assert settings.redis_url is not None
    live = RedisLive(settings.redis_url)
    try:
        await live.check()
    finally:
        await live.aclose()
    if settings.kafka_url is not None:
        await prepare(settings)


def shared(settings: Settings, store: Store) -> tuple[Outlet, Live]:
    """The event log and the live state: of this process, or in Redis with other gateways."""
    if settings.redis_url is None:
        return LocalOutlet(store, events_kept=settings.events_kept), LocalLive()
    outlet = RedisOutlet(store, settings.redis_url, events_kept=settings.events_kept)
    return outlet, RedisLive(settings.redis_url)


def rule_book(settings: Settings, store: Store) -> RuleBook:
    """The rules in force, those published too, with the learned judge of voices if one is set."""
    book = RuleBook.open(settings.rules, store.publications)
    book.head = OnnxHead.load(settings.emotion_model) if settings.emotion_model is not None else None
    return book


def rules(path: Path | None) -> Pack:
    """The pack in force; ``PackRefused`` lists every error with file, line and column."""
    try:
        return load_packs([path or DEFAULT_PACK])
    except PackError as error:
        raise PackRefused(str(error)) from None


def model(settings: Settings, progress: Progress) -> WhisperTranscriber:
    """The one speech model, verified, loaded and warm."""
    folder = models.resolve(settings, progress)
    prepare_processor()
    transcriber = WhisperTranscriber(
        folder,
        device=settings.device,
        compute_type=settings.compute_type,
        workers=settings.workers,
        threads=settings.threads_per_worker,
    )
    transcriber.warm_up()
    return transcriber
