"""Shape, colour and texture of cells, and machines of classes that have hardly any images."""

from dataclasses import replace

import numpy as np
import pytest
from objectives.masked_cells import cells, disc
from pydantic import ValidationError
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC

from hemaml.core.errors import DataError
from hemaml.core.objective import Context
from hemaml.core.task import Fold
from hemaml.objectives._kernel_machines import MachineParams, train_rare
from hemaml.objectives.wbc_type import _features
from hemaml.objectives.wbc_type.svm import CellSvmModel, Params, fit, size

REGION = ("diameter", "roundness", "eccentricity", "solidity", "extent", "axes", "spread", "depth")
NUCLEUS = ("share", "offset", "pieces", "lobes", "greatest", "mean")
NAMES = [f"{part}_{name}" for part in ("nucleus", "cell") for name in REGION] + list(NUCLEUS)


def shape_of(mask):
    grey = np.full((*mask.shape, 3), 120, np.uint8)
    return dict(zip(NAMES, _features.described(grey, mask)[: len(NAMES)], strict=True))


def test_a_round_cell_with_a_round_nucleus():
    mask = disc(100, (50, 50), 40).astype(np.uint8) + disc(100, (50, 50), 20)
    found = shape_of(mask)
    assert found["nucleus_diameter"] == pytest.approx(40, rel=0.02)
    assert found["cell_diameter"] == pytest.approx(80, rel=0.02)
    assert found["share"] == pytest.approx(0.25, rel=0.03)
    for part in ("nucleus", "cell"):
        assert found[f"{part}_roundness"] == pytest.approx(1, abs=0.08)
        assert found[f"{part}_eccentricity"] == pytest.approx(0, abs=0.05)
        assert found[f"{part}_solidity"] > 0.95
        assert found[f"{part}_axes"] == pytest.approx(1, abs=0.01)
        assert found[f"{part}_depth"] == pytest.approx(0.5, abs=0.03)
    assert found["offset"] == pytest.approx(0, abs=1e-6)
    assert (found["pieces"], found["lobes"]) == (1, 1)


def test_lobes_are_counted_whether_or_not_they_touch():
    cell = disc(100, (50, 50), 45).astype(np.uint8)
    lobes = disc(100, (35, 30), 13) | disc(100, (35, 70), 13) | disc(100, (70, 50), 13)
    bridged = lobes.copy()
    bridged[33:37, 30:70] = True
    apart, joined = (shape_of(cell + nucleus) for nucleus in (lobes, bridged))
    assert (apart["pieces"], apart["lobes"]) == (3, 3)
    assert (joined["pieces"], joined["lobes"]) == (2, 3)
    specks = lobes.copy()
    specks[80, 30] = True
    assert shape_of(cell + specks)["pieces"] == 3


def test_features_know_nothing_of_the_background_and_little_of_the_pose():
    rng = np.random.default_rng(0)
    mask = disc(64, (30, 34), 20).astype(np.uint8) + disc(64, (33, 30), 9)
    image = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    painted = image.copy()
    painted[mask == 0] = 255
    one = _features.described(image, mask)
    assert one.shape == (_features.NUM_ALL,) and np.isfinite(one).all()
    patterns = -2 * _features.NUM_PATTERNS  # pixels at the edge of a cell have neighbours outside
    np.testing.assert_array_equal(_features.described(painted, mask)[:patterns], one[:patterns])
    turned = _features.described(np.rot90(image).copy(), np.rot90(mask).copy())
    np.testing.assert_allclose(turned, one, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("classes", [(0,), (1,), (2,), (0, 1, 2)])
def test_any_mask_has_finite_features(classes):
    image = np.random.default_rng(0).integers(0, 255, (12, 12, 3), dtype=np.uint8)
    mask = np.resize(np.array(classes, np.uint8), (12, 12))
    mask[0, 0] = 2
    with np.errstate(all="raise"):
        assert np.isfinite(_features.described(image, mask)).all()


@pytest.mark.parametrize("kind", ["all", "shape", "colour_texture"])
def test_the_number_of_features_is_known_before(kind):
    fold = Fold(cells(10), cells(5, seed=1))
    (step,) = fit(Params(segmentation="ground_truth", features=kind), fold, Context())
    assert step.model.embed(fold.val.images)["features"].shape == (5, _features.num_features(kind))
    assert size(step.model.params) <= step.model.num_trainable


def test_shape_tells_types_that_images_do_not(tmp_path):
    fold = Fold(cells(50), cells(20, seed=1), unlabelled=cells(4, seed=2).inputs())
    (step,) = fit(Params(segmentation="ground_truth", features="shape", C=100), fold, Context())
    (blind,) = fit(Params(segmentation="none"), fold, Context())
    assert step.metrics["accuracy"] > 0.9 and blind.metrics["accuracy"] < 0.5
    step.model.save(tmp_path)
    loaded = CellSvmModel.load(tmp_path)
    for part in (fold.val, fold.unlabelled):
        np.testing.assert_array_equal(loaded.predict(part.images), step.model.predict(part.images))
    with pytest.raises(DataError, match="that somebody drew"):
        loaded.predict(cells(1, seed=9).images)


def rare(counts, seed=0):
    """Clouds about five far corners, so many points of each."""
    labels = tuple(c for c, count in enumerate(counts) for _ in range(count))
    names = tuple(f"{seed}-{i}" for i in range(len(labels)))
    data = replace(cells(5), ids=names, images=names, digests=names, labels=labels,
                   image_digests=names, drawn=())  # fmt: skip
    x = np.random.default_rng(seed).normal(size=(len(labels), 5)) + 8 * np.eye(5)[list(labels)]
    return x.astype(np.float32), data


def test_a_class_of_one_image_is_learned_and_one_of_none_is_never_said():
    x, data = rare((12, 12, 1, 6, 0))
    machine = train_rare(x, data, MachineParams(), seed=0)
    other, labels = rare((5, 5, 5, 5, 5), seed=1)
    found = machine.probabilities(other)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    said = found.argmax(axis=1)
    truth = np.array(labels.labels)
    assert (said[truth < 4] == truth[truth < 4]).mean() > 0.9
    assert (said[truth == 2] == 2).all()
    assert found[:, 4].max() < 1e-6


@pytest.mark.parametrize("kernel", ["linear", "rbf", "poly"])
def test_the_order_of_the_classes_is_that_of_scikit_learns_machine(kernel):
    x, data = rare((9, 8, 7, 3, 2))
    x += np.random.default_rng(5).normal(scale=3, size=x.shape).astype(np.float32)
    params = MachineParams(kernel=kernel, gamma=0.05, standardise=False)
    machine = train_rare(x, data, params, seed=0)
    peer = OneVsRestClassifier(SVC(kernel=kernel, gamma=0.05, coef0=1, class_weight="balanced"))
    centred = x - x.mean(axis=0, dtype=np.float64)
    decisions = peer.fit(centred, data.labels).decision_function(centred)
    np.testing.assert_allclose(machine.decisions(x), decisions, atol=1e-4)
    order = machine.probabilities(x).argsort(axis=1)
    np.testing.assert_array_equal(order[:, -1], decisions.argmax(axis=1))


def test_the_one_curve_is_of_decisions_on_images_that_were_not_learned():
    x, data = rare((15, 15, 15, 15, 15))
    noise = np.random.default_rng(3).normal(size=x.shape).astype(np.float32)
    sure, unsure = (train_rare(values, data, MachineParams(C=100), seed=0) for values in (x, noise))
    assert sure.slope[0] < -1
    assert np.abs(unsure.slope[0]) < 0.5, "it has learned the noise by heart, and knows"
    assert len(set(sure.slope)) == len(set(sure.offset)) == 1


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValidationError, match="at most the 22 features of 'shape', but got 23"):
        Params(features="shape", pca=23)
    x, data = rare((4, 0, 0, 0, 0))
    with pytest.raises(DataError, match="has only neutrophil"):
        train_rare(x, data, MachineParams(), seed=0)
