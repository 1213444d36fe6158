"""The evidence of one alert as one archive: sound, words, alert and its history, and what proves them whole.

Pure: values in, the bytes of a ZIP file out. The same values give the same bytes. ``manifest.json`` holds the
SHA-256 of every other file; ``index.html`` is for people, in Chinese and English, and needs nothing else.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Sequence
from html import escape
from typing import Any, Final

import msgspec
from msgspec import Struct

from app.api.views import AlertView, CallView, SpokenText
from streams.events import AlertChange

AROUND_MS: Final = 15_000
"""Before and after what was found."""
LONGEST_MS: Final = 300_000
"""Of the sound: 19 MB."""


class Case(Struct, frozen=True, kw_only=True):
    call: CallView
    alert: AlertView
    history: Sequence[AlertChange]
    """Oldest first."""
    utterances: Sequence[SpokenText]
    """Of the whole call, redacted."""
    audio: bytes | None
    """WAV, of ``span``; ``None``: there is no recording."""
    recording: dict[str, Any] | None
    """Of the file that ``audio`` was cut from: its name, size in bytes and SHA-256; ``None``: there is no
    ``audio``, or the file could not be read to its end."""
    by: str
    """Account of whoever takes it away."""
    at: str
    """Wall clock, RFC 3339."""
    duting: str
    """Version of the program."""


def span(start_ms: int, end_ms: int) -> tuple[int, int]:
    """Media times from where to where the sound is."""
    begin = max(0, start_ms - AROUND_MS)
    return begin, min(max(end_ms, start_ms) + AROUND_MS, begin + LONGEST_MS)


def name_of(call_id: str, alert_id: str) -> str:
    """Of the archive and the folder in it: the same for the same alert, good for every file system."""
    digest = hashlib.sha256(f"{call_id}\x1f{alert_id}".encode()).hexdigest()[:8]
    return f"duting-evidence-{_plain(call_id)}-{_plain(alert_id)}-{digest}"


def archive(case: Case) -> bytes:
    start_ms, end_ms = span(case.alert.media_start_ms, case.alert.media_end_ms)
    heard = [one for one in case.utterances if one.end_ms >= start_ms and one.start_ms <= end_ms]
    files = {
        "alert.json": _json({"alert": case.alert, "history": list(case.history)}),
        "call.json": _json(case.call),
        "transcript.json": _json({"start_ms": start_ms, "end_ms": end_ms, "utterances": heard}),
        "transcript.txt": "".join(f"{_line(one)}\n" for one in heard).encode(),
    }
    if case.audio is not None:
        files["audio.wav"] = case.audio
    files["index.html"] = _index(case, heard, start_ms, end_ms).encode()
    manifest = {
        "call_id": case.call.call_id,
        "alert_id": case.alert.id,
        "rule_id": case.alert.rule_id,
        "rule_version": case.alert.rule_version,
        "start_ms": start_ms,
        "end_ms": end_ms,
        "exported_by": case.by,
        "exported_at": case.at,
        "duting": case.duting,
        "recording": case.recording,
        "files": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in sorted(files.items())
        },
    }
    files["manifest.json"] = _json(manifest)
    folder = name_of(case.call.call_id, case.alert.id)
    return _zip({f"{folder}/{name}": content for name, content in sorted(files.items())}, case.at)


def _zip(files: dict[str, bytes], at: str) -> bytes:
    year, month, day, hour, minute, second = (int(part) for part in re.findall(r"\d+", at)[:6])
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as packed:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, (max(1980, year), month, day, hour, minute, second))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            packed.writestr(entry, content)
    return whole.getvalue()


def _plain(text: str) -> str:
    return re.sub(r"[^0-9A-Za-z]+", "-", text).strip("-")[:48] or "x"


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def _clock(ms: int) -> str:
    hours, rest = divmod(ms // 1000, 3600)
    return (f"{hours}:{rest // 60:02}" if hours else f"{rest // 60}") + f":{rest % 60:02}"


POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; media-src 'self' file:"
WHO: Final = {"agent": "座席 Agent", "customer": "客户 Customer", "unknown": "未分 Both"}
STATE: Final = {
    "open": "未处理 Open",
    "acknowledged": "已知悉 Acknowledged",
    "escalated": "已升级 Escalated",
    "resolved": "已处理 Resolved",
    "false_alarm": "误报 False alarm",
    "withdrawn": "已撤回 Withdrawn",
}
SEVERITY: Final = {"critical": "严重 Critical", "warning": "警告 Warning", "info": "提示 Info"}


def _line(one: SpokenText) -> str:
    return f"[{_clock(one.start_ms)}–{_clock(one.end_ms)}] {WHO[one.role]}: {one.text}"


def _index(case: Case, heard: Sequence[SpokenText], start_ms: int, end_ms: int) -> str:
    alert, call = case.alert, case.call
    name = " / ".join(dict.fromkeys(alert.name[lang] for lang in ("zh", "en") if lang in alert.name))
    name = name or alert.rule_id
    facts = [
        ("通话 Call", call.call_id),
        ("开始 Started", call.started_at),
        ("座席 Agent", call.agent or "–"),
        ("队列 Queue", call.queue or "–"),
        ("客户 Customer", call.customer or "–"),
        ("警报 Alert", f"{name} · {SEVERITY[alert.severity]}"),
        ("规则 Rule", f"{alert.rule_id} · {alert.rule_version}"),
        ("时刻 At", f"{_clock(alert.media_start_ms)}–{_clock(alert.media_end_ms)}"),
        ("依据 Evidence", alert.evidence.text),
        ("命中 Matched", "、".join(alert.evidence.matched) or "–"),
        ("状态 State", STATE[alert.state]),
        ("负责人 Owner", alert.owner or "–"),
        ("导出 Exported", f"{case.by} · {case.at} · Duting {case.duting}"),
    ]
    rows = "".join(f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in facts)
    steps = "".join(
        f"<tr><td>{escape(one.at)}</td><td>{escape(one.by or '–')}</td>"
        f"<td>{escape(one.action)}: {STATE[one.from_state]} → {STATE[one.to_state]}</td>"
        f"<td>{escape(one.text or '')}</td></tr>"
        for one in case.history
    )
    words = "".join(
        f'<tr class="{"hit" if one.utterance_id == alert.utterance_id else ""}">'
        f"<td>{_clock(one.start_ms)}</td><td>{WHO[one.role]}</td><td>{escape(one.text)}</td></tr>"
        for one in heard
    )
    sound = (
        '<audio controls src="audio.wav"></audio><p>左声道座席，右声道客户。 Agent left, customer right.</p>'
        if case.audio is not None
        else "<p>没有录音。 There is no recording.</p>"
    )
    return f"""<!doctype html>
<html lang="zh-CN">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(name)} · {escape(call.call_id)}</title>
<style>
body {{ max-width: 60em; margin: 2em auto; padding: 0 1em; }}
body {{ font: 15px/1.6 system-ui, sans-serif; color: #18222d; }}
table {{ width: 100%; border-collapse: collapse; }}
th, td {{ padding: 4px 10px; border-bottom: 1px solid #d8dfe6; text-align: left; vertical-align: top; }}
th {{ width: 11em; color: #455364; font-weight: 500; }}
td {{ overflow-wrap: anywhere; }}
tr.hit td {{ background: #fdf2de; font-weight: 600; }}
audio {{ width: 100%; }}
</style>
<h1>证据 Evidence</h1>
<table>{rows}</table>
<h2>录音 Audio {_clock(start_ms)}–{_clock(end_ms)}</h2>
{sound}
<h2>转写 Transcript</h2>
<p>个人号码已遮盖。 Private numbers are masked.</p>
<table>{words}</table>
<h2>处理经过 History</h2>
<table>{steps or "<tr><td>–</td></tr>"}</table>
<h2>完整性 Integrity</h2>
<p>manifest.json 载有每个文件的 SHA-256。 manifest.json holds the SHA-256 of every file.</p>
</html>
"""
