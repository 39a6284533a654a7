"""A sweep of 24 trials by hemaml and by two peers: seconds, ratios and where they go.

    pytest tests/benchmarks/test_sweep.py     each system once, by pytest-benchmark
    python tests/benchmarks/test_sweep.py     a table; an argument is the number of rounds

The same points, split, seeds and epochs, one process, one thread: all train the same networks to
the same values, which is checked. Each system starts in a new process in an empty folder, so its
stores and hemaml's cache of superpixels are empty, too. `sweep` is timed inside that process:
reading the data, creating the stores and lazy imports count, the interpreter and the imports at
the top do not (`process` has them all). On generated smears, or on data set 1 where HEMAML_DATA
is set. hemaml's figure includes what the peers do not do: it trains a 25th time, with another
seed, draws the study and the winner, and checks the model that it logs.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

HERE = Path(__file__).parent
SYSTEMS = ("ours", "optuna_mlflow_example", "tuned")
PARTS = ("superpixels", "training", "tracking", "model", "pictures")


class Clock:
    """Seconds by part. A part inside of another is the other's, but for superpixels."""

    def __init__(self):
        self.parts = dict.fromkeys(PARTS, 0.0)
        self.within = None

    def timed(self, name, function):
        def call(*args, **kwargs):
            outer = self.within
            if outer is not None and name != "superpixels":
                return function(*args, **kwargs)
            self.within, start = name, time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds = time.perf_counter() - start
                self.within = outer
                self.parts[name] += seconds
                if outer is not None:
                    self.parts[outer] -= seconds

        return call

    def wrap(self, name, owner, attribute):
        setattr(owner, attribute, self.timed(name, getattr(owner, attribute)))

    def steps(self, fit):
        def timed_fit(*args, **kwargs):
            advance = self.timed("training", next)
            steps: Iterator = fit(*args, **kwargs)
            while (step := advance(steps, None)) is not None:
                yield step

        return timed_fit


def install(clock):
    """Puts the clock around what each part is made of; hemaml and peers share these functions."""
    import mlflow.pytorch
    from mlflow import MlflowClient


    from hemaml.core.objective import Objective
    from hemaml.objectives.wbc_segmentation import smgnn
    from hemaml.tracking import mlflow_tracker, serving_model

    sweep = import_module("hemaml.sweep")
    clock.wrap("superpixels", smgnn, "regions")
    smgnn.fit = clock.steps(smgnn.fit)
    object.__setattr__(smgnn.objective, "fit", smgnn.fit)
    assert isinstance(smgnn.objective, Objective)
    for name in vars(MlflowClient):
        if not name.startswith("_") and callable(getattr(MlflowClient, name)):
            clock.wrap("tracking", MlflowClient, name)
    clock.wrap("tracking", mlflow_tracker, "_open_sqlite")
    clock.wrap("tracking", mlflow, "set_experiment")
    clock.wrap("model", mlflow.pytorch, "log_model")
    clock.wrap("model", serving_model, "log_model")
    clock.wrap("pictures", sweep, "study_figures")
    clock.wrap("pictures", sweep, "log_model_pictures")


def child(system):
    """Runs one system in the working folder and prints its result as JSON."""
    module = import_module(f"peers.{system}")
    clock = Clock()
    install(clock)
    start = time.perf_counter()
    values = module.sweep()
    total = time.perf_counter() - start
    parts = {**clock.parts, "other": total - sum(clock.parts.values())}
    print(json.dumps({"sweep": total, **parts, "values": values}))


def run(system):
    """Seconds by part of one system in a new process, and the value of each point."""
    start = time.perf_counter()
    with TemporaryDirectory() as folder:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "HEMAML_CACHE": f"{folder}/cache"}
        for name in ("MLFLOW_TRACKING_URI", "HEMAML_STUDY_STORAGE"):
            env.pop(name, None)
        command = [sys.executable, str(Path(__file__).resolve()), "--child", system]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return {**json.loads(done.stdout.splitlines()[-1]), "process": time.perf_counter() - start}


@pytest.mark.parametrize("system", SYSTEMS)
def test_sweep(benchmark, system):
    result = benchmark.pedantic(run, args=(system,), rounds=1)
    values = result.pop("values")
    benchmark.extra_info |= result
    print(f"\n{system}: " + ", ".join(f"{name} {s:.1f} s" for name, s in result.items()))
    assert len(values) == 24
    assert all(0 <= value <= 1 for value in values.values())


def main(rounds=1):
    results = {system: [] for system in SYSTEMS}
    for index in range(rounds):
        for system in SYSTEMS[index % 3 :] + SYSTEMS[: index % 3]:
            results[system].append(run(system))
    values = [result.pop("values") for rows in results.values() for result in rows]
    print("values of all points are equal:", all(value == values[0] for value in values))
    print(f"{'seconds':24}{''.join(f'{name:>12}' for name in results['ours'][0])}")
    medians = {
        system: {name: float(np.median([row[name] for row in rows])) for name in rows[0]}
        for system, rows in results.items()
    }
    for system, row in medians.items():
        print(f"{system:24}{''.join(f'{seconds:12.1f}' for seconds in row.values())}")
    for system in SYSTEMS[1:]:
        ratios = [
            peer["sweep"] / ours["sweep"]
            for peer, ours in zip(results[system], results["ours"], strict=True)
        ]
        print(f"{system} / ours: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


if __name__ == "__main__":
    if "--child" in sys.argv:
        child(sys.argv[-1])
    else:
        main(*map(int, sys.argv[1:]))
