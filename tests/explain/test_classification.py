"""What the figures of a classifier say; how they look is seen by eye."""

import io

import numpy as np
import pytest
from explain.smears import Known, dataset, skilled
from PIL import Image
from sklearn import metrics

from hemaml.core.errors import DataError
from hemaml.explain import pictures, reliability
from hemaml.explain.confusion import confusion_matrix, row_shares
from hemaml.explain.outcome import Outcome
from hemaml.explain.reliability import reliability_bins
from hemaml.explain.roc import roc_curves
from hemaml.explain.score_table import TITLES, group_rows, score_rows
from hemaml.ops.classification_scores import SCORES, classification_scores

FOUR = ("benign", "early", "pre", "pro")


@pytest.fixture(params=[2, 4])
def outcome(request):
    num = request.param
    data = dataset([i % num for i in range(60)], FOUR[:num])
    return Outcome(data, skilled(data))


def test_the_matrix_is_scikit_learns(outcome):
    expected = metrics.confusion_matrix(outcome.labels, outcome.predicted)
    np.testing.assert_array_equal(confusion_matrix(outcome), expected)
    np.testing.assert_allclose(row_shares(expected).sum(axis=1), 1)


def test_curves_are_scikit_learns(outcome):
    curves = roc_curves(outcome)
    assert [curve.index for curve in curves] == ([1] if len(outcome.classes) == 2 else [0, 1, 2, 3])
    for curve in curves:
        positive, score = outcome.labels == curve.index, outcome.probabilities[:, curve.index]
        x, y, thresholds = metrics.roc_curve(positive, score, drop_intermediate=False)
        np.testing.assert_allclose(np.stack([curve.x, curve.y]), np.stack([x, y]))
        np.testing.assert_allclose(curve.thresholds, thresholds)
        assert curve.auc == pytest.approx(metrics.roc_auc_score(positive, score))


def test_a_class_without_images_has_no_curve():
    data = dataset([0, 1, 2] * 5, FOUR)
    assert [c.index for c in roc_curves(Outcome(data, skilled(data)))] == [0, 1, 2]


def test_bins_add_up_to_the_calibration_error(outcome):
    bins = reliability_bins(outcome)
    assert bins.counts.sum() == 60
    gaps = np.abs(bins.right - bins.sure)
    error = np.nansum(bins.counts * gaps) / 60
    scores = classification_scores(outcome.probabilities, outcome.labels)
    assert error == pytest.approx(scores["ece"], abs=1e-6)
    assert len(bins.counts) == reliability.BINS


def test_the_table_has_every_score_and_its_interval(outcome):
    rows = score_rows(outcome)
    assert [row[0] for row in rows] == [TITLES[name] for name in SCORES]
    for title, value, interval in rows:
        low, high = map(float, interval.split(" to "))
        assert low <= float(value) <= high or title == TITLES["ece"]  # which resampling raises


def test_groups_are_listed_worst_first():
    data = dataset([0, 1, 0, 1], groups=("b", "b", "c", "a"))
    probabilities = np.array([[0.2, 0.8], [0.3, 0.7], [0.1, 0.9], [0.4, 0.6]], np.float32)
    assert group_rows(Outcome(data, probabilities)) == [
        ["c", "1", "healthy", "0.0%", "0.900"],
        ["b", "2", "healthy, leukemia", "50.0%", "0.750"],
        ["a", "1", "leukemia", "100.0%", "0.600"],
    ]
    assert group_rows(Outcome(dataset([0, 1]), probabilities[:2])) == []


@pytest.mark.parametrize("groups", [(), tuple(f"subject-{i % 80}" for i in range(160))])
def test_figures_open_need_no_network_and_ask_the_model_once(groups):
    data = dataset([i % 2 for i in range(160)], groups=groups)
    model = Known(data, skilled(data))
    drawn = pictures(("classification",), model, data)
    assert [p.name for p in drawn] == ["scores", "confusion", "roc", "reliability"]
    assert model.asked == 1
    for picture in drawn:
        pixels = np.asarray(Image.open(io.BytesIO(picture.png)))
        assert (pixels[:, -10:] == 255).all(), f"{picture.name} is clipped"
        assert (pixels[-10:] == 255).all(), f"{picture.name} is clipped"
        assert pixels.std() > 5
        assert "<script src=" not in picture.html


def test_one_class_alone_can_be_drawn():
    data = dataset([1] * 4)
    drawn = pictures(("classification",), Known(data, skilled(data)), data)
    assert len(drawn) == 4


def test_other_data_is_refused():
    empty = dataset([])
    with pytest.raises(DataError, match="'smears' has 0 images"):
        pictures(("classification",), Known(empty, []), empty)
