from dataclasses import replace

import numpy as np
import pytest

from hemaml.core.errors import DataError, Diverged, UnknownName
from hemaml.data.smears import Smears, read
from hemaml.tasks.wbc_segmentation import task


class Fixed:
    """Predicts given masks, with probabilities."""

    def __init__(self, masks):
        self.masks = masks
        self.calls = 0

    def predict(self, images):
        self.calls += 1
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


def test_labels_are_refused_before_anything_is_trained():
    with pytest.raises(DataError, match="needs masks.*Choose a reader of segmentation data"):
        task.read({"reader": "smear_types", "patients": 4, "size": 48})


def test_a_model_that_predicts_no_numbers_has_diverged_rather_than_seen_background(data):
    class Broken(Fixed):
        def predict(self, images):
            first, *others = super().predict(images)
            return [first * np.nan, *others]

    with pytest.raises(Diverged, match="1 of 8 images"):
        task.score(Broken(data.masks), data)


def test_dice_leaves_background_out(data):
    nothing = Fixed([np.zeros_like(mask) for mask in data.masks])
    scores = task.score(nothing, data)
    assert scores["dice"] == 0
    assert scores["dice_with_background"] == pytest.approx(scores["dice/background"] / 3)
    assert scores["dice/background"] > 0.5


def shifted(data, num):
    """Masks that miss some pixels of each image."""
    return Fixed([np.roll(mask, num, axis=0) for mask in data.masks])


def test_a_better_model_is_above_noise_for_every_score(data):
    near, far = shifted(data, 1), shifted(data, 8)
    scores = [task.score(model, data) for model in (near, far)]
    for metric in scores[0]:
        near, far = shifted(data, 1), shifted(data, 8)
        got = task.compare(near, far, data, metric)
        assert got.difference == pytest.approx(scores[0][metric] - scores[1][metric]), metric
        assert not got.within_noise, metric
        assert (near.calls, far.calls, got.num_images) == (1, 1, 8)
        assert (got.difference < 0) == (metric in task.minimized), metric
    assert task.minimized <= scores[0].keys()


def test_a_comparison_takes_groups_as_wholes(data):
    grouped = replace(data, groups=tuple("aabbccdd"))
    got = task.compare(shifted(data, 1), shifted(data, 8), grouped, "dice")
    assert got.num_groups == 4
    assert got.within_noise  # four patients are no proof


def test_an_unknown_metric_lists_the_known_and_predicts_nothing(data):
    model = shifted(data, 1)
    with pytest.raises(UnknownName, match="'dise'; known: dice, .*dice_pooled"):
        task.compare(model, model, data, "dise")
    assert model.calls == 0


def test_intervals_hold_the_scores(data):
    model = shifted(data, 3)
    intervals = task.intervals(model, data)
    scores = task.score(shifted(data, 3), data)
    assert model.calls == 1
    assert intervals.keys() == scores.keys()
    assert all(low <= scores[name] <= high for name, (low, high) in intervals.items())


def test_classes_and_groups_by_themselves(data):
    model, scores = shifted(data, 3), task.score(shifted(data, 3), data)
    found = task.by_class(model, data)
    assert found == pytest.approx({name: scores[f"dice/{name}"] for name in data.classes})
    assert task.by_group(model, data) == {}
    assert model.calls == 1
    grouped = replace(data, groups=tuple("bbbaaaaa"))
    found = task.by_group(model, grouped)
    assert list(found) == ["a", "b"]
    part = data.subset(range(3))
    assert found["b"] == pytest.approx(task.score(shifted(part, 3), part)["dice"])


def test_a_class_in_no_image_is_nan(data):
    blank = replace(data, masks=tuple(np.zeros_like(mask) for mask in data.masks))
    found = task.by_class(Fixed(blank.masks), blank)
    assert found["background"] == 1
    assert np.isnan(found["nucleus"])


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
