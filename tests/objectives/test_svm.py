from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.calibration import CalibratedClassifierCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC

from hemaml.core.cache import Cache
from hemaml.core.dataset import Dataset
from hemaml.core.errors import ConfigError, DataError
from hemaml.core.objective import Context
from hemaml.core.task import Fold
from hemaml.objectives._kernel_machines import calibration_folds, train_machine
from hemaml.objectives.leukemia import _features
from hemaml.objectives.leukemia.svm import Params, SvmModel, fit, size

CLASSES = ("healthy", "leukemia")
GOLDEN = (2635.1281, 7033.4061)
"""Of the features of one image, once seen to be right: they must not change with the libraries."""


def smear(label, rng, side=40):
    """Noise; the cells of class 1 are darker and finer, those of class 2 redder."""
    coarse = rng.integers(120, 200, (side // 4, side // 4, 3)).repeat(4, 0).repeat(4, 1)
    fine = rng.integers(100, 180, (side, side, 3))
    image = (coarse, fine, coarse + np.array([50, 0, 0]))[label]
    return image.astype(np.uint8)


def dataset(num, classes=CLASSES, *, seed=0, **more):
    rng = np.random.default_rng(seed)
    labels = tuple(i % len(classes) for i in range(num))
    images = tuple(smear(label, rng) for label in labels)
    names = tuple(f"{seed}-{i:03d}" for i in range(num))
    return Dataset(
        "smears", classes, names, images, names, labels=labels, image_digests=names, **more
    )


def only_step(params, fold, **context):
    (step,) = fit(params, fold, Context(**context))
    return step


@pytest.mark.parametrize(
    "point",
    [
        {},
        {"kernel": "linear", "pca": 5},
        {"kernel": "poly"},
        {"features": "hog", "size": 48},
        {"features": "embeddings", "weights": "none", "size": 64, "standardise": False},
    ],
)
@pytest.mark.parametrize("classes", [CLASSES, (*CLASSES, "other")])
def test_it_learns_what_can_be_told_apart(point, classes):
    fold = Fold(dataset(60, classes), dataset(30, classes, seed=1))
    scores = only_step(Params(**{"size": 32} | point), fold).metrics
    blind = point.get("features") == "hog" and len(classes) == 3  # gradients have no colour
    assert scores["auc"] > (0.85 if blind else 0.98)
    assert scores["log_loss"] < (0.7 if blind else 0.45)


def test_labels_by_chance_are_not_learned():
    labels = tuple(np.random.default_rng(5).integers(0, 2, 60).tolist())
    train = replace(dataset(60, ("a", "b")), labels=labels)
    val = replace(dataset(60, ("a", "b"), seed=1), labels=labels)
    scores = only_step(Params(size=32), Fold(train, val)).metrics
    assert 0.3 < scores["auc"] < 0.7
    assert scores["log_loss"] < 0.8  # a machine without calibration is sure of nonsense


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("kernel", ["linear", "rbf", "poly"])
def test_probabilities_are_those_of_scikit_learns_calibrated_machine(kernel, num_classes):
    rng = np.random.default_rng(0)
    data = dataset(90, ("a", "b", "c")[:num_classes])
    x = (rng.normal(size=(90, 6)) + 2 * np.eye(6)[list(data.labels)]).astype(np.float32)
    params = Params(kernel=kernel, gamma=0.1, standardise=False)
    machine = train_machine(x, data, params, seed=3)
    centred = x - x.mean(axis=0, dtype=np.float64)
    one = SVC(kernel=kernel, gamma=0.1, coef0=1, degree=3, class_weight="balanced")
    folds = calibration_folds(data, num=5, seed=3)
    peer = CalibratedClassifierCV(OneVsRestClassifier(one), cv=folds, ensemble=False)
    expected = peer.fit(centred, data.labels).predict_proba(centred)
    np.testing.assert_allclose(machine.probabilities(x), expected, atol=1e-6)


def test_calibration_parts_no_group_and_no_copies():
    groups = tuple(f"g{i // 4}" for i in range(60))
    for data in (dataset(60, groups=groups), replace(dataset(60), image_digests=groups)):
        folds = calibration_folds(data, num=5, seed=0)
        assert len(folds) == 5
        assert sorted(i for _, tested in folds for i in tested) == list(range(60))
        for learned, tested in folds:
            assert not {groups[i] for i in learned} & {groups[i] for i in tested}
            assert {data.labels[i] for i in learned} == {0, 1}


def test_fewer_groups_make_fewer_folds_and_too_few_are_an_error():
    groups = tuple("abc"[i // 2 % 3] for i in range(24))
    assert len(calibration_folds(dataset(24, groups=groups), num=5, seed=0)) == 3
    with pytest.raises(DataError, match="two groups.*healthy: 1, leukemia: 1"):
        calibration_folds(dataset(24, groups=("a",) * 24), num=5, seed=0)


def test_an_inverted_calibration_keeps_the_order_of_the_decisions():
    # Each group has its own labels for the same features: other groups mislead.
    x = np.tile([[0.0], [1.0]], (8, 1)).astype(np.float32)
    flipped = [0, 1] * 4 + [1, 0] * 4
    data = replace(
        dataset(16), labels=tuple(flipped), groups=tuple("a" if i < 8 else "b" for i in range(16))
    )
    x += np.linspace(0, 0.1, 16, dtype=np.float32)[:, None]
    machine = train_machine(x, data, Params(C=100, gamma=50.0), seed=0)
    assert machine.slope[0] == -1e-3
    decisions, found = machine.decisions(x)[:, 0], machine.probabilities(x)[:, 1]
    assert (np.diff(found[decisions.argsort()]) >= 0).all()


@pytest.mark.parametrize(
    "point", [{}, {"kernel": "linear", "pca": 3}, {"features": "embeddings", "weights": "none"}]
)
def test_size_and_learned_values(point):
    params = Params(**{"size": 32} | point)
    model = only_step(params, Fold(dataset(20), dataset(8, seed=1))).model
    backbone = 11_176_512 if params.features == "embeddings" else 0  # ResNet-18 without its head
    assert size(params) - backbone <= model.num_trainable
    if params.kernel == "linear":
        assert size(params) == model.num_trainable
    assert model.num_trainable == sum(a.size for a in model.machine.arrays().values())


def test_a_saved_model_is_whole(tmp_path):
    params = Params(features="embeddings", weights="none", size=32)
    val = dataset(8, seed=1)
    model = only_step(params, Fold(dataset(20), val)).model
    model.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "config.json"}
    loaded = SvmModel.load(tmp_path)
    np.testing.assert_array_equal(loaded.predict(val.images), model.predict(val.images))
    np.testing.assert_array_equal(
        loaded.embed(val.images)["features"], model.embed(val.images)["features"]
    )


def test_features_are_computed_once(tmp_path, monkeypatch):
    fold = Fold(dataset(20), dataset(8, seed=1))
    first = only_step(Params(size=32), fold, cache=Cache(tmp_path))
    monkeypatch.setitem(_features.DESCRIPTIONS, "classical", None)
    again = only_step(Params(size=32), fold, cache=Cache(tmp_path))
    assert again.metrics == first.metrics


def test_features_of_a_fixed_image():
    y, x = np.indices((64, 64))
    image = np.stack([x * 4, y * 4, (x * y) % 256], axis=2).astype(np.uint8)
    values = _features.classical(image)
    assert values.shape == (_features.NUM_CLASSICAL,)
    assert values[:3] == pytest.approx([126 / 255] * 2 + [image[:, :, 2].mean() / 255], abs=1e-6)
    assert values[27:75].sum() == pytest.approx(3, abs=1e-5)  # three histograms
    assert values[93:].sum() == pytest.approx(2, abs=1e-5)  # two histograms
    golden = np.dot(values, np.arange(121)), np.dot(values**2, np.arange(121))
    assert golden == pytest.approx(GOLDEN, rel=1e-4)


def test_turning_an_image_changes_classical_features_little():
    image = smear(0, np.random.default_rng(0), side=64)
    other = smear(1, np.random.default_rng(0), side=64)
    values, turned, away = map(_features.classical, (image, np.rot90(image).copy(), other))
    assert np.abs(values - turned).max() < 0.1 * np.abs(values - away).max()


@pytest.mark.parametrize("kind", ["classical", "hog", "pixels"])
@pytest.mark.parametrize("side", [32, 50, 128])
def test_the_number_of_features_is_known_before(kind, side):
    extractor = _features.Extractor(kind, side, "cpu", None)
    found = extractor([smear(0, np.random.default_rng(0))])
    assert found.shape == (1, _features.num_features(kind, size=side, embedding=0))
    assert found.dtype == np.float32


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValidationError, match="at most the 121 features"):
        Params(pca=122)
    with pytest.raises(ValidationError, match="multiple of 32"):
        Params(features="embeddings", backbone="efficientnet_lite0", size=100)
    with pytest.raises(ConfigError, match="number of training images, 20, but got 40"):
        only_step(Params(size=32, pca=40), Fold(dataset(20), dataset(8, seed=1)))
