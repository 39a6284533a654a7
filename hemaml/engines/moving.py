"""Studies counted, and taken from one storage to another."""

from collections.abc import Sequence
from typing import Any

from optuna.storages import BaseStorage
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial

from hemaml.core.errors import ConfigError
from hemaml.engines.optuna_study import closing, open_storage, storage_errors


def num_studies(location: str) -> dict[str, int]:
    """Studies and trials of a storage, by the names of their tables; those that are 0 left out."""
    with storage_errors(location):
        storage = open_storage(location)
        studies = storage.get_all_studies()
        trials = sum(storage.get_n_trials(study._study_id) for study in studies)
    return {name: n for name, n in (("studies", len(studies)), ("trials", trials)) if n}


def study_names(location: str) -> set[str]:
    """Names of all studies of a storage."""
    with storage_errors(location):
        return {study.study_name for study in open_storage(location).get_all_studies()}


def copy_studies(source: str, target: str) -> None:
    """Copies all studies with all they know, under their names; the source stays as it is.

    A study of which the target has the first trials, as a copy that was interrupted leaves it, is
    completed.

    Raises:
        ConfigError: The target has another study of the same name. Those before it were copied.
        StoreError: A storage does not work.
    """
    with storage_errors(target), closing(open_storage(target, keep=True)) as writing:
        reading = open_storage(source)
        known = {study.study_name: study for study in writing.get_all_studies()}
        for study in reading.get_all_studies():
            trials = reading.get_all_trials(study._study_id, deepcopy=False)
            _copy(study, trials, writing, known.get(study.study_name))


def _copy(
    study: FrozenStudy,
    trials: Sequence[FrozenTrial],
    target: BaseStorage,
    there: FrozenStudy | None,
) -> None:
    if there is None:
        number = target.create_new_study(study.directions, study.study_name)
    else:
        number = there._study_id
    copied = target.get_all_trials(number, deepcopy=False)
    same = [_told(trial) for trial in copied] == [_told(trial) for trial in trials[: len(copied)]]
    if there is not None and not (same and there.directions == study.directions):
        raise ConfigError(
            f"a study is moved to where none of its name is, but there is another "
            f"{study.study_name!r} already. Move into other stores, or delete that one there."
        )
    for name, value in study.system_attrs.items():
        target.set_study_system_attr(number, name, value)
    for name, value in study.user_attrs.items():
        target.set_study_user_attr(number, name, value)
    for trial in trials[len(copied) :]:
        target.create_new_trial(number, template_trial=trial)


def _told(trial: FrozenTrial) -> tuple[Any, ...]:
    """What tells a trial from others of its number."""
    return trial.number, trial.state, trial.params, trial.user_attrs, trial.values
