import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import directed_hausdorff

from hemaml.core.errors import ConfigError, DataError, UnknownName
from hemaml.ops.scores import SCORES, mean_scores, segmentation_report, segmentation_scores

CLASSES = ("background", "cytoplasm", "nucleus")


def parse(text):
    return np.array([list(map(int, line)) for line in text.split()], dtype=np.uint8)


def test_scores_by_hand():
    truth = parse("0011 0022")
    predicted = parse("0111 0002")
    scores = segmentation_scores(predicted, truth, classes=CLASSES)
    assert scores == pytest.approx(
        {
            "dice/background": 6 / 8,  # 3 shared of 4 and 4
            "iou/background": 3 / 5,
            "ppv/background": 3 / 4,
            "sensitivity/background": 3 / 4,
            "accuracy/background": 6 / 8,
            "hausdorff/background": 1,  # (1, 2) lies one column off the labelled background
            "dice/cytoplasm": 4 / 5,  # 2 shared of 3 and 2
            "iou/cytoplasm": 2 / 3,
            "ppv/cytoplasm": 2 / 3,
            "sensitivity/cytoplasm": 1,
            "accuracy/cytoplasm": 7 / 8,
            "hausdorff/cytoplasm": 1,
            "dice/nucleus": 2 / 3,  # 1 shared of 1 and 2
            "iou/nucleus": 1 / 2,
            "ppv/nucleus": 1,
            "sensitivity/nucleus": 1 / 2,
            "accuracy/nucleus": 7 / 8,
            "hausdorff/nucleus": 1,
        }
    )


def test_a_perfect_prediction(drawn_cells):
    _, mask = drawn_cells[0]
    scores = segmentation_scores(mask, mask, classes=CLASSES)
    for key, value in scores.items():
        assert value == (0 if key.startswith("hausdorff") else 1), key


def test_a_class_in_neither_mask_is_undefined():
    scores = segmentation_scores(parse("0011"), parse("0111"), classes=CLASSES)
    assert all(np.isnan(scores[f"{score}/nucleus"]) for score in SCORES)
    assert all(np.isfinite(scores[f"{score}/cytoplasm"]) for score in SCORES)


@pytest.mark.parametrize("swap", [False, True])
def test_a_class_in_one_mask_only_is_a_miss(swap):
    with_nucleus, without = parse("0112 0111 0111"), parse("0111 0111 0111")
    pair = (without, with_nucleus) if swap else (with_nucleus, without)
    scores = segmentation_scores(*pair, classes=CLASSES)
    for score in ("dice", "iou", "ppv", "sensitivity"):
        assert scores[f"{score}/nucleus"] == 0
    assert scores["accuracy/nucleus"] == pytest.approx(11 / 12)
    assert scores["hausdorff/nucleus"] == pytest.approx(5)  # a 3 x 4 image


MASK_PAIRS = st.tuples(st.integers(1, 14), st.integers(1, 14)).flatmap(
    lambda shape: st.tuples(*[arrays(np.uint8, shape, elements=st.integers(0, 2))] * 2)
)


@settings(max_examples=200, deadline=None)
@given(MASK_PAIRS)
def test_hausdorff_agrees_with_scipy(pair):
    scores = segmentation_scores(*pair, classes=CLASSES)
    for index, name in enumerate(CLASSES):
        p, t = (np.argwhere(mask == index) for mask in pair)
        if len(p) and len(t):
            expected = max(directed_hausdorff(p, t)[0], directed_hausdorff(t, p)[0])
            assert scores[f"hausdorff/{name}"] == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(MASK_PAIRS)
def test_overlap_scores_agree_with_their_definitions(pair):
    scores = segmentation_scores(*pair, classes=CLASSES)
    for index, name in enumerate(CLASSES):
        p, t = (mask == index for mask in pair)
        if p.any() and t.any():
            assert scores[f"dice/{name}"] == pytest.approx(2 * (p & t).sum() / (p.sum() + t.sum()))
            assert scores[f"iou/{name}"] == pytest.approx((p & t).sum() / (p | t).sum())
            assert scores[f"ppv/{name}"] == pytest.approx((p & t).sum() / p.sum())
            assert scores[f"sensitivity/{name}"] == pytest.approx((p & t).sum() / t.sum())
            assert scores[f"accuracy/{name}"] == pytest.approx((p == t).mean())


def test_means_leave_undefined_images_out():
    keys = [f"{score}/{name}" for score in SCORES for name in "abc"]
    first = dict.fromkeys(keys, 0.5) | {"dice/a": 1.0, "dice/b": 0.2, "dice/c": float("nan")}
    second = dict.fromkeys(keys, 0.5) | {"dice/a": 0.8, "dice/b": 0.4, "dice/c": 0.6}
    means = mean_scores([first, second], foreground=["b", "c"])
    assert means["dice/a"] == pytest.approx(0.9)
    assert means["dice/b"] == pytest.approx(0.3)
    assert means["dice/c"] == pytest.approx(0.6)
    assert means["dice"] == pytest.approx(0.45)
    assert means["dice_with_background"] == pytest.approx(0.6)
    assert means["iou"] == 0.5


def test_a_class_in_no_image_is_nan_and_spoils_no_total():
    scores = segmentation_scores(parse("0011"), parse("0111"), classes=CLASSES)
    means = mean_scores([scores], foreground=["cytoplasm", "nucleus"])
    assert np.isnan(means["dice/nucleus"])
    assert means["dice"] == means["dice/cytoplasm"]


def test_report_pools_pixels_and_averages_images():
    truth = [parse("0011"), parse("0000 0111")]  # sizes may differ
    predicted = [parse("0111"), parse("0000 0011")]
    report = segmentation_report(
        predicted, truth, classes=("background", "cell"), background="background"
    )
    assert report["dice/cell"] == pytest.approx((4 / 5 + 4 / 5) / 2)
    assert report["dice/background"] == pytest.approx((2 / 3 + 10 / 11) / 2)
    assert report["dice"] == report["dice/cell"]
    both = (report["dice/cell"] + report["dice/background"]) / 2
    assert report["dice_with_background"] == pytest.approx(both)
    assert report["dice_pooled"] == pytest.approx(8 / 10)
    assert report["dice_pooled_with_background"] == pytest.approx((8 / 10 + 12 / 14) / 2)
    assert set(report) == {
        *SCORES,
        *(f"{score}/{name}" for score in SCORES for name in ("background", "cell")),
        "dice_with_background",
        "dice_pooled",
        "dice_pooled_with_background",
    }


def test_bad_input_is_refused():
    mask = parse("01")
    with pytest.raises(DataError, match="empty"):
        segmentation_report([], [], classes=CLASSES, background="background")
    with pytest.raises(ConfigError, match="1 predictions for 2 images"):
        segmentation_report([mask], [mask, mask], classes=CLASSES, background="background")
    with pytest.raises(UnknownName, match="'plasma'; known: .*cytoplasm"):
        segmentation_report([mask], [mask], classes=CLASSES, background="plasma")
    with pytest.raises(UnknownName, match="'cell'"):
        mean_scores([segmentation_scores(mask, mask, classes=CLASSES)], foreground=["cell"])
    with pytest.raises(ConfigError, match=r"\(1, 2\) for \(2, 1\)"):
        segmentation_scores(mask, mask.T, classes=CLASSES)
    with pytest.raises(ConfigError, match="below 3.*got 5"):
        segmentation_scores(mask * 5, mask, classes=CLASSES)
