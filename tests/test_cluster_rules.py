"""Rules published in a running cluster, and what it keeps sealed: from one browser to every detector.

As in ``tests.test_cluster`` every part is real but the words. The cluster is one of its own: what is
published in it would change what other tests expect.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.demo import run
from app.phones.twilio import RATE
from app.store import Store
from benchmarks.cluster_calls import Browser, Telephone, Tracks, load
from benchmarks.cluster_rig import ClusterRig, cluster
from detectors.rules import DEFAULT_PACK
from tests.test_cluster import NEEDED

CALL = Path(__file__).parent / "calls" / "short.ogg"
"""Up to 17 s: a greeting (4 s), a question, a red line (7.6 s to 11.7 s), a complaint."""
PHONE = "13912345678"
BEFORE, AFTER = "redline.guaranteed_return", "redline.promised_return"
"""The red line as the built-in pack names it, and as the published one does."""
SILENCE_S = 30
"""In the call that runs, before its red line: in this time a second person approves."""
LI, WANG = (
    run.Account(name, "correct-horse-battery", name.title(), "administrator") for name in ("li", "wang")
)


@pytest.fixture
def rig() -> Iterator[ClusterRig]:
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)} on PATH: a cluster needs Kafka and Redis; see .ci/run")
    with tempfile.TemporaryDirectory(prefix="duting-cluster-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs as a user of its own
        environment = {
            "SCRIPTED_MORE": str(with_a_number(folder / "calls")),
            "DUTING_PII_KEYS": base64.b64encode(b"k" * 32).decode(),
        }
        with cluster(folder, environment=environment) as rig:
            rig.start()
            store = Store.open(rig.urls["postgres"])
            for one in (LI, WANG):
                store.users.ensure(one.username, one.password, one.name, one.role, ["*"])
            store.close()
            yield rig


def with_a_number(folder: Path) -> Path:
    """The call, in which the customer also tells a telephone number."""
    folder.mkdir()
    shutil.copy(CALL, folder)
    turns = json.loads(CALL.with_suffix(".json").read_text("utf-8"))
    turns[-1]["text"] += f"我的手机号是{PHONE}。"
    (folder / CALL.with_suffix(".json").name).write_text(json.dumps(turns), "utf-8")
    return folder


def with_a_pause(audio: Tracks) -> Tracks:
    """The greeting, silence, and then the whole call."""
    pause = np.zeros(SILENCE_S * RATE, np.int16)
    return {track: np.concatenate([samples[: 4 * RATE], pause, samples]) for track, samples in audio.items()}


class Page:
    """What somebody's browser asks one gateway."""

    def __init__(self, address: str, account: run.Account) -> None:
        self._address, self.cookie = address, run.log_in(address, account)

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        request = urllib.request.Request(
            f"{self._address}/api/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"cookie": self.cookie, "content-type": "application/json", "x-duting": "1"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            return refused.code, json.load(refused)["error"]["code"]


def submitted(page: Page) -> dict[str, Any]:
    text = DEFAULT_PACK.read_text("utf-8").replace(BEFORE, AFTER)
    status, draft = page.ask("POST", "rules/drafts", {"text": text, "note": "改名"})
    assert status == 201, draft
    status, draft = page.ask("POST", f"rules/drafts/{draft['id']}/submit", {"seen": draft["digest"]})
    assert status == 200, draft
    return draft


def loaded(rig: ClusterRig) -> set[str]:
    """Members that have put other rules in force since they began."""
    found = set()
    for member in rig.members.values():
        with urllib.request.urlopen(f"{member.address}/metrics", timeout=5) as answer:
            if 'duting_rules_reloads_total{outcome="loaded"} 1.0' in answer.read().decode():
                found.add(member.name)
    return found


async def every_one_has_loaded(rig: ClusterRig, timeout_s: float = 30.0) -> None:
    wanted = {name for name in rig.members if not name.startswith("asr")}
    ends = time.monotonic() + timeout_s
    while missing := wanted - await asyncio.to_thread(loaded, rig):
        assert time.monotonic() < ends, f"the published rules are not in force in {missing}"
        await asyncio.sleep(0.1)


async def said_by(browser: Browser, call_id: str) -> None:
    """Something of this call was read."""
    async with asyncio.timeout(30):
        while not any((e.type, e.call_id) == ("utterance.final", call_id) for e in browser.stored):
            browser.heard.clear()
            await browser.heard.wait()


@pytest.mark.cluster
def test_what_a_second_person_approves_flags_the_calls_that_begin_afterwards_and_no_others(
    rig: ClusterRig,
) -> None:
    one, other = (member.address for member in rig.gateways)
    li, wang = Page(one, LI), Page(other, WANG)
    supervisor = Page(other, rig.account)
    draft = submitted(li)
    approve = f"rules/drafts/{draft['id']}/approve", {"seen": draft["digest"]}
    assert li.ask("POST", *approve) == (403, "own_draft")
    audio = load(CALL)

    async def calls() -> tuple[Browser, Any]:
        browser = Browser([lambda: other], supervisor.cookie)
        listening = asyncio.create_task(browser.listen())
        try:
            await asyncio.wait_for(browser.connected.wait(), 20)
            running = Telephone("running", with_a_pause(audio), [lambda: one], rig.token)
            task = asyncio.create_task(running.call())
            await said_by(browser, "running")
            status, told = await asyncio.to_thread(wang.ask, "POST", *approve)
            assert (status, told["in_force"]) == (200, True)
            await every_one_has_loaded(rig)
            assert running.at < (4 + SILENCE_S) * RATE, "its red line was to come after the publication"
            later = [Telephone(f"later-{n}", audio, [lambda: one], rig.token) for n in range(4)]
            await asyncio.gather(task, *(telephone.call() for telephone in later))
            ids = {"running", *(telephone.call_id for telephone in later)}
            await asyncio.wait_for(browser.all_ended(ids), 60)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        return browser, told["publication"]

    browser, publication = asyncio.run(calls())
    found = {
        (alert.call_id, alert.rule_id, alert.rule_version == publication["version"])
        for alert in browser.standing().values()
        if alert.rule_id in (BEFORE, AFTER)
    }
    # Four of them, over six partitions: both detectors have their part.
    assert found == {("running", BEFORE, False), *((f"later-{n}", AFTER, True) for n in range(4))}
    assert (publication["author"], publication["approver"]) == ("li", "wang")
    assert_sealed(browser, Page(one, rig.account), wang)


def assert_sealed(browser: Browser, supervisor: Page, administrator: Page) -> None:
    """What a detector sealed is opened at a gateway, for whoever says why; nobody was told it otherwise."""
    assert not any(PHONE in repr(event) for event in browser.stored)
    _, call = supervisor.ask("GET", "calls/later-0")
    assert PHONE not in json.dumps(call)
    [utterance_id] = call["revealable"]
    path = f"calls/later-0/utterances/{utterance_id}/reveal"
    status, revealed = supervisor.ask("POST", path, {"reason": "投诉核实"})
    assert (status, PHONE in revealed["text"]) == (200, True)
    assert administrator.ask("POST", path, {"reason": "x"}) == (403, "role_not_allowed")
