"""Memory and seconds to decode the lymphoma set at its original size into the cache.

    pytest tests/benchmarks/test_original_tiffs.py -s

374 generated TIFFs of 1388 x 1040 pixels (1.6 GB), read by the reader of the real ones, then cut or
scaled into the tables that networks read. A new process each, whose peak of memory is its own;
pages of a memory-mapped table count as long as they are resident.
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

COUNTS = {"CLL": 113, "FL": 139, "MCL": 122}
HEIGHT, WIDTH, PER_CASE = 1040, 1388, 12
MOST_GIB = 4


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder, draws = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name, count in COUNTS.items():
        (folder / "malignant_lymphoma" / name).mkdir(parents=True)
        for index in range(count):
            pixels = draws.integers(256, size=(HEIGHT, WIDTH, 3), dtype=np.uint8)
            case = f"sj-{name}-{index // PER_CASE}"
            path = folder / "malignant_lymphoma" / name / f"{case}_{index:03}.tif"
            Image.fromarray(pixels).save(path)
    return folder


def child(what):
    """Prints GiB at the peak and seconds."""
    from hemaml.core.cache import Cache
    from hemaml.data.pixels import resized
    from hemaml.data.reading import read_dataset
    from hemaml.data.tiles import frames, tiled

    started = time.perf_counter()
    data = read_dataset({"reader": "malignant_lymphoma"})
    images, digests, cache = data.images, data.contents(), Cache(Path(os.environ["HEMAML_CACHE"]))
    made = {
        "whole images scaled to 224": lambda: resized(images, digests, 224, cache),
        "8 tiles of 224 each": lambda: tiled(images, digests, 8, 224, cache),
        "whole images at full size": lambda: frames(images, digests, 224, cache),
    }[what]()
    assert len(made) >= len(data) == sum(COUNTS.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{peak:.2f} {time.perf_counter() - started:.1f}")


@pytest.mark.parametrize(
    "what", ["whole images scaled to 224", "8 tiles of 224 each", "whole images at full size"]
)
def test_the_original_images_decode_within_memory(root, tmp_path, what):
    env = {**os.environ, "HEMAML_DATA": str(root), "HEMAML_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, __file__, what], env=env, check=True, capture_output=True, text=True
    )
    peak, seconds = map(float, done.stdout.split())
    print(f"\n{what}: {peak:.2f} GiB at the peak (target: at most {MOST_GIB}), {seconds:.1f} s")
    assert peak <= MOST_GIB


if __name__ == "__main__":
    child(sys.argv[1])
