"""What stands in for lost sound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from streams.conceal import FADE_MS, conceal, crossfaded, period

RATE = 48_000


def voice(hertz, milliseconds=40):
    t = np.arange(RATE * milliseconds // 1000) / RATE
    return (8_000 * np.sin(2 * np.pi * hertz * t) + 2_000 * np.sin(4 * np.pi * hertz * t)).astype(np.int16)


@pytest.mark.parametrize("hertz", [80, 120, 200, 350])
def test_the_pitch_period_is_found(hertz):
    found = period(voice(hertz), RATE)
    # Any whole number of periods goes on without a click.
    assert abs(found * hertz / RATE - round(found * hertz / RATE)) < 0.05


def test_a_voice_goes_on_as_it_was_and_fades():
    whole = voice(160, 60)
    filled = conceal(whole[: RATE * 40 // 1000], 960, RATE)
    assert abs(int(filled[0]) - int(whole[RATE * 40 // 1000])) < 1_500
    assert np.abs(filled[-200:]).max() < np.abs(filled[:400]).max()


def test_after_a_while_there_is_silence():
    filled = conceal(voice(160), RATE // 10, RATE)
    assert filled[: RATE * FADE_MS // 1000 - 100].any()
    assert not filled[RATE * FADE_MS // 1000 :].any()


def test_where_the_voice_comes_back_both_run_into_each_other():
    going, coming = np.full(240, 8_000, np.int16), np.full(960, -4_000, np.int16)
    mixed = crossfaded(going, coming).astype(int)
    assert len(mixed) == 960
    assert mixed[0] > 7_900
    assert np.abs(np.diff(mixed)).max() < 60
    assert set(mixed[240:]) == {-4_000}


@given(
    arrays.arrays(np.int16, st.integers(0, 2_000)),
    st.integers(0, 4_800),
)
def test_as_much_as_was_lost_and_never_louder_than_what_was_heard(heard, count):
    filled = conceal(heard, count, RATE)
    assert (len(filled), filled.dtype) == (count, np.int16)
    assert loudest(filled) <= loudest(heard)


@given(
    arrays.arrays(np.int16, st.integers(0, 500)),
    arrays.arrays(np.int16, st.integers(0, 500)),
)
def test_mixed_it_is_as_long_as_what_comes_and_no_louder_than_both(going, coming):
    mixed = crossfaded(going, coming)
    assert (len(mixed), mixed.dtype) == (len(coming), np.int16)
    assert loudest(mixed) <= max(loudest(going), loudest(coming))


def loudest(samples):
    return np.abs(samples.astype(int)).max(initial=0)
