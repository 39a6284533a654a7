"""Populations: trials that are trained at once, the worse of which go on from the better ones.

Ray's schedulers decide who goes on from whom, and with which values: PBT (Jaderberg et al., 2017,
section 3) moves them at random, PB2 (Parker-Holder et al., 2020, section 4) by a model of what the
latest steps have gained. Left to itself Ray would save, stop and restore trials; ours keep
checkpoints of their own, so a trial is told at its report and goes on in its worker.
"""

import math
import random
import warnings
from collections.abc import Mapping
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining
from ray.tune.schedulers.pb2 import PB2
from ray.tune.schedulers.pbt import _PBTTrialState

from hemaml.core.search import Exploit
from hemaml.core.space import FloatRange, Space
from hemaml.core.types import Point

Ranges = Mapping[str, FloatRange]


class _InPlace:
    """What becomes of a scheduler's decision: a word to the trial.

    A trial that cannot follow, since the other has just ended, does not tell. That happens at the
    end of a population, where few decisions are left.
    """

    takes_logs = False
    ranges: Ranges
    _trial_state: dict[Trial, _PBTTrialState]

    def coordinate(self, name: str, value: Any) -> float:
        """A parameter as the scheduler moves it."""
        return math.log(value) if self._is_log(name) else float(value)

    def value(self, name: str, coordinate: float) -> float:
        """The parameter that a coordinate stands for, within its range."""
        number = math.exp(coordinate) if self._is_log(name) else float(coordinate)
        return min(max(number, self.ranges[name].low), self.ranges[name].high)

    def _is_log(self, name: str) -> bool:
        return self.takes_logs and self.ranges[name].log

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Takes a trial; Ray's own would refuse every searcher, as most never hear of changes."""
        self._trial_state[trial] = _PBTTrialState(trial)
        self._place(trial, trial.config["assigned"].point)

    def _place(self, trial: Trial, point: Point) -> None:
        trial.config.update({name: self.coordinate(name, point[name]) for name in self.ranges})

    def _checkpoint_or_exploit(
        self, trial: Trial, tune_controller: Any, upper: list[Trial], lower: list[Trial]
    ) -> None:
        if trial not in lower:
            return
        donor = random.choice(upper)
        moved, _ = self._get_new_config(trial, donor)  # type: ignore[attr-defined]
        point: Point = {name: self.value(name, moved[name]) for name in self.ranges}
        self._place(trial, point)
        exploit = Exploit(donor.config["assigned"].number, point)
        trial.temporary_state.ray_actor.answer.remote(exploit)  # is done before it goes on


class Pbt(_InPlace, PopulationBasedTraining):  # type: ignore[misc]
    """Values of the better trial times 1.2 or .8, or, one time in four, drawn anew.

    Args:
        space: Ranges of floats.
        told: As Ray's scheduler takes it.
    """

    def __init__(self, space: Space, **told: Any) -> None:
        self.ranges = _ranges(space)
        drawn = {
            name: (tune.loguniform if kind.log else tune.uniform)(kind.low, kind.high)
            for name, kind in self.ranges.items()
        }
        super().__init__(hyperparam_mutations=drawn, **told)


class Pb2(_InPlace, PB2):  # type: ignore[misc]
    """Values that a Gaussian process promises the largest gain of; on log scale where they are.

    Args:
        space: Ranges of floats.
        told: As Ray's scheduler takes it.
    """

    takes_logs = True

    def __init__(self, space: Space, **told: Any) -> None:
        self.ranges = _ranges(space)
        bounds = {
            name: [self.coordinate(name, end) for end in kind.extremes]
            for name, kind in self.ranges.items()
        }
        super().__init__(hyperparam_bounds=bounds, **told)

    def _get_new_config(self, *trials: Trial) -> Any:
        with warnings.catch_warnings():
            # Of Ray's use of SciPy, and of length scales that few points do not determine.
            warnings.simplefilter("ignore")
            return super()._get_new_config(*trials)


def _ranges(space: Space) -> Ranges:
    return {name: kind for name, kind in space.root.items() if isinstance(kind, FloatRange)}
