"""Live state, in process and in Redis: presence, claims, rates."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest

from app.api.attempts import FAILURES, Attempts
from app.errors import LiveError
from app.live import Live, LocalLive
from app.redis_link import reaching
from app.redis_live import RedisLive
from tests.app.outlet_support import PATIENCE_S
from tests.redis_services import halt, resume
from tests.services import Server

NOBODY = "redis://127.0.0.1:1/0"


class House:
    """Live state, and how time passes in it."""

    def __init__(self, live: Live, wait: Callable[[], Awaitable[None]]) -> None:
        self.live = live
        self._wait = wait

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not await condition():
                await self._wait()


@pytest.fixture(params=["local", "redis"])
async def house(request: pytest.FixtureRequest) -> AsyncIterator[House]:
    if request.param == "local":
        now = 1000.0

        async def pass_by() -> None:
            nonlocal now
            now += 0.01

        yield House(LocalLive(lambda: now), pass_by)
        return
    live = RedisLive(request.getfixturevalue("redis_url"))
    yield House(live, lambda: asyncio.sleep(0.01))
    await live.aclose()


@pytest.fixture
def live(house: House) -> Live:
    return house.live


# ── presence ──────────────────────────────────────────────────────────────────────────────────────


async def test_who_is_announced_is_present_with_what_was_said_last(live: Live) -> None:
    await live.announce("gateway", "a", b"\x00\xff", 60)
    await live.announce("gateway", "b", b"one call", 60)
    await live.announce("gateway", "b", "两通电话".encode(), 60)
    await live.announce("asr", "a", b"", 60)
    assert await live.present("gateway") == {"a": b"\x00\xff", "b": "两通电话".encode()}
    assert await live.present("asr") == {"a": b""}
    assert await live.present("detect") == {}


async def test_who_withdraws_is_gone(live: Live) -> None:
    await live.announce("gateway", "a", b"", 60)
    await live.withdraw("gateway", "a")
    await live.withdraw("gateway", "a")
    await live.withdraw("asr", "never there")
    assert await live.present("gateway") == {}


async def test_who_is_not_announced_again_passes_by_itself(house: House) -> None:
    await house.live.announce("asr", "short", b"s", 0.05)
    await house.live.announce("asr", "long", b"l", 60)

    async def gone() -> bool:
        return "short" not in await house.live.present("asr")

    await house.until(gone)
    assert await house.live.present("asr") == {"long": b"l"}
    await house.live.announce("asr", "short", b"again", 60)
    assert await house.live.present("asr") == {"long": b"l", "short": b"again"}


# ── claims ────────────────────────────────────────────────────────────────────────────────────────


async def test_what_nobody_holds_goes_to_the_first(live: Live) -> None:
    assert await live.claim("call:c1", "a", None, 60) == "a"
    assert await live.claim("call:c1", "b", None, 60) == "a"
    assert await live.claim("call:c2", "b", None, 60) == "b"


async def test_a_claim_is_handed_over_only_by_who_knows_the_holder(live: Live) -> None:
    assert await live.claim("k", "a", "somebody", 60) is None
    assert await live.claim("k", "a", None, 60) == "a"
    assert await live.claim("k", "c", "b", 60) == "a"
    assert await live.claim("k", "b", "a", 60) == "b"
    assert await live.claim("k", "c", "a", 60) == "b"


async def test_a_claim_ends_after_its_time_unless_it_is_claimed_again(house: House) -> None:
    live = house.live
    assert await live.claim("k", "a", None, 0.05) == "a"
    assert await live.claim("kept", "a", None, 0.05) == "a"
    assert await live.claim("kept", "a", None, 60) == "a"

    async def b_has_it() -> bool:
        return await live.claim("k", "b", None, 60) == "b"

    await house.until(b_has_it)
    assert await live.claim("k", "a", None, 60) == "b"
    assert await live.claim("kept", "b", None, 60) == "a"


async def test_only_the_holder_can_let_go(live: Live) -> None:
    assert not await live.release("k", "a")
    await live.claim("k", "a", None, 60)
    assert not await live.release("k", "b")
    assert await live.claim("k", "b", None, 60) == "a"
    assert await live.release("k", "a")
    assert await live.claim("k", "b", None, 60) == "b"


async def test_of_many_who_claim_at_once_one_gets_it(live: Live) -> None:
    holders = await asyncio.gather(*(live.claim("k", f"owner {n}", None, 60) for n in range(20)))
    assert len(set(holders)) == 1


# ── rates ─────────────────────────────────────────────────────────────────────────────────────────


async def test_so_many_tries_and_no_more(live: Live) -> None:
    waits = [await live.allow("k", 3, 60) for _ in range(5)]
    assert waits[:3] == [0.0, 0.0, 0.0]
    assert all(0 < wait <= 60 for wait in waits[3:])
    assert await live.allow("other", 3, 60) == 0.0


async def test_at_once_as_one_after_the_other(live: Live) -> None:
    waits = await asyncio.gather(*(live.allow("k", 5, 60) for _ in range(20)))
    assert sum(wait == 0.0 for wait in waits) == 5


async def test_the_next_try_is_allowed_when_the_wait_is_over(house: House) -> None:
    live = house.live
    assert await live.allow("k", 1, 0.2) == 0.0
    assert 0 < await live.allow("k", 1, 0.2) < 0.201

    async def allowed() -> bool:
        return await live.allow("k", 1, 0.2) == 0.0

    await house.until(allowed)


async def test_tries_that_are_forgotten_count_no_more(live: Live) -> None:
    await live.allow("k", 1, 60)
    await live.forget("k")
    assert await live.allow("k", 1, 60) == 0.0
    await live.forget("never tried")


async def test_in_process_only_so_many_keys_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.live.RATES_REMEMBERED", 2)
    live = LocalLive(lambda: 0.0)
    for key in ("a", "b", "c"):
        assert await live.allow(key, 1, 60) == 0.0
    assert [await live.allow(key, 1, 60) > 0 for key in ("c", "b")] == [True, True]
    assert await live.allow("a", 1, 60) == 0.0


# ── inboxes ───────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_posted_is_collected_once_and_in_order(live: Live) -> None:
    for message in (b"one", b"\x00\xff", "三".encode()):
        assert await live.post("call:c1", message, 60)
    assert await live.post("call:c2", b"other", 60)
    assert await live.waiting() == {"call:c1", "call:c2"}
    assert await live.collect("call:c1") == [b"one", b"\x00\xff", "三".encode()]
    assert await live.collect("call:c1") == []
    assert await live.waiting() == {"call:c2"}
    assert await live.collect("never written to") == []


async def test_of_several_who_collect_one_gets_it(live: Live) -> None:
    await live.post("k", b"m", 60)
    got = await asyncio.gather(*(live.collect("k") for _ in range(10)))
    assert sorted(got) == [[]] * 9 + [[b"m"]]


async def test_what_nobody_collects_passes_by_itself(house: House) -> None:
    await house.live.post("short", b"s", 0.05)
    await house.live.post("long", b"l", 60)

    async def gone() -> bool:
        return "short" not in await house.live.waiting()

    await house.until(gone)
    assert await house.live.collect("short") == []
    assert await house.live.collect("long") == [b"l"]


async def test_a_later_message_keeps_those_before_it(house: House) -> None:
    await house.live.post("k", b"1", 0.05)
    await house.live.post("k", b"2", 60)
    await house.live.post("k", b"3", 0.05)
    await house.live.post("passes", b"", 0.1)

    async def passed() -> bool:
        return "passes" not in await house.live.waiting()

    await house.until(passed)
    assert await house.live.collect("k") == [b"1", b"2", b"3"]


async def test_an_inbox_is_bounded_and_so_are_all_together(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("app.live", "app.redis_live"):
        monkeypatch.setattr(f"{module}.MOST_MESSAGES", 3)
        monkeypatch.setattr(f"{module}.MOST_INBOXES", 2)
    assert [await live.post("k", b"m", 60) for _ in range(5)] == [True] * 3 + [False] * 2
    assert await live.post("other", b"m", 60)
    assert not await live.post("third", b"m", 60)
    assert len(await live.collect("k")) == 3
    assert await live.post("third", b"m", 60)


async def test_messages_of_one_process_reach_another(redis_url: str) -> None:
    one, two = RedisLive(redis_url), RedisLive(redis_url)
    assert await one.post("k", b"m", 60)
    assert await two.waiting() == {"k"}
    assert await two.collect("k") == [b"m"]
    await one.aclose()
    await two.aclose()


async def test_no_inbox_outlives_those_who_wrote_to_it(redis_url: str) -> None:
    import redis

    live = RedisLive(redis_url)
    await live.post("k", b"m", 30)
    await live.aclose()
    with redis.Redis.from_url(redis_url) as client:
        keys = client.keys("duting:inbox*")
        assert sorted(keys) == [b"duting:inbox:k", b"duting:inboxes"]
        assert all(0 < client.pttl(key) <= 30_000 for key in keys)


# ── Redis itself ──────────────────────────────────────────────────────────────────────────────────


async def test_what_one_process_says_every_other_sees(redis_url: str) -> None:
    one, two = RedisLive(redis_url), RedisLive(redis_url)
    await one.check()
    await one.announce("supervisor", "li", b"floor", 60)
    assert await two.present("supervisor") == {"li": b"floor"}
    await one.claim("alert:a1", "li", None, 60)
    assert await two.claim("alert:a1", "wang", None, 60) == "li"
    await one.aclose()
    await two.aclose()


@pytest.mark.parametrize("url", ["http://127.0.0.1", "redis://127.0.0.1:port/0", "redis"])
async def test_a_url_that_is_none_is_said_to_be_none(url: str) -> None:
    with pytest.raises(LiveError, match="DUTING_REDIS_URL"):
        RedisLive(url)


async def test_a_redis_that_nobody_started_is_said_to_be_away() -> None:
    live = RedisLive(NOBODY)
    for call in (live.check(), live.present("gateway"), live.claim("k", "a", None, 60), live.forget("k")):
        with pytest.raises(LiveError, match="DUTING_REDIS_URL") as raised:
            await call
        assert raised.value.retryable
    await live.aclose()


async def test_a_redis_that_was_killed_is_used_again_when_it_is_back(redis_server: Server) -> None:
    live = RedisLive(redis_server.url)
    await live.announce("gateway", "a", b"", 60)
    assert await live.claim("k", "a", None, 60) == "a"
    await asyncio.to_thread(redis_server.kill)
    for _ in range(2):
        with pytest.raises(LiveError):
            await live.present("gateway")
    await asyncio.to_thread(redis_server.start)
    assert await live.present("gateway") == {}
    assert await live.claim("k", "b", None, 60) == "b"
    await live.aclose()


async def test_a_redis_that_answers_nothing_holds_nobody_up_for_long(redis_server: Server) -> None:
    live = RedisLive(redis_server.url)
    await live.check()
    halt(redis_server)
    try:
        began = time.monotonic()
        with pytest.raises(LiveError):
            await live.allow("k", 5, 60)
        assert time.monotonic() - began < 5
    finally:
        resume(redis_server)
    assert await live.present("gateway") == {}
    await live.aclose()


async def test_a_cancellation_that_the_client_forgets_is_remembered() -> None:
    async def forgetful() -> None:
        async with reaching():
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        pytest.fail("went on after it was cancelled")

    task = asyncio.create_task(forgetful())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# ── attempts to log in ────────────────────────────────────────────────────────────────────────────


async def test_gateways_count_attempts_together(redis_url: str) -> None:
    lives = [RedisLive(redis_url) for _ in range(2)]
    here, there = (Attempts(live) for live in lives)
    for attempts in (here, there, here, there, here):
        assert await attempts.begin("li", "10.0.0.1") == 0.0
    assert await there.begin("li", "10.0.0.1") > 0
    assert await there.begin("li", "10.0.0.2") == 0.0
    await here.succeed("li", "10.0.0.1")
    assert await there.begin("li", "10.0.0.1") == 0.0
    for live in lives:
        await live.aclose()


async def test_nobody_finds_a_name_or_an_address_in_redis(redis_url: str) -> None:
    import redis

    live = RedisLive(redis_url)
    await Attempts(live).begin("zhang-san", "10.0.0.1")
    await live.aclose()
    with redis.Redis.from_url(redis_url) as client:
        [key] = client.keys("*")
    assert key.startswith(b"duting:rate:login:")
    assert b"zhang" not in key
    assert b"10.0" not in key


async def test_while_redis_is_away_each_process_counts_for_itself() -> None:
    live = RedisLive(NOBODY)
    attempts = Attempts(live)
    waits = [await attempts.begin("li", "a") for _ in range(FAILURES + 1)]
    assert waits[:FAILURES] == [0.0] * FAILURES
    assert waits[FAILURES] > 0
    await attempts.succeed("li", "a")
    assert await attempts.begin("li", "a") == 0.0
    await live.aclose()
