"""Any hemaml model as an MLflow pyfunc model from code: images in, probabilities out.

A copy of this file lies in each logged model, and MLflow runs it to load the model. The weights are
safetensors and JSON, so it loads with pickle denied, in a process that knows nothing of how the
model was trained.
"""

from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from hemaml.core.objective import load_objective
from hemaml.core.types import Float32Array
from hemaml.tracking.mlflow_tracker import WEIGHTS
from hemaml.tracking.serving_input import read_images


class ServingModel(PythonModel):
    """A fitted model behind MLflow's `predict`."""

    def load_context(self, context: Any) -> None:
        """Loads the weights of the objective that the model's configuration names."""
        objective = load_objective(context.model_config["objective"])
        self.model = objective.model.load(Path(context.artifacts[WEIGHTS]))
        self.turn = Lock()

    # MLflow reads the hint as a schema; of all hints, only the bare array means "see signature".
    def predict(
        self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> list[Float32Array]:
        """Class probabilities of images.

        Args:
            context: Given by MLflow.
            model_input: Images as arrays, as base64 text or as paths; see `read_images`.
            params: Unused.

        Returns:
            One array an image: C probabilities, or H x W x C of a segmenter.

        Raises:
            DataError: An item is no image.
        """
        images = read_images(model_input)
        with self.turn:  # MLflow's server answers each request in a thread of its own
            return self.model.predict(images) if images else []


set_model(ServingModel())
