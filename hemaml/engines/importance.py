"""How much each searched parameter explains of the score, and how sure that is.

Optuna's importance imports scikit-learn, a second that no sweep waits for before its first trial.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import optuna
from optuna.trial import FixedTrial, FrozenTrial, create_trial

from hemaml.core.space import Space
from hemaml.core.types import Float64Array, Point

if TYPE_CHECKING:
    from optuna.importance import PedAnovaImportanceEvaluator

optuna.logging.set_verbosity(optuna.logging.ERROR)  # each study made here would be told

FEWEST = 4
"""Trials below which importance is noise."""
MOST = 400
"""Trials that are used; of more, so many spread evenly over the ranks."""
RESAMPLES = 40
BEST = 5
"""Optuna asks for so many trials above the quantile."""


@dataclass(frozen=True, slots=True)
class Importance:
    """The share of one parameter; the shares of all add up to 1.

    Attributes:
        share: Of all trials.
        low: Lower end of the 95 % interval, over trials drawn again with replacement.
        high: Upper end of that interval.
    """

    share: float
    low: float
    high: float


def importances(
    points: Sequence[Point],
    values: Float64Array,
    space: Space,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Importance]:
    """What made the best trials the best: PED-ANOVA, Optuna's default; see `evaluator`.

    Source: Watanabe, Bansal, Hutter: PED-ANOVA, IJCAI 2023; parameters that not every trial has
    are weighed as Optuna 5 does.

    Args:
        points: One a trial.
        values: T scores, more is better.
        space: What was searched.
        resamples: Bootstrap resamples; 0 leaves each interval a point.
        seed: Of the resamples.

    Returns:
        Parameter to importance; empty where there is nothing to explain.
    """
    if len(points) < FEWEST or np.ptp(values) == 0:
        return {}
    order = np.argsort(values)
    if len(order) > MOST:
        order = order[np.linspace(0, len(order) - 1, MOST).astype(int)]
    trials = [_trial(points[i], float(values[i]), space) for i in order]
    shares = _shares(trials)
    rng = np.random.default_rng(seed)
    drawn = [
        _shares([trials[i] for i in rng.integers(0, len(trials), len(trials))])
        for _ in range(resamples)
    ]
    found = {name: [d[name] for d in drawn if name in d] or [share] for name, share in
             shares.items()}  # fmt: skip
    return {
        name: Importance(share, *(float(np.quantile(found[name], q)) for q in (0.025, 0.975)))
        for name, share in shares.items()
    }


def _trial(point: Point, value: float, space: Space) -> FrozenTrial:
    """A finished trial; sampled through the space, which knows the distributions."""
    asked = FixedTrial(dict(point))
    space.suggest(asked)
    return create_trial(params=asked.params, distributions=asked.distributions, value=value)


def _shares(trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """Shares of one set of trials; empty where all score alike."""
    if len({trial.value for trial in trials}) < 2:
        return {}
    from optuna.importance import get_param_importances

    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    with warnings.catch_warnings():
        # Of a resample whose best are all of it: its shares are equal, as they should be.
        warnings.filterwarnings("ignore", "Target and region quantiles select the same set")
        shares: dict[str, float] = get_param_importances(study, evaluator=evaluator(len(trials)))
    return shares


def evaluator(num_trials: int) -> "PedAnovaImportanceEvaluator":
    """PED-ANOVA for the best tenth, or the best five where a tenth is fewer, half at most."""
    from optuna.importance import PedAnovaImportanceEvaluator

    return PedAnovaImportanceEvaluator(target_quantile=min(0.5, max(0.1, BEST / num_trials)))
