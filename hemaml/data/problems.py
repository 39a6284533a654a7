"""What can be wrong with a file of a data set: as a value for a report, as an error for a read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hemaml.core.errors import DataError


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding about one file.

    Attributes:
        file: The file, relative to the data set's root.
        rule: What must hold.
        found: What was found instead.
        severity: An `error` stops a read, a `warning` does not.
    """

    file: str
    rule: str
    found: str
    severity: Literal["error", "warning"] = "error"


class BadFile(DataError):
    """One file of a data set breaks a rule; carries the `Problem` for reports.

    Args:
        file: The file as it shall be shown.
        rule: What must hold.
        found: What was found instead.
        action: What to do next, a whole sentence.
    """

    def __init__(self, file: str, rule: str, found: str, action: str) -> None:
        self.problem = Problem(file, rule, found)
        self.action = action
        super().__init__(f"{file}: {rule}, but {found}. {action}")


def raise_first(faults: Sequence[BadFile]) -> None:
    """Raises the first fault, saying how many more there are; does nothing where there is none.

    Raises:
        DataError: There is at least one fault.
    """
    if not faults:
        return
    more = len(faults) - 1
    tail = f" {more} more found: `hemaml data verify` names all of them." if more else ""
    raise DataError(f"{faults[0]}{tail}") from faults[0]
