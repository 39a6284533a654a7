"""Experiment tracking and hyperparameter search for hematology image models.

What the command line does, Python does: `sweep`, `resume`, `run`, `evaluate`, `load_experiment`.
Heavy libraries are imported on first use of these names.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hemaml.core.experiment import load_experiment
    from hemaml.evaluate import evaluate
    from hemaml.run import run
    from hemaml.sweep import resume, sweep

__all__ = ["evaluate", "load_experiment", "resume", "run", "sweep"]

_HOMES = {
    "evaluate": "hemaml.evaluate",
    "load_experiment": "hemaml.core.experiment",
    "resume": "hemaml.sweep",
    "run": "hemaml.run",
    "sweep": "hemaml.sweep",
}


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
