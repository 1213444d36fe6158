"""Messages between processes: whole, in order, and never larger than anything of ours."""

from __future__ import annotations

import asyncio
import io

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.piped import LONGEST, framed, next_message, read_message, taken

MESSAGES = st.lists(st.binary(max_size=300), max_size=8)


def decoded(messages):
    return [msgspec.msgpack.decode(message) for message in messages]


def all_of(file):
    return list(iter(lambda: read_message(file), None))


@given(MESSAGES, st.integers(1, 50))
def test_messages_are_taken_as_they_were_given_however_they_come_in_pieces(given_, size):
    sent, got, out = b"".join(framed(one) for one in given_), bytearray(), []
    for at in range(0, len(sent), size):
        got += sent[at : at + size]
        while (message := taken(got)) is not None:
            out.append(message)
    assert decoded(out) == given_
    assert decoded(all_of(io.BytesIO(sent))) == given_


@given(MESSAGES, st.integers(1, 20))
def test_an_end_in_the_middle_of_a_message_is_the_end(given_, cut):
    sent = b"".join(framed(one) for one in [*given_, b"the last one of them"])
    assert decoded(all_of(io.BytesIO(sent[:-cut]))) == given_


async def test_a_stream_gives_its_messages_and_then_none():
    reader = asyncio.StreamReader()
    reader.feed_data(framed("one") + framed("two") + framed("three")[:-1])
    reader.feed_eof()
    told = [await next_message(reader) for _ in range(3)]
    assert [message and msgspec.msgpack.decode(message) for message in told] == ["one", "two", None]


def test_what_is_too_large_is_no_message_of_ours():
    head = (LONGEST + 1).to_bytes(4, "little")
    with pytest.raises(ValueError, match="at most"):
        taken(bytearray(head))
    with pytest.raises(ValueError, match="at most"):
        read_message(io.BytesIO(head))
