import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label as components
from skimage.color import rgb2lab

from hemaml.core.errors import ConfigError
from hemaml.ops.lab import rgb_to_lab
from hemaml.ops.snic import snic
from hemaml.ops.superpixels import reconstruction_score, superpixels

QUEUES = ("bucket", "exact")


def assert_partition(labels, count, connectivity):
    """All labels of 0..count-1 in use, each one component."""
    assert labels.dtype == np.int32
    assert np.array_equal(np.unique(labels), np.arange(count))
    structure = np.ones((3, 3)) if connectivity == 8 else None
    for label in range(count):
        assert components(labels == label, structure=structure)[1] == 1


@st.composite
def images(draw):
    shape = draw(st.tuples(st.integers(1, 18), st.integers(1, 18)))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    levels = draw(st.sampled_from([1, 2, 256]))  # constant, two colours, noise
    return (rng.integers(0, levels, (*shape, 3)) * (255 // levels)).astype(np.uint8)


@settings(max_examples=150, deadline=None)
@given(
    images(),
    st.integers(1, 400),
    st.sampled_from([1e-200, 0.1, 5.0, 40.0, 1e9]),
    st.sampled_from([4, 8]),
    st.sampled_from(QUEUES),
)
def test_snic_gives_connected_parts_of_the_number_asked_for(
    image, num_superpixels, compactness, connectivity, queue
):
    labels = snic(
        rgb_to_lab(image),
        num_superpixels=num_superpixels,
        compactness=compactness,
        connectivity=connectivity,
        queue=queue,
    )
    assert labels.shape == image.shape[:2]
    assert_partition(labels, min(num_superpixels, labels.size), connectivity)


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (200, 3), (1, 50), (37, 41)])
def test_snic_works_for_any_shape(shape, queue):
    lab = np.zeros((*shape, 3), dtype=np.float32)
    count = max(1, lab[..., 0].size // 16)
    labels = snic(lab, num_superpixels=count, queue=queue)
    assert_partition(labels, count, 8)


def snic_by_the_book(lab, seeds, scale, compactness, steps):
    """SNIC in plain Python: every reached pixel is queued, stale ones fall out when popped."""
    height, width, _ = lab.shape
    labels = np.full((height, width), -1)
    sums = np.zeros((len(seeds), 6))
    queue = [(0.0, row * width + column, k) for k, (row, column) in enumerate(seeds)]
    heapq.heapify(queue)
    while queue:
        _, pixel, k = heapq.heappop(queue)
        row, column = divmod(pixel, width)
        if labels[row, column] >= 0:
            continue
        labels[row, column] = k
        sums[k] += [*lab[row, column], row, column, 1]
        centroid = sums[k] / sums[k, 5]
        for dy, dx in steps:
            y, x = row + dy, column + dx
            if 0 <= y < height and 0 <= x < width and labels[y, x] < 0:
                colour = ((lab[y, x] - centroid[:3]) ** 2).sum()
                place = (y - centroid[3]) ** 2 + (x - centroid[4]) ** 2
                distance = colour / compactness**2 + place / scale
                heapq.heappush(queue, (distance, y * width + x, k))
    return labels


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("connectivity", [4, 8])
def test_exact_queue_follows_the_published_algorithm(seed, connectivity):
    image = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    lab = rgb_to_lab(image)
    seeds = [(4 * row + 2, 4 * column + 2) for row in range(6) for column in range(8)]
    steps = [(-1, 0), (0, -1), (0, 1), (1, 0)]
    if connectivity == 8:
        steps += [(-1, -1), (-1, 1), (1, -1), (1, 1)]
    expected = snic_by_the_book(lab.astype(float), seeds, 16, 20.0, steps)
    labels = snic(
        lab, num_superpixels=48, compactness=20.0, connectivity=connectivity, queue="exact"
    )
    assert np.array_equal(labels, expected)


def test_large_compactness_ignores_colour():
    labels = snic(np.zeros((40, 40, 3), np.float32), num_superpixels=25, queue="exact")
    assert np.bincount(labels.ravel()).max() <= 2 * 64
    noise = np.random.default_rng(0).normal(0, 30, (40, 40, 3)).astype(np.float32)
    stiff = snic(noise, num_superpixels=25, compactness=1e30, queue="exact")
    assert np.array_equal(stiff, labels)


def test_superpixels_follow_a_strong_edge():
    lab = np.zeros((40, 40, 3), dtype=np.float32)
    lab[:, 23:] = 80.0  # not where the grid has a border
    labels = snic(lab, num_superpixels=25, compactness=1.0)
    assert set(labels[:, :23].ravel()).isdisjoint(labels[:, 23:].ravel())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_superpixels": 0}, "num_superpixels >= 1.*0"),
        ({"compactness": 0.0}, "compactness > 0.*0.0"),
        ({"compactness": float("nan")}, "compactness > 0.*nan"),
        ({"connectivity": 6}, "4 or 8.*6"),
        ({"queue": "fifo"}, "'bucket' or 'exact'.*fifo"),
        ({"lab": np.zeros((4, 4), np.float32)}, r"H x W x 3.*\(4, 4\)"),
        ({"lab": np.zeros((0, 4, 3), np.float32)}, r"not empty.*\(0, 4, 3\)"),
        ({"lab": np.full((4, 4, 3), np.nan, np.float32)}, "CIELAB.*nan"),
        ({"lab": np.full((4, 4, 3), -np.inf, np.float32)}, "CIELAB.*inf"),
    ],
)
def test_snic_refuses_what_it_cannot_do(change, message):
    arguments = {"lab": np.zeros((4, 4, 3), np.float32), "num_superpixels": 2} | change
    with pytest.raises(ConfigError, match=message):
        snic(arguments.pop("lab"), **arguments)


def test_lab_agrees_with_scikit_image():
    steps = np.arange(0, 256, 3)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(86, -1, 3).astype(np.uint8)
    greys = np.repeat(np.arange(256), 3).reshape(1, 256, 3).astype(np.uint8)
    for image in (cube, greys):
        assert np.abs(rgb_to_lab(image) - rgb2lab(image)).max() < 0.01


def test_lab_refuses_floats():
    with pytest.raises(ConfigError, match="uint8.*float64"):
        rgb_to_lab(np.zeros((4, 4, 3)))


@pytest.mark.parametrize("method", ["snic", "slic"])
def test_scale_is_the_mean_size(drawn_cells, method):
    image, _ = drawn_cells[0]
    labels = superpixels(image, scale=16, compactness=10.0, method=method)
    count = labels.max() + 1
    assert np.array_equal(np.unique(labels), np.arange(count))
    if method == "snic":
        assert count == 900
    assert 0.7 * 900 <= count <= 1.2 * 900


@pytest.mark.parametrize("change", [{"scale": 0.5}, {"compactness": 0}, {"method": "seeds"}])
def test_superpixels_refuse_bad_arguments(change):
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ConfigError, match=str(next(iter(change.values())))):
        superpixels(image, **({"scale": 4.0, "compactness": 5.0} | change))


def test_reconstruction_of_a_mask_by_hand():
    mask = np.array([[0, 0, 0, 2], [1, 1, 2, 2]], dtype=np.uint8)
    labels = np.array([[0, 0, 1, 1], [0, 2, 2, 2]], dtype=np.int32)
    # Votes: {0: 2, 1: 1} -> 0; {0: 1, 2: 1} -> 0 by majority, 1 by mean; {1: 1, 2: 2} -> 2.
    # Majority paints 0 0 0 0 / 0 2 2 2.
    majority = reconstruction_score(labels, mask, num_classes=3)
    assert majority == pytest.approx((3 / 5 + 0 / 2 + 2 / 4) / 3)
    # Mean paints 0 0 1 1 / 0 2 2 2.
    mean = reconstruction_score(labels, mask, num_classes=3, rule="mean")
    assert mean == pytest.approx((2 / 4 + 0 / 4 + 2 / 4) / 3)
    # A class in neither mask nor copy does not count.
    more = reconstruction_score(labels, mask, num_classes=5)
    assert more == pytest.approx(majority)


def test_reconstruction_refuses_an_unknown_rule():
    zeros = np.zeros((2, 2), np.int32)
    with pytest.raises(ConfigError, match="'mean' or 'majority'.*'median'"):
        reconstruction_score(zeros, zeros.astype(np.uint8), num_classes=2, rule="median")


def test_reconstruction_is_perfect_with_one_pixel_a_superpixel(drawn_cells):
    _, mask = drawn_cells[0]
    labels = np.arange(mask.size, dtype=np.int32).reshape(mask.shape)
    assert reconstruction_score(labels, mask, num_classes=3) == 1.0
    assert reconstruction_score(labels, mask, num_classes=3, rule="mean") == 1.0


def mean_reconstruction(cells, queue):
    scores = [
        reconstruction_score(
            superpixels(image, scale=16, compactness=5.0, queue=queue), mask, num_classes=3
        )
        for image, mask in cells
    ]
    return float(np.mean(scores))


def test_bucket_queue_loses_nothing_on_drawn_cells(drawn_cells):
    exact = mean_reconstruction(drawn_cells, "exact")
    bucket = mean_reconstruction(drawn_cells, "bucket")
    assert exact > 0.9
    assert bucket == pytest.approx(exact, abs=0.002)


def test_bucket_queue_loses_nothing_on_real_cells(real_cells):
    exact = mean_reconstruction(real_cells, "exact")
    bucket = mean_reconstruction(real_cells, "bucket")
    assert exact > 0.9
    assert bucket == pytest.approx(exact, abs=0.0003)
