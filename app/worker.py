"""``duting worker``: one recognition or detection worker of a cluster, with its health for machines."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import msgspec
import structlog
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.build import model, rule_book
from app.cluster import ASR, DETECT, SECONDS, prepare
from app.errors import ClusterError, SettingsError
from app.listener import listening_socket
from app.models import Progress
from app.redis_live import RedisLive
from app.sealing import Keyring
from app.settings import Settings
from app.store import Store
from detectors.privacy import redact
from streams.following_worker import FollowingWorker
from streams.gateway import WorkerState
from streams.kafka import BrokerError
from streams.reading_worker import ReadingWorker
from streams.transcribe import Transcriber
from streams.worker import Worker

log = structlog.get_logger(__name__)

Kind = Literal["asr", "detect"]


async def run(
    kind: Kind,
    settings: Settings,
    progress: Progress,
    transcriber: Transcriber | None = None,
    on_listening: Callable[[str], None] = lambda _: None,
    reading: type[ReadingWorker] = ReadingWorker,
) -> None:
    """Work until SIGTERM or SIGINT; then finish what is begun, and hand the rest to others.

    ``transcriber`` and ``reading`` replace the model and what is around it (tests, benchmarks);
    ``on_listening`` gets the address of the health pages.

    Raises ``SettingsError`` without a cluster's URLs, ``ClusterError`` where the broker cannot be reached,
    ``StoreError`` where the database cannot, of which a worker that follows calls asks for the rules.
    """
    if settings.kafka_url is None or settings.redis_url is None:
        raise SettingsError(
            "a worker needs a cluster: set DUTING_KAFKA_URL (kafka://host:port), DUTING_REDIS_URL and "
            "DUTING_DATABASE_URL (postgresql://…); one machine alone needs only `duting serve`"
        )
    listener = listening_socket(settings.host, settings.worker_port, "DUTING_WORKER_PORT")
    await prepare(settings)
    live = RedisLive(settings.redis_url)
    await live.check()
    name = f"{kind}-{secrets.token_hex(4)}"

    async def announce(state: WorkerState) -> None:
        await live.announce(ASR if kind == "asr" else DETECT, name, msgspec.json.encode(state), SECONDS)

    given: dict[str, Any] = {"brokers": settings.brokers, "name": name, "announce": announce}
    worker: Worker
    watching: asyncio.Task[None] | None = None
    store: Store | None = None
    if kind == "asr":
        if transcriber is None:
            transcriber = await asyncio.to_thread(model, settings, progress)
        worker = reading(transcriber, **given)
    else:
        # Which rules are in force is asked there, as the gateways ask.
        store = await asyncio.to_thread(Store.open, settings.database)
        book = await asyncio.to_thread(rule_book, settings, store)
        worker = FollowingWorker(book.panel, redact, Keyring.of(settings.pii_keys).sealer, **given)
        watching = asyncio.create_task(book.watch(settings.rules_poll_s), name="rules")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    server = _server(worker, settings)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="health")
    try:
        on_listening(f"http://{settings.host}:{listener.getsockname()[1]}")
        try:
            await worker.run()
        except BrokerError as error:
            raise ClusterError(str(error)) from None
    finally:
        with suppress(Exception):
            await live.withdraw(ASR if kind == "asr" else DETECT, name)
        await live.aclose()
        if watching is not None:
            watching.cancel()
        server.should_exit = True
        await asyncio.gather(serving, *([watching] if watching is not None else []), return_exceptions=True)
        if store is not None:
            await asyncio.to_thread(store.close)


class _Server(uvicorn.Server):
    """One whose process listens to signals itself."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(worker: Worker, settings: Settings) -> uvicorn.Server:
    def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    def readyz(_: Request) -> Response:
        missing = worker.readiness()
        if missing is not None:
            return JSONResponse({"status": "not ready", "missing": missing}, status_code=503)
        return JSONResponse({"status": "ready"})

    def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    pages = Starlette(
        routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]
    )
    config = uvicorn.Config(
        pages,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
    )
    return _Server(config)
