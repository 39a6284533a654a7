"""Memory and seconds of one training on as many images as C-NMC 2019 has; ten minutes in all.

    pytest tests/benchmarks/test_full_c_nmc.py -s

10,661 generated BMPs of 450 x 450 pixels (6.5 GB) of 73 subjects, in the folders and with the names
of the real ones, are read and trained on by `hemaml run`: a new process each, whose peak of memory
is its own; pages of a memory-mapped table count as long as they are resident. The first decodes
all images, the others find its tables where they see the same.
"""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SUBJECTS = {"all": (47, 7272), "hem": (26, 3389)}
"""Class to subjects and images of the training part."""
SIDE, CELL = 450, 220
MOST_GIB = 24
USUAL = ["split.folds=1", "params.size=128"]
RESNET = [*USUAL, "params.backbone=resnet18", "params.weights=none"]
CASES = {
    "svm": ("svm_c_nmc", USUAL),
    "resnet18_gcn, 400 epochs": ("resnet18_gcn_c_nmc", RESNET),
    "resnet18, layer4 unfrozen, 1 epoch": (
        "resnet18_c_nmc", [*RESNET, "params.epochs=1", "params.validate_every=1"],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder, draws = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    at = (SIDE - CELL) // 2
    for name, (subjects, count) in SUBJECTS.items():
        for index in range(count):
            subject = index % subjects
            pixels = np.zeros((SIDE, SIDE, 3), np.uint8)  # a cell on black
            level = 60 if name == "all" else 75
            cell = draws.integers(level, level + 120, (CELL, CELL, 3), dtype=np.uint8)
            pixels[at : at + CELL, at : at + CELL] = cell
            within = folder / "C-NMC" / f"fold_{subject % 3}" / name
            within.mkdir(parents=True, exist_ok=True)
            code = f"{'H' if name == 'hem' else ''}{subject + 1}"
            path = within / f"UID_{code}_{index // subjects + 1}_1_{name}.bmp"
            Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Experiments, and a store and a cache of their own that the trainings share."""
    folder = tmp_path_factory.mktemp("workplace")
    for name in ("experiments", "search_spaces"):
        (folder / name).symlink_to(Path(__file__).parents[2] / name)
    return folder


def child(experiment, changes):
    """Prints GiB at the peak and seconds."""
    import hemaml

    started = time.perf_counter()
    hemaml.run(f"experiments/leukemia/{experiment}.yaml", overrides=changes)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{peak:.2f} {time.perf_counter() - started:.0f}")


@pytest.mark.parametrize("what", CASES)
def test_a_training_on_the_full_set_stays_within_memory(root, workplace, what):
    experiment, changes = CASES[what]
    env = {**os.environ, "HEMAML_DATA": str(root), "HEMAML_CACHE": str(workplace / "cache")}
    done = subprocess.run(
        [sys.executable, __file__, experiment, *changes],
        env=env, cwd=workplace, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    peak, seconds = map(float, done.stdout.split()[-2:])
    print(f"\n{what}: {peak:.2f} GiB at the peak (target: at most {MOST_GIB}), {seconds:.0f} s")
    assert peak <= MOST_GIB


if __name__ == "__main__":
    child(sys.argv[1], sys.argv[2:])
