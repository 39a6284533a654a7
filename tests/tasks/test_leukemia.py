from dataclasses import replace

import numpy as np
import pytest

from hemaml.core.dataset import Dataset
from hemaml.core.errors import DataError, Diverged, UnknownName
from hemaml.ops.classification_scores import SCORES
from hemaml.tasks.leukemia import task


class Fixed:
    """Predicts given probabilities."""

    def __init__(self, probabilities):
        self.probabilities = probabilities
        self.calls = 0

    def predict(self, images):
        self.calls += 1
        assert len(images) == len(self.probabilities)
        return list(self.probabilities)


def dataset(labels, classes=("healthy", "leukemia"), **more):
    names = tuple(f"cell-{i:02d}" for i in range(len(labels)))
    images = tuple(np.full((4, 4, 3), i, np.uint8) for i in range(len(labels)))
    return Dataset("cells", classes, names, images, names, labels=tuple(labels), **more)


DATA = dataset([0, 1] * 10)
TRUTH = np.eye(2, dtype=np.float32)[list(DATA.labels)]


def test_the_truth_scores_best():
    scores = task.score(Fixed(TRUTH), DATA)
    assert tuple(scores) == SCORES
    assert all(scores[name] == 1 for name in ("auc", "accuracy", "f1", "specificity"))
    assert scores[task.primary] == 1


def test_a_model_that_predicts_no_numbers_has_diverged():
    rows = [(0.9, 0.1), (np.nan, np.nan)]
    with pytest.raises(Diverged, match="1 of 2 images"):
        task.score(Fixed(rows), dataset([0, 1]))


def test_less_is_better_where_the_task_says_so():
    """A gate looks at the sign of a difference."""
    poor = np.clip(TRUTH * 0.1 + 0.45, 0, 1)
    poor[:6] = 1 - poor[:6]
    worst, best = (task.score(Fixed(values), DATA) for values in (poor, TRUTH))
    assert {name for name in SCORES if best[name] < worst[name]} == task.minimized


def test_leukemia_is_the_positive_class():
    found = TRUTH.copy()
    found[1] = 1, 0  # one leukemia missed
    scores = task.score(Fixed(found), DATA)
    assert (scores["recall"], scores["specificity"], scores["precision"]) == (0.9, 1, 1)


def test_sets_of_more_classes_are_scored_too():
    data = dataset([0, 1, 2, 3] * 3, classes=("benign", "early", "pre", "pro"))
    assert task.score(Fixed(np.eye(4)[list(data.labels)]), data)["auc"] == 1


def test_with_more_than_two_classes_each_has_its_recall():
    data = dataset([0, 1, 2] * 4, classes=("cll", "fl", "mcl", "none"))
    found = np.eye(4)[list(data.labels)]
    found[1] = 1, 0, 0, 0  # one of four of class 1
    scores = task.score(Fixed(found), data)
    assert [scores[f"recall/{name}"] for name in data.classes[:3]] == [1, 0.75, 1]
    assert np.isnan(scores["recall/none"]), "no image is of that class"


def test_the_recall_of_a_class_is_compared_on_its_images():
    labels = [0, 1, 2] * 8
    groups = tuple(f"case-{i // 3}" for i in range(24))
    data = replace(dataset(labels, classes=("cll", "fl", "mcl")), groups=groups)
    best = np.eye(3)[labels]
    worse = best.copy()
    worse[[1, 4, 7, 10]] = 1, 0, 0  # four of eight of class 1
    found = task.compare(Fixed(best), Fixed(worse), data, "recall/fl")
    assert (found.difference, found.num_images, found.num_groups) == (0.5, 8, 8)
    assert found.p == 2 * 0.5**4, "exact: four pairs, all won"
    assert task.compare(Fixed(best), Fixed(worse), data, "recall/mcl").difference == 0
    absent = replace(data, classes=(*data.classes, "other"))
    assert np.isnan(task.compare(Fixed(best), Fixed(worse), absent, "recall/other").difference)
    with pytest.raises(UnknownName, match="recall/fl"):
        task.compare(Fixed(best), Fixed(worse), data, "recall/none")


def test_masks_are_refused_before_anything_is_trained():
    with pytest.raises(DataError, match="one class each.*Choose a reader of classification data"):
        task.read({"reader": "smears", "count": 4, "size": 48})


def test_intervals_go_over_groups():
    probabilities = np.clip(TRUTH * 0.6 + 0.2, 0, 1)
    probabilities[:4] = 1 - probabilities[:4]
    apart = task.intervals(Fixed(probabilities), DATA)
    groups = tuple("bad" if i < 4 else f"good-{i % 4}" for i in range(20))
    together = task.intervals(Fixed(probabilities), replace(DATA, groups=groups))
    assert apart.keys() == together.keys() == set(SCORES)
    low, high = together["accuracy"]
    assert high - low > apart["accuracy"][1] - apart["accuracy"][0]
    assert low <= 0.8 <= high


NOISE = np.random.default_rng(0).uniform(0, 1, 20)
GUESSES = np.stack([NOISE, 1 - NOISE], axis=1)
MOSTLY = TRUTH * 0.6 + GUESSES * 0.4


@pytest.mark.parametrize("metric", SCORES)
def test_a_better_model_is_compared_by_every_score(metric):
    one, other = Fixed(MOSTLY), Fixed(GUESSES)
    got = task.compare(one, other, DATA, metric)
    scores = [task.score(Fixed(values), DATA)[metric] for values in (MOSTLY, GUESSES)]
    assert got.difference == pytest.approx(scores[0] - scores[1])
    assert (one.calls, other.calls, got.num_images, got.num_groups) == (1, 1, 20, 20)
    if metric in ("accuracy", "auc", "log_loss"):
        assert not got.within_noise
    test = {"accuracy": "McNemar", "auc": "DeLong"}.get(metric, "paired bootstrap")
    assert got.test.startswith(test)


@pytest.mark.parametrize("metric", SCORES)
def test_a_comparison_takes_groups_as_wholes(metric):
    grouped = replace(DATA, groups=tuple(f"p{i % 4}" for i in range(20)))
    got = task.compare(Fixed(MOSTLY), Fixed(GUESSES), grouped, metric)
    assert (got.num_images, got.num_groups) == (20, 4)
    assert "groups" in got.test


def test_an_unknown_metric_lists_the_known_and_predicts_nothing():
    model = Fixed(TRUTH)
    with pytest.raises(UnknownName, match="'acuracy'; known: accuracy"):
        task.compare(model, model, DATA, "acuracy")
    assert model.calls == 0


def test_classes_and_groups_by_themselves():
    found = TRUTH.copy()
    found[1] = 1, 0  # one leukemia missed
    model = Fixed(found)
    assert task.by_class(model, DATA) == {"healthy": 1, "leukemia": 0.9}
    assert task.by_group(model, DATA) == {}
    assert model.calls == 1
    grouped = replace(DATA, groups=("b", "b", *["a"] * 18))
    found = task.by_group(model, grouped)
    assert list(found.items()) == [("a", 1), ("b", 0.5)]


def test_a_class_without_images_is_nan():
    data = dataset([0, 1], classes=("benign", "early", "pre"))
    assert np.isnan(task.by_class(Fixed(np.eye(3)[:2]), data)["pre"])


def test_one_class_alone_is_refused():
    data = dataset([1, 1, 1])
    with pytest.raises(DataError, match="healthy: 0, leukemia: 3.*larger `split.val`"):
        task.score(Fixed(np.eye(2)[[1, 1, 1]]), data)


@pytest.mark.parametrize("change", [{"labels": ()}, {"masks": (np.zeros((4, 4)),)}])
def test_other_data_is_refused(change):
    with pytest.raises(DataError, match="one class each"):
        task.score(Fixed(TRUTH), replace(DATA, **change))
