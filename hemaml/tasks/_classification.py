"""What the tasks that classify whole images share: scores, comparison, protocol, figures."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from hemaml.core.comparison import Comparison
from hemaml.core.dataset import Dataset
from hemaml.core.errors import DataError, UnknownName
from hemaml.core.objective import Model, Predictor
from hemaml.core.predictions import predictions
from hemaml.core.task import Fold, Outer, Task
from hemaml.core.types import Float32Array, UInt8Array
from hemaml.data import splits
from hemaml.data.reading import read_dataset
from hemaml.ops.classification_scores import (
    MINIMIZED,
    SCORES,
    bootstrap_intervals,
    checked_outcome,
    classification_scores,
    score_of_resamples,
    set_scores,
)
from hemaml.ops.delong import compare_auc
from hemaml.ops.paired import compare_correct
from hemaml.ops.paired_bootstrap import compare_resampled, undefined
from hemaml.ops.resampling import Interval, SetScores

if TYPE_CHECKING:
    from torch import Tensor

    from hemaml.core.sweep import Split
    from hemaml.nn.classifier import ImageClassifier

HELD_OUT_SEED = 0


class Classifier(Model, Protocol):
    """A fitted model of a classification task.

    `predict` gives C probabilities an image. `embed` shows how the model sees images: one array of
    N x d a stage, by the stage's name, in the order in which an image passes through them
    (`features` of an SVM; `backbone`, then `graph`). A stage may have its own d.
    """

    def embed(self, images: Sequence[UInt8Array]) -> Mapping[str, Float32Array]:
        """N x d features of the images by name of the stage, first to last."""

    def predict_and_embed(
        self, images: Sequence[UInt8Array]
    ) -> tuple[list[Float32Array], Float32Array]:
        """What `predict` gives, and N x d of the first stage that `embed` names, in one pass."""


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """An image among the k images of a model's bank that it was attached to, nearest first.

    Attributes:
        ids: k names.
        labels: k true classes.
        similarities: k cosines of the embeddings.
        weights: k edge weights in 0..1: how much each neighbour matters to the predicted class.
        thumbnails: k small images of s x s x 3, or none where the bank keeps none.
    """

    ids: Sequence[str]
    labels: Sequence[int]
    similarities: Sequence[float]
    weights: Sequence[float]
    thumbnails: Sequence[UInt8Array] = ()


class Attaching(Classifier, Protocol):
    """A classifier that looks at neighbours of an image; its objective names `neighbourhood`."""

    def neighbourhood(self, image: UInt8Array) -> Neighbourhood:
        """The neighbours of one image, whether or not it is in the bank itself."""


@dataclass(frozen=True, slots=True)
class View:
    """What a network sees of an image: all of it, or a tile, scaled to its input.

    Attributes:
        top: First row of the rectangle that it shows, in pixels of the image.
        left: First column.
        height: Rows.
        width: Columns.
        pixels: S x S x 3, the rectangle as it is scaled.
    """

    top: int
    left: int
    height: int
    width: int
    pixels: UInt8Array


class Explainable(Classifier, Protocol):
    """A classifier whose network gives maps of its images; its objective names `grad_cam`.

    `predict` gives an image the mean of the probabilities of its views, and the same views each
    time.

    Attributes:
        classes: Names of the C classes, in index order.
        network: N x 3 x S x S normalised views to N x C logits.
    """

    classes: tuple[str, ...]
    network: "ImageClassifier"

    def views(self, image: UInt8Array) -> list[View]:
        """What the network sees of an image; all views have one size."""

    def normalise(self, batch_NSSC: "Tensor") -> "Tensor":
        """N x S x S x 3 grey levels 0 to 255 to what the network takes."""


def read(section: Mapping[str, object]) -> Dataset:
    """The data set of an experiment's `data:` section.

    Raises:
        DataError: It has no images, no labels, or masks; or as for `read_dataset`.
    """
    data = read_dataset(section)
    _check_labels(data)
    return data


def predicted_probabilities(model: Predictor, data: Dataset) -> Float32Array:
    """N x C probabilities of a labelled classification set.

    Raises:
        DataError: The data has no images, no labels, or masks.
        Diverged: A probability is not finite.
    """
    _check_labels(data)
    return np.stack(predictions(model, data.images))


def score(model: Predictor, data: Dataset) -> dict[str, float]:
    """All scores of `hemaml.ops.classification_scores`; NaN where one is undefined.

    With more than two classes, `recall/<class>` of each as well.

    Args:
        model: Predicts C probabilities an image, in the order of the data's classes.
        data: Images with labels.

    Raises:
        DataError: The data has no images, no labels, or masks.
    """
    probabilities = predicted_probabilities(model, data)
    scores = classification_scores(probabilities, data.labels)
    if len(data.classes) == 2:  # recall and specificity are those of the two
        return scores
    recalls = _recalls(probabilities, data)
    return scores | {f"recall/{name}": value for name, value in recalls.items()}


def intervals(model: Predictor, data: Dataset) -> dict[str, Interval]:
    """The bootstrap 95 % interval of each score, over groups (images where there are none).

    Args:
        model: As for `score`.
        data: Images with labels.

    Raises:
        DataError: The data has no images, no labels, or masks.
    """
    probabilities = predicted_probabilities(model, data)
    return bootstrap_intervals(probabilities, data.labels, data.groups)


def resampled(model: Predictor, data: Dataset) -> SetScores:
    """All scores as a function of how often each image is in a set; the model predicts once.

    Args:
        model: As for `score`.
        data: Images with labels.

    Raises:
        DataError: The data has no images, no labels, or masks.
    """
    return set_scores(predicted_probabilities(model, data), data.labels)


def compare(candidate: Predictor, champion: Predictor, data: Dataset, metric: str) -> Comparison:
    """The candidate against the champion, by any score of `hemaml.ops.classification_scores`.

    `accuracy` by McNemar's test, `recall/<class>` by the same on the images of that class, `auc` by
    DeLong's, all others by the paired bootstrap; over groups where there are any.

    Args:
        candidate: As for `score`.
        champion: Likewise.
        data: Images with labels.
        metric: One of the scores, or `recall/<class>` where there are more than two.

    Raises:
        UnknownName: No such score.
        DataError: The data has no images, no labels, or masks.
    """
    recalls = {f"recall/{name}": c for c, name in enumerate(data.classes) if len(data.classes) > 2}
    if metric not in (known := (*SCORES, *recalls)):
        raise UnknownName("metric to compare", metric, known)
    one_NC, other_NC = (predicted_probabilities(model, data) for model in (candidate, champion))
    if metric == "auc":
        return compare_auc(one_NC, other_NC, data.labels, data.groups)
    if metric == "accuracy" or metric in recalls:
        labels_N, groups_N = np.asarray(data.labels), np.asarray(data.groups)
        own_N = np.ones(len(data), bool) if metric == "accuracy" else labels_N == recalls[metric]
        if not own_N.any():
            return undefined("McNemar test", "won less lost, share of discordant images")
        one_N, other_N = (checked_outcome(v, labels_N).correct[own_N] for v in (one_NC, other_NC))
        return compare_correct(one_N, other_N, groups_N[own_N].tolist() if data.groups else ())
    return compare_resampled(
        score_of_resamples(one_NC, data.labels, metric),
        score_of_resamples(other_NC, data.labels, metric),
        len(data),
        data.groups,
    )


def by_class(model: Predictor, data: Dataset) -> dict[str, float]:
    """The recall of each class; NaN for a class without images.

    Args:
        model: As for `score`.
        data: Images with labels.

    Raises:
        DataError: The data has no images, no labels, or masks.
    """
    return _recalls(predicted_probabilities(model, data), data)


def _recalls(probabilities_NC: Float32Array, data: Dataset) -> dict[str, float]:
    outcome = checked_outcome(probabilities_NC, data.labels)
    right = [outcome.correct[outcome.labels == c] for c in range(len(data.classes))]
    return {
        name: float(right_n.mean()) if len(right_n) else math.nan
        for name, right_n in zip(data.classes, right, strict=True)
    }


def by_group(model: Predictor, data: Dataset) -> dict[str, float]:
    """The accuracy within each group, sorted by name; empty where the data names no groups.

    Args:
        model: As for `score`.
        data: Images with labels.

    Raises:
        DataError: The data has no images, no labels, or masks.
    """
    if not data.groups:
        return {}
    outcome = checked_outcome(predicted_probabilities(model, data), data.labels)
    groups_N = np.asarray(data.groups)
    return {
        name: float(outcome.correct[groups_N == name].mean()) for name in sorted(set(data.groups))
    }


def held_out(data: Dataset) -> tuple[Dataset, Dataset]:
    """The rest and the held-out part, fixed by the data alone; see `splits.held_out`."""
    return splits.held_out(data, seed=HELD_OUT_SEED)


def folds(primary: str, data: Dataset, split: "Split") -> tuple[Fold, ...]:
    """As `splits.folds`; each validation part is one that the primary metric can be taken of.

    Raises:
        DataError: As there, or a part has one class alone and AUC decides: told before any
            training.
    """
    found = splits.folds(data, split)
    for index, fold in enumerate(found):
        _check_classes(primary, fold.val, f"the validation part of fold {index}")
    return found


def outer(
    primary: str, data: Dataset, split: "Split", num: int | None, seed: int
) -> Iterator[Outer]:
    """As `splits.outer`; each validation and test part is one that the primary metric is taken of.

    Raises:
        ConfigError: As there.
        DataError: As for `folds`.
    """
    for index, found in enumerate(splits.outer(data, split, num, seed)):
        _check_classes(primary, found.fold.val, f"the validation part of split {index}")
        _check_classes(primary, found.test, f"the test part of split {index}")
        yield found


def _decisive_score(primary: str, model: Predictor, data: Dataset) -> dict[str, float]:
    scores = score(model, data)
    _check_classes(primary, data, "this part")
    return scores


def _check_labels(data: Dataset) -> None:
    if not len(data) or len(data.labels) != len(data) or len(data.masks):
        raise DataError(
            f"This task needs images with one class each, but {data.name!r} has "
            f"{len(data)} images, {len(data.labels)} labels and {len(data.masks)} masks. "
            "Choose a reader of classification data."
        )


def _check_classes(primary: str, part: Dataset, name: str) -> None:
    if primary == "auc" and len(set(part.labels)) < 2:
        counts = Counter(part.labels)
        told = ", ".join(f"{label}: {counts[index]}" for index, label in enumerate(part.classes))
        raise DataError(
            f"the AUC needs images of two classes, but {name} of {part.name!r} has {told}. "
            "Use fewer folds, a larger `split.val`, another `split.seed` or more data."
        )


def classification_task(name: str, *, usual_data: str, primary: str = "auc") -> Task:
    """The task of a name: any labelled set of two classes or more.

    Args:
        name: Of the task.
        usual_data: As in `Task`.
        primary: The score that decides.
    """
    return Task(
        name=name,
        primary=primary,
        direction="maximize",
        read=read,
        held_out=held_out,
        folds=partial(folds, primary),
        outer=partial(outer, primary),
        score=partial(_decisive_score, primary),
        compare=compare,
        by_class=by_class,
        by_group=by_group,
        intervals=intervals,
        resampled=resampled,
        figures=("classification", "projection"),
        minimized=MINIMIZED,
        usual_data=usual_data,
    )
