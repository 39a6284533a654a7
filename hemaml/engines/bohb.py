"""BOHB's sampler for an Optuna study: kernel densities of the better and the worse points.

Falkner, Klein and Hutter, "BOHB: Robust and Efficient Hyperparameter Optimization at Scale", 2018,
section 3.2, computed by its authors' package. Budgets are the steps of reports, which
`pruner: hyperband` gives out. The model is made of the study's own trials before each new one, so
that it outlives a resume and serves every engine; Ray's `TuneBOHB` keeps one beside the study.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import ConfigSpace
import numpy as np
from optuna import Study
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import intersection_search_space
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of a package of 2018
    from hpbandster.optimizers.config_generators.bohb import BOHB

Score = tuple[int, float | None]
"""Index of a trial, and what it scored; None where it failed."""
Distributions = dict[str, BaseDistribution]
GAVE_UP = ("Sampling based optimization", "Error")
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class BohbSampler(BaseSampler):
    """Samples by the largest budget that enough trials have reached; until then at random.

    One trial in three is drawn at random all the same. Parameters under a condition are always.

    Args:
        seed: Fixes what is drawn.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._random = RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Distributions:
        """What all trials so far have searched."""
        shared = intersection_search_space(_all(study))
        return {name: found for name, found in shared.items() if not found.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: Distributions
    ) -> dict[str, Any]:
        """One point by the model."""
        if not search_space:
            return {}
        seen = [t for t in _all(study) if search_space.keys() <= t.params.keys()]
        sign = -1 if study.direction == StudyDirection.MAXIMIZE else 1
        with _numpy_seeded(int(self._rng.integers(2**32))) as seed, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it calls ConfigSpace by names of that time
            space = ConfigSpace.ConfigurationSpace(seed=seed)
            space.add([_dimension(name, search_space[name]) for name in search_space])
            model = BOHB(space, logger=_strict_logger())
            budget, losses = _largest(seen, enough=2 * model.min_points_in_model)
            for index, (number, loss) in enumerate(losses):
                config = _encoded(seen[number].params, search_space)
                result = None if loss is None else {"loss": sign * loss}
                told = {"config": config, "budget": budget}
                model.new_result(_Job(told, result), index == len(losses) - 1)
            drawn, _ = model.get_config(budget)
        return _decoded(drawn, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, distribution: BaseDistribution
    ) -> Any:
        """At random."""
        return self._random.sample_independent(study, trial, param_name, distribution)


def _all(study: Study) -> list[FrozenTrial]:
    """The trials that have ended: of all brackets of Hyperband, which Optuna would show by one."""
    found: list[FrozenTrial] = study._storage.get_all_trials(
        study._study_id, deepcopy=False, states=ENDED
    )
    return found


def _largest(trials: Sequence[FrozenTrial], *, enough: int) -> tuple[int, list[Score]]:
    """The largest budget with enough scores, and these; failed trials count at every budget."""
    scores: dict[int, list[Score]] = {}
    failed: list[Score] = [(i, None) for i, t in enumerate(trials) if t.state == TrialState.FAIL]
    for index, trial in enumerate(trials):
        if trial.state == TrialState.FAIL:
            continue
        last = {0: trial.value} if trial.state == TrialState.COMPLETE else {}
        for step, score in (trial.intermediate_values or last).items():
            scores.setdefault(step, []).append((index, score))
    for budget in sorted(scores, reverse=True):
        if len(scores[budget]) + len(failed) >= enough:
            return budget, scores[budget] + failed
    return 0, []


class _Job(NamedTuple):
    """A result as the package takes it; without one it counts as the worst."""

    kwargs: dict[str, Any]
    result: dict[str, float] | None
    exception: None = None


def _dimension(name: str, of: BaseDistribution) -> Any:
    """A dimension as ConfigSpace has it; what it has no kind for is counted through."""
    match of:
        case FloatDistribution(step=None):
            return ConfigSpace.Float(name, (of.low, of.high), log=of.log)
        case IntDistribution(step=1):
            return ConfigSpace.Integer(name, (of.low, of.high), log=of.log)
        case FloatDistribution() | IntDistribution():
            return ConfigSpace.Integer(name, (0, round((of.high - of.low) / (of.step or 1))))
        case CategoricalDistribution():
            return ConfigSpace.Categorical(name, list(range(len(of.choices))))
    raise TypeError(type(of))


def _encoded(point: Mapping[str, Any], space: Distributions) -> dict[str, Any]:
    return {name: _code(point[name], of) for name, of in space.items()}


def _code(value: Any, of: BaseDistribution) -> Any:
    match of:
        case FloatDistribution(step=None) | IntDistribution(step=1):
            return value
        case FloatDistribution() | IntDistribution():
            return round((value - of.low) / (of.step or 1))
    return int(of.to_internal_repr(value))


def _decoded(drawn: Mapping[str, Any], space: Distributions) -> dict[str, Any]:
    return {name: _value(drawn[name], of) for name, of in space.items()}


def _value(code: Any, of: BaseDistribution) -> Any:
    match of:
        case FloatDistribution(step=None):
            return min(max(float(code), of.low), of.high)
        case IntDistribution(step=1):
            return int(code)
        case FloatDistribution() | IntDistribution():
            return of.low + int(code) * (of.step or 1)
    return of.to_external_repr(float(code))


def _strict_logger() -> logging.Logger:
    """Raises where the package would tell that its model failed, and go on at random."""

    def check(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING and str(record.msg).startswith(GAVE_UP):
            raise RuntimeError(record.getMessage())
        return False

    logger = logging.Logger("hpbandster", logging.WARNING)
    logger.addFilter(check)
    return logger


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[int]:
    """NumPy's global generator, which the package draws from, seeded for a while."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield seed
    finally:
        np.random.set_state(before)
