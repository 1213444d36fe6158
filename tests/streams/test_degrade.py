from streams.degrade import STEPS, Degradation


def run(degradation, waits, start=0.0, every=0.1):
    steps, now = [degradation.step], start
    for wait in waits:
        if degradation.observe(wait, now):
            steps.append(degradation.step)
        now += every
    return steps, now


def test_it_starts_with_everything_and_stays_there_while_nobody_waits():
    assert run(Degradation(), [0.05] * 200)[0] == [0]


def test_the_steps_are_taken_in_order_one_second_apart():
    degradation = Degradation()
    steps, now = run(degradation, [5.0] * 80)
    assert steps == [0, 1, 2, 3, 4]
    assert degradation.name == STEPS[4] == "refuse_calls"
    assert now >= 4 * degradation.DWELL_S


def test_it_recovers_step_by_step_and_within_thirty_seconds():
    degradation = Degradation()
    _, now = run(degradation, [5.0] * 80)
    thirty_seconds = [0.0] * 300
    assert run(degradation, thirty_seconds, start=now)[0] == [4, 3, 2, 1, 0]


def test_a_single_long_wait_changes_nothing():
    assert run(Degradation(), [0.0] * 5 + [1.0] + [0.0] * 50)[0] == [0]


def test_between_up_and_down_there_is_room():
    degradation = Degradation()
    _, now = run(degradation, [0.6] * 40)
    assert degradation.step == 1
    assert run(degradation, [0.3] * 100, start=now)[0] == [1]
