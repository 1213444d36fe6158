"""The real server, the real model, a real WebSocket on both sides. Nothing here is a fake."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time

import av
import jsonschema
import pytest
import websockets

from app.demo import run, truth
from app.phones.call import PhoneCall
from app.phones.twilio import play
from app.store import Store
from streams import events
from tests.running import PERSON, TOKEN
from tests.running import environment as settings_of

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def environment(model_folder, tmp_path_factory):
    return settings_of(model_folder.parent, tmp_path_factory.mktemp("duting"))


@pytest.fixture(scope="module")
def folder(environment):
    from pathlib import Path

    return Path(environment["DUTING_DATA_DIR"])


@pytest.fixture(scope="module")
def server(environment, folder):
    with run.Server(environment, folder / "server.log") as started:
        started.wait()
        yield started


@pytest.fixture(scope="module")
def short(short_call):
    return [call for call in truth.load(short_call.parent) if call.name == "short"]


def ingest(server):
    return server.address.replace("http", "ws", 1) + "/ingest/twilio"


def dial(server, call_id, short):
    address = server.address.replace("http", "ws", 1)
    return play(address, PhoneCall(call_id, short[0].audio, TOKEN), time.monotonic)


def test_a_call_over_the_websocket_raises_its_alerts_at_a_supervisors_socket(server, short):
    outcome = asyncio.run(run.play_all(server.address, TOKEN, PERSON, short, at_once=1))
    score = truth.score(short, outcome.alerts())
    assert score.missed == []
    assert score.unexpected == []
    alerts = [alert for found in outcome.alerts().values() for alert in found]
    spoken = [alert for alert in alerts if alert.rule_id.startswith(("redline.", "signal."))]
    assert len(spoken) == len(score.hit) == 2
    # Beside those of the turns the call's script and the customer's anger raise alerts, and nothing else.
    others = {alert.rule_id for alert in alerts if alert not in spoken}
    assert others <= {"script.closing", "script.recording_notice", "emotion.customer_anger"}
    totals = outcome.totals_ms()
    assert len(totals) == len(alerts)
    assert all(total > 0 for total in totals)
    steps = outcome.supervisor.alerts[outcome.ids["short"]][0][1].latency_ms
    parts = (steps.vad, steps.queue, steps.asr, steps.rules, steps.delivery)
    assert sum(parts) == pytest.approx(steps.total, abs=1)


def test_no_transcript_text_is_in_the_servers_log(server, folder):
    log = (folder / "server.log").read_text()
    assert "call.started" in log
    assert not any("一" <= character <= "鿿" for character in log)


async def spoil(address, *messages):
    """Send ``messages`` to the ingest socket; return what the server says and its close code."""
    async with websockets.connect(address) as socket:
        for message in messages:
            await socket.send(message)
        said = []
        try:
            async with asyncio.timeout(20):
                async for text in socket:
                    said.append(json.loads(text)["message"])
        except websockets.ConnectionClosedError:
            pass
        return " ".join(said), socket.close_code


def start(**changes):
    body = {"callSid": "bad-1", "tracks": ["inbound", "outbound"], "customParameters": {"token": TOKEN}}
    return json.dumps({"event": "start", "start": {**body, **changes}})


def media(track="inbound", payload="f39/fw=="):
    return json.dumps(
        {"event": "media", "media": {"track": track, "chunk": "1", "timestamp": "0", "payload": payload}}
    )


@pytest.mark.parametrize(
    ("messages", "said", "code"),
    [
        (["{nope"], "expected JSON", 1007),
        ([media()], "expected 'start' before 'media'", 1008),
        ([start(), media(track="sideways")], "'inbound' or 'outbound'", 1008),
        ([start(), media(payload="")], "1 to 8000 bytes", 1008),
        (
            [start(mediaFormat={"encoding": "audio/x-mulaw", "sampleRate": 44100, "channels": 1})],
            "8000 Hz",
            1003,
        ),
        ([start(customParameters={"token": "wrong"})], "token", 4401),
        ([start(customParameters={})], "token", 4401),
        ([b"\x00\x01"], "binary", 1003),
        (["x" * 100_000], "", 1009),
    ],
    ids=[
        "no JSON",
        "no start",
        "track",
        "empty payload",
        "rate",
        "wrong token",
        "no token",
        "binary",
        "huge",
    ],
)
def test_bad_input_is_told_what_was_expected_and_another_call_does_not_notice(
    server, short, messages, said, code
):
    async def both():
        call = asyncio.create_task(dial(server, f"beside-{code}-{abs(hash(said)) % 10_000}", short))
        await asyncio.sleep(0)
        answer = await spoil(ingest(server), *messages)
        call.cancel()
        return answer

    message, closed = asyncio.run(both())
    assert said in message
    assert closed == code


def test_a_call_that_comes_over_another_connection_already_is_refused(server, short):
    async def twice():
        first = asyncio.create_task(dial(server, "twice", short))
        async with websockets.connect(ingest(server)) as socket:
            for _ in range(200):
                await socket.send(json.dumps({"event": "connected"}))
                if "twice" in await asyncio.to_thread(live, server):
                    break
        answer = await spoil(ingest(server), start(callSid="twice"))
        first.cancel()
        return answer

    message, code = asyncio.run(twice())
    assert "in progress already" in message
    assert code == 1013


def live(server):
    import urllib.request

    request = urllib.request.Request(
        f"{server.address}/api/floor", headers={"cookie": run.log_in(server.address, PERSON)}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return {call["call_id"] for call in json.load(answer)["calls"]}


def test_a_port_in_use_is_told_at_once(server, environment):
    port = server.address.rsplit(":", 1)[1]
    done = subprocess.run(
        [sys.executable, "-m", "app", "serve", "--port", port],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "cannot listen on 127.0.0.1" in done.stderr
    assert "DUTING_PORT" in done.stderr


def test_a_server_killed_in_the_middle_loses_nothing_it_stored(environment, short, tmp_path):
    settings = {**environment, "DUTING_DATA_DIR": str(tmp_path)}
    database = f"sqlite:///{tmp_path / 'duting.db'}"
    store = Store.open(database)
    store.users.ensure(PERSON.username, PERSON.password, PERSON.name, PERSON.role)
    store.close()
    seen: list[events.Published] = []
    with run.Server(settings, tmp_path / "server.log") as victim:
        victim.wait()
        killed_at = asyncio.run(_play_until_alert(victim, short, seen))
        victim.process.send_signal(signal.SIGKILL)
        victim.process.wait(10)

    stored = [e for e in seen if e.type in ("utterance.final", "alert.raised")]
    assert any(e.type == "alert.raised" for e in stored)
    [recording] = (tmp_path / "recordings").glob("*.wav")
    with av.open(str(recording)) as container:
        seconds = sum(f.samples / f.sample_rate for f in container.decode(audio=0))
    assert seconds >= killed_at - 1.5

    with run.Server(settings, tmp_path / "server.log") as again:
        again.wait()
        cookie = run.log_in(again.address, PERSON)
        call_id = stored[0].call_id
        call = _get(again.address, f"/api/calls/{call_id}", cookie)
        assert (call["call"]["state"], call["call"]["reason"]) == ("ended", "interrupted")
        assert {e.utterance.utterance_id for e in stored if e.type == "utterance.final"} <= {
            u["utterance_id"] for u in call["utterances"]
        }
        assert {e.alert.id for e in stored if e.type == "alert.raised"} <= {a["id"] for a in call["alerts"]}


async def _play_until_alert(server, short, seen):
    """Play a call until its first alert has been shown; return how many seconds were sent by then."""
    cookie = await asyncio.to_thread(run.log_in, server.address, PERSON)
    alerted = asyncio.Event()

    def note(event):
        seen.append(event)
        if event.type == "alert.raised":
            alerted.set()

    supervisor = run.Supervisor(server.address, cookie, on_event=note)
    listening = asyncio.create_task(supervisor.listen(time.monotonic))
    await asyncio.wait_for(supervisor.connected.wait(), 10)
    began = time.monotonic()
    playing = asyncio.create_task(dial(server, "killed", short))
    await asyncio.wait_for(alerted.wait(), 30)
    sent = time.monotonic() - began
    playing.cancel()
    listening.cancel()
    return sent


def _get(address, path, cookie):
    import urllib.request

    request = urllib.request.Request(address + path, headers={"cookie": cookie})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


# ── duting replay ─────────────────────────────────────────────────────────────────────────────────


def duting(*arguments, environment):
    return subprocess.run(
        [sys.executable, "-m", "app", *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_replay_prints_events_that_are_valid_against_the_published_schema(environment, short_call):
    done = duting("replay", short_call, "--json", environment=environment)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    validator = jsonschema.Draft202012Validator(events.schema())
    for line in lines:
        validator.validate(line)
    kinds = [line["type"] for line in lines]
    assert kinds[0] == "call.started"
    assert kinds[-1] == "call.ended"
    assert {"utterance.final", "alert.raised", "marker.added"} <= set(kinds)
    rules = {line["alert"]["rule_id"] for line in lines if line["type"] == "alert.raised"}
    assert {"redline.guaranteed_return", "signal.complaint"} <= rules


def test_replay_of_a_mixed_recording_has_one_unknown_speaker(environment, short_call):
    done = duting("replay", short_call.with_name("mono.ogg"), "--json", environment=environment)
    finals = [json.loads(line) for line in done.stdout.splitlines() if "utterance.final" in line]
    assert finals
    assert {final["utterance"]["role"] for final in finals} == {"unknown"}
    assert "redline.guaranteed_return" in done.stdout


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.wav", b"", "the file is empty"),
        ("text.ogg", b"this is no sound at all" * 50, "expected audio"),
        ("missing.wav", None, "check the path"),
    ],
)
def test_replay_of_what_is_no_recording_says_so(environment, tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = duting("replay", tmp_path / name, environment=environment)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_model_and_a_damaged_one_are_named(environment, model_folder, tmp_path, short_call):
    unknown = duting("replay", short_call, environment={**environment, "DUTING_MODEL": "bass"})
    assert unknown.returncode == 1
    assert "bass" in unknown.stderr
    assert "base" in unknown.stderr
    damaged = tmp_path / "base"
    damaged.mkdir()
    for file in model_folder.iterdir():
        if file.suffix in (".json", ".txt", ".bin"):
            (damaged / file.name).write_bytes(file.read_bytes()[:1000])
    broken = duting("replay", short_call, environment={**environment, "DUTING_MODELS_DIR": str(tmp_path)})
    assert broken.returncode == 1
    assert "duting models fetch base" in broken.stderr
    assert "Traceback" not in broken.stderr


def test_a_pack_with_a_wrong_operator_is_refused_with_file_line_and_column(environment, tmp_path):
    pack = tmp_path / "pack.yaml"
    pack.write_text(
        "id: test\nversion: '1'\nrules:\n  - id: redline.x\n    name: {zh: 试, en: try}\n"
        "    severity: critical\n    role: agent\n    when:\n      frase: [保本]\n",
        encoding="utf-8",
    )
    done = duting("rules", "check", pack, environment=environment)
    assert done.returncode == 1
    assert "pack.yaml:9:7: expected one of" in done.stderr
    assert "frase" in done.stderr
