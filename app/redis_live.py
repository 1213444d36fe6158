"""Live state in Redis, shared by all processes of a cluster. All times are those of Redis's own clock.

Keys: ``duting:present:KIND`` (name by the millisecond when it passes) with ``duting:present:KIND:info``,
``duting:held:KEY``, ``duting:rate:KEY`` (tries by microsecond), ``duting:inbox:NAME`` with ``duting:inboxes``
(name by the millisecond when it passes). Each method is one command or one script, so that nobody comes
between its steps; none waits longer than ``ANSWER_S``.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import cast

from app.live import MOST_INBOXES, MOST_MESSAGES
from app.redis_link import connect, reaching

_NOW_MS = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

_ANNOUNCE = (
    _NOW_MS
    + """
redis.call('ZADD', KEYS[1], string.format('%d', now + ARGV[3]), ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
-- When nobody comes any more, nothing stays.
for _, key in ipairs(KEYS) do
  if redis.call('PTTL', key) < tonumber(ARGV[3]) then redis.call('PEXPIRE', key, ARGV[3]) end
end
"""
)

_WITHDRAW = """
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
"""

_PRESENT = (
    _NOW_MS
    + """
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%d', now))) do
  redis.call('ZREM', KEYS[1], name)
  redis.call('HDEL', KEYS[2], name)
end
return redis.call('HGETALL', KEYS[2])
"""
)

_CLAIM = """
local holder = redis.call('GET', KEYS[1])
if holder ~= ARGV[1] and (holder or '') ~= ARGV[2] then return holder end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return ARGV[1]
"""

_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""

_ALLOW = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local span = tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%d', now - span))
local tries = redis.call('ZCARD', KEYS[1])
if tries >= tonumber(ARGV[1]) then
  local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
  return oldest + span - now
end
-- Two tries may share a microsecond, never a microsecond and a place.
redis.call('ZADD', KEYS[1], string.format('%d', now), string.format('%d-%d', now, tries))
redis.call('PEXPIRE', KEYS[1], math.ceil(span / 1000))
return 0
"""

_POST = (
    _NOW_MS
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%d', now))
local known = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not known then
  if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[5]) then return 0 end
elseif redis.call('LLEN', KEYS[1]) >= tonumber(ARGV[4]) then
  return 0
end
redis.call('RPUSH', KEYS[1], ARGV[2])
local ends = math.max(now + tonumber(ARGV[3]), tonumber(known or 0))
redis.call('ZADD', KEYS[2], string.format('%d', ends), ARGV[1])
redis.call('PEXPIREAT', KEYS[1], string.format('%d', ends))
-- When nobody comes any more, nothing stays.
if redis.call('PTTL', KEYS[2]) < ends - now then
  redis.call('PEXPIREAT', KEYS[2], string.format('%d', ends))
end
return 1
"""
)

_WAITING = (
    _NOW_MS
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%d', now))
return redis.call('ZRANGE', KEYS[1], 0, -1)
"""
)

_COLLECT = """
local messages = redis.call('LRANGE', KEYS[1], 0, -1)
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return messages
"""

_INBOXES = "duting:inboxes"


class RedisLive:
    """``app.live.Live`` in Redis; connects at the first call, and anew after every failure."""

    def __init__(self, url: str) -> None:
        """Raises ``LiveError`` for a URL that is none."""
        self._redis = connect(url)

    async def check(self) -> None:
        """Raises ``LiveError`` when Redis does not serve, with what to do."""
        async with reaching():
            await self._redis.ping()

    async def announce(self, kind: str, name: str, info: bytes, seconds: float) -> None:
        await self._run(_ANNOUNCE, _present_keys(kind), name, info, _milliseconds(seconds))

    async def withdraw(self, kind: str, name: str) -> None:
        await self._run(_WITHDRAW, _present_keys(kind), name)

    async def present(self, kind: str) -> dict[str, bytes]:
        found = cast(list[bytes], await self._run(_PRESENT, _present_keys(kind)))
        return {name.decode(): info for name, info in zip(found[::2], found[1::2], strict=True)}

    async def claim(self, key: str, owner: str, expected: str | None, seconds: float) -> str | None:
        holder = cast(
            bytes | None,
            await self._run(_CLAIM, [_held_key(key)], owner, expected or "", _milliseconds(seconds)),
        )
        return None if holder is None else holder.decode()

    async def release(self, key: str, owner: str) -> bool:
        return await self._run(_RELEASE, [_held_key(key)], owner) == 1

    async def allow(self, key: str, most: int, seconds: float) -> float:
        wait = cast(int, await self._run(_ALLOW, [_rate_key(key)], most, _milliseconds(seconds) * 1000))
        return wait / 1_000_000

    async def forget(self, key: str) -> None:
        async with reaching():
            await self._redis.delete(_rate_key(key))

    async def post(self, inbox: str, message: bytes, seconds: float) -> bool:
        left = await self._run(
            _POST,
            [_inbox_key(inbox), _INBOXES],
            *(inbox, message, _milliseconds(seconds), MOST_MESSAGES, MOST_INBOXES),
        )
        return left == 1

    async def waiting(self) -> set[str]:
        found = cast(list[bytes], await self._run(_WAITING, [_INBOXES]))
        return {name.decode() for name in found}

    async def collect(self, inbox: str) -> list[bytes]:
        return cast(list[bytes], await self._run(_COLLECT, [_inbox_key(inbox), _INBOXES], inbox))

    async def aclose(self) -> None:
        await self._redis.aclose()

    async def _run(self, script: str, keys: list[str], *arguments: str | bytes | int) -> object:
        # Whole, not by its hash: Redis forgets scripts when it restarts.
        async with reaching():
            return await cast(
                Awaitable[object],
                self._redis.eval(script, len(keys), *keys, *arguments),
            )


def _present_keys(kind: str) -> list[str]:
    return [f"duting:present:{kind}", f"duting:present:{kind}:info"]


def _held_key(key: str) -> str:
    return f"duting:held:{key}"


def _rate_key(key: str) -> str:
    return f"duting:rate:{key}"


def _inbox_key(inbox: str) -> str:
    return f"duting:inbox:{inbox}"


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
