"""A million hostile inputs for whatever reads what a peer sends: nothing but its own error, no more memory.

By default a few thousand each. A night's worth, with figures::

    HYPOTHESIS_PROFILE=night python -m pytest tests/app/ingest -k million

An input is a message, a datagram, a body, or a chunk of a stream. Hypothesis draws valid messages, the ways
in which they are changed, and a seed; one example of it is ``EACH`` inputs, in which a connection begins anew
after each error, as a real one does. A second test gives as many to one that never ends.
"""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from app.ingest import signature
from app.ingest.peer import Parser
from app.ingest.protocols import ROUTES
from tests.app.ingest import hostile
from tests.app.ingest.attack import Attack, Figures, Grown, held
from tests.app.ingest.attacked import MEBIBYTE, PHONES, Message
from tests.app.ingest.attacked_edges import EDGES

NIGHT = settings.get_current_profile_name() == "night"
INPUTS, EACH = (1_000_000, 2_000) if NIGHT else (2_500, 250)
TARGETS = {**PHONES, **EDGES}
PROTOCOLS = {
    "app.ingest.twilio": ("twilio",),
    "app.ingest.audiohook": ("audiohook", "signature"),
    "app.ingest.audiosocket": ("audiosocket", "booking"),
    "app.ingest.chan_websocket": ("asterisk",),
    "app.ingest.jambonz": ("jambonz", "fork"),
    "app.ingest.whip": ("offer", "sdpfrag", "trickle", "packets", "voice", "opus"),
}
"""What is attacked of each protocol, by the file that makes its routes."""
OF_ALL = ("frames", "headers", "telephony")
"""What all of them have."""
MOST_GROWN = 64 * MEBIBYTE
"""Of the whole process, from the first tenth of the inputs on: a leak of 75 bytes an input shows. What long
messages of all sizes leave between them in the allocator is up to 43; none of it is held."""
LOOKS = 200
# Of an example hypothesis keeps what it has drawn, some 20 KiB: hence no more than 500 of them.


# ── that nothing is left out ──────────────────────────────────────────────────────────────────────


def parsers(kind: type[Parser] = Parser) -> set[str]:
    """Names of all parsers that there are."""
    named = {kind.name} if "name" in vars(kind) and kind.__module__.startswith("app.") else set()
    return named.union(*(parsers(one) for one in kind.__subclasses__()))


def test_every_protocol_of_the_list_and_every_parser_is_attacked():
    assert {route.__module__ for route in ROUTES} == set(PROTOCOLS), "attack the new protocol, too"
    assert parsers() == set(PHONES)
    assert {*OF_ALL, *(name for names in PROTOCOLS.values() for name in names)} == set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_the_inputs_are_both_taken_and_refused(name):
    figures = Figures()
    Attack(TARGETS[name], hostile.Chance(1), figures).run(500)
    assert figures.taken > 40
    # An order of packets, and frames, take whatever comes.
    assert figures.refused > 5 or not TARGETS[name].kind.own
    assert figures.changed > 150


# ── whatever comes ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", TARGETS)
def test_of_a_million_hostile_inputs_none_raises_anything_but_its_own_error(name, told):
    figures, grown = Figures(), Grown()

    @settings(max_examples=-(-INPUTS // EACH), deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.integers(0, 2**64 - 1),
        st.lists(TARGETS[name].valid, max_size=8),
        st.lists(st.sampled_from(list(hostile.CHANGES)), min_size=1, unique=True),
    )
    def attack(seed, corpus, ways):
        one = Attack(TARGETS[name], hostile.Chance(seed), figures, corpus=corpus, ways=ways)
        try:
            one.run(EACH)
        except BaseException:
            note(f"the last inputs, the newest at the end: {[short(data) for data in one.last]}")
            raise
        if figures.inputs > INPUTS // 10:
            grown.look()

    attack()
    told("begun anew", figures, grown)
    assert figures.inputs >= INPUTS
    assert grown.most <= MOST_GROWN


@pytest.mark.parametrize("name", TARGETS)
def test_one_that_lives_through_a_million_hostile_inputs_holds_no_more_than_at_first(name, told):
    figures, grown = Figures(), Grown()
    attack = Attack(TARGETS[name], hostile.Chance(name), figures, endless=True)
    for look in range(LOOKS):
        attack.run(-(-INPUTS // LOOKS))
        figures.held = max(figures.held, held(attack.attacked.state))
        assert figures.held <= attack.attacked.most_held
        if look >= LOOKS // 10:
            grown.look()
    told("endless", figures, grown)
    assert figures.inputs >= INPUTS
    assert grown.most <= MOST_GROWN


def short(data: Message) -> str:
    text = repr(data)
    return text if len(text) < 1_000 else f"{text[:1_000]}… ({len(data)} long)"


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """A million lines of log help nobody."""
    monkeypatch.setattr(signature, "log", SimpleNamespace(warning=lambda *_, **__: None))


@pytest.fixture
def told(request, capsys):
    """Prints the figures of a night."""
    began_s = time.process_time()  # of the processor: a night's machine has other work

    def tell(how, figures, grown):
        if not NIGHT:
            return
        name = request.node.callspec.params["name"]
        size = f", held {figures.held / 1024:,.0f} KiB" if figures.held else ""
        with capsys.disabled():
            print(
                f"\n{name:<12}{how:<11}{figures.inputs:>10,} inputs {time.process_time() - began_s:>5.0f} s, "
                f"{figures.refused / figures.inputs:>4.0%} refused, {figures.lives:>9,} lives, "
                f"{figures.changed / figures.inputs:>4.0%} hostile, "
                f"process grown {grown.most / MEBIBYTE:4.1f} MiB{size}"
            )

    return tell
