"""Experiment tracking and hyperparameter search for hematology image models.

What the command line does, Python does with the names below; they are imported on first use, since
what lies behind them is heavy.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hemaml.backup import backup
    from hemaml.backup.restore import restore
    from hemaml.core.cache import Cache
    from hemaml.core.experiment import check_files, load_experiment
    from hemaml.core.objective import load_objective, objective_names
    from hemaml.data.importing import import_dataset
    from hemaml.data.reading import read_dataset, reader_names, verify_dataset
    from hemaml.doctor import examine, examine_sweep
    from hemaml.evaluate import evaluate
    from hemaml.explaining import explain_images
    from hemaml.migrate import migrate
    from hemaml.promote import promote, rollback
    from hemaml.record import recorded_course, recorded_point, sweep_records
    from hemaml.registering import models
    from hemaml.report import report
    from hemaml.reproduce import reproduce
    from hemaml.run import run
    from hemaml.sweep import resume, sweep
    from hemaml.trail import history
    from hemaml.transfer import transfer
    from hemaml.upgrade import upgrade

_HOMES = {
    "Cache": "hemaml.core.cache",
    "backup": "hemaml.backup",
    "check_files": "hemaml.core.experiment",
    "evaluate": "hemaml.evaluate",
    "examine": "hemaml.doctor",
    "examine_sweep": "hemaml.doctor",
    "explain_images": "hemaml.explaining",
    "history": "hemaml.trail",
    "import_dataset": "hemaml.data.importing",
    "load_experiment": "hemaml.core.experiment",
    "load_objective": "hemaml.core.objective",
    "migrate": "hemaml.migrate",
    "models": "hemaml.registering",
    "objective_names": "hemaml.core.objective",
    "promote": "hemaml.promote",
    "read_dataset": "hemaml.data.reading",
    "reader_names": "hemaml.data.reading",
    "recorded_course": "hemaml.record",
    "recorded_point": "hemaml.record",
    "report": "hemaml.report",
    "reproduce": "hemaml.reproduce",
    "restore": "hemaml.backup.restore",
    "resume": "hemaml.sweep",
    "rollback": "hemaml.promote",
    "run": "hemaml.run",
    "sweep": "hemaml.sweep",
    "sweep_records": "hemaml.record",
    "transfer": "hemaml.transfer",
    "upgrade": "hemaml.upgrade",
    "verify_dataset": "hemaml.data.reading",
}

__all__ = [
    "Cache",
    "backup",
    "check_files",
    "evaluate",
    "examine",
    "examine_sweep",
    "explain_images",
    "history",
    "import_dataset",
    "load_experiment",
    "load_objective",
    "migrate",
    "models",
    "objective_names",
    "promote",
    "read_dataset",
    "reader_names",
    "recorded_course",
    "recorded_point",
    "report",
    "reproduce",
    "restore",
    "resume",
    "rollback",
    "run",
    "sweep",
    "sweep_records",
    "transfer",
    "upgrade",
    "verify_dataset",
]


class _Package(ModuleType):
    """The package, whose functions are not hidden by the submodules of the same names.

    Importing `hemaml.sweep` sets the attribute `sweep` of the package to that module, which would
    turn `hemaml.sweep(...)` into an error that depends on what was imported before.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _HOMES or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hemaml' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    setattr(sys.modules[__name__], name, value)
    return value


sys.modules[__name__].__class__ = _Package
