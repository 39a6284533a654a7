"""Checkpoints of a trial: written whole or not at all, read without executing anything."""

import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hemaml.core.errors import StoreError
from hemaml.core.objective import State


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a trial goes on from.

    Attributes:
        step: The last validation that is included.
        states: One state a fold.
        best_step: The best validation so far; its models lie beside the checkpoint.
        best: Metrics of that validation.
        best_folds: The same by fold.
        seconds: Training time so far.
        course: What led to this state; see `hemaml.course.plain`.
    """

    step: int
    states: list[State]
    best_step: int
    best: dict[str, float]
    best_folds: list[dict[str, float]]
    seconds: float
    course: list[dict[str, Any]]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint.

    Raises:
        StoreError: The folder does not take it (full disk, rights).
    """
    import torch

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(asdict(checkpoint), file)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise StoreError(
            f"checkpoints must be writable, but {path.parent} gave: {error}. "
            "Free space there, then go on with --resume."
        ) from error


def load_checkpoint(path: Path) -> Checkpoint | None:
    """The checkpoint at `path`, or None where there is none."""
    import torch

    try:
        return Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:  # also where its trial ends at this moment
        return None
