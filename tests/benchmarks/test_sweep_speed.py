"""A sweep of 24 trials by hemaml and by two peers: seconds, ratios and where they go.

    pytest tests/benchmarks/test_sweep_speed.py --benchmark-only -s    each system once
    python tests/benchmarks/test_sweep_speed.py [ROUNDS] [SYSTEM ...]  in turns, with ratios

The same points, split, seeds and epochs, one process, one thread, and the same architecture with
the same number of parameters. The peers write it by hand with PyTorch Geometric, scipy and torch's
own convolutions (`peers/network.py`), so "training" compares hemaml's network code with that: read
the parts, too. Each system starts in a new process in an empty folder, so its stores and hemaml's
cache of superpixels are empty, too. Its sweep is timed inside that process: reading the data,
creating the stores and lazy imports count, the interpreter and the imports at the top do not. Each
figure is given in seconds of the clock and of the processor (child processes included), for a
machine that others use moves the first. On generated smears, or on data set 1 where HEMAML_DATA is
set.

hemaml's figures include what the peers do not do: it trains a 25th time, with another seed, draws
the study and the winner, and tries the one model that it logs. The peers log one a trial.
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

SYSTEMS = ("ours", "tuned", "optuna_mlflow_example")
PARTS = ("superpixels", "training", "tracking", "model", "pictures")
UNITS = ("clock", "processor")


def now():
    """Seconds of the clock and of the processor."""
    return np.array([time.perf_counter(), sum(os.times()[:4])])


class Clock:
    """Seconds by part. A part inside of another is the other's, but for `inner`."""

    def __init__(self, parts=PARTS, inner="superpixels"):
        self.parts = {name: np.zeros(2) for name in parts}
        self.inner = inner
        self.within = None

    def timed(self, name, function):
        def call(*args, **kwargs):
            outer = self.within
            if outer is not None and name != self.inner:
                return function(*args, **kwargs)
            self.within, start = name, now()
            try:
                return function(*args, **kwargs)
            finally:
                seconds = now() - start
                self.within = outer
                self.parts[name] += seconds
                if outer is not None:
                    self.parts[outer] -= seconds

        return call

    def wrap(self, name, owner, *attributes):
        for attribute in attributes:
            setattr(owner, attribute, self.timed(name, getattr(owner, attribute)))

    def fit(self, fit):
        advance = self.timed("training", next)

        def timed_fit(*args):
            steps: Iterator = fit(*args)
            while (step := advance(steps, None)) is not None:
                yield step

        return timed_fit


def install(clock):
    """Puts the clock around what each part is made of; hemaml and peers share most of it."""
    import mlflow.pytorch
    from mlflow import MlflowClient
    from peers import network, optuna_mlflow_example, tuned

    from hemaml.objectives.wbc_segmentation import smgnn
    from hemaml.tracking import logged_model, mlflow_tracker

    clock.wrap("superpixels", smgnn, "regions")
    clock.wrap("superpixels", network, "sample")
    network_fit = clock.fit(network.fit)
    for peer in (tuned, optuna_mlflow_example):
        peer.fit = network_fit
    smgnn.fit = clock.fit(smgnn.fit)
    object.__setattr__(smgnn.objective, "fit", smgnn.fit)
    public = [name for name in vars(MlflowClient) if not name.startswith("_")]
    methods = [name for name in public if callable(getattr(MlflowClient, name))]
    clock.wrap("tracking", MlflowClient, *methods)
    clock.wrap("tracking", mlflow_tracker, "_open_sqlite")
    clock.wrap("tracking", mlflow, "set_experiment")
    clock.wrap("model", mlflow.pytorch, "log_model")
    clock.wrap("model", logged_model, "log_model")
    clock.wrap("pictures", import_module("hemaml.conclude"), "study_figures")
    clock.wrap("pictures", import_module("hemaml.record"), "log_model_pictures")


def child(system):
    """Runs one system in the working folder and prints its result as JSON."""
    module = import_module(f"peers.{system}")
    clock = Clock()
    install(clock)
    start = now()
    values = module.sweep()
    total = now() - start
    parts = {"all": total, **clock.parts, "other": total - sum(clock.parts.values())}
    seconds = {name: part.tolist() for name, part in parts.items()}
    print(json.dumps({"seconds": seconds, "values": values}))


def run(system):
    """What `child` prints, from a new process in an empty folder."""
    with TemporaryDirectory() as folder:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "HEMAML_CACHE": f"{folder}/cache"}
        for name in ("MLFLOW_TRACKING_URI", "HEMAML_STUDY_STORAGE"):
            env.pop(name, None)
        command = [sys.executable, str(Path(__file__).resolve()), "--child", system]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("system", SYSTEMS)
def test_sweep(benchmark, system):
    result = benchmark.pedantic(run, args=(system,), rounds=1)
    benchmark.extra_info |= result["seconds"]
    show({system: [result]})
    assert len(result["values"]) == 24
    assert all(0 <= value <= 1 for value in result["values"].values())


def show(results):
    """A table of the medians of each system's rounds."""
    for index, unit in enumerate(UNITS):
        names = next(iter(results.values()))[0]["seconds"]
        print(f"\n{f'seconds of the {unit}':26}{''.join(f'{name:>12}' for name in names)}")
        for system, rows in results.items():
            cells = [np.median([row["seconds"][name][index] for row in rows]) for name in names]
            print(f"{system:26}{''.join(f'{cell:12.1f}' for cell in cells)}")


def main(rounds, systems):
    results = {system: [] for system in systems}
    for _ in range(rounds):
        for system in systems:
            results[system].append(run(system))
            print(system, f"{results[system][-1]['seconds']['all'][0]:.0f} s", flush=True)
    for system, rows in results.items():
        print(f"{system}: best value {max(rows[0]['values'].values()):.4f}")
    show(results)
    for system in systems[1:]:
        for index, unit in enumerate(UNITS):
            ratios = [
                peer["seconds"]["all"][index] / first["seconds"]["all"][index]
                for peer, first in zip(results[system], results[systems[0]], strict=True)
            ]
            print(f"{system} / {systems[0]}, {unit}:", ", ".join(f"{r:.2f}" for r in ratios))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2])
    else:
        main(int((sys.argv[1:] or [1])[0]), tuple(sys.argv[2:]) or SYSTEMS)
