"""The sweep by hemaml: one worker, and the winner retrained with one more seed."""

from peers.workload import DATA, FIXED, GRID, point_name

from hemaml.core.experiment import plan_from
from hemaml.sweep import sweep as hemaml_sweep

EXPERIMENT = {
    "name": "smgnn",
    "objective": "wbc_segmentation.smgnn",
    "question": "How long does it take?",
    "data": DATA,
    "params": FIXED,
    "sweep": {"trials": 24, "sampler": "grid", "confirm_seeds": 1, "workers": 1},
}
SPACE = {name: {"type": "categorical", "choices": choices} for name, choices in GRID.items()}


def sweep() -> dict[str, float]:
    """Runs the sweep in the working folder; returns the value of each point."""
    result = hemaml_sweep(plan_from(EXPERIMENT, SPACE))
    return {point_name(trial.point): trial.values[0] for trial in result.searched}
