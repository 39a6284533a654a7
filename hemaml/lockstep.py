"""The fits of several folds, a step of each at a time, and what their steps say together."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from hemaml.core.errors import Diverged
from hemaml.core.objective import Step

Turns = Iterator[tuple[list[Step], bool]]
"""The latest step of each fit as long as one goes on, and whether all still do."""


def lockstep(fits: Sequence[Iterator[Step]], *, resumed: bool) -> Turns:
    """The latest step of every fit as long as one goes on, and whether all still do.

    A fit that ended keeps its last step. Fits that go on from their last step yield nothing.
    """
    firsts = [next(fit, None) for fit in fits]
    if resumed and not any(firsts):
        return
    latest: list[Step] = [step for step in firsts if step]
    if len(latest) < len(fits):
        raise Diverged("a fit must validate at least once, but one ended without a step.")
    moved = [True] * len(fits)
    while any(moved):
        yield list(latest), all(moved)
        for i, fit in enumerate(fits):
            step = next(fit, None) if moved[i] else None
            moved[i] = step is not None
            latest[i] = step or latest[i]


def index_of(steps: Sequence[Step]) -> int:
    """The latest validation of any fold."""
    return max(step.index for step in steps)


def scores_of(metrics: Mapping[str, float]) -> dict[str, float]:
    """The task's scores among a step's metrics."""
    return {name: value for name, value in metrics.items() if not is_curve(name)}


def curves_of(metrics: Mapping[str, float]) -> dict[str, float]:
    """A step's metrics under the names of their curves."""
    return {name if is_curve(name) else f"val/{name}": v for name, v in metrics.items()}


def mean_of(steps: Sequence[Step]) -> dict[str, float]:
    """Each metric's mean over the folds."""
    names = steps[0].metrics
    return {name: fmean(step.metrics[name] for step in steps) for name in names}


def is_curve(name: str) -> bool:
    """Whether a metric is one of many steps, not of a run's summary."""
    return name.startswith(("val/", "train/", "time/", "params/"))
