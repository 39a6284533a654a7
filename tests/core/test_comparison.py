from dataclasses import replace

import pytest

from hemaml.core.comparison import Comparison

SURE = Comparison(0.02, 0.01, 0.03, 0.001, "test", 0.5, "effect", 40, 8)


def test_noise_ends_below_five_per_cent():
    assert not SURE.within_noise
    assert not replace(SURE, p=0.049).within_noise
    assert replace(SURE, p=0.05).within_noise
    assert replace(SURE, p=1.0).within_noise


@pytest.mark.parametrize("field", ["difference", "low", "high", "p", "effect"])
def test_what_is_undefined_is_noise(field):
    assert replace(SURE, **{field: float("nan")}).within_noise
