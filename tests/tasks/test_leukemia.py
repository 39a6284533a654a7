from dataclasses import replace

import numpy as np
import pytest

from hemaml.core.dataset import Dataset
from hemaml.core.errors import DataError
from hemaml.ops.classification_scores import SCORES
from hemaml.tasks.leukemia import task


class Fixed:
    """Predicts given probabilities."""

    def __init__(self, probabilities):
        self.probabilities = probabilities

    def predict(self, images):
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


def test_leukemia_is_the_positive_class():
    found = TRUTH.copy()
    found[1] = 1, 0  # one leukemia missed
    scores = task.score(Fixed(found), DATA)
    assert (scores["recall"], scores["specificity"], scores["precision"]) == (0.9, 1, 1)


def test_sets_of_more_classes_are_scored_too():
    data = dataset([0, 1, 2, 3] * 3, classes=("benign", "early", "pre", "pro"))
    assert task.score(Fixed(np.eye(4)[list(data.labels)]), data)["auc"] == 1


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


def test_one_class_alone_is_refused():
    data = dataset([1, 1, 1])
    with pytest.raises(DataError, match="healthy: 0, leukemia: 3.*larger `split.val`"):
        task.score(Fixed(np.eye(2)[[1, 1, 1]]), data)


@pytest.mark.parametrize("change", [{"labels": ()}, {"masks": (np.zeros((4, 4)),)}])
def test_other_data_is_refused(change):
    with pytest.raises(DataError, match="one class each"):
        task.score(Fixed(TRUTH), replace(DATA, **change))
