"""Recordings: both sides at their media time, on disk while the call runs, never in the call's way."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from app.recorder import LAG_MS, QUEUE_MS, Mixer, Recorders, file_stem, find
from streams.events import SAMPLE_RATE, AudioFrame, CallInfo, Channel

FRAME_MS = 20


def tone(ms: int, hertz: float = 440.0, level: int = 8000) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(ms * 16) / SAMPLE_RATE)).astype(np.int16)


def frames(call_id: str, channel: Channel, samples: np.ndarray, at_ms: int = 0) -> list[AudioFrame]:
    step = FRAME_MS * 16
    return [
        AudioFrame(
            call_id=call_id,
            channel=channel,
            media_ms=at_ms + index // 16,
            pcm=samples[index : index + step].tobytes(),
        )
        for index in range(0, len(samples), step)
    ]


def in_order(*channels: list[AudioFrame]) -> list[AudioFrame]:
    """As they come off the wire: by media time."""
    return sorted((frame for channel in channels for frame in channel), key=lambda frame: frame.media_ms)


def decode(path: Path) -> np.ndarray:
    """Samples at 16 kHz, -1 to 1, shape (channels, samples)."""
    with av.open(str(path)) as container:
        channels = container.streams.audio[0].codec_context.channels
        resampler = av.AudioResampler("fltp", container.streams.audio[0].layout, SAMPLE_RATE)
        parts = [
            piece.to_ndarray() for frame in container.decode(audio=0) for piece in resampler.resample(frame)
        ]
        parts += [piece.to_ndarray() for piece in resampler.resample(None)]
    return np.concatenate(parts, axis=1) if parts else np.zeros((channels, 0))


def loud_spans(samples: np.ndarray, threshold: float = 0.1) -> tuple[int, int]:
    """First and last millisecond in which a channel is heard."""
    level = np.abs(samples[: len(samples) // 160 * 160]).reshape(-1, 160).max(axis=1)
    heard = np.flatnonzero(level > threshold)
    return int(heard[0]) * 10, int(heard[-1]) * 10 + 10


def files(folder: Path) -> list[Path]:
    """The recordings of one call id, oldest first."""
    return sorted(folder.glob("*.[ow]*"), key=lambda path: len(path.name))


def dropped(reason: str) -> float:
    return REGISTRY.get_sample_value("duting_recording_dropped_ms_total", {"reason": reason}) or 0.0


def failed() -> float:
    return REGISTRY.get_sample_value("duting_recordings_failed_total") or 0.0


async def record(folder: Path, call: CallInfo, audio: list[AudioFrame], media_ms: int) -> Path:
    recorders = Recorders(folder)
    recorders.start(call)
    for frame in audio:
        recorders.frame(frame)
        if frame.media_ms % 1000 == 0:
            await recorders.settled()  # a live call is slower than the encoder
    await recorders.close(call.call_id, media_ms)
    await recorders.aclose()
    path = recorders.path(call.call_id)
    assert path is not None
    return path


async def test_agent_is_left_customer_is_right_each_at_its_media_time(tmp_path: Path) -> None:
    silence = np.zeros(16 * 1000, np.int16)
    agent = np.concatenate([silence, tone(500), silence, silence[: 16 * 500]])
    customer = np.concatenate([silence, silence, tone(500, 660), silence[: 16 * 500]])
    call = CallInfo(call_id="aligned")
    audio = in_order(frames("aligned", "agent", agent), frames("aligned", "customer", customer))

    left, right = decode(await record(tmp_path, call, audio, 3000))

    assert abs(len(left) / 16 - 3000) <= 20
    assert loud_spans(left) == (pytest.approx(1000, abs=30), pytest.approx(1500, abs=30))
    assert loud_spans(right) == (pytest.approx(2000, abs=30), pytest.approx(2500, abs=30))


async def test_what_came_from_a_telephone_is_coded_at_its_rate_and_lasts_as_long(tmp_path: Path) -> None:
    agent = np.concatenate([np.zeros(16 * 1000, np.int16), tone(500), np.zeros(16 * 1500, np.int16)])
    recorders = Recorders(tmp_path)
    recorders.start(CallInfo(call_id="phone"), wire_rate=8_000)
    for frame in frames("phone", "agent", agent):
        recorders.frame(frame)
    await recorders.close("phone", 3000)
    await recorders.aclose()
    [path] = files(tmp_path)
    with av.open(str(path)) as container:
        assert container.streams.audio[0].rate == 8_000
    left, right = decode(path)
    assert abs(len(left) / 16 - 3000) <= 20
    assert loud_spans(left) == (pytest.approx(1000, abs=30), pytest.approx(1500, abs=30))
    assert not right.any()


async def test_a_channel_that_never_comes_is_silence(tmp_path: Path) -> None:
    audio = frames("half", "customer", tone(2000))
    left, right = decode(await record(tmp_path, CallInfo(call_id="half"), audio, 2000))
    assert np.abs(left).max() < 0.03  # the encoder needs a moment to tell the sides apart
    assert np.abs(left[16 * 200 :]).max() < 0.001
    assert loud_spans(right) == (pytest.approx(0, abs=30), pytest.approx(2000, abs=30))


async def test_the_file_ends_where_the_call_ends(tmp_path: Path) -> None:
    audio = frames("long", "agent", tone(500))
    left, _ = decode(await record(tmp_path, CallInfo(call_id="long"), audio, 4000))
    assert abs(len(left) / 16 - 4000) <= 20
    assert loud_spans(left) == (pytest.approx(0, abs=30), pytest.approx(500, abs=30))


async def test_a_mixed_call_has_one_channel(tmp_path: Path) -> None:
    call = CallInfo(call_id="mixed", channels=("unknown",))
    samples = decode(await record(tmp_path, call, frames("mixed", "unknown", tone(1000)), 1000))
    assert samples.shape[0] == 1
    assert abs(samples.shape[1] / 16 - 1000) <= 20


async def test_a_hole_in_media_time_is_silence_of_the_same_length(tmp_path: Path) -> None:
    audio = frames("hole", "agent", tone(500)) + frames("hole", "agent", tone(500), at_ms=65_000)
    left, _ = decode(await record(tmp_path, CallInfo(call_id="hole"), audio, 65_500))
    assert abs(len(left) / 16 - 65_500) <= 20
    assert np.abs(left[16 * 600 : 16 * 64_900]).max() < 0.001


async def test_a_frame_from_a_broken_clock_is_dropped_not_waited_for(tmp_path: Path) -> None:
    before = dropped("jump")
    audio = frames("clock", "agent", tone(500)) + frames("clock", "agent", tone(20), at_ms=10**12)
    left, _ = decode(await record(tmp_path, CallInfo(call_id="clock"), audio, 500))
    assert abs(len(left) / 16 - 500) <= 20
    assert dropped("jump") - before == 20


async def test_a_call_without_audio_leaves_no_file(tmp_path: Path) -> None:
    recorders = Recorders(tmp_path)
    recorders.start(CallInfo(call_id="mute"))
    await recorders.close("mute", 60_000)
    assert recorders.path("mute") is None
    assert files(tmp_path) == []
    await recorders.aclose()


async def test_only_the_owner_may_read_a_recording(tmp_path: Path) -> None:
    path = await record(tmp_path / "new", CallInfo(call_id="x"), frames("x", "agent", tone(200)), 200)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_call_id_that_comes_again_does_not_overwrite_the_first_recording(tmp_path: Path) -> None:
    first = await record(tmp_path, CallInfo(call_id="twice"), frames("twice", "agent", tone(500)), 500)
    kept = first.read_bytes()
    second = await record(tmp_path, CallInfo(call_id="twice"), frames("twice", "agent", tone(900)), 900)
    assert first != second
    assert first.read_bytes() == kept
    assert find(tmp_path, "twice") == second


async def test_a_start_without_an_end_closes_the_recording_before(tmp_path: Path) -> None:
    recorders = Recorders(tmp_path)
    for ms in (500, 900):
        recorders.start(CallInfo(call_id="again"))
        for frame in frames("again", "agent", tone(ms)):
            recorders.frame(frame)
    await recorders.close("again", 900)
    await recorders.aclose()
    lengths = [decode(path).shape[1] // 16 for path in files(tmp_path)]
    assert lengths == [pytest.approx(500, abs=20), pytest.approx(900, abs=20)]


async def test_frames_before_start_and_after_close_are_ignored(tmp_path: Path) -> None:
    recorders = Recorders(tmp_path)
    for frame in frames("stray", "agent", tone(500)):
        recorders.frame(frame)
    await recorders.close("stray", 500)
    await recorders.aclose()
    assert files(tmp_path) == []


async def test_what_the_workers_cannot_take_in_time_is_dropped_from_the_oldest(tmp_path: Path) -> None:
    before = dropped("overflow")
    recorders = Recorders(tmp_path, workers=1)
    disk_answers = threading.Event()
    recorders._pool.submit(disk_answers.wait)
    recorders.start(CallInfo(call_id="slow"))
    for frame in frames("slow", "agent", tone(QUEUE_MS + 3000)):
        recorders.frame(frame)
    assert dropped("overflow") - before == 3000
    disk_answers.set()
    await recorders.close("slow", QUEUE_MS + 3000)
    left, _ = decode(recorders.path("slow"))  # type: ignore[arg-type]
    assert loud_spans(left) == (pytest.approx(3000, abs=30), pytest.approx(QUEUE_MS + 3000, abs=30))
    await recorders.aclose()


def test_a_frame_later_than_the_lag_is_dropped_and_one_within_it_is_kept() -> None:
    mixer = Mixer(("agent", "customer"))
    agent = frames("late", "agent", tone(1000))
    for frame in agent:
        assert mixer.put(frame) == 0
    ready = mixer.ready
    assert ready // 16 == 1000 - FRAME_MS - LAG_MS
    mixer.take(ready)
    customer = frames("late", "customer", tone(1000))
    late = sum(mixer.put(frame) for frame in customer)
    assert late == 1000 - FRAME_MS - LAG_MS
    rest = mixer.take(mixer.end)
    assert np.array_equal(rest[:, 1], tone(1000)[ready:])


def test_media_time_that_is_rounded_leaves_no_clicks() -> None:
    mixer = Mixer(("unknown",))
    samples = tone(3000)
    step = 333  # 20.8 ms: every frame's media time is rounded down
    for index in range(0, len(samples), step):
        pcm = samples[index : index + step].tobytes()
        mixer.put(AudioFrame(call_id="r", channel="unknown", media_ms=index // 16, pcm=pcm))
    assert np.array_equal(mixer.take(mixer.end)[:, 0], samples)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["agent", "customer"]),
            st.integers(min_value=0, max_value=3000),
            st.integers(min_value=0, max_value=700),
        ),
        max_size=20,
    )
)
def test_every_sample_is_where_media_time_puts_it_whatever_the_order(
    pieces: list[tuple[Channel, int, int]],
) -> None:
    mixer = Mixer(("agent", "customer"))
    expected = np.zeros((16 * 4000, 2), np.int16)
    taken = [np.zeros((0, 2), np.int16)]
    for value, (channel, media_ms, count) in enumerate(pieces, 1):
        pcm = np.full(count, value, np.int16)
        frame = AudioFrame(call_id="h", channel=channel, media_ms=media_ms, pcm=pcm.tobytes())
        start = mixer.start_of(frame)
        late = min(max(0, mixer.position - start), count)
        assert mixer.put(frame) == late // 16
        expected[start + late : start + count, 0 if channel == "agent" else 1] = value
        taken.append(mixer.take(mixer.ready))
    taken.append(mixer.take(mixer.end))
    whole = np.concatenate(taken)
    assert np.array_equal(whole, expected[: len(whole)])
    assert not expected[len(whole) :].any()


@given(st.text(max_size=300))
def test_any_call_id_names_one_file_inside_the_folder(call_id: str) -> None:
    stem = file_stem(call_id)
    path = Path("/recordings") / f"{stem}.wav"
    assert path.parent == Path("/recordings")
    assert len(path.name.encode()) < 100
    assert not stem.startswith("-")
    assert stem.isascii()
    assert stem.replace(".", "").replace("_", "").replace("-", "").isalnum()


@pytest.mark.parametrize(
    "call_id", ["../../etc/passwd", "a/b", "", ".", "呼叫-1", "CA" + "x" * 126, "a\0b", "\ud800"]
)
async def test_odd_call_ids_are_recorded_all_the_same(tmp_path: Path, call_id: str) -> None:
    path = await record(tmp_path, CallInfo(call_id=call_id), frames(call_id, "agent", tone(100)), 100)
    assert path.parent == tmp_path
    assert path.stat().st_size > 0


def test_call_ids_that_differ_only_by_case_or_by_signs_have_different_files() -> None:
    ids = ["Call", "call", "call ", "call/", "call_", "call:"]
    assert len({file_stem(call_id).lower() for call_id in ids}) == len(ids)


async def test_a_folder_that_cannot_be_written_costs_the_recording_not_the_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(b"")
    before = failed()
    recorders = Recorders(tmp_path / "file" / "recordings")
    recorders.start(CallInfo(call_id="unwritable"))
    for frame in frames("unwritable", "agent", tone(2000)):
        recorders.frame(frame)
    await recorders.settled()
    for frame in frames("unwritable", "agent", tone(2000), at_ms=2000):
        recorders.frame(frame)
    await recorders.close("unwritable", 4000)
    await recorders.aclose()
    assert failed() - before == 1
    assert recorders.path("unwritable") is None
    logged = caplog.text + "".join(capsys.readouterr())
    assert logged.count("recording stopped") == 1
    assert "unwritable" in logged


def run(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def test_a_full_disk_costs_the_rest_of_the_recording_not_the_call(tmp_path: Path) -> None:
    # A limit on the size of files stands in for a full disk.
    code = """
        import asyncio, resource, signal, sys
        from pathlib import Path
        from app.recorder import Recorders
        from streams.events import CallInfo
        from tests.app.test_recorder import failed, frames, tone

        async def main():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
            recorders = Recorders(Path(sys.argv[1]))
            recorders.start(CallInfo(call_id="full"))
            for second in range(20):
                for frame in frames("full", "agent", tone(1000), at_ms=second * 1000):
                    recorders.frame(frame)
                await recorders.settled()
            await recorders.close("full", 20_000)
            await recorders.aclose()
            print("failed", failed())

        asyncio.run(main())
    """
    process = run(code, str(tmp_path))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "failed 1.0" in output
    path = find(tmp_path, "full")
    assert path is not None
    assert decode(path).shape[1] / SAMPLE_RATE > 1.0


@pytest.mark.parametrize("channels", ["agent customer", "agent"])
def test_after_sigkill_all_but_the_last_second_is_readable(tmp_path: Path, channels: str) -> None:
    code = """
        import asyncio, sys
        from pathlib import Path
        from app.recorder import Recorders
        from streams.events import CallInfo
        from tests.app.test_recorder import frames, in_order, tone

        async def main():
            recorders = Recorders(Path(sys.argv[1]))
            recorders.start(CallInfo(call_id="killed"))
            audio = in_order(*(frames("killed", channel, tone(6100)) for channel in sys.argv[2].split()))
            for frame in audio:
                recorders.frame(frame)
                await recorders.settled()
            print("fed", flush=True)
            await asyncio.Event().wait()

        asyncio.run(main())
    """
    process = run(code, str(tmp_path), channels)
    assert process.stdout is not None
    assert process.stdout.readline() == "fed\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    process.stdout.close()

    path = find(tmp_path, "killed")
    assert path is not None
    left, right = decode(path)
    assert len(left) / SAMPLE_RATE >= 5.1
    first, last = loud_spans(left)
    assert first <= 30
    assert last >= 5_050
    assert (np.abs(right).max() > 0.1) == ("customer" in channels)


async def test_many_calls_at_once_each_get_their_own_audio(tmp_path: Path) -> None:
    recorders = Recorders(tmp_path)
    ids = [f"call-{number}" for number in range(24)]
    audio = {call_id: frames(call_id, "agent", tone(1000, 200 + 50 * n)) for n, call_id in enumerate(ids)}
    for call_id in ids:
        recorders.start(CallInfo(call_id=call_id))
    for index in range(1000 // FRAME_MS):
        for call_id in ids:
            recorders.frame(audio[call_id][index])
    await asyncio.gather(*(recorders.close(call_id, 1000) for call_id in ids))
    await recorders.aclose()
    for number, call_id in enumerate(ids):
        path = recorders.path(call_id)
        assert path is not None
        left = decode(path)[0][:SAMPLE_RATE]
        peak = np.abs(np.fft.rfft(left)).argmax() * SAMPLE_RATE / len(left)
        assert peak == pytest.approx(200 + 50 * number, abs=5)
