"""A sweep of the stub on a cluster of two nodes in which something dies; run as a script.

    python ray_faults.py FAULTS [SWEEP]

FAULTS are joined by +: worker, node (each killed), hang, or none, or population, which is no fault
but trains two trials as one. `sweep.id` names the sweep once it has begun. With an id, it goes on
with that sweep.
"""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from hemaml import conclude
from hemaml.core import objective
from hemaml.core.experiment import plan_from
from hemaml.sweep import open_sweep, reopen_sweep
from hemaml.trial import run_trial

HERE = Path(__file__).parent
STEP_S = 0.2
AFTER = 2
"""Trials that have ended when it happens."""
MEMBERS = 2
"""Of a population."""
HUNG = 3
"""Trial that stops for ever."""
LIMIT_S = 60
"""A first trial also waits for its worker's imports, for long on a busy machine."""


def know_the_stub():
    sys.path.insert(0, str(HERE))
    import stub

    sys.modules["hemaml.objectives.stub.stub"] = stub
    objective.objective_names = lambda: ["stub.stub"]
    return stub


def hang():
    """Stops for as long as this process has its raylet: not even a thread of its own goes on."""
    raylet = os.getppid()
    while os.getppid() == raylet:
        os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(1)  # the kernel wakes what was stopped when the raylet is killed


def run_stub_trial(folder, faults, job, assigned, report):
    """A trial that takes a while, says which process it is in, and may hang."""
    stub = know_the_stub()
    hangs = "hang" in faults and assigned.number == HUNG
    members = MEMBERS if "population" in faults else 1

    def step(epoch):
        time.sleep(STEP_S)
        while len(list(Path(folder).glob("*.pid"))) < members:  # one alone has none to follow
            time.sleep(STEP_S)
        if hangs and epoch == 1:
            hang()

    stub.on_step[:] = [step]
    (Path(folder) / f"{assigned.number}.pid").write_text(str(os.getpid()))
    return run_trial(job, assigned, report)


class Harm:
    """Watches a sweep; kills a worker once some trials have ended, then the second node."""

    def __init__(self, faults, cluster, node):
        self.faults = set(faults)
        self.cluster = cluster
        self.node = node
        self.ended = set()
        self.victim = None

    def __call__(self, event):
        if event.kind == "ended":
            self.ended.add(event.number)
        if event.kind != "reported" or len(self.ended) < AFTER:
            return
        if "worker" in self.faults:
            self.faults.remove("worker")
            self.victim = event.number
            os.kill(int(Path(f"{event.number}.pid").read_text()), signal.SIGKILL)
        elif "node" in self.faults and self.victim in {None, *self.ended}:  # not it a second time
            self.faults.remove("node")
            self.cluster.remove_node(self.node, allow_graceful=False)


def main(joined, sweep_id=None):
    faults = joined.split("+")
    stub = know_the_stub()
    sys.modules["hemaml.record"].objective_names = lambda: ["stub.stub"]
    conclude.study_figures = lambda study, plan: []
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    node = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    ray.cloudpickle.register_pickle_by_value(sys.modules["__main__"])
    folder = str(Path.cwd())

    def evaluate(job, assigned, report):
        return run_stub_trial(folder, faults, job, assigned, report)

    sys.modules["hemaml.sweep"].run_trial = evaluate
    settings = {"trials": 8, "workers": 2, "engine": "ray", "confirm_seeds": 0}
    if "hang" in faults:
        settings["trial_hours"] = LIMIT_S / 3600
    document = {**stub.EXPERIMENT, "sweep": {**stub.EXPERIMENT["sweep"], **settings}}
    if "population" in faults:
        document["params"] = {"epochs": 30}
        document["sweep"] |= {"pruner": "pbt", "trials": MEMBERS}
    opened = reopen_sweep(sweep_id) if sweep_id else open_sweep(plan_from(document, stub.SPACE))
    Path("sweep.id").write_text(opened.id)
    opened.search(Harm(faults, cluster, node))
    ray.shutdown()
    with contextlib.suppress(Exception):  # a node that was killed cannot be asked to end
        cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
