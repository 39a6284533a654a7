"""A run that is being written to MLflow, and what any fault of the store becomes."""

import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mlflow.entities import Dataset as MlflowDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from hemaml.core.dataset import Dataset
from hemaml.core.errors import StoreError
from hemaml.core.tracker import Status
from hemaml.tracking.credentials import refusal
from hemaml.tracking.outages import note_silence

FLUSH_S = 5.0
"""Seconds that metrics may wait: a batch costs about as much as a single value."""
FLUSH_COUNT = 900
"""MLflow takes at most 1000 metrics a batch."""
NOT_IN_NAMES = re.compile(r"[^\w.\- :/]")
"""What MLflow takes in no name of a metric."""
PARAM_CHARS = 6000
"""MLflow cuts longer values with only a warning."""
UNKNOWN = "RESOURCE_DOES_NOT_EXIST"
"""MLflow's code for a run, a model or an alias that it has not."""
CONFLICT = "BAD_REQUEST"
"""Its code for a row that its database has already."""


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turns any failure of the store into a `StoreError` that names it.

    Raises:
        Forbidden: A server does not allow it to this user.
        StoreError: It does not know who asks, or anything else is wrong.
    """
    try:
        yield
    # ImportError: the database's driver is not installed.
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        if refused := refusal(without_secret(uri), error):
            raise refused from error
        note_silence(error)
        cause = without_secret(str(error).partition("\n")[0])
        if getattr(error, "error_code", "") == UNKNOWN:
            raise StoreError(
                f"the MLflow store must have what is asked for, but {without_secret(uri)} says: "
                f"{cause.rstrip('.')}. Correct the name or id; `hemaml ui` shows what there is."
            ) from error
        raise StoreError(
            f"the MLflow store must take reads and writes, but {without_secret(uri)} gave: "
            f"{cause}. Check the server or the disk; a sweep then goes on with --resume."
        ) from error


def write_shared(write: Callable[[], None]) -> None:
    """Writes what several processes may bring at once: a data set, an experiment's tag, an alias.

    MLflow looks whether it is there, then adds it. Of two that add it at the same moment, the
    database refuses one, which finds it at its second look.
    """
    try:
        write()
    except MlflowException as error:
        if error.error_code != CONFLICT:
            raise
        write()


def without_secret(text: str) -> str:
    """The text with user names and passwords taken out of its URLs."""
    return re.sub(r"://[^/@\s]+@", "://", text)


class MlflowRun:
    """One run being written; see `hemaml.core.tracker.Run`."""

    def __init__(self, client: MlflowClient, uri: str, run_id: str) -> None:
        self._client = client
        self._uri = uri
        self._id = run_id
        self._held: list[Metric] = []
        self._flushed = time.monotonic()

    @property
    def id(self) -> str:
        """MLflow's run id."""
        return self._id

    def log_params(self, values: Mapping[str, object]) -> None:
        """Logs parameters; equal values may be logged again, others raise."""
        params = []
        for name, value in values.items():
            if len(str(value)) > PARAM_CHARS:
                raise StoreError(
                    f"a parameter must have at most {PARAM_CHARS} characters, but {name!r} has "
                    f"{len(str(value))}."
                )
            params.append(Param(name, str(value)))
        with store_errors(self._uri):
            for start in range(0, len(params), 100):
                self._client.log_batch(self._id, params=params[start : start + 100])

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Holds metrics back until some seconds have passed or the batch is full.

        What MLflow takes in no name, such as brackets in that of a class, becomes an underscore.
        """
        now = int(time.time() * 1000)
        self._held += [
            Metric(NOT_IN_NAMES.sub("_", name), float(v), now, step) for name, v in values.items()
        ]
        if len(self._held) > FLUSH_COUNT or time.monotonic() - self._flushed > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Sends what is held back."""
        with store_errors(self._uri):
            while self._held:
                self._client.log_batch(self._id, metrics=self._held[:FLUSH_COUNT])
                del self._held[:FLUSH_COUNT]
        self._flushed = time.monotonic()

    def set_tags(self, values: Mapping[str, object]) -> None:
        """Sets tags, at most 100."""
        with store_errors(self._uri):
            self._client.log_batch(self._id, tags=[RunTag(k, str(v)) for k, v in values.items()])

    def log_text(self, text: str, path: str) -> None:
        """Stores a text file."""
        self.log_bytes(text.encode(), path)

    def log_bytes(self, content: bytes, path: str) -> None:
        """Stores a file."""
        with tempfile.TemporaryDirectory() as folder, store_errors(self._uri):
            file = Path(folder) / Path(path).name
            file.write_bytes(content)
            parent = str(Path(path).parent)
            self._client.log_artifact(self._id, str(file), None if parent == "." else parent)

    def log_folder(self, folder: Path, path: str) -> None:
        """Stores all files of a folder below `path`."""
        with store_errors(self._uri):
            self._client.log_artifacts(self._id, str(folder), path)

    def log_dataset(self, data: Dataset, context: str) -> None:
        """Records the data set as an input, with its digest (MLflow keeps 36 characters)."""
        profile = json.dumps({"num_images": len(data), "num_groups": len(set(data.groups))})
        schema = json.dumps({"classes": list(data.classes)})
        source = json.dumps({"source": data.source})
        entity = MlflowDataset(data.name, data.digest, "local", source, schema, profile)
        inputs = [DatasetInput(entity, [InputTag("mlflow.data.context", context)])]
        with store_errors(self._uri):
            write_shared(lambda: self._client.log_inputs(self._id, inputs))

    def end(self, status: Status) -> None:
        """Sends what is held back and ends the run."""
        self.flush()
        with store_errors(self._uri):
            self._client.set_terminated(self._id, status)
