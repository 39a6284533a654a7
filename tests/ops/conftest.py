"""Images that the tests of this folder share."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter


def draw_cell(size, seed):
    """An image of one cell, uint8 RGB with blur and noise, and its mask (0, 1, 2)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size - 0.5
    angle = np.arctan2(y, x)
    wobble = 1 + 0.15 * np.sin(3 * angle + rng.uniform(0, 6)) + 0.08 * np.sin(5 * angle)
    radius = np.hypot(x, y) / wobble
    mask = (radius < 0.33).astype(np.uint8) + (radius < 0.2)
    colours = np.array([[225, 205, 200], [190, 170, 205], [110, 60, 140]], dtype=float)
    clean = gaussian_filter(colours[mask], (1, 1, 0))
    noisy = clean + rng.normal(0, 5, clean.shape)
    return noisy.clip(0, 255).astype(np.uint8), mask.astype(np.uint8)


@pytest.fixture(scope="session")
def drawn_cells():
    return [draw_cell(120, seed) for seed in range(4)]


@pytest.fixture(scope="session")
def real_cells(real_data):
    """Every fifth image of data set 1 with its mask; skips where the data is not there."""
    from skimage.io import imread

    pairs = []
    for image_path in sorted((real_data / "segmentation_WBC" / "Dataset 1").glob("*.bmp"))[::5]:
        levels = imread(image_path.with_suffix(".png"))
        mask = np.digitize(levels, [64, 192]).astype(np.uint8)
        pairs.append((imread(image_path)[:, :, :3], mask))
    return pairs
