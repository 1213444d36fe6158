"""What flows along the path, in the order in which it flows.

Everything is a frozen ``msgspec.Struct``. Times that end in ``_ms`` are **media time**: integer
milliseconds since the call's first sample. Wall-clock time appears once, in ``Published.at``, added at
the edge. "Not yet" is ``None``, never a number.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType, field

from streams.desk import HintAnswer, Whisper, WhisperSeen
from streams.sealing import Sealed
from streams.supervising import Note, Takeover

Channel = Literal["agent", "customer", "unknown"]
"""Who is heard on a channel; ``unknown`` is the one channel of a mixed mono recording."""

Severity = Literal["info", "warning", "critical"]
AlertState = Literal["open", "acknowledged", "resolved", "false_alarm", "escalated", "withdrawn"]
AlertAction = Literal[
    "take",
    "release",
    "acknowledge",
    "resolve",
    "false_alarm",
    "reopen",
    "assign",
    "comment",
    "escalate",
    "appeal",
    "accept_appeal",
    "reject_appeal",
]
"""What becomes of an alert by a person's wish, or (``escalate``) because its time is over."""
Match = Literal["exact", "pinyin", "regex", "similar", "timer", "count", "entity", "signal", "script"]
Feeling = Literal["calm", "pleased", "anxious", "sad", "displeased", "angry"]

SAMPLE_RATE = 16_000
"""Hertz. Everything behind the decoder is mono, signed 16-bit, at this rate."""


# ── ingest ────────────────────────────────────────────────────────────────────────────────────────


class CallInfo(Struct, frozen=True, kw_only=True):
    """What the telephony knows about a call; arrives with its start and may be updated."""

    call_id: str
    protocol: str = "replay"
    agent: str | None = None
    """The agent's account or extension."""
    team: str | None = None
    """Who supervises it: as the telephony says, else the team of the agent's account."""
    queue: str | None = None
    customer: str | None = None
    """The customer's number or id, already masked for display."""
    customer_level: str | None = None
    """VIP level in the bank's own words."""
    direction: Literal["inbound", "outbound"] | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    """Custom fields, as the telephony sent them."""
    started_at: str | None = None
    """Wall clock of media time 0, RFC 3339; ``None`` where nobody knows: a recording."""
    channels: tuple[Channel, ...] = ("agent", "customer")


class CallStarted(Struct, frozen=True, kw_only=True, tag=True):
    call: CallInfo

    @property
    def call_id(self) -> str:
        return self.call.call_id

    @property
    def media_ms(self) -> int:
        return 0


class CallUpdated(Struct, frozen=True, kw_only=True, tag=True):
    call: CallInfo
    media_ms: int

    @property
    def call_id(self) -> str:
        return self.call.call_id


class CallEnded(Struct, frozen=True, kw_only=True, tag=True):
    call_id: str
    media_ms: int
    """The call's length."""
    reason: Literal["hangup", "disconnected", "interrupted", "error"] = "hangup"
    """``interrupted``: the server stopped or was killed while the call ran."""
    by: Channel | None = None
    """Who hung up, where the telephony says so."""


class Hold(Struct, frozen=True, kw_only=True, tag=True):
    """The customer was put on hold, or taken back (not ``held``)."""

    call_id: str
    media_ms: int
    held: bool
    source: Literal["telephony", "music"]
    """``music``: nobody said so, but music plays on a channel."""


class KeyPressed(Struct, frozen=True, kw_only=True, tag=True):
    """Somebody pressed a key of the telephone (DTMF). Which one is not kept: it may belong to a PIN."""

    call_id: str
    channel: Channel
    media_ms: int


class Transfer(Struct, frozen=True, kw_only=True, tag=True):
    """The telephony hands the call to somebody else; whom, if it says so, as an account or a queue."""

    call_id: str
    media_ms: int
    to: str | None = None


Telephony = Hold | KeyPressed | Transfer
"""What a telephone, or the system around it, tells of a call while it runs."""


class AudioFrame(Struct, frozen=True, kw_only=True, tag=True):
    """A piece of one channel's audio, in order, without holes."""

    call_id: str
    channel: Channel
    media_ms: int
    """Of the first sample."""
    pcm: bytes
    """Signed 16-bit little-endian mono at ``SAMPLE_RATE``."""

    @property
    def duration_ms(self) -> int:
        return len(self.pcm) // 2 * 1000 // SAMPLE_RATE


class Gap(Struct, frozen=True, kw_only=True, tag=True):
    """Audio of one channel that never came, or that was dropped; silence stands in its place."""

    call_id: str
    channel: Channel
    media_ms: int
    duration_ms: int
    reason: Literal["missing", "late", "overload"]


TroubleKind = Literal["silent", "dead", "clipping", "noise"]
"""``silent``: the call is up, and no audio comes at all. ``dead``: one channel brings nothing while the other
side speaks. ``clipping``: too loud for its line. ``noise``: where speech should be, as of a wrong codec."""


class Trouble(Struct, frozen=True, kw_only=True, tag=True):
    """Something is wrong with a call's sound, or is right again (not ``present``)."""

    call_id: str
    channel: Channel
    """``unknown``: all of them."""
    kind: TroubleKind
    present: bool
    media_ms: int
    """When it was noticed."""
    since_ms: int
    """When it began, or ended."""
    measured: str = ""
    """For people: ``8 s``, ``5 %``, ``A-law as mu-law``."""


Inward = Telephony | Trouble
"""What only the detectors of a call are told; people see what follows from it."""


# ── listen ────────────────────────────────────────────────────────────────────────────────────────


class SpeechStarted(Struct, frozen=True, kw_only=True, tag=True):
    call_id: str
    channel: Channel
    media_ms: int
    """Onset of the speech, a little before the moment at which it was noticed."""


class SpeechStopped(Struct, frozen=True, kw_only=True, tag=True):
    call_id: str
    channel: Channel
    media_ms: int
    """End of the last speech heard, before the hangover."""


class Utterance(Struct, frozen=True, kw_only=True, tag=True):
    """One stretch of speech of one channel between two endpoints, or its beginning (not ``final``)."""

    call_id: str
    channel: Channel
    start_ms: int
    """Of the first sample in ``pcm``, pre-roll included. With call and channel it names the utterance."""
    end_ms: int
    """End of the speech, without the hangover."""
    pcm: bytes
    """Signed 16-bit little-endian mono at ``SAMPLE_RATE``."""
    final: bool
    endpoint: Literal["pause", "soft", "hard", "end", "breath", "partial"]
    """The last two are of partial ones: after a breath, or in the middle of speaking."""
    """Why it was cut here."""

    @property
    def utterance_id(self) -> str:
        return f"{self.call_id}:{self.channel}:{self.start_ms}"

    @property
    def media_ms(self) -> int:
        return self.end_ms

    @property
    def duration_ms(self) -> int:
        return len(self.pcm) // 2 * 1000 // SAMPLE_RATE


class Voice(Struct, frozen=True, kw_only=True, tag=True):
    """How an utterance sounds; told when it was cut, before its transcript. ``streams.voice`` measures it."""

    call_id: str
    channel: Channel
    utterance_id: str
    start_ms: int
    end_ms: int
    level_db: float
    """Loudness of its speech, dB relative to full scale."""
    peak_db: float
    """Of its loudest fifth of a second."""
    pitch_hz: float | None
    """Median fundamental frequency; ``None`` where too little is voiced."""
    pitch_spread: float | None
    """Between the first and the third quartile, in semitones."""
    voiced: float
    """Share of its speech that is voiced, 0 to 1."""
    paused: float
    """Share of its length in which nobody speaks, 0 to 1."""
    timbre: tuple[float, ...] = ()
    """The shape of its spectrum, as ``streams.voice.timbre`` has it; empty where there is no speech."""

    @property
    def media_ms(self) -> int:
        return self.end_ms


# ── transcribe ────────────────────────────────────────────────────────────────────────────────────


class Word(Struct, frozen=True, kw_only=True):
    text: str
    start_ms: int
    end_ms: int


class Transcript(Struct, frozen=True, kw_only=True, tag=True):
    """What an utterance says. Exactly one final one per utterance, also when it is empty."""

    call_id: str
    utterance_id: str
    role: Channel
    start_ms: int
    end_ms: int
    text: str
    """Simplified Chinese as the model wrote it. Empty when a guard rejected it (``rejected`` says why)."""
    final: bool
    confidence: float | None = None
    """Mean probability per token, 0 to 1."""
    rejected: str | None = None
    settled: int | None = None
    """Of a partial one: characters from the start that later readings will hardly change. What stands
    behind them is context, no evidence. ``None``: all of it."""
    words: tuple[Word, ...] = ()

    @property
    def media_ms(self) -> int:
        return self.end_ms

    def time_of(self, index: int) -> int:
        """Media time of the boundary before character ``index`` of ``text``.

        From word times where there are any, else by proportion of characters over the speech.
        """
        at = 0
        for word in self.words:
            if index < at + len(word.text):
                share = (index - at) / max(1, len(word.text))
                return round(word.start_ms + share * (word.end_ms - word.start_ms))
            at += len(word.text)
        if self.words:
            return self.words[-1].end_ms
        share = index / max(1, len(self.text))
        return round(self.start_ms + share * (self.end_ms - self.start_ms))


# ── detect ────────────────────────────────────────────────────────────────────────────────────────


class Evidence(Struct, frozen=True, kw_only=True):
    """Why a rule fired. Redacted before it leaves the core."""

    text: str
    """The sentence in which the phrase stands; for a timer, what was waited for."""
    matched: tuple[str, ...] = ()
    """What was heard, as it stands in ``text``."""
    spans: tuple[tuple[int, int], ...] = ()
    """Character ranges of ``matched`` in ``text`` (which is the utterance's text, after redaction)."""
    expected: tuple[str, ...] = ()
    """What the rule was looking for; differs from ``matched`` when it was recognised by sound."""
    how: Match = "exact"
    confidence: float | None = None


class Detection(Struct, frozen=True, kw_only=True, tag=True):
    """Pure result of a rule."""

    call_id: str
    rule_id: str
    role: Channel
    media_start_ms: int
    media_end_ms: int
    """End of the phrase itself: latency counts from here."""
    anchor_ms: int
    """What the alert's id is derived from: the utterance's start, or the moment a timer was armed."""
    evidence: Evidence
    utterance_id: str | None = None
    withdrawn: bool = False
    """A partial transcript raised this; the final one does not bear it out."""
    shadow: bool = False
    """The rule is on trial: it is counted, and nobody is told."""


class Emotion(Struct, frozen=True, kw_only=True, tag=True):
    """How somebody feels, by voice and words; never alone a reason for a critical alert."""

    call_id: str
    role: Channel
    utterance_id: str
    media_start_ms: int
    media_end_ms: int
    feeling: Feeling
    level: float
    """0 (calm) to 10."""
    trend: float
    """Mean level of the last 30 s less that of the 30 s before; above zero it gets worse."""
    voice: float | None
    """What the voice alone says, 0 to 10; ``None`` while the speaker's own baseline is not known."""
    words: float
    """What the words alone say, 0 to 10."""

    @property
    def media_ms(self) -> int:
        return self.media_end_ms


StepState = Literal["waiting", "due", "done", "missed", "skipped", "too_late", "out_of_order"]


class Step(Struct, frozen=True, kw_only=True):
    """One line of the agent's checklist: a node of a script, or something that must not be left unsaid."""

    id: str
    name: dict[str, str]
    """By language: ``zh``, ``en``."""
    state: StepState
    """``due``: its time runs, until ``due_ms``; ``too_late``: said after the deadline."""
    required: bool = True
    due_ms: int | None = None
    """Media time of the deadline."""
    done_ms: int | None = None
    hint: dict[str, str] | None = None


class Progress(Struct, frozen=True, kw_only=True, tag=True):
    """Where a call stands in a script; the whole checklist each time."""

    call_id: str
    script: str
    name: dict[str, str]
    media_ms: int
    steps: tuple[Step, ...]
    score: float | None = None
    """0 to 100, of what was to be done so far."""


Finding = Detection | Emotion | Progress
"""What detectors say."""


# ── raise ─────────────────────────────────────────────────────────────────────────────────────────


class RuleCard(Struct, frozen=True, kw_only=True):
    """What raising needs to know of the rule that fired."""

    id: str
    version: str
    name: dict[str, str]
    """By language: ``zh``, ``en``."""
    severity: Severity
    actions: tuple[Literal["alert", "marker", "hint", "webhook", "coach"], ...] = ("alert", "marker")
    hint: dict[str, str] | None = None
    """What the agent may say, by language."""
    advice: dict[str, str] | None = None
    """What whoever sees the alert should check, by language."""
    group: str | None = None
    """Rules of one group are about the same thing: people see them as one."""
    score: float = 0.0
    """What it adds to (or takes from) the call's inspection score."""


class Latency(Struct, frozen=True, kw_only=True):
    """Milliseconds spent on each step, from the phrase's last sample entering the server.

    ``delivery`` and ``total`` are known when the alert is written to a supervisor's socket.
    """

    vad: float | None = None
    """Last sample of the phrase in → utterance cut."""
    queue: float | None = None
    """Utterance cut → its batch started."""
    asr: float | None = None
    rules: float | None = None
    """Transcript → alert raised."""
    delivery: float | None = None
    """Alert raised → stored → written to the socket."""
    total: float | None = None


class Alert(Struct, frozen=True, kw_only=True, tag=True):
    id: str
    call_id: str
    rule_id: str
    rule_version: str
    name: dict[str, str]
    """By language: ``zh``, ``en``."""
    severity: Severity
    role: Channel
    media_start_ms: int
    media_end_ms: int
    evidence: Evidence
    utterance_id: str | None = None
    state: AlertState = "open"
    owner: str | None = None
    latency_ms: Latency = Latency()
    group: str | None = None
    score: float = 0.0
    advice: dict[str, str] | None = None
    """What to check, by language: of alerts about the service itself."""
    escalates_at: str | None = None
    """Wall clock, RFC 3339: it escalates then, if nobody has taken it. ``None``: no clock runs. Set where it
    is stored, as who waits for it are people."""
    comments: int = 0
    appeal: Literal["open", "accepted", "rejected"] | None = None
    """What became of the agent's objection; ``None``: there is none."""

    @property
    def media_ms(self) -> int:
        return self.media_end_ms


class Taken(Struct, frozen=True, kw_only=True, tag=True):
    """Somebody takes an alert to look after it, or lets it go: compare and set.

    It holds only if the alert's owner is ``expected`` at that moment; then one ``alert.updated`` is
    published. Else nothing is: whoever handed it to the outlet and got nothing back has lost, or had it.
    """

    call_id: str
    alert_id: str
    media_ms: int
    """Of the alert: its end."""
    owner: str | None
    """Account; ``None`` lets it go."""
    expected: str | None
    """Whose it is as far as they know who ask; ``None``: nobody's."""
    by: str | None = None
    """Who asks; ``None``: the one who takes it, or had it."""
    address: str | None = None
    """From where, for the audit; nobody is told."""


class Seen(Struct, frozen=True, kw_only=True):
    """An alert as whoever decides about it has it before their eyes."""

    state: AlertState
    owner: str | None


class Decided(Struct, frozen=True, kw_only=True, tag=True):
    """Somebody, or the clock, wants an alert to go one step on: see ``streams.alert_life``.

    It holds only if that step is there at that moment; then one ``alert.updated`` is published, with its
    ``change``. Else nothing is, as for ``Taken``. Given twice with the same ``id`` it holds once.
    """

    id: str
    call_id: str
    alert_id: str
    media_ms: int
    """Of the alert: its end."""
    action: AlertAction
    by: str | None
    """Account; ``None``: the clock."""
    owner: str | None = None
    """Of ``assign``: the account that it is given to."""
    text: str | None = None
    """A comment, or a reason; redacted."""
    seen: Seen | None = None
    """If given, it holds only while the alert is still so."""
    deadline: str | None = None
    """Of ``escalate``: the one that has passed; another one since then, and it does not hold."""
    address: str | None = None
    """From where it was asked, for the audit; nobody is told."""


class AlertChange(Struct, frozen=True, kw_only=True):
    """One step of an alert's life: who, when, from what to what."""

    id: str
    action: AlertAction
    by: str | None
    """Account; ``None``: the clock."""
    at: str
    """Wall clock, RFC 3339, UTC."""
    from_state: AlertState
    to_state: AlertState
    from_owner: str | None
    to_owner: str | None
    text: str | None = None
    """A comment, or a reason; redacted."""


class Marker(Struct, frozen=True, kw_only=True, tag=True):
    """A point or span on the call's timeline."""

    id: str
    call_id: str
    rule_id: str
    severity: Severity
    role: Channel
    label: dict[str, str]
    media_start_ms: int
    media_end_ms: int
    alert_id: str | None = None
    rule_version: str | None = None

    @property
    def media_ms(self) -> int:
        return self.media_start_ms


class Hint(Struct, frozen=True, kw_only=True, tag=True):
    """What the agent may say next."""

    id: str
    call_id: str
    rule_id: str
    text: dict[str, str]
    media_ms: int
    severity: Severity = "info"
    """Of the rule: of several that wait, the agent sees the most urgent first."""


class ShadowHit(Struct, frozen=True, kw_only=True, tag=True):
    """A rule on trial has fired. Kept to be counted and compared, shown to nobody while the call runs."""

    id: str
    call_id: str
    rule_id: str
    rule_version: str
    role: Channel
    media_start_ms: int
    media_end_ms: int
    utterance_id: str | None = None
    withdrawn: bool = False
    """A partial transcript bore it, the final one does not: it counts no more."""

    @property
    def media_ms(self) -> int:
        return self.media_end_ms


# ── outlet: what browsers receive ─────────────────────────────────────────────────────────────────

EventType = Literal[
    "call.started",
    "call.updated",
    "call.ended",
    "call.left",
    "utterance.partial",
    "utterance.final",
    "alert.raised",
    "alert.updated",
    "marker.added",
    "hint.shown",
    "script.progress",
    "emotion.updated",
    "note.added",
    "takeover.asked",
    "takeover.accepted",
    "takeover.failed",
    "hint.answered",
    "whisper.sent",
    "whisper.seen",
    "health",
]


class Speaking(Struct, frozen=True, kw_only=True):
    """Who speaks right now."""

    agent: bool = False
    customer: bool = False
    unknown: bool = False


class Text(Struct, frozen=True, kw_only=True):
    """A transcript as people see it: redacted."""

    utterance_id: str
    role: Channel
    start_ms: int
    end_ms: int
    text: str
    confidence: float | None = None


class Health(Struct, frozen=True, kw_only=True):
    """How the service does. ``step`` is 0 (all) to 4 (new calls refused), see ``batching``."""

    step: int
    name: Literal["all", "fewer_partials", "no_partials", "no_retries", "refuse_calls"]
    queue_wait_ms: float | None = None
    calls: int = 0
    rules: str | None = None
    """Version of the rules that new calls begin with."""


class Place(Struct, frozen=True, kw_only=True):
    """Whose a call is: who may see it follows from that."""

    agent: str | None = None
    team: str | None = None


class Published(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event as browsers, webhooks and ``replay --json`` see it.

    ``call.left`` is in no log: a subscriber is told so in place of an event by which a call passes to
    others, and is told nothing more of that call.

    ``cursor`` grows by one with every stored event. Events that are not stored because a later one of
    their kind replaces them (``utterance.partial``, who is speaking) carry the cursor of the stored
    event before them, so that a client that comes back with ``?cursor=`` misses nothing.
    """

    cursor: int
    type: EventType
    call_id: str | None
    at: str
    """Wall clock, RFC 3339, UTC."""
    media_ms: int | None
    agent: str | UnsetType | None = UNSET
    team: str | UnsetType | None = UNSET
    """Of the call, at this moment. Who may see the event follows from these two."""
    left: Place | UnsetType = UNSET
    """Where a call passes from one agent or team to another: whose it was."""
    call: CallInfo | UnsetType = UNSET
    speaking: Speaking | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    by: Channel | UnsetType = UNSET
    """Of ``call.ended``: who hung up, where the telephony says so."""
    utterance: Text | UnsetType = UNSET
    alert: Alert | UnsetType = UNSET
    change: AlertChange | UnsetType = UNSET
    """Of ``alert.updated``: what somebody did to it; left out where the rules did."""
    marker: Marker | UnsetType = UNSET
    hint: Hint | UnsetType = UNSET
    health: Health | UnsetType = UNSET
    progress: Progress | UnsetType = UNSET
    emotion: Emotion | UnsetType = UNSET
    note: Note | UnsetType = UNSET
    takeover: Takeover | UnsetType = UNSET
    """Of ``note.…`` and ``takeover.…``: told to those who supervise, not to the agent of the call."""
    answer: HintAnswer | UnsetType = UNSET
    """Of ``hint.answered``."""
    whisper: Whisper | UnsetType = UNSET
    """Of ``whisper.sent`` and ``whisper.seen``: as it is then."""


CallEvent = (
    CallStarted
    | CallUpdated
    | CallEnded
    | Hold
    | KeyPressed
    | Transfer
    | Gap
    | SpeechStarted
    | SpeechStopped
    | Trouble
    | Voice
    | Transcript
)
"""What detectors see, in the order of the stream."""


class Traced(Struct, frozen=True, kw_only=True, tag=True):
    """What somebody does with a call, and from where. It holds as it does without the address, which is for
    the audit; nobody is told."""

    what: Note | Takeover | HintAnswer | Whisper | WhisperSeen
    address: str

    @property
    def call_id(self) -> str:
        return self.what.call_id


OutletEvent = (
    CallStarted
    | CallUpdated
    | CallEnded
    | Gap
    | SpeechStarted
    | SpeechStopped
    | Transcript
    | Alert
    | Taken
    | Decided
    | Marker
    | Hint
    | Emotion
    | Progress
    | ShadowHit
    | Sealed
    | Note
    | Takeover
    | HintAnswer
    | Whisper
    | WhisperSeen
    | Traced
    | Health
)
"""What the runner hands to the outlet, texts redacted."""


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of ``Published``: what a subscriber may rely on."""
    import msgspec

    return msgspec.json.schema(Published)
