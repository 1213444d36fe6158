"""Messages are acknowledged in the order in which they came, whatever is done first."""

from hypothesis import given
from hypothesis import strategies as st

from streams.acks import InOrder


@given(
    st.lists(st.integers(0, 2), max_size=30).flatmap(
        lambda p: st.tuples(st.just(p), st.permutations(range(len(p))))
    )
)
def test_nothing_is_acknowledged_before_all_that_came_before_it(given_):
    partitions, order = given_
    acks, acked = InOrder(), []
    dones = [
        acks.add(partition, lambda number=number: acked.append(number))
        for number, partition in enumerate(partitions)
    ]
    finished = set()
    for number in order:
        dones[number]()
        dones[number]()
        finished.add(number)
        for partition in set(partitions):
            mine = [n for n, p in enumerate(partitions) if p == partition]
            prefix = next((i for i, n in enumerate(mine) if n not in finished), len(mine))
            assert [n for n in acked if n in mine] == mine[:prefix]
    assert sorted(acked) == sorted(range(len(partitions)))
    assert len(acks) == 0


def test_what_is_done_after_its_partition_went_is_not_acknowledged():
    acks, acked = InOrder(), []
    done = acks.add(0, lambda: acked.append(1))
    acks.clear()
    done()
    assert acked == []
