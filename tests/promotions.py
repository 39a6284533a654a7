"""Many processes that promote at once, from a test or a benchmark; see `check_race`."""

import multiprocessing
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager

import hemaml
from hemaml.cli.stores import UI_SETTINGS
from hemaml.core import settings
from hemaml.core.errors import Overtaken
from hemaml.registering import register
from hemaml.tracking.mlflow_tracker import MlflowTracker
from hemaml.tracking.registry import Registry

WAIT_S = 300


def prepared(trained):
    """A run whose model passes its gates against one that is as good."""
    return trained(0.5, gates={"score": {"not_worse_by": 1}})


@contextmanager
def mlflow_server(folder):
    """A real MLflow server on a store of its own in a folder; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "mlflow", "server", "--port", str(port)]
    options = ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/server.db"]
    with open(folder / "server.log", "w") as log:
        process = subprocess.Popen(
            [*command, *options], stdout=log, stderr=log, env=os.environ | UI_SETTINGS, cwd=folder
        )
    address = f"http://127.0.0.1:{port}"
    for _ in range(WAIT_S):
        try:
            urllib.request.urlopen(f"{address}/health", timeout=1).close()
            break
        except OSError:
            time.sleep(0.5)
    try:
        yield address
    finally:
        process.terminate()
        process.wait()


def check_race(uri, folder, name, run, *, processes, rounds):
    """All see one champion and try to replace it: each round one does, and the trail has it all.

    Args:
        uri: The store, which has the run.
        folder: To work in.
        name: Of the registered model that gets versions of the run.
        run: Id of what `prepared` made.
        processes: How many promote at once.
        rounds: How often.
    """
    tracker = MlflowTracker(uri, "stub")
    assert hemaml.promote(name, run=run).outcome == "promoted"
    for _ in range(2 * processes):
        register(tracker, run, name)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hemaml.promote", "stub"])
    barrier, results = context.Barrier(processes), context.Queue()
    environment = {"MLFLOW_TRACKING_URI": uri, "HEMAML_CACHE": str(settings.cache_root())}
    arguments = (str(folder), environment, name, rounds, barrier, results)
    workers = [context.Process(target=_promote, args=(i, *arguments)) for i in range(processes)]
    for worker in workers:
        worker.start()
    told = [results.get(timeout=WAIT_S) for _ in range(processes * rounds)]
    for worker in workers:
        worker.join()

    expected = Counter({"promoted": 1, "overtaken": processes - 1})
    for number in range(rounds):
        assert Counter(outcome for at, outcome, _ in told if at == number) == expected, number
    winners = [v for _, outcome, v in sorted(told) if outcome == "promoted"]
    aliases = {alias: v.number for v in hemaml.models(name) for alias in v.aliases}
    assert (aliases["champion"], aliases["previous"]) == (winners[-1], [1, *winners][-2])

    trail = hemaml.history(name)[1:]
    assert len(trail) == processes * rounds
    assert {tracker.get(entry.run_id).status for entry in trail} == {"FINISHED", "KILLED"}
    promoted = [entry for entry in trail if entry.outcome == "promoted"]
    assert Counter(entry.outcome for entry in trail) == Counter(
        {"promoted": rounds, "overtaken": rounds * (processes - 1)}
    )
    assert [entry.version for entry in promoted] == winners
    assert [entry.champion for entry in promoted] == [1, *winners][:-1], "each follows the last"


def _promote(process, folder, environment, name, rounds, barrier, results):
    import stub

    import hemaml.core.objective

    os.chdir(folder)
    os.environ.update(environment)
    sys.modules["hemaml.objectives.stub.stub"] = stub
    hemaml.core.objective.objective_names = lambda: ["stub.stub"]
    crown = Registry.crown

    def at_once(registry, version, *, seen):
        barrier.wait(WAIT_S)  # all have seen the same champion
        crown(registry, version, seen=seen)

    Registry.crown = at_once
    for number in range(rounds):
        barrier.wait(WAIT_S)
        mine = 2 + 2 * process + number % 2  # never the champion
        try:
            outcome = hemaml.promote(name, version=mine).outcome
        except Overtaken:
            outcome = "overtaken"
        results.put((number, outcome, mine))
