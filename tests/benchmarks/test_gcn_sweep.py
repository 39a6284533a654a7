"""A sweep of 24 graph networks by hemaml, cold and warm, and by two peers.

    python tests/benchmarks/test_gcn_sweep.py [SYSTEM ...]     a table of seconds by part
    pytest tests/benchmarks/test_gcn_sweep.py --benchmark-only -s

Learning rate, k and width on the embeddings of a frozen ResNet-18 (random weights: they take as
long as others), 400 epochs a trial, one process, one thread. `warm` is a second sweep by hemaml in
a new store, with the cache that the first one left. Timed as in `test_sweep_speed.py`. On generated
cells, or on ALL_images where HEMAML_DATA is set.
"""

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from test_sweep_speed import UNITS, Clock, now, show

SYSTEMS = ("gcn_ours", "warm", "gcn_tuned", "gcn_example")


def install(clock, system):
    """Puts the clock around what each part is made of."""
    import mlflow.pytorch
    from mlflow import MlflowClient

    public = [name for name in vars(MlflowClient) if not name.startswith("_")]
    methods = [name for name in public if callable(getattr(MlflowClient, name))]
    clock.wrap("tracking", MlflowClient, *methods)
    clock.wrap("model", mlflow.pytorch, "log_model")
    if system in ("gcn_ours", "warm"):
        from hemaml.objectives.leukemia import resnet18_gcn
        from hemaml.tracking import logged_model, mlflow_tracker

        clock.wrap("embeddings", resnet18_gcn, "_rows")
        object.__setattr__(resnet18_gcn.objective, "fit", clock.fit(resnet18_gcn.fit))
        clock.wrap("tracking", mlflow_tracker, "_open_sqlite")
        clock.wrap("model", logged_model, "log_model")
        clock.wrap("pictures", import_module("hemaml.conclude"), "study_figures")
        clock.wrap("pictures", import_module("hemaml.registering"), "log_model_pictures")
    else:
        peer = import_module(f"peers.{system}")
        clock.wrap("embeddings", peer, "embedded")
        peer.fit = clock.fit(peer.fit)


def child(system):
    """Runs one system in the working folder and prints its result as JSON."""
    module = import_module("peers.gcn_ours" if system == "warm" else f"peers.{system}")
    clock = Clock(("embeddings", "training", "tracking", "model", "pictures"), inner="embeddings")
    install(clock, system)
    start = now()
    values = module.sweep()
    total = now() - start
    parts = {"all": total, **clock.parts, "other": total - sum(clock.parts.values())}
    seconds = {name: part.tolist() for name, part in parts.items()}
    print(json.dumps({"seconds": seconds, "values": values}))


def run(system, cache):
    """What `child` prints, from a new process in an empty folder, with this cache."""
    with TemporaryDirectory() as folder:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "HEMAML_CACHE": cache}
        for name in ("MLFLOW_TRACKING_URI", "HEMAML_STUDY_STORAGE"):
            env.pop(name, None)
        command = [sys.executable, str(Path(__file__).resolve()), "--child", system]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("system", SYSTEMS)
def test_sweep(benchmark, system, shared_cache):
    result = benchmark.pedantic(run, args=(system, shared_cache), rounds=1)
    show({system: [result]})
    assert len(result["values"]) == 24


def main(systems):
    results = {}
    with TemporaryDirectory() as cache:
        for system in systems:
            results[system] = [run(system, cache)]
            found = results[system][0]
            print(system, f"{found['seconds']['all'][0]:.0f} s, best AUC "
                  f"{max(found['values'].values()):.4f}", flush=True)  # fmt: skip
    show(results)
    for ours in ("gcn_ours", "warm"):
        for peer in ("gcn_example", "gcn_tuned"):
            if ours in results and peer in results:
                pair = (results[system][0]["seconds"]["all"] for system in (peer, ours))
                ratios = zip(*pair, UNITS, strict=True)
                told = ", ".join(f"{a / b:.1f} ({unit})" for a, b, unit in ratios)
                print(f"{peer} / {ours}: {told}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2])
    else:
        main(tuple(sys.argv[1:]) or SYSTEMS)
