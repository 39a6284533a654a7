"""A registered model in memory, ready to answer and proven to predict as it did in training."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.models import Model as LoggedModel

from hemaml.core.errors import ModelError
from hemaml.core.objective import Model, Objective, load_objective
from hemaml.core.predictions import LIVE, LivePredictions
from hemaml.ops.novelty import Reference
from hemaml.tracking.logged_model import NOVELTY, live_folder, logged_part, parity_of
from hemaml.tracking.mlflow_tracker import WEIGHTS, MlflowTracker


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """A registered model in memory.

    Attributes:
        name: Of its objective.
        objective: What trained it.
        model: Loaded onto the CPU. Not thread-safe.
        classes: Names, in index order.
        segments: Whether it gives H x W x C probabilities an image, not C.
        reference: Its training images as it sees them; None where it was logged without.
    """

    name: str
    objective: Objective
    model: Model
    classes: tuple[str, ...]
    segments: bool
    reference: Reference | None


def open_registered(tracker: MlflowTracker, uri: str) -> OpenedModel:
    """Loads a registered model, of which nothing stays on the disk.

    Args:
        tracker: The store that has the model.
        uri: `models:/name/version` or `models:/name@alias`.

    Raises:
        StoreError: There is no such model.
        ModelError: It was not logged by hemaml, or predicts something else than in training.
    """
    with TemporaryDirectory() as folder:
        local = tracker.download_model(uri, Path(folder))
        weights, facts = logged_part(local, WEIGHTS), LoggedModel.load(local).metadata
        if weights is None or not facts or "objective" not in facts:
            raise ModelError(
                f"a model must have been logged by hemaml, but {uri} has no weights or objective "
                "of ours. Register one by `hemaml run` or `hemaml sweep`."
            )
        objective = load_objective(facts["objective"])
        model, live = objective.model.load(weights), live_folder(local, name=uri)
        found = parity_of(model, live)
        if not found.holds:
            raise ModelError(
                f"a model must predict as it did in training, to within {found.tolerance:g}, but "
                f"a probability of {uri} differs by {found.difference:g}. Compare the versions of "
                "packages with those that it was logged with, or train it again."
            )
        segments = LivePredictions.load(live / LIVE).values[0].ndim == 3
        known = logged_part(local, NOVELTY)
        return OpenedModel(
            name=facts["objective"],
            objective=objective,
            model=model,
            classes=tuple(facts["classes"]),
            segments=segments,
            reference=None if known is None else Reference.load(known),
        )
