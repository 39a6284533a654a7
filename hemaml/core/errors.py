"""The one tree of errors that a user can cause or must act on.

    HemamlError (ValueError)
    ├── ConfigError        a YAML file, an override or an argument is wrong
    │   └── UnknownName    a name that stands for nothing; lists the known ones
    ├── DataError          a data set is missing, damaged or inconsistent
    ├── Overtaken          another process was faster at what only one may do
    ├── StoreError         a store (tracking, study, cache, disk) cannot be used
    │   └── Forbidden      a server does not allow it to this user
    ├── ModelError         a saved model does not predict as it did in training
    └── TrialError         one trial ended without a result
        ├── OverBudget     more parameters than the sweep allows
        ├── Diverged       a loss or a score is not a finite number
        └── OutOfMemory    the device or the machine had no memory left

Each message states the rule, the value received and the next action. The command line prints the
message alone and exits with a code that is not 0; anything outside this tree is a fault of ours
and keeps its traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class HemamlError(ValueError):
    """Base of every error whose message is meant for the user."""

    def __reduce__(self) -> tuple[type["HemamlError"], tuple[str]]:
        """Crosses processes as its nearest class that is made from a message alone."""
        kinds = [kind for kind in type(self).__mro__ if issubclass(kind, HemamlError)]
        made_otherwise = [i for i, kind in enumerate(kinds) if "__init__" in vars(kind)]
        plain = kinds[max(made_otherwise, default=-1) + 1]
        return plain, (str(self),)


class ConfigError(HemamlError):
    """A YAML file, an override or an argument breaks a rule."""


class UnknownName(ConfigError):
    """A name that stands for nothing.

    The message lists the known names, nearest first.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], *, hint: str = "") -> None:
        names = sorted(known)
        near = get_close_matches(name, names, n=len(names) or 1, cutoff=0.4)
        ordered = near + [n for n in names if n not in near]
        listed = ", ".join(ordered) if ordered else "none"
        self.kind, self.name, self.known = kind, name, ordered
        super().__init__(f"unknown {kind} {name!r}; known: {listed}.{' ' + hint if hint else ''}")


class DataError(HemamlError):
    """A data set is missing, damaged or inconsistent."""


class Overtaken(HemamlError):
    """Another process was faster at what only one may do; nothing has changed."""


class StoreError(HemamlError):
    """A store (tracking, study, cache, disk) cannot be reached, read or written."""


class Forbidden(StoreError):
    """A server knows who asks, and does not allow what is asked."""


class ModelError(HemamlError):
    """A saved model does not predict as it did in training, or has nothing to prove it by."""


class TrialError(HemamlError):
    """One trial ended without a result; the sweep goes on."""


class OverBudget(TrialError):
    """The model has more parameters than the sweep allows."""


class Diverged(TrialError):
    """A loss or a score is not a finite number."""


class OutOfMemory(TrialError):
    """The device or the machine had no memory left for the trial."""
