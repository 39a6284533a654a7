"""What a search and a trial say to each other, whatever the engine."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from hemaml.core.types import Point

if TYPE_CHECKING:
    from hemaml.core.space import Space
    from hemaml.core.sweep import Sweep

Ending = Literal[
    "finished",  # trained to the end: its values count
    "pruned",  # the engine stopped it early
    "over_budget",  # too many parameters: never trained
    "diverged",  # a loss or score was not finite
    "out_of_memory",
    "failed",  # any other error
    "interrupted",  # killed or Ctrl-C: to be continued by `--resume`
]


class Stopped(Exception):  # noqa: N818 - no error: the engine's word to end a trial early
    """Raised inside a report when the engine wants no more of the trial."""


@dataclass(frozen=True, slots=True)
class Change:
    """Other values of mutable parameters in the middle of a training.

    Attributes:
        step: Validation after which they hold.
        point: The whole point from then on.
        donor: Trial whose state the training went on from; None: its own.
    """

    step: int
    point: Point
    donor: int | None = None


class Exploit(Exception):  # noqa: N818 - no error: the engine's word to go on otherwise
    """Raised inside a report of a population's trial: go on from another one's state.

    Args:
        donor: Number of that trial.
        point: The point to go on with.
    """

    def __init__(self, donor: int, point: Point) -> None:
        super().__init__(donor, point)
        self.donor = donor
        self.point = point


@dataclass(frozen=True, slots=True)
class Assigned:
    """One trial: its number (in the study, or among the splits of a protocol) and its point.

    `seed` replaces the one that follows from the experiment's seed and the point. `changes` are
    to be made on the way: how the winner of a population is trained again.
    """

    number: int
    point: Point
    seed: int | None = None
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended.

    Attributes:
        ending: One of the recorded endings.
        values: One value a goal, in the goals' order; empty unless finished.
        run_id: The tracked run.
        key: The trial key: equal for equal objective, data, parameters, seed and code.
        reason: For the user, where it did not finish.
        reused_from: Run whose result was taken over instead of training again.
        excess: Parameters above the budget (at most 0 is allowed), or None without a budget.
    """

    ending: Ending
    values: tuple[float, ...] = ()
    run_id: str = ""
    key: str = ""
    reason: str = ""
    reused_from: str = ""
    excess: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened in a search, for a live view.

    Attributes:
        kind: `earlier` is a trial that had ended before this search went on with the study; `lost`
            is one whose worker died and that will be continued; `confirming` says that the search
            is over and its winner is being retrained.
        number: The trial; of `confirming`, the number of seeds.
        point: Its point.
        step: Of a report.
        value: Of a report: the first goal's metric.
        outcome: Of an end, now or earlier.
    """

    kind: Literal["earlier", "started", "reported", "ended", "lost", "confirming"]
    number: int
    point: Point
    step: int = 0
    value: float | None = None
    outcome: Outcome | None = None


Report = Callable[[int, float], None]
"""Tells the engine a step's value of the first goal; raises `Stopped` to end the trial, `Exploit`
to let it go on from another one's state."""

Evaluate = Callable[[Assigned, Report], Outcome]
"""Runs one trial. Raises only what must end the whole search (`StoreError`, `ConfigError`)."""

Watch = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Study:
    """Where a search keeps its truth.

    Attributes:
        name: Unique to the sweep and its space.
        storage: A journal file or an RDB URL.
        directions: One a goal.
        seed: Of the sampler.
        warm_start: Names of earlier studies of the same space whose results the sampler learns.
    """

    name: str
    storage: str
    directions: tuple[Literal["maximize", "minimize"], ...]
    seed: int = 0
    warm_start: tuple[str, ...] = ()


class Search(Protocol):
    """Searches a space until a limit of the sweep is reached; one an engine."""

    def __call__(
        self, evaluate: Evaluate, space: "Space", sweep: "Sweep", study: Study, watch: Watch
    ) -> None:
        """See `hemaml.engines.optuna_engine.search`."""
