"""What a promotion takes, process start included: the bar is 20 s for a segmenter on two cores.

    HEMAML_DATA=... pytest tests/benchmarks/test_promotion.py -s

Two models of data set 1 are trained for an epoch each; the second is put to its gates against the
first on the 45 held-out images, by the command line.
"""

import os
import subprocess
import sys
import time

import hemaml

EXPERIMENT = "experiments/wbc_segmentation/smgnn.yaml"
QUICK = ["params.epochs=1", "params.validate_every=1", "gates={dice: {at_least: 0.01}}"]
BAR_S = 20
REPEATS = 3


def test_a_segmenter_against_the_champion(workplace, real_data, monkeypatch):
    monkeypatch.setenv("HEMAML_DATA", str(real_data))
    first, second = (hemaml.run(EXPERIMENT, overrides=QUICK, seed=seed).run_id for seed in (1, 2))
    assert hemaml.promote("wbc_segmentation", run=first).passed
    command = [sys.executable, "-m", "hemaml.cli", "promote", "wbc_segmentation", "--dry-run"]
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        done = subprocess.run(
            [*command, "--run", second], capture_output=True, text=True, env=os.environ
        )
        seconds.append(time.perf_counter() - started)
        assert "Wilcoxon" in done.stdout and "45 held-out images" in done.stdout, done.stderr
    told = ", ".join(f"{value:.1f}" for value in seconds)
    print(f"\npromotion of a segmenter on 45 held-out images, cold start: {told} s (bar {BAR_S} s)")
