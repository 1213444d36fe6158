from hypothesis import given
from hypothesis import strategies as st

from streams.events import Utterance
from streams.guards import Reading
from streams.parts import INTO_PAUSE_MS, Parts, clip, join, joined


def utterance(end_ms, start_ms=1000, final=False):
    pcm = bytes(32 * (end_ms + 128 - start_ms))
    endpoint = "pause" if final else "breath"
    return Utterance(
        call_id="c",
        channel="agent",
        start_ms=start_ms,
        end_ms=end_ms,
        pcm=pcm,
        final=final,
        endpoint=endpoint,
    )


def reading(text="好的", tokens=4, log_probability=-0.2):
    return Reading(text, tokens, log_probability, 0.1, 1.0)


def test_the_first_part_is_the_utterance_up_to_its_first_breath():
    parts = Parts("u", 1000)
    part = parts.next(utterance(2500))
    assert (part.start_ms, part.end_ms) == (1000, 2500)


def test_the_next_part_begins_in_the_pause_behind_the_one_before():
    parts = Parts("u", 1000)
    parts.taken(parts.next(utterance(2500)))
    assert parts.next(utterance(4000)).start_ms == 2500 + INTO_PAUSE_MS
    assert len(clip(utterance(4000), parts.next_ms())) == 32 * (4000 + 128 - 2500 - INTO_PAUSE_MS)


def test_a_part_that_never_came_into_the_model_is_read_with_the_one_behind_it():
    parts = Parts("u", 1000)
    parts.next(utterance(2500))
    assert parts.next(utterance(4000)).start_ms == 1000


def test_a_part_from_the_beginning_stands_for_all_before_it():
    parts = Parts("u", 1000)
    parts.taken(parts.next(utterance(2500)))
    parts.taken(parts.next(utterance(4000)))
    parts.taken(parts.next(utterance(5500), whole=True))
    assert [(p.start_ms, p.end_ms) for p in parts.parts] == [(1000, 5500)]
    assert parts.whole


def test_an_utterance_that_ends_at_its_last_breath_is_covered():
    parts = Parts("u", 1000)
    assert not parts.covers(utterance(2500, final=True))
    parts.taken(parts.next(utterance(2500)))
    assert parts.covers(utterance(2500, final=True))
    assert not parts.covers(utterance(2900, final=True))


def test_a_part_for_which_the_model_failed_is_known():
    parts = Parts("u", 1000)
    part = parts.next(utterance(2500))
    parts.taken(part)
    assert not parts.failed
    part.done = True
    assert parts.failed
    part.reading = reading()
    assert not parts.failed


def test_full_stops_within_an_utterance_become_commas():
    assert join(["保本。", "", "保息。"]) == "保本，保息。"


def test_a_joined_reading_is_as_sure_as_its_tokens_are_on_average():
    both = joined([reading("好", 1, -1.0), reading("可以的", 3, -0.2)])
    assert (both.text, both.tokens, both.seconds) == ("好，可以的", 4, 2.0)
    assert abs(both.log_probability + 0.4) < 1e-9


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=12, unique=True))
def test_parts_follow_each_other_without_overlap(ends):
    parts = Parts("u", 0)
    for end in sorted(ends):
        heard = utterance(end, start_ms=0)
        if heard.end_ms > parts.next_ms():
            parts.taken(parts.next(heard))
    for before, after in zip(parts.parts, parts.parts[1:], strict=False):
        assert before.end_ms < after.start_ms < after.end_ms
