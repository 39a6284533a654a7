"""What hemaml needs of a tracking store, as protocols; `hemaml.tracking` implements them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from hemaml.core.dataset import Dataset

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True, slots=True)
class Record:
    """A run as the store has it; metrics are the last values."""

    id: str
    name: str
    status: Status
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    start_ms: int = 0
    end_ms: int = 0


REGISTERED = "models:/"
"""How URIs of registered models begin."""
RUN = "runs:/"
"""How the URI of the model of a run begins; its id follows."""


def is_registered(value: object) -> bool:
    """Whether a parameter's value is the URI of a registered model."""
    return isinstance(value, str) and value.startswith(REGISTERED)


def is_recorded(value: object) -> bool:
    """Whether a parameter's value is the URI of a registered model, or of that of a run."""
    return isinstance(value, str) and value.startswith((REGISTERED, RUN))


class Run(Protocol):
    """A run that is being written, by one process at a time.

    Metrics may be held back for some seconds and go out in one batch; `flush` and `end` send them,
    and a checkpoint must not be written before `flush`. All methods raise `StoreError` when the
    store does not take the value.
    """

    @property
    def id(self) -> str:
        """The store's id of the run."""

    def log_params(self, values: Mapping[str, object]) -> None:
        """Logs parameters once; the same value again is allowed."""

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Logs metrics of one step, perhaps a little later."""

    def set_tags(self, values: Mapping[str, object]) -> None:
        """Sets or replaces tags."""

    def log_text(self, text: str, path: str) -> None:
        """Stores a text file at `path`."""

    def log_bytes(self, content: bytes, path: str) -> None:
        """Stores a file at `path`."""

    def log_folder(self, folder: Path, path: str) -> None:
        """Stores a folder's files below `path`."""

    def log_dataset(self, data: Dataset, context: str) -> None:
        """Records a data set, by digest, as an input with a context such as `train`."""

    def flush(self) -> None:
        """Sends what is held back."""

    def end(self, status: Status) -> None:
        """Sends what is held back and sets the final status."""


class Tracker(Protocol):
    """A store of runs, bound to one task. Safe to use from many processes, one instance each."""

    def start(self, name: str, tags: Mapping[str, object], parent: str | None = None) -> Run:
        """Opens a run, below `parent` if given."""

    def reopen(self, run_id: str) -> Run:
        """Goes on with a run, whatever its status."""

    def amend(self, run_id: str) -> Run:
        """Adds to a run, whether or not it has ended; its status stays, and when it ended."""

    def get(self, run_id: str) -> Record:
        """The run as stored."""

    def find(
        self, tags: Mapping[str, str], *, parent: str | None = None, limit: int | None = None
    ) -> list[Record]:
        """The runs that have all these tags, oldest first: every one, or the first `limit`."""

    def last_step(self, run_id: str, metric: str) -> int:
        """The largest step logged of a metric, or -1."""

    def read_text(self, run_id: str, path: str) -> str:
        """A text artifact."""

    def model_weights(self, uri: str) -> Path:
        """Folder of the weights of a registered model, or of that of a run, copied here once."""

    def objective_of(self, uri: str) -> str:
        """Name of the objective whose model that is."""

    def trained_on(self, uri: str) -> frozenset[str]:
        """Digests of the images that such a model, and those it began from, learned from."""

    def download(self, run_id: str, path: str, folder: Path) -> Path:
        """Copies an artifact into `folder`; returns where it is."""


TrackerFactory = Callable[[], Tracker]
"""Opens a tracker in the process that uses it; picklable."""
