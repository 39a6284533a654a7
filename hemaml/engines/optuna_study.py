"""An Optuna study as a sweep asks for it: where it lives, how it samples, what it begins with."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from hemaml.core.documents import canonical_json
from hemaml.core.errors import ConfigError, StoreError
from hemaml.core.search import Study
from hemaml.core.seeding import derive_seed
from hemaml.core.space import Space
from hemaml.core.sweep import Sweep
from hemaml.core.types import Point
from hemaml.engines.journal import open_journal

TABLE_TRIES, TABLE_PAUSE_S = 20, 0.5
WARM = "warm_start"
"""User attribute of a trial that an earlier study lent."""
LENT = "lent"
"""User attribute: which trial of which study it was."""
READY = "ready"
"""User attribute of a study that has all that was lent to it."""


def open_study(storage: BaseStorage, space: Space, sweep: Sweep, study: Study) -> optuna.Study:
    """The study of this name, created where there is none; points that the sweep names wait."""
    opened = optuna.create_study(
        storage=storage,
        study_name=study.name,
        directions=list(study.directions),
        load_if_exists=True,
        pruner=_pruner(sweep),
    )
    # A sampler seeded alike would suggest after a resume what it suggested at the start.
    opened.sampler = sampler_of(sweep, derive_seed(study.seed, "sampler", len(opened.trials)))
    points = [space.coerce(point) for point in sweep.first]
    if sweep.sampler == "grid":
        points += space.grid(seed=study.seed)
    _enqueue(opened, points)
    if READY not in opened.user_attrs:
        _borrow(opened, storage, study.warm_start)
        opened.set_user_attr(READY, True)  # last: a process killed before it is made up for
    return opened


def _enqueue(study: optuna.Study, points: Sequence[Point]) -> None:
    """Lets points wait that no trial of the study's own has had; a lent one does not compete.

    Optuna's `skip_if_exists` looks at lent trials too, and takes large numbers for equal.
    """
    had = {
        canonical_json(point)
        for trial in own_trials(study)
        for point in (trial.system_attrs.get("fixed_params", {}), trial.params)
    }
    for point in points:
        if (text := canonical_json(point)) not in had:
            had.add(text)
            study.enqueue_trial(point)


def _borrow(study: optuna.Study, storage: BaseStorage, names: Sequence[str]) -> None:
    """Takes over the trials of earlier studies, each once."""
    known = optuna.get_all_study_names(storage)
    lent_before = {trial.user_attrs.get(LENT) for trial in study.trials}
    for name in names:
        if name not in known:
            raise ConfigError(f"a warm start needs an earlier study, but {name!r} does not exist.")
        lent = optuna.load_study(study_name=name, storage=storage)
        for trial in own_trials(lent, TrialState.COMPLETE, TrialState.PRUNED):
            if f"{name}#{trial.number}" not in lent_before:
                study.add_trial(_lend(trial, name))


def open_storage(location: str, *, keep: bool = False) -> BaseStorage:
    """An RDB for a URL, else a journal file, which is right for the processes of one machine.

    Args:
        location: A URL or a path.
        keep: Whether connections to a server are kept for the next call; see `closing`.
    """
    if "://" in location:
        # Without a look at a kept connection before its use, each that a restart broke would fail.
        pool = {"pool_pre_ping": True} if keep else {"poolclass": NullPool}
        connect = partial(RDBStorage, location, engine_kwargs=pool)
        try:
            for _ in range(TABLE_TRIES):
                # Of several that meet a database without tables one makes them, others are refused.
                with suppress(IntegrityError, ProgrammingError):
                    return connect()
                time.sleep(TABLE_PAUSE_S)
            return connect()
        except (ImportError, SQLAlchemyError) as error:
            # Other errors may name the URL, and with it the password.
            told = _told(error) if isinstance(error, OperationalError) else type(error).__name__
            raise StoreError(
                "the study storage must be an RDB that can be reached, with its driver "
                f"installed, but {location.rpartition('@')[2]} gave: {told}. "
                "Check HEMAML_STUDY_STORAGE, the server and the driver."
            ) from error
        except RuntimeError as error:  # Optuna's, of tables that are not of its version
            mend = "Install the Optuna that made them"
            if "storage upgrade" in str(error):
                mend = "`hemaml upgrade` makes a backup, then upgrades them"
            raise StoreError(
                "the tables of the study storage must be of the installed Optuna's version, but "
                f"{location.rpartition('@')[2]} has others. {mend}."
            ) from error
    with storage_errors(location):
        return open_journal(Path(location))


@contextmanager
def closing(storage: BaseStorage) -> Iterator[BaseStorage]:
    """Closes the connections that a storage has kept, at the end."""
    try:
        yield storage
    finally:
        if isinstance(storage, RDBStorage):
            storage.remove_session()
            storage.engine.dispose()


def own_trials(study: optuna.Study, *states: TrialState) -> list[FrozenTrial]:
    """The study's trials in these (or all) states, less those that an earlier study lent."""
    trials = study.get_trials(deepcopy=False, states=states or None)
    return [trial for trial in trials if WARM not in trial.user_attrs]


def _lend(trial: FrozenTrial, name: str) -> FrozenTrial:
    return optuna.trial.create_trial(
        state=trial.state,
        values=trial.values,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={**trial.user_attrs, WARM: name, LENT: f"{name}#{trial.number}"},
        system_attrs=trial.system_attrs,
        intermediate_values=trial.intermediate_values,
    )


def sampler_of(sweep: Sweep, seed: int) -> BaseSampler:
    """The sampler by its name. Raises `ConfigError` where its package is not installed."""
    match sweep.sampler:
        case "tpe":
            return optuna.samplers.TPESampler(seed=seed)
        case "gp":
            return optuna.samplers.GPSampler(seed=seed)
        case "cmaes":
            return optuna.samplers.CmaEsSampler(seed=seed)
        case "bohb":
            return _bohb(seed)
        case "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed)
        case "random" | "grid":  # a grid's points wait in the queue
            return optuna.samplers.RandomSampler(seed=seed)


def _bohb(seed: int) -> BaseSampler:
    try:
        from hemaml.engines.bohb import BohbSampler
    except ImportError as error:
        raise ConfigError(
            f"`sampler: bohb` needs hpbandster and ConfigSpace, but {error}. Install them by "
            "`pip install 'hemaml[bohb]'`, which compiles a part, or take `sampler: tpe`."
        ) from error
    return BohbSampler(seed)


def _pruner(sweep: Sweep) -> optuna.pruners.BasePruner:
    match sweep.pruner:
        case "hyperband":
            return optuna.pruners.HyperbandPruner()
        case "asha":
            return optuna.pruners.SuccessiveHalvingPruner()
        case "median":
            return optuna.pruners.MedianPruner()
        case "none" | "pbt" | "pb2":
            return optuna.pruners.NopPruner()


@contextmanager
def storage_errors(location: str) -> Iterator[None]:
    """Faults of the study's storage as `StoreError`, with what to do; a Ctrl-C stays one."""
    # JSONDecodeError: a damaged journal.
    kinds: tuple[Any, ...] = (
        optuna.exceptions.StorageInternalError, SQLAlchemyError, OSError, JSONDecodeError,
    )  # fmt: skip
    try:
        yield
    except Exception as error:
        if interrupt := _interrupt_behind(error):
            raise interrupt from None
        if not isinstance(error, kinds):
            raise
        where = location.rpartition("@")[2]
        raise StoreError(
            f"the study storage must take reads and writes, but {where} gave: {_told(error)}. "
            "Check the disk or the server, then go on with --resume."
        ) from error


def _told(error: Exception) -> str:
    """What the storage itself said; Optuna guesses at invalid data, whatever it was."""
    if isinstance(error, optuna.exceptions.StorageInternalError) and error.__cause__:
        return str(error.__cause__).partition("\n")[0]
    return str(error).partition("\n")[0]


def _interrupt_behind(error: BaseException | None) -> BaseException | None:
    """What ended the process's work where an error only came of cleaning up after it."""
    while error is not None and isinstance(error, Exception):
        error = error.__context__
    return error
