"""Any hemaml model as an MLflow pyfunc model from code: images in, probabilities out.

MLflow runs this file to load the model; the weights are safetensors and JSON, so it loads with
pickle denied, in a process that knows nothing of how the model was trained.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow import pyfunc
from mlflow.models import Model, ModelSignature, set_model
from mlflow.pyfunc.model import PythonModel
from mlflow.types.schema import Schema, TensorSpec

from hemaml.core.objective import load_objective
from hemaml.core.types import UInt8Array
from hemaml.tracking.mlflow_tracker import WEIGHTS, MlflowTracker, store_errors

# It reports each check of the example.
logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)

AMBIENT = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID")


class ServingModel(PythonModel):
    """A fitted model behind MLflow's `predict`."""

    def load_context(self, context: Any) -> None:
        """Loads the weights of the objective that the model's configuration names."""
        objective = load_objective(context.model_config["objective"])
        self.model = objective.model.load(Path(context.artifacts[WEIGHTS]))

    # MLflow reads the hint as a schema; of all hints, only the bare array means "see signature".
    def predict(
        self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """Class probabilities of images.

        Args:
            context: Given by MLflow.
            model_input: N x H x W x 3, uint8 (any integer type is taken).
            params: Unused.

        Returns:
            N x H x W x C probabilities for a segmenter, N x C for a classifier.
        """
        images: list[UInt8Array] = [np.asarray(image, dtype=np.uint8) for image in model_input]
        return np.stack(self.model.predict(images))


def log_model(
    tracker: MlflowTracker, run_id: str, objective: str, weights: Path, image: UInt8Array
) -> str:
    """Logs fitted weights as the run's model; returns its URI.

    The requirements are given, since inferring them costs seconds in a child process.

    Args:
        tracker: The store that has the run.
        run_id: The run.
        objective: Name of the objective that loads the weights.
        weights: Folder that `Model.save` wrote.
        image: H x W x 3, uint8; an example input, from the data set.
    """
    model = load_objective(objective).model.load(weights)
    example = image[None]
    (predicted,) = model.predict([image])
    any_size = [-1] * (predicted.ndim - 1)
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype("uint8"), (-1, -1, -1, 3))]),
        Schema([TensorSpec(np.dtype("float32"), (-1, *any_size, predicted.shape[-1]))]),
    )
    packages = ("mlflow", "numpy", "safetensors", "torch", "torch-geometric")
    with store_errors(tracker.uri), _ambient(tracker):
        info = Model.log(
            artifact_path=None,
            name="model",
            flavor=pyfunc,
            run_id=run_id,
            python_model=str(Path(__file__)),
            artifacts={WEIGHTS: str(weights)},
            model_config={"objective": objective},
            signature=signature,
            input_example=example,
            pip_requirements=[f"hemaml=={version('hemaml')}"]
            + [f"{name}=={version(name).partition('+')[0]}" for name in packages],
        )
    uri: str = info.model_uri
    return uri


@contextmanager
def _ambient(tracker: MlflowTracker) -> Iterator[None]:
    """Points MLflow's global state at a store: logging a model offers no other way."""
    before = {name: os.environ.get(name) for name in AMBIENT}
    mlflow.set_tracking_uri(tracker.uri)
    mlflow.set_experiment(experiment_id=tracker.experiment_id)
    try:
        yield
    finally:  # MLflow writes its state into the environment, which is our setting
        mlflow.set_tracking_uri(before["MLFLOW_TRACKING_URI"])  # type: ignore[arg-type]
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({name: value} if value is not None else {})


set_model(ServingModel())
