"""Entries in any order, twice or not at all: what is told is the log, once and in order."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import app.merge as merge_module
from app.merge import Deliveries, Entry, Merge
from streams.events import EventType, Published, Speaking, Text

AT = "2026-03-01T08:30:00.000Z"


def event(cursor: int, kind: EventType, call_id: str = "c1", utterance: str | None = None) -> Published:
    content = {}
    if utterance is not None:
        content["utterance"] = Text(utterance_id=utterance, role="agent", start_ms=0, end_ms=800, text="您好")
    if kind == "call.updated":
        content["speaking"] = Speaking(agent=True)
    return Published(cursor=cursor, type=kind, call_id=call_id, at=AT, media_ms=0, **content)


def stored(cursor: int, kind: EventType = "alert.raised", by: str | None = "a", **more: str) -> Entry:
    published = event(cursor, kind, **more)
    return Entry(published, msgspec.json.encode(published).decode(), by)


def passing(cursor: int, utterance: str = "u", by: str = "a") -> Entry:
    return Entry(event(cursor, "utterance.partial", utterance=utterance), None, by)


def told(deliveries: Deliveries) -> list[object]:
    """Cursors of stored events, utterances of partial ones, ``None`` for what is missed."""
    return [
        entry
        if entry is None
        else entry.published.cursor
        if entry.json is not None
        else entry.published.utterance.utterance_id  # type: ignore[union-attr]
        if entry.published.type == "utterance.partial"
        else entry.published.type
        for entry in deliveries
    ]


def test_what_is_next_is_told_and_what_was_told_is_not_told_again() -> None:
    merge = Merge(4)
    assert told(merge.offer([stored(4), stored(5), stored(6), stored(5), stored(6)])) == [5, 6]
    assert (merge.head, merge.wanted) == (6, None)


def test_entries_out_of_order_are_put_in_order() -> None:
    merge = Merge(0)
    assert told(merge.offer([stored(3), stored(2), stored(3)])) == []
    assert merge.wanted == 1
    assert told(merge.offer([stored(1), stored(4)])) == [1, 2, 3, 4]
    assert merge.wanted is None


def test_what_does_not_come_is_read_from_the_store() -> None:
    merge = Merge(10)
    assert told(merge.offer([stored(14), stored(12)])) == []
    assert merge.wanted == 11
    assert told(merge.fill([stored(11, by=None)], 11)) == [11, 12]
    assert merge.wanted == 13
    assert told(merge.fill([stored(13, by=None)], 13)) == [13, 14]
    assert merge.wanted is None


def test_a_long_hole_is_filled_a_part_at_a_time_while_entries_come() -> None:
    merge = Merge(0)
    merge.know(5)
    assert merge.wanted == 5
    assert told(merge.fill([stored(1, by=None), stored(2, by=None)], 5)) == [1, 2]
    assert told(merge.offer([stored(3)])) == [3]
    assert told(merge.fill([stored(3, by=None), stored(4, by=None)], 5)) == [4]
    assert merge.wanted == 5
    assert told(merge.offer([stored(6)])) == []
    assert told(merge.fill([stored(5, by=None)], 5)) == [5, 6]


def test_what_the_store_has_forgotten_is_said_to_be_missed() -> None:
    merge = Merge(0)
    merge.offer([stored(9)])
    assert told(merge.fill([stored(6, by=None), stored(7, by=None), stored(8, by=None)], 8)) == [
        None,
        6,
        7,
        8,
        9,
    ]
    merge.offer([stored(20)])
    assert told(merge.fill([], 19)) == [None, 20]
    assert merge.wanted is None


def test_a_passing_entry_carries_the_cursor_of_what_was_told_before_it() -> None:
    merge = Merge(7)
    [entry] = merge.offer([passing(3)])
    assert entry is not None
    assert (entry.published.cursor, entry.json) == (7, None)


def test_a_passing_entry_waits_for_what_its_gateway_stored_before_it() -> None:
    merge = Merge(0)
    assert told(merge.offer([stored(2, "call.started"), passing(2, "u1"), passing(2, "u2")])) == []
    assert told(merge.offer([stored(1, by="b")])) == [1, 2, "u1", "u2"]
    # And when only it tells of them.
    assert told(merge.offer([passing(4, "u3")])) == []
    assert merge.wanted == 4
    assert told(merge.fill([stored(3, by=None), stored(4, by=None)], 4)) == [3, 4, "u3"]


def test_a_partial_text_after_its_final_is_dropped() -> None:
    merge = Merge(0)
    assert told(merge.offer([passing(0, "u1")])) == ["u1"]
    assert told(merge.offer([stored(1, "utterance.final", utterance="u1"), passing(0, "u1")])) == [1]
    assert told(merge.offer([passing(1, "u2")])) == ["u2"]
    assert merge.late == 1


def test_nobody_speaks_any_more_in_a_call_that_has_ended_until_it_begins_again() -> None:
    merge = Merge(0)
    speaks = Entry(event(0, "call.updated"), None, "a")
    assert told(merge.offer([speaks, stored(1, "call.ended"), speaks, passing(1)])) == ["call.updated", 1]
    assert told(merge.offer([stored(2, "call.started"), speaks])) == [2, "call.updated"]


def test_the_memory_of_what_is_over_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_module, "OVER_KEPT", 2)
    merge = Merge(0)
    merge.offer([stored(n, "utterance.final", utterance=f"u{n}") for n in (1, 2, 3)])
    assert told(merge.offer([passing(3, "u1"), passing(3, "u2"), passing(3, "u3")])) == ["u1"]


def test_more_than_may_wait_is_read_from_the_store_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_module, "ENTRIES_WAITING", 3)
    merge = Merge(0)
    merge.offer([stored(5), passing(5, "u1"), stored(7)])
    assert merge.wanted == 4
    merge.offer([stored(6)])
    assert (merge.wanted, merge.late) == (7, 1)
    assert told(merge.fill([stored(n, by=None) for n in range(1, 8)], 7)) == list(range(1, 8))


def test_a_log_that_went_back_begins_anew_for_everybody() -> None:
    merge = Merge(0)
    merge.offer([stored(1), stored(2, "utterance.final", utterance="u1"), stored(9)])
    assert told(merge.restart(1)) == [None]
    assert (merge.head, merge.wanted) == (1, None)
    assert told(merge.offer([stored(2), passing(2, "u1")])) == [2, "u1"]


GATEWAYS = ("a", "b", "c")


class Cluster(RuleBasedStateMachine):
    """Gateways that store into one log and publish, in their own order, into one stream; one that reads.

    An entry may be published late, twice or never; the stream may be emptied.
    """

    @initialize(head=st.integers(0, 3))
    def begin(self, head: int) -> None:
        self.log = [stored(cursor, by=None) for cursor in range(1, head + 1)]
        self.kept_from = 1
        self.merge = Merge(head)
        self.queues: dict[str, list[Entry]] = {gateway: [] for gateway in GATEWAYS}
        self.written = dict.fromkeys(GATEWAYS, head)
        self.stream: list[Entry] = []
        self.utterances = 0
        self.open: list[str] = []
        self.head = head
        self.finals: set[str] = set()
        self.before: dict[str, int] = {}
        self.missed = False

    @rule(gateway=st.sampled_from(GATEWAYS))
    def store(self, gateway: str) -> None:
        self._commit(gateway, stored(len(self.log) + 1, by=gateway))

    @rule(gateway=st.sampled_from(GATEWAYS))
    def speak(self, gateway: str) -> None:
        name = f"u{self.utterances}"
        self.utterances += 1
        self.open.append(name)
        self.before[name] = self.written[gateway]
        self.queues[gateway].append(passing(self.written[gateway], name, gateway))

    @precondition(lambda self: self.open)
    @rule(gateway=st.sampled_from(GATEWAYS), data=st.data())
    def finish(self, gateway: str, data: st.DataObject) -> None:
        """By any gateway: what recognises the call may have moved meanwhile."""
        name = data.draw(st.sampled_from(self.open))
        self.open.remove(name)
        self._commit(gateway, stored(len(self.log) + 1, "utterance.final", by=gateway, utterance=name))

    def _commit(self, gateway: str, entry: Entry) -> None:
        self.log.append(Entry(entry.published, entry.json, None))
        self.written[gateway] = entry.published.cursor
        self.queues[gateway].append(entry)

    @rule(
        gateway=st.sampled_from(GATEWAYS),
        count=st.integers(1, 4),
        fate=st.sampled_from(["once", "twice", "never"]),
    )
    def publish(self, gateway: str, count: int, fate: str) -> None:
        sent, self.queues[gateway] = self.queues[gateway][:count], self.queues[gateway][count:]
        self.stream += {"once": sent, "twice": sent + sent, "never": []}[fate]

    @rule()
    def forget_the_stream(self) -> None:
        self.stream = []

    @rule(keep=st.integers(1, 5))
    def trim(self, keep: int) -> None:
        self.kept_from = max(self.kept_from, len(self.log) - keep + 1)

    @rule(count=st.integers(1, 8))
    def read_the_stream(self, count: int) -> None:
        came, self.stream = self.stream[:count], self.stream[count:]
        self._hear(self.merge.offer(came))

    @rule()
    def look_at_the_store(self) -> None:
        self.merge.know(len(self.log))

    @precondition(lambda self: self.merge.wanted is not None)
    @rule(limit=st.integers(1, 3), meanwhile=st.integers(0, 3))
    def fill(self, limit: int, meanwhile: int) -> None:
        after, wanted = self.merge.head, self.merge.wanted
        assert wanted is not None
        assert after < wanted <= len(self.log)
        found = [entry for entry in self.log[after:wanted] if entry.published.cursor >= self.kept_from][
            :limit
        ]
        if meanwhile:
            self.read_the_stream(meanwhile)
        self._hear(self.merge.fill(found, wanted))

    def _hear(self, deliveries: Deliveries) -> None:
        for entry in deliveries:
            if entry is None:
                self.missed = True
                continue
            cursor = entry.published.cursor
            if entry.json is None:
                utterance = entry.published.utterance
                assert not isinstance(utterance, msgspec.UnsetType)
                assert cursor >= self.head if self.missed else cursor == self.head
                assert cursor >= self.before[utterance.utterance_id], "before what was stored before it"
                assert utterance.utterance_id not in self.finals, "a partial text after its final"
                continue
            if self.missed:
                assert cursor > self.head
                assert self.kept_from > self.head + 1, "said to be missed, but it is kept"
            else:
                assert cursor == self.head + 1
            self.missed = False
            self.head = cursor
            assert entry.json == self.log[cursor - 1].json
            if entry.published.type == "utterance.final":
                self.finals.add(entry.published.utterance.utterance_id)  # type: ignore[union-attr]

    @invariant()
    def the_head_is_what_was_told(self) -> None:
        assert self.merge.head == self.head or self.missed

    def teardown(self) -> None:
        if not hasattr(self, "log"):
            return
        self.merge.know(len(self.log))
        while (wanted := self.merge.wanted) is not None:
            assert wanted > self.merge.head
            found = [
                entry
                for entry in self.log[self.merge.head : wanted]
                if entry.published.cursor >= self.kept_from
            ]
            self._hear(self.merge.fill(found, wanted))
        assert self.merge.head == len(self.log), "something stored was not told"


TestCluster = Cluster.TestCase
TestCluster.settings = settings(max_examples=500, stateful_step_count=40, deadline=None)
