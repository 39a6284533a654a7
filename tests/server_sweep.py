"""A sweep of the stub with two workers on the stores that the settings name; run as a script.

    python server_sweep.py native|ray|ray@HOST:PORT [SWEEP]

It prints each event as a line. With an id, it goes on with that sweep. Where GATES names a folder,
the trials of `GATED` wait until it has a file of their number: so they are at work when it is made,
however early one of two sweeps has begun.
"""

import os
import sys
import time
from functools import partial
from pathlib import Path

from hemaml import conclude
from hemaml.core import objective
from hemaml.core.errors import HemamlError
from hemaml.core.experiment import plan_from
from hemaml.sweep import open_sweep, reopen_sweep
from hemaml.trial import run_trial

HERE = str(Path(__file__).parent)
STEP_S = 0.2
TRIALS = 8
GATED = (2, 5)


def know_the_stub():
    sys.path.insert(0, HERE)
    import stub

    sys.modules["hemaml.objectives.stub.stub"] = stub
    objective.objective_names = lambda: ["stub.stub"]
    return stub


def run_stub_trial(gates, job, assigned, report):
    """A trial that takes a while, in whatever process."""

    def step(epoch):
        time.sleep(STEP_S)
        while gates and assigned.number in GATED and not Path(gates, str(assigned.number)).exists():
            time.sleep(STEP_S)

    know_the_stub().on_step[:] = [step]
    return run_trial(job, assigned, report)


def say(event):
    print(event.kind, event.number, event.outcome.ending if event.outcome else "", flush=True)


def main(engine, sweep_id=None):
    stub = know_the_stub()
    sys.modules["hemaml.record"].objective_names = lambda: ["stub.stub"]
    sys.modules["hemaml.sweep"].run_trial = partial(run_stub_trial, os.environ.get("GATES"))
    conclude.study_figures = lambda study, plan: []
    engine, _, address = engine.partition("@")
    settings = {"trials": TRIALS, "workers": 2, "engine": engine, "confirm_seeds": 1}
    settings |= {"address": address} if address else {}
    document = {**stub.EXPERIMENT, "sweep": {**stub.EXPERIMENT["sweep"], **settings}}
    opened = reopen_sweep(sweep_id) if sweep_id else open_sweep(plan_from(document, stub.SPACE))
    print("sweep", opened.id, flush=True)
    opened.search(say)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except HemamlError as error:
        sys.exit(f"error: {error}")
