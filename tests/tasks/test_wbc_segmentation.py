from dataclasses import replace

import numpy as np
import pytest

from hemaml.core.errors import DataError
from hemaml.data.smears import Smears, read
from hemaml.tasks.wbc_segmentation import task


class Fixed:
    """Predicts given masks, with probabilities."""

    def __init__(self, masks):
        self.masks = masks

    def predict(self, images):
        assert len(images) == len(self.masks)
        return [np.eye(3, dtype=np.float32)[mask] * 0.8 + 0.1 for mask in self.masks]


@pytest.fixture(scope="module")
def data():
    return read(Smears(count=8, size=48))


def test_the_truth_scores_best(data):
    scores = task.score(Fixed(data.masks), data)
    assert scores["dice"] == scores["dice_with_background"] == scores["iou"] == 1
    assert scores["hausdorff"] == 0
    assert scores[task.primary] == scores["dice"]
    assert {f"dice/{name}" for name in data.classes} <= scores.keys()


def test_dice_leaves_background_out(data):
    nothing = Fixed([np.zeros_like(mask) for mask in data.masks])
    scores = task.score(nothing, data)
    assert scores["dice"] == 0
    assert scores["dice_with_background"] == pytest.approx(scores["dice/background"] / 3)
    assert scores["dice/background"] > 0.5


@pytest.mark.parametrize(
    "change", [{"classes": ("a", "b", "c")}, {"masks": ()}], ids=["classes", "no masks"]
)
def test_other_data_is_refused(data, change):
    with pytest.raises(DataError, match="masks"):
        task.score(Fixed(data.masks), replace(data, **change))


def test_the_held_out_part_depends_on_the_data_alone(data):
    backwards = data.subset(range(len(data))[::-1])
    (rest, held), (_, other) = task.held_out(data), task.held_out(backwards)
    assert held.ids == other.ids
    assert not set(held.ids) & set(rest.ids)
    assert set(held.ids) | set(rest.ids) == set(data.ids)
