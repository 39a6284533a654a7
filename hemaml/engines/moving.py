"""Studies counted, and taken from one storage to another."""

from hemaml.engines.optuna_study import open_storage


def num_studies(location: str) -> dict[str, int]:
    """Studies and trials of a storage, by the names of their tables."""
    storage = open_storage(location)
    studies = storage.get_all_studies()
    trials = sum(storage.get_n_trials(study._study_id) for study in studies)
    return {name: n for name, n in (("studies", len(studies)), ("trials", trials)) if n}
