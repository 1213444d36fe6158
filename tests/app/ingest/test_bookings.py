"""UUIDs that were given out, and those that say all themselves."""

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import Overloaded
from app.ingest.bookings import AHEAD_S, SIGNED_S, Booking, Bookings, sign, signed
from app.ingest.peer import call_info

BOOKED = Booking(call_info("c", "audiosocket", {}), "agent", 120.0)


def test_a_booking_is_found_until_its_time_is_over():
    bookings, uuid = Bookings(10), uuid4()
    bookings.book(uuid, BOOKED, 1_000.0)
    assert bookings.find(uuid4(), 1_000.0) is None
    assert bookings.find(uuid, 1_119.9) is BOOKED
    # It was used: whoever loses the connection may come back for as long again.
    assert bookings.find(uuid, 1_239.8) is BOOKED
    assert bookings.find(uuid, 1_359.9) is None
    assert len(bookings) == 0


def test_there_is_room_for_so_many_and_what_is_over_makes_room():
    bookings = Bookings(2)
    for now in (0.0, 10.0):
        bookings.book(uuid4(), BOOKED, now)
    with pytest.raises(Overloaded, match="2 bookings"):
        bookings.book(uuid4(), BOOKED, 119.0)
    bookings.book(uuid4(), BOOKED, 121.0)
    assert len(bookings) == 2


def test_a_signed_uuid_is_what_a_dialplan_makes_of_the_calls_own_id():
    # In shell: inner=$(printf 'secret:1716984212.17:agent' | sha1sum | cut -c-40)
    #           printf "secret:$inner" | sha1sum | cut -c-15
    uuid = UUID("66571994-0000-0011-a1ad-0b9bbd1eb20a")
    assert sign("secret", 1_716_984_212, 17, "agent") == uuid
    assert signed(uuid, "secret", 1_716_984_300.0) == ("1716984212.17", "agent")


@pytest.mark.parametrize(
    ("token", "wall_s"),
    [("other", 1_000.0), ("secret", 1_000.0 + SIGNED_S + 1), ("secret", 1_000.0 - AHEAD_S - 1)],
    ids=["token", "old", "ahead"],
)
def test_a_signature_of_another_token_or_another_time_is_none(token, wall_s):
    assert signed(sign("secret", 1_000, 1, "customer"), token, wall_s) is None


seconds = st.integers(0, 2**32 - 1)


@given(seconds, seconds, st.sampled_from(["agent", "customer"]), st.text(max_size=40))
def test_what_was_signed_is_read_again(second, number, channel, token):
    assert signed(sign(token, second, number, channel), token, float(second)) == (
        f"{second}.{number}",
        channel,
    )


@given(seconds, seconds, st.integers(0, 127))
def test_no_bit_of_it_can_be_changed(second, number, bit):
    uuid = sign("secret", second, number, "agent")
    other = UUID(int=uuid.int ^ 1 << bit)
    assert signed(other, "secret", float(second)) is None


@given(st.uuids(version=4))
def test_a_random_uuid_is_not_signed(uuid):
    assert signed(uuid, "secret", 1_716_984_212.0) is None
