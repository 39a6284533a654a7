import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hemaml.core.errors import ConfigError, UnknownName
from hemaml.ops.scores import SCORES, scored_images, segmentation_report
from hemaml.ops.segmentation_sets import (
    POOLED,
    compare_segmentations,
    segmentation_intervals,
    set_scores,
)

NAMES = {"classes": ("background", "cytoplasm", "nucleus"), "background": "background"}
GROUPS = [f"g{i % 4}" for i in range(12)]


def drawn(seed, num=12, classes=3):
    """Truths of different sizes, and predictions that have some of their pixels wrong."""
    rng = np.random.default_rng(seed)
    truths = [rng.integers(0, classes, (6, 5 + i % 3)).astype(np.uint8) for i in range(num)]
    found = [np.where(rng.random(t.shape) < 0.3, rng.integers(0, 3, t.shape), t) for t in truths]
    return [mask.astype(np.uint8) for mask in found], truths


@given(seed=st.integers(0, 10_000), classes=st.integers(1, 3))
def test_weights_are_copies_of_images(seed, classes):
    found, truths = drawn(seed, num=5, classes=classes)
    weights = np.array([1, 0, 2, 1, 3])
    got = set_scores(scored_images(found, truths, **NAMES), weights[:, None].astype(float))
    chosen = np.repeat(np.arange(5), weights)
    expected = segmentation_report([found[i] for i in chosen], [truths[i] for i in chosen], **NAMES)
    assert {name: float(value[0]) for name, value in got.items()} == pytest.approx(
        expected, nan_ok=True
    )


def test_intervals_hold_the_scores_and_take_groups_as_wholes():
    found, truths = drawn(0)
    images = scored_images(found, truths, **NAMES)
    report = segmentation_report(found, truths, **NAMES)
    got = segmentation_intervals(images)
    assert got.keys() == report.keys()
    for name, (low, high) in got.items():
        assert low <= report[name] <= high, name
    copies = scored_images(found * 5, truths * 5, **NAMES)
    names = [f"{i:02d}" for i in range(12)]
    grouped = segmentation_intervals(copies, names * 5)
    assert grouped["dice"] == pytest.approx(got["dice"])
    low, high = segmentation_intervals(copies)["dice"]
    assert high - low < 0.6 * (got["dice"][1] - got["dice"][0])


def test_a_class_in_no_image_has_no_interval():
    zeros = [np.zeros((3, 3), np.uint8)] * 4
    got = segmentation_intervals(scored_images(zeros, zeros, **NAMES))
    assert np.isnan(got["dice/nucleus"]).all()
    assert got["dice/background"] == (1, 1)


@pytest.mark.parametrize("groups", [(), GROUPS], ids=["images", "groups"])
@pytest.mark.parametrize("metric", [*SCORES, "iou/nucleus", "dice_with_background", *POOLED])
def test_the_difference_is_that_of_the_reports(metric, groups):
    found, truths = drawn(1)
    better = [np.where(np.arange(t.shape[1]) < 4, t, f) for t, f in zip(truths, found, strict=True)]
    one, other = (scored_images(masks, truths, **NAMES) for masks in (better, found))
    got = compare_segmentations(one, other, metric, groups)
    reports = [segmentation_report(masks, truths, **NAMES) for masks in (better, found)]
    assert got.difference == pytest.approx(reports[0][metric] - reports[1][metric])
    assert got.num_images == 12
    assert got.num_groups == (4 if groups else 12)
    assert got.low <= got.difference <= got.high
    if metric in ("dice", "iou", "accuracy") and not groups:
        assert not got.within_noise


def test_a_class_that_is_not_there_and_is_found_counts_against_who_found_it():
    truths = [np.array([[0, 0, 1, 1]], np.uint8)] * 9 + [np.array([[0, 0, 1, 2]], np.uint8)]
    false = [np.array([[0, 0, 1, 2]], np.uint8)] * 10
    right, wrong = (scored_images(masks, truths, **NAMES) for masks in (truths, false))
    for metric, sign in (("dice/nucleus", 1), ("hausdorff/nucleus", -1)):
        got = compare_segmentations(right, wrong, metric)
        assert sign * got.difference > 0
        assert not got.within_noise
        assert compare_segmentations(wrong, right, metric).difference == -got.difference


def test_bad_input_is_refused():
    found, truths = drawn(0)
    images = scored_images(found, truths, **NAMES)
    with pytest.raises(UnknownName, match="'dice/plasma'; known: dice/"):
        compare_segmentations(images, images, "dice/plasma")
    fewer = scored_images(found[:3], truths[:3], **NAMES)
    for metric in ("dice", "dice_pooled"):
        with pytest.raises(ConfigError, match="same images"):
            compare_segmentations(images, fewer, metric)
