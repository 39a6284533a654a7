"""What all trials of a sweep share: the plan, and the tools that each process opens for itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from hemaml.core.cache import Cache
from hemaml.core.dataset import Dataset
from hemaml.core.documents import canonical_json
from hemaml.core.errors import ConfigError
from hemaml.core.experiment import Plan
from hemaml.core.search import Assigned
from hemaml.core.seeding import derive_seed
from hemaml.core.task import Fold, Outer
from hemaml.core.tracker import Tracker, TrackerFactory
from hemaml.core.types import Point

Kind = Literal["trial", "run", "confirm", "split"]
OPENED = ("tracker", "cache", "data", "folds", "device")
"""What a job opens or reads once, whatever it trains."""
READ = ("data", "folds")


@dataclass(frozen=True)
class Job:
    """What all trials of a sweep share. Travels to each worker once; opens its tools there.

    Attributes:
        plan: The experiment and its space.
        open_tracker: Makes the tracker in the process that uses it.
        scratch: Folder for checkpoints and best models of unfinished trials.
        cache_folder: Of the content-addressed cache, or None to work without.
        kind: What its runs are; a tag.
        parent: Run above its runs.
        sweep: Id of the sweep; a tag.
        outer: For a paper's protocol: number of splits (None for the usual) and their seed; a
            trial's number is the index of its split.
        keep_model: Whether a finished run gets its model as an artifact.
        carries_data: Whether a data set that is in memory travels along, with its folds, once it
            has been read; one that is decoded when asked for is looked up again, since paths
            differ between machines.
    """

    plan: Plan
    open_tracker: TrackerFactory
    scratch: Path
    cache_folder: Path | None
    kind: Kind = "trial"
    parent: str | None = None
    sweep: str = ""
    outer: tuple[int | None, int] | None = None
    keep_model: bool = False
    carries_data: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        state = {f.name: getattr(self, f.name) for f in fields(self)}  # opened tools stay here
        if self.carries_data and "data" in self.__dict__ and self.data.is_in_memory:
            state |= {name: self.__dict__[name] for name in READ if name in self.__dict__}
        return state

    def but(self, **changes: Any) -> "Job":
        """A job that differs, of the same plan: what this one has opened and read goes along."""
        assert "plan" not in changes
        splits = [] if "outer" in changes else ["outer_splits"]
        return self._passing_on([*OPENED, *splits], changes)

    def at(self, point: Point) -> "Job":
        """The job of one point, which may name another objective of the task: same data, folds."""
        plan = self.plan.at(point)
        if plan is self.plan:
            return self
        for name in OPENED:
            getattr(self, name)  # here, once for all points
        return self._passing_on([*OPENED, "outer_splits"], {"plan": plan})

    def _passing_on(self, kept: Sequence[str], changes: Mapping[str, Any]) -> "Job":
        other = replace(self, **changes)
        for name in kept:
            if name in self.__dict__:
                other.__dict__[name] = self.__dict__[name]
        return other

    @cached_property
    def tracker(self) -> Tracker:
        """The tracker of this process."""
        return self.open_tracker()

    @cached_property
    def cache(self) -> Cache:
        """The cache of this process."""
        return Cache(self.cache_folder)

    @cached_property
    def data(self) -> Dataset:
        """The whole data set, read once a process."""
        return self.plan.objective.task.read(self.plan.experiment.data)

    @cached_property
    def folds(self) -> tuple[Fold, ...]:
        """The folds of a sweep, without the held-out part."""
        task = self.plan.objective.task
        return task.folds(task.held_out(self.data)[0], self.plan.experiment.split)

    @property
    def is_population(self) -> bool:
        """Whether its runs may go on from each other's states."""
        return self.kind == "trial" and self.plan.experiment.sweep.is_population

    def folds_of(self, assigned: Assigned) -> tuple[Fold, ...]:
        """What a trial may see: the sweep's folds, or the outer split of its number."""
        return self.folds if self.outer is None else (self.outer_split(assigned.number).fold,)

    def outer_split(self, index: int) -> Outer:
        """One outer split of the paper's protocol, test part included."""
        return self.outer_splits[index]

    @cached_property
    def outer_splits(self) -> tuple[Outer, ...]:
        """All outer splits of the paper's protocol."""
        assert self.outer is not None
        split = self.plan.experiment.split
        return tuple(self.plan.objective.task.outer(self.data, split, *self.outer))

    @cached_property
    def device(self) -> str:
        """The torch device. Raises `ConfigError` where a GPU is asked for and absent."""
        return resolve_device(self.plan.experiment.device)

    def seed_of(self, assigned: Assigned) -> int:
        """The seed of a trial: the same for the same point, whatever its number or worker."""
        if assigned.seed is not None:
            return assigned.seed
        return derive_seed(self.plan.experiment.seed, "trial", canonical_json(assigned.point))


def resolve_device(wanted: str) -> str:
    """`auto`, `cpu` or `cuda` to a torch device.

    Raises:
        ConfigError: `cuda` without a GPU that torch can use.
    """
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "`device: cuda` needs a GPU that torch can use, but there is none. "
            "Use `device: cpu`, or check the driver with nvidia-smi."
        )
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted
