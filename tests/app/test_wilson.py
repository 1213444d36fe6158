"""Wilson's interval, against figures that others have worked out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.wilson import interval


@pytest.mark.parametrize(
    ("right", "judged", "low", "high"),
    # R: binom::binom.confint(x, n, methods = "wilson")
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (1, 2, 0.0945, 0.9055)],
)
def test_it_is_as_published(right: int, judged: int, low: float, high: float) -> None:
    found = interval(right, judged)
    assert found == pytest.approx((low, high), abs=1e-4)


def test_of_nothing_judged_nothing_is_known() -> None:
    assert interval(0, 0) is None


@given(st.integers(1, 10_000), st.data())
def test_it_holds_the_share_and_stays_between_none_and_all(judged: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, judged))
    found = interval(right, judged)
    assert found is not None
    assert 0 <= found[0] <= right / judged + 1e-9
    assert right / judged - 1e-9 <= found[1] <= 1
