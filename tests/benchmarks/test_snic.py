"""Speed of superpixels and region graphs beside scikit-image's SLIC, one thread.

    pytest tests/benchmarks/test_snic.py     each function by pytest-benchmark
    python tests/benchmarks/test_snic.py     a table with ratios and quality

Set OMP_NUM_THREADS=1. All start from the RGB image and ask for 16 pixels a superpixel at
compactness 5; SLIC runs its default of 10 iterations.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from hemaml.ops.clean_up import clean_up
from hemaml.ops.lab import rgb_to_lab
from hemaml.ops.region_graph import node_features, radius_edges
from hemaml.ops.scores import segmentation_scores
from hemaml.ops.superpixels import reconstruction_score, superpixels

SIZES = (120, 300)
SCALE = 16.0
RADIUS = 3 * SCALE**0.5
CLASSES = ("background", "cytoplasm", "nucleus")


def drawn_cell(size):
    """A drawn cell on a smear, uint8 RGB, and its mask (0, 1, 2)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size - 0.5
    angle = np.arctan2(y, x)
    radius = np.hypot(x, y) / (1 + 0.15 * np.sin(3 * angle) + 0.08 * np.sin(5 * angle))
    mask = (radius < 0.33).astype(np.uint8) + (radius < 0.2)
    colours = np.array([[225, 205, 200], [190, 170, 205], [110, 60, 140]], dtype=float)
    noisy = gaussian_filter(colours[mask], (1, 1, 0)) + rng.normal(0, 5, (size, size, 3))
    return noisy.clip(0, 255).astype(np.uint8), mask.astype(np.uint8)


def real_cells(size, limit):
    """Image and mask of up to `limit` cells of the data set of that size; none without data."""
    from skimage.io import imread

    default = Path(__file__).parents[3] / "shared" / "data"
    root = Path(os.environ.get("HEMAML_DATA", default)) / "segmentation_WBC"
    paths = sorted((root / f"Dataset {SIZES.index(size) + 1}").glob("*.bmp"))
    return [
        (
            imread(path)[:, :, :3],
            np.digitize(imread(path.with_suffix(".png")), [64, 192]).astype(np.uint8),
        )
        for path in paths[:: max(1, len(paths) // limit)]
    ]


def work(size) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    image, mask = (real_cells(size, 1) or [drawn_cell(size)])[0]
    labels = superpixels(image, scale=SCALE, compactness=5.0)
    centres = node_features(image, labels)[:, 3:]
    shifted = np.roll(mask, 3, axis=0)

    def run(**options):
        return lambda: superpixels(image, scale=SCALE, compactness=5.0, **options)

    return {
        "slic": run(method="slic"),
        "snic exact": run(queue="exact"),
        "snic bucket": run(queue="bucket"),
        "rgb to lab": lambda: rgb_to_lab(image),
        "node features": lambda: node_features(image, labels),
        "radius edges": lambda: radius_edges(centres, radius=RADIUS),
        "clean up": lambda: clean_up(shifted),
        "scores": lambda: segmentation_scores(shifted, mask, classes=CLASSES),
    }


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", work(SIZES[0]))
def test_speed(benchmark, name, size):
    benchmark.group = f"{size} x {size}"
    benchmark(work(size)[name])


@pytest.mark.parametrize("size", SIZES)
def test_exact_snic_is_three_times_as_fast_as_slic(size):
    times = medians(work(size), repeats=9)
    assert times["slic"] > 3 * times["snic exact"]
    assert times["slic"] > 3 * times["snic bucket"]


def medians(functions, *, repeats):
    """Median seconds of the processor for each function, taken in turns.

    One thread computes, so processor time is what an idle machine would take, whoever else works.
    """
    times = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.process_time()
            function()
            times[name].append(time.process_time() - start)
    return {name: float(np.median(values)) for name, values in times.items()}


def quality(cells, **options):
    """Mean IoU reconstruction score."""
    return np.mean(
        [
            reconstruction_score(
                superpixels(image, scale=SCALE, compactness=5.0, **options), mask, num_classes=3
            )
            for image, mask in cells
        ]
    )


def main():
    for size in SIZES:
        print(f"\n{f'{size} x {size}':16}{'ms':>8}{'slic/it':>10}")
        times = medians(work(size), repeats=25)
        for name, seconds in times.items():
            print(f"  {name:14}{1e3 * seconds:8.2f}{times['slic'] / seconds:10.1f}")
        real = real_cells(size, 50)
        cells = real or [drawn_cell(size)]
        print(f"  IoU reconstruction, {len(cells)} {'real' if real else 'drawn'} cells:")
        print(f"    exact  {quality(cells, queue='exact'):.4f}")
        print(f"    bucket {quality(cells, queue='bucket'):.4f}")
        print(f"    slic   {quality(cells, method='slic'):.4f}")


if __name__ == "__main__":
    main()
