from msgspec.structs import replace

from streams.events import Alert, Detection, Evidence, Hint, Latency, Marker, RuleCard, ShadowHit
from streams.raising import identity, raised

CARD = RuleCard(
    id="redline.x",
    version="1+ab",
    name={"zh": "红线", "en": "red line"},
    severity="critical",
    actions=("alert", "marker", "hint"),
    hint={"zh": "请更正", "en": "correct it"},
)
FOUND = Detection(
    call_id="c",
    rule_id="redline.x",
    role="agent",
    media_start_ms=1200,
    media_end_ms=1900,
    anchor_ms=1000,
    evidence=Evidence(text="卡号6222021234567", matched=("6222021234567",), spans=((2, 15),)),
    utterance_id="c:agent:1000",
)


def mask(text):
    return "".join("*" if c.isdigit() else c for c in text)


def test_an_alert_a_marker_and_a_hint_come_from_one_detection():
    alert, marker, hint = raised(FOUND, CARD, Latency(vad=1.0), mask)
    assert isinstance(alert, Alert)
    assert isinstance(marker, Marker)
    assert isinstance(hint, Hint)
    assert marker.alert_id == alert.id
    assert (alert.state, alert.severity, alert.latency_ms.vad) == ("open", "critical", 1.0)


def test_personal_data_is_masked_in_text_and_match():
    alert = raised(FOUND, CARD, Latency(), mask)[0]
    assert alert.evidence.text == "卡号" + "*" * 13
    assert alert.evidence.matched == ("*" * 13,)


def test_the_same_detection_gives_the_same_ids_and_the_phrases_own_time_does_not_matter():
    again = replace(FOUND, media_start_ms=1210, media_end_ms=1880)
    assert identity("alert", FOUND) == identity("alert", again)
    assert identity("alert", FOUND) != identity("marker", FOUND)


def test_another_utterance_rule_role_or_call_gives_another_id():
    others = [
        replace(FOUND, anchor_ms=1001),
        replace(FOUND, rule_id="redline.y"),
        replace(FOUND, role="customer"),
        replace(FOUND, call_id="d"),
    ]
    assert len({identity("alert", d) for d in [FOUND, *others]}) == 5


def test_a_withdrawn_detection_updates_the_alert_and_adds_nothing():
    [alert] = raised(replace(FOUND, withdrawn=True), CARD, Latency(), mask)
    assert alert.state == "withdrawn"
    assert alert.id == raised(FOUND, CARD, Latency(), mask)[0].id


def test_a_rule_that_only_marks_gives_a_marker_without_an_alert():
    [marker] = raised(FOUND, replace(CARD, actions=("marker",)), Latency(), mask)
    assert marker.alert_id is None


def test_a_rule_on_trial_leaves_a_shadow_hit_and_nothing_that_anybody_sees():
    (hit,) = raised(replace(FOUND, shadow=True), CARD, Latency(), mask)
    assert isinstance(hit, ShadowHit)
    assert (hit.rule_id, hit.rule_version, hit.utterance_id, hit.withdrawn) == (
        "redline.x",
        "1+ab",
        "c:agent:1000",
        False,
    )
    (back,) = raised(replace(FOUND, shadow=True, withdrawn=True), CARD, Latency(), mask)
    assert (back.id, back.withdrawn) == (hit.id, True)
