from hypothesis import given, settings
from hypothesis import strategies as st

from streams.batching import BUDGET_S, PARTIALS, CostModel, Job, Kind, Scheduler, Shape


def job(kind=Kind.FINAL, at=0.0, channel="c1", frames=500, prompt=10, payload=None):
    return Job((channel, "agent"), kind, Shape(frames, prompt), at, payload)


def test_nothing_waiting_gives_no_batch():
    assert Scheduler(4).next_batch(0.0) is None


def test_a_final_goes_before_a_partial_and_a_partial_before_a_retry():
    scheduler = Scheduler(1)
    for kind in (Kind.RETRY, Kind.PARTIAL, Kind.AHEAD, Kind.FINAL, Kind.SUSPICIOUS):
        scheduler.submit(job(kind, channel=kind.name))
    order = [scheduler.next_batch(0.0).jobs[0].kind for _ in range(5)]
    assert order == [Kind.SUSPICIOUS, Kind.FINAL, Kind.AHEAD, Kind.PARTIAL, Kind.RETRY]


def test_a_retry_past_its_deadline_ranks_with_the_finals():
    scheduler = Scheduler(1)
    scheduler.submit(job(Kind.RETRY, at=0.0, payload="old"))
    late = BUDGET_S[Kind.RETRY] + 0.1
    scheduler.submit(job(Kind.FINAL, at=late, channel="c2"))
    assert scheduler.next_batch(late).jobs[0].payload == "old"


def test_a_partial_past_its_deadline_is_worth_no_more_than_before():
    scheduler = Scheduler(1)
    scheduler.submit(job(Kind.PARTIAL, at=0.0, channel="c1"))
    scheduler.submit(job(Kind.FINAL, at=30.0, channel="c2"))
    assert scheduler.next_batch(30.0).jobs[0].kind is Kind.FINAL


def test_among_partials_the_call_that_was_served_longest_ago_comes_first():
    scheduler = Scheduler(1)
    for now in range(6):
        scheduler.submit(job(Kind.PARTIAL, at=now, channel="talkative", payload="talkative"))
        scheduler.submit(job(Kind.PARTIAL, at=now + 0.1, channel="quiet", payload="quiet"))
        first = scheduler.next_batch(now + 0.2).jobs[0].payload
        second = scheduler.next_batch(now + 0.4).jobs[0].payload
        assert {first, second} == {"talkative", "quiet"}
    scheduler.submit(job(Kind.PARTIAL, at=10.0, channel="quiet", payload="quiet"))
    scheduler.next_batch(10.0)
    scheduler.submit(job(Kind.PARTIAL, at=10.1, channel="quiet", payload="quiet"))
    scheduler.submit(job(Kind.PARTIAL, at=10.2, channel="talkative", payload="talkative"))
    assert scheduler.next_batch(10.3).jobs[0].payload == "talkative"


def test_who_was_served_is_forgotten_so_that_the_memory_stays_bounded():
    scheduler = Scheduler(1)
    for n in range(500):
        scheduler.submit(job(Kind.PARTIAL, at=float(n), channel=f"c{n}"))
        scheduler.next_batch(float(n))
    assert len(scheduler._served) <= Scheduler.MEMORY_S + 1


def test_word_times_come_after_everything_that_somebody_waits_for_and_are_bounded():
    scheduler = Scheduler(1, most_retries=1)
    assert scheduler.submit(job(Kind.WORDS, prompt=-1)) == []
    refused = job(Kind.WORDS, channel="c2", prompt=-1)
    assert scheduler.submit(refused) == [refused]
    scheduler.submit(job(Kind.RETRY, channel="c3"))
    assert scheduler.next_batch(0.0).jobs[0].kind is Kind.RETRY
    assert scheduler.next_batch(0.0).jobs[0].kind is Kind.WORDS


def test_the_last_worker_leaves_a_second_retry_alone_until_its_deadline():
    scheduler = Scheduler(1)
    scheduler.submit(job(Kind.RETRY, at=0.0))
    assert scheduler.next_batch(0.1, last_worker=True) is None
    scheduler.submit(job(Kind.FINAL, at=0.1, channel="c2"))
    assert scheduler.next_batch(0.1, last_worker=True).jobs[0].kind is Kind.FINAL
    assert scheduler.next_batch(9.0, last_worker=True).jobs[0].kind is Kind.RETRY


def test_a_newer_partial_takes_the_place_of_the_older_one():
    scheduler = Scheduler(4)
    first, second = job(Kind.PARTIAL, payload=1), job(Kind.PARTIAL, payload=2)
    assert scheduler.submit(first) == []
    assert scheduler.submit(second) == [first]
    assert len(scheduler) == 1


def test_a_final_removes_the_partial_of_its_channel_only():
    scheduler = Scheduler(4)
    mine, other = job(Kind.PARTIAL), job(Kind.PARTIAL, channel="c2")
    scheduler.submit(mine)
    scheduler.submit(other)
    assert scheduler.submit(job(Kind.FINAL)) == [mine]
    assert scheduler.waiting(Kind.PARTIAL) == 1


def test_calls_with_the_same_shape_share_a_batch():
    scheduler = Scheduler(4)
    for n in range(6):
        scheduler.submit(job(channel=f"c{n}", frames=250))
    assert len(scheduler.next_batch(0.0).jobs) == 4


def test_prompt_lengths_and_windows_never_mix():
    scheduler = Scheduler(8)
    for n in range(8):
        scheduler.submit(job(channel=f"c{n}", frames=(250, 500)[n % 2], prompt=(0, 7)[n // 4]))
    while (batch := scheduler.next_batch(0.0)) is not None:
        assert len({j.shape for j in batch.jobs}) == 1


def test_a_batch_stops_growing_where_the_leader_would_miss_its_deadline():
    cost = CostModel(per_frame_s=1e-3, fixed_s=0.0)
    scheduler = Scheduler(8, cost)
    for n in range(8):
        scheduler.submit(job(channel=f"c{n}", frames=250))
    # A job costs 0.25 s and the budget is 0.8 s: three fit, and a fourth would not be cheaper per job.
    assert len(scheduler.next_batch(0.0).jobs) == 3


def test_when_the_deadline_is_lost_a_larger_batch_is_taken_if_it_serves_more_a_second():
    scheduler = Scheduler(8, CostModel(per_frame_s=1e-4, fixed_s=1.0))
    for n in range(8):
        scheduler.submit(job(channel=f"c{n}", frames=250))
    assert len(scheduler.next_batch(5.0).jobs) == 8


def test_too_many_retries_are_given_back():
    scheduler = Scheduler(4, most_retries=1)
    assert scheduler.submit(job(Kind.RETRY)) == []
    refused = job(Kind.RETRY, channel="c2")
    assert scheduler.submit(refused) == [refused]


def test_the_cost_model_comes_to_predict_what_it_saw():
    cost = CostModel()
    for _ in range(60):
        cost.learn(Shape(500, 0), 4, 0.3)
    assert abs(cost.seconds(Shape(500, 9), 4) - 0.3) < 0.01


KINDS = st.sampled_from(list(Kind))


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(KINDS, st.integers(0, 5), st.sampled_from((250, 500, 3000)), st.sampled_from((0, 8))),
        max_size=40,
    ),
    st.integers(1, 8),
    st.integers(1, 4),
)
def test_every_final_is_served_once_and_no_worker_idles_while_a_job_waits(arrivals, largest, workers):
    """A simulation: jobs arrive every 50 ms, each batch takes what the cost model says."""
    scheduler = Scheduler(largest)
    now, busy, served = 0.0, [], []
    queue = [
        job(kind, at=0.05 * n, channel=f"c{channel}", frames=frames, prompt=prompt, payload=n)
        for n, (kind, channel, frames, prompt) in enumerate(arrivals)
    ]
    pending = list(queue)
    while pending or busy or len(scheduler):
        while pending and pending[0].arrived_s <= now:
            scheduler.submit(pending.pop(0))
        busy = [end for end in busy if end > now]
        while len(busy) < workers and (batch := scheduler.next_batch(now)) is not None:
            assert len({j.shape for j in batch.jobs}) == 1
            assert len(batch.jobs) <= largest
            served += [j.payload for j in batch.jobs]
            busy.append(now + scheduler.cost.seconds(batch.shape, len(batch.jobs)))
        assert len(busy) == workers or not len(scheduler)
        ahead = busy + ([pending[0].arrived_s] if pending else [])
        if not ahead:
            break
        now = max(now, min(ahead))
    assert len(served) == len(set(served))
    finals = {j.payload for j in queue if j.kind not in PARTIALS}
    assert finals <= set(served)
