"""A trainable objective: one model of one paper as a value that any engine can search."""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

from hemaml.core.cache import Cache
from hemaml.core.dataset import Dataset
from hemaml.core.errors import ConfigError, UnknownName
from hemaml.core.task import Fold, Task
from hemaml.core.types import Float32Array, Frozen, UInt8Array

State = dict[str, Any]
"""All that is needed to go on: nested dicts and lists of tensors and plain values, no classes."""


class Predictor(Protocol):
    """What a score needs of a model."""

    def predict(self, images: Sequence[UInt8Array]) -> list[Float32Array]:
        """One array an image: C probabilities, or H x W x C."""


class Model(Predictor, Protocol):
    """A fitted model. Not thread-safe; each process loads its own.

    `predict` gives one array an image, in order: class probabilities of shape C, or H x W x C for
    segmentation. `save` writes safetensors and JSON (skops for scikit-learn) into an existing
    folder, never pickle; `load` on the same class reads them back and predicts equally.
    `num_trainable` counts the parameters that training changed. One that began from weights made
    elsewhere has an `origin`: in words, which they were and what of them matched.
    """

    @property
    def num_trainable(self) -> int:
        """Parameters that training changed."""

    def save(self, folder: Path) -> None:
        """Writes the model into an existing folder."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads what `save` wrote."""


@dataclass(frozen=True, slots=True)
class Step:
    """One validation.

    Attributes:
        index: Counts validations from 0; goes on from the state after a resume.
        metrics: `task.score` on the validation part, by the score's own names, and what else the
            training knows, grouped by slash (`train/loss`, `time/epoch_s`).
        model: Live reference: it changes once the generator goes on; save what is to be kept.
        state: Makes the state from which `fit` goes on after this step; called only to checkpoint.
    """

    index: int
    metrics: Mapping[str, float]
    model: Model
    state: Callable[[], State]


def _no_files(params: Any) -> str:
    return ""


def _no_scores(model: Any, data: Dataset) -> dict[str, float]:
    return {}


def _no_registry(uri: str) -> Path:
    raise ConfigError(
        f"a recorded model needs a tracking store, but {uri!r} was asked for without one. "
        "Run the experiment by `hemaml run` or `sweep`, or give the path of a weights file."
    )


def _no_objective(uri: str) -> str:
    _no_registry(uri)
    return ""


@dataclass(frozen=True, slots=True)
class Context:
    """What a fit may use besides its data.

    Attributes:
        device: A torch device name (`cpu`, `cuda`, `cuda:1`).
        seed: Fixes initial weights, order of batches and augmentation.
        cache: For all that does not depend on the trained weights.
        state: A state of an earlier fit of the same point to go on from, or None.
        registered: Folder of the weights of a registered model (`models:/name@alias` or
            `models:/name/version`), or of that of a run (`runs:/id`). Raises `StoreError` where
            there is none.
        objective_of: Name of the objective whose model that is; raises likewise.
    """

    device: str = "cpu"
    seed: int = 0
    cache: Cache = field(default_factory=Cache.off)
    state: State | None = None
    registered: Callable[[str], Path] = _no_registry
    objective_of: Callable[[str], str] = _no_objective


@dataclass(frozen=True, slots=True)
class Objective:
    """One model of one task, ready to be trained at any point of its parameters.

    Attributes:
        task: The protocol it belongs to.
        params: Frozen pydantic class; its fields are the sweepable names, with bounds and meaning.
        model: The class of the fitted model, for loading.
        fit: Trains on a fold and yields one `Step` per validation. Raises `Diverged` when a loss
            is not finite. Knows nothing of Optuna, Ray or MLflow.
        size: Parameter count without allocating, so that budgets are checked before training.
        mutable: Parameters that may change when a trial resumes from a state.
        views: Other ways to predict with one fitted model, by name; None where a model has not that
            one. Each is scored beside it, with its name as prefix (`transductive/accuracy`); `fit`
            does so on the validation part.
        scores: What a fitted model is scored on beyond its task, such as the masks that it makes on
            the way; `fit` does so on the validation part, an evaluation on its test parts.
        untrained: A model with new weights on a device, to time it without training; None where
            an objective offers none.
        files: Digest of the files that parameters name, such as weights; part of a trial's key.
            Raises `ConfigError` where one is missing.
        figures: Names of modules in `hemaml.explain` that suit this objective's models, drawn after
            those of the task.
        examples: Points that the contract tests train, small enough for seconds.
    """

    task: Task
    params: type[Frozen]
    model: type[Model]
    fit: Callable[[Any, Fold, Context], Iterator[Step]]
    size: Callable[[Any], int]
    mutable: frozenset[str] = frozenset()
    views: Mapping[str, Callable[[Any], Predictor | None]] = field(default_factory=dict)
    scores: Callable[[Any, Dataset], dict[str, float]] = _no_scores
    untrained: Callable[[Any, str], Model] | None = None
    files: Callable[[Any], str] = _no_files
    figures: tuple[str, ...] = ()
    examples: tuple[Mapping[str, object], ...] = ({},)

    def predictors(self, model: Model) -> dict[str, Predictor]:
        """A fitted model and those of its views that it has, by the prefix of their scores."""
        views = {f"{name}/": view(model) for name, view in self.views.items()}
        return {"": model} | {prefix: seen for prefix, seen in views.items() if seen is not None}


def objective_names() -> list[str]:
    """Names of all objectives: the files below `hemaml/objectives`, as `task.model`."""
    root = Path(__file__).parents[1] / "objectives"
    files = root.glob("*/[!_]*.py")
    return sorted(f"{path.parent.name}.{path.stem}" for path in files)


def load_objective(name: str) -> Objective:
    """The objective at `hemaml/objectives/<task>/<model>.py` for the name `task.model`.

    Raises:
        UnknownName: No such file.
    """
    if name not in objective_names():
        raise UnknownName("objective", name, objective_names())
    objective = importlib.import_module(f"hemaml.objectives.{name}").objective
    assert isinstance(objective, Objective)
    return objective
