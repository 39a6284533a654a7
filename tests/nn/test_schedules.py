import pytest

from hemaml.nn.schedules import one_cycle


def test_one_cycle_rises_to_one_and_falls_to_its_end():
    factor = one_cycle(101, warm_up=0.3, start=0.04, end=0.001)
    values = [factor(batch) for batch in range(101)]
    assert values[0] == pytest.approx(0.04)
    assert values[30] == pytest.approx(1)
    assert values[100] == pytest.approx(0.001)
    assert values[:31] == sorted(values[:31])
    assert values[30:] == sorted(values[30:], reverse=True)


def test_one_cycle_stays_at_its_end():
    factor = one_cycle(10)
    assert factor(9) == factor(10) == factor(1000) == pytest.approx(1e-4)


def test_one_cycle_of_one_batch_is_defined():
    assert 0 < one_cycle(1)(0) <= 1
