"""The sweep by hemaml: one worker, and the winner retrained with one more seed."""

from peers.gcn_workload import DATA, EPOCHS, GRID, SIZE, VALIDATE_EVERY

from hemaml.core.experiment import plan_from
from hemaml.sweep import sweep as hemaml_sweep

EXPERIMENT = {
    "name": "gcn",
    "objective": "leukemia.resnet18_gcn",
    "question": "How long does it take?",
    "data": DATA,
    "params": {
        "weights": "none",
        "size": SIZE,
        "epochs": EPOCHS,
        "validate_every": VALIDATE_EVERY,
        "transductive": False,  # the peers train one network a trial
        "mlp": False,
    },
    "sweep": {"trials": 24, "sampler": "grid", "confirm_seeds": 1, "workers": 1},
}
SPACE = {name: {"type": "categorical", "choices": choices} for name, choices in GRID.items()}


def sweep() -> dict[str, float]:
    """Runs the sweep in the working folder; returns the value of each point."""
    result = hemaml_sweep(plan_from(EXPERIMENT, SPACE))
    return {str(sorted(trial.point.items())): trial.values[0] for trial in result.searched}
