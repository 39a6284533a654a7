"""What a task fixes for all of its objectives: data, splits, score and the metric that decides."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hemaml.core.comparison import Comparison
from hemaml.core.dataset import Dataset
from hemaml.core.types import Float64Array

if TYPE_CHECKING:
    from hemaml.core.objective import Predictor
    from hemaml.core.sweep import Split

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True, slots=True)
class Fold:
    """What `fit` may see. There is no test part here, so `fit` cannot leak it.

    Attributes:
        train: Labelled images to learn from.
        val: Labelled images that steer the search (best step, pruning, comparison of trials).
        unlabelled: Items without their targets, for transductive protocols, and for models that
            are given more of an item than its image; labels are never passed.
    """

    train: Dataset
    val: Dataset
    unlabelled: Dataset | None = None


@dataclass(frozen=True, slots=True)
class Outer:
    """One outer split of a paper's protocol: what may be used, and the part scored once."""

    fold: Fold
    test: Dataset


@dataclass(frozen=True, slots=True)
class Task:
    """The protocol that all objectives of a task share.

    Attributes:
        name: `wbc_segmentation`; folder name of its objectives, name of its MLflow experiment.
        primary: The metric that decides; a key of what `score` returns.
        direction: Whether more of `primary` is better.
        read: The `data:` section of an experiment to a data set. Raises `DataError`.
        held_out: A data set to (rest, held-out part). Depends on the data alone, never on the
            experiment, so that all architectures are promoted on the same items.
        folds: The rest and the `split:` section to the folds that a sweep sees.
        outer: Whole data set, the `split:` section, number of splits (None for the usual) and seed
            to the outer splits of the paper, without an official test part.
        score: A model and a data set to metrics by name, all finite, or NaN where undefined.
        compare: Candidate, champion, a data set and the name of a metric to what is known of their
            difference; each model predicts once. Raises `UnknownName` where `score` has no such
            metric.
        by_class: A model and a data set to one score of each class, by the class's name; NaN where
            undefined.
        by_group: A model and a data set to one score of each group (patient, case or slide), by
            its name, sorted; empty where the data names no groups.
        figures: Names of the modules in `hemaml.explain` that picture a model of this task.
        minimized: Scores of which less is better.
        usual_data: Name of the data set whose models are registered under the task's own name.
        intervals: A model and a data set to the 95 % interval (low, high) of each metric, NaN
            where undefined; None for a task without.
        resampled: A model and a data set of N images to a function of N x R weights, how often each
            image is in a set, that gives R values of each metric; None for a task without.
    """

    name: str
    primary: str
    direction: Direction
    read: Callable[[Mapping[str, object]], Dataset]
    held_out: Callable[[Dataset], tuple[Dataset, Dataset]]
    folds: Callable[[Dataset, "Split"], tuple[Fold, ...]]
    outer: Callable[[Dataset, "Split", int | None, int], Iterator[Outer]]
    score: Callable[["Predictor", Dataset], dict[str, float]]
    compare: Callable[["Predictor", "Predictor", Dataset, str], Comparison]
    by_class: Callable[["Predictor", Dataset], dict[str, float]]
    by_group: Callable[["Predictor", Dataset], dict[str, float]]
    figures: tuple[str, ...] = ()
    minimized: frozenset[str] = frozenset()
    usual_data: str = ""
    intervals: Callable[["Predictor", Dataset], dict[str, tuple[float, float]]] | None = None
    resampled: (
        Callable[["Predictor", Dataset], Callable[[Float64Array], Mapping[str, Float64Array]]]
        | None
    ) = None
