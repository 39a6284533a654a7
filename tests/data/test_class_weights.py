import numpy as np
import pytest

from hemaml.core.errors import DataError
from hemaml.data.class_weights import class_weights


def test_weights_are_inverse_to_frequency_with_mean_one_over_items():
    labels = [0] * 30 + [1] * 60 + [2] * 10
    weights = class_weights(labels, 3)
    assert weights.dtype == np.float32
    assert weights == pytest.approx([100 / 90, 100 / 180, 100 / 30])
    assert weights[labels].mean() == pytest.approx(1)
    assert class_weights([1, 0], 2).tolist() == [1, 1]


@pytest.mark.parametrize(("labels", "num", "empty"), [([0, 0, 2], 4, "1, 3"), ([], 2, "0, 1")])
def test_an_empty_class_is_named(labels, num, empty):
    with pytest.raises(DataError, match=f"none has class {empty}. Use more data"):
        class_weights(labels, num)


def test_a_class_may_be_lacked():
    weights = class_weights([0, 0, 0, 2], 4, may_lack=True)
    assert weights == pytest.approx([4 / 6, 0, 2, 0])
    assert weights[[0, 0, 0, 2]].mean() == pytest.approx(1)
    assert class_weights([0, 1, 1], 2, may_lack=True) == pytest.approx(class_weights([0, 1, 1], 2))
