"""The served stack: how soon a trial is there, and whether 16 workers are served in time.

`pytest tests/benchmarks/test_stack.py -s` prints both. Targets, on 2 cores that nobody else uses:
60 s from the start of the stack to the first finished trial; of 16 workers that log a batch a
second through the server, 95 % of the batches stored within 500 ms and none lost.
"""

import multiprocessing as mp
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from stack import SMALL, Stack, running_stack, stack_folder

from hemaml import access
from hemaml.tracking.credentials import PASSWORD, USERNAME
from hemaml.tracking.mlflow_tracker import MlflowTracker

WORKERS, SECONDS, METRICS = 16, 120, 10
TASK = "wbc_segmentation"
TRAINER = "tom", "the-password-of-tom"


def test_from_the_start_of_the_stack_to_the_first_finished_trial(tmp_path, monkeypatch, workplace):
    with stack_folder() as folder:
        began = time.monotonic()
        stack = Stack(folder)
        try:
            started = time.monotonic() - began
            settings = [word for text in SMALL for word in ("--set", text)]
            command = ["sweep", f"experiments/{TASK}/smgnn_smears.yaml", "--trials", "1", "--plain"]
            with subprocess.Popen(
                [sys.executable, "-m", "hemaml.cli", *command, *settings],
                stdout=subprocess.PIPE, text=True, env=stack.environment,
            ) as sweep:  # fmt: skip
                lines = []
                for line in sweep.stdout:
                    lines.append(line)
                    if "trial 0 finished" in line:
                        break
                finished = time.monotonic() - began
                sweep.communicate()
        finally:
            stack.end()
    assert "trial 0 finished" in "".join(lines), lines
    print(f"\nstack up after {started:.1f} s, first trial finished after {finished:.1f} s")


@pytest.fixture
def trainer(monkeypatch):
    """A running stack, asked by a trainer: the server looks the role up at each request."""
    with running_stack() as stack:
        for name, value in stack.environment.items():
            monkeypatch.setenv(name, value)
        access.add_user(*TRAINER, "trainer")
        monkeypatch.setenv(USERNAME, TRAINER[0])
        monkeypatch.setenv(PASSWORD, TRAINER[1])
        yield os.environ["MLFLOW_TRACKING_URI"]


def work(uri, begin, told):
    """One batch a second; tells the run and how many seconds each batch took."""
    run = MlflowTracker(uri, TASK).start("logs", {"kind": "run"})
    begin.wait()
    first, took = time.monotonic() + np.random.default_rng(os.getpid()).random(), []
    for step in range(SECONDS):
        time.sleep(max(0.0, first + step - time.monotonic()))
        sent = time.monotonic()
        run.log_metrics({f"metric_{i}": step + i / METRICS for i in range(METRICS)}, step)
        run.flush()
        took.append(time.monotonic() - sent)
    run.end("FINISHED")
    told.put((run.id, took))


def test_sixteen_workers_log_a_batch_a_second_for_two_minutes(trainer):
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["hemaml.tracking.mlflow_tracker"])
    begin, told = context.Barrier(WORKERS), context.SimpleQueue()
    workers = [context.Process(target=work, args=(trainer, begin, told)) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    answers = [told.get() for _ in workers]
    for worker in workers:
        worker.join()
    tracker = MlflowTracker(trainer, TASK)
    for run_id, _ in answers:
        for metric in ("metric_0", f"metric_{METRICS - 1}"):
            steps, _ = tracker.curve(run_id, metric)
            assert steps == list(range(SECONDS)), "a batch is lost"
    took = np.concatenate([seconds for _, seconds in answers]) * 1000
    middle, most, worst = np.percentile(took, [50, 95, 100])
    print(
        f"\n{len(took)} batches of {METRICS}: median {middle:.0f} ms, 95 % within {most:.0f} ms, "
        f"the slowest {worst:.0f} ms; none lost; load {os.getloadavg()[1]:.1f} on "
        f"{os.cpu_count()} cores"
    )
