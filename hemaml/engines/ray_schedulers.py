"""Ray's schedulers under the names that experiments give to pruners."""

from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from hemaml.core.search import Study
from hemaml.core.space import Space
from hemaml.core.sweep import Sweep

MOST_STEPS = 10**6
"""An objective ends by itself; Ray's schedulers want a number all the same."""
BRACKETS = 3


def scheduler_of(sweep: Sweep, space: Space, study: Study) -> TrialScheduler:
    """The scheduler that stops trials early, or lets them go on from others, by their reports.

    `hyperband` is the asynchronous one: nothing waits for a bracket to fill, and no trial is
    paused, as in Optuna's pruner of that name.
    """
    if sweep.pruner == "none" or len(study.directions) > 1:
        return FIFOScheduler()
    mode = {"maximize": "max", "minimize": "min"}[study.directions[0]]
    told = {"time_attr": "step", "metric": "value", "mode": mode}
    match sweep.pruner:
        case "median":
            return MedianStoppingRule(**told, grace_period=1)
        case "asha":
            return AsyncHyperBandScheduler(**told, max_t=MOST_STEPS)
        case "hyperband":
            return AsyncHyperBandScheduler(**told, max_t=MOST_STEPS, brackets=BRACKETS)
        case "pbt" | "pb2":
            from hemaml.engines.ray_population import Pb2, Pbt  # scikit-learn is slow to import

            kind = Pbt if sweep.pruner == "pbt" else Pb2
            return kind(space, **told, perturbation_interval=sweep.exploit_every)
