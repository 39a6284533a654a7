"""SNIC superpixels, grown on a compiled queue.

An image is H x W pixels, N = H * W in all; K is the number of superpixels and S = N / K their
mean size in pixels.
"""

from typing import Literal

import numpy as np

from hemaml.core.compiled import compiled
from hemaml.core.errors import ConfigError
from hemaml.core.types import Float32Array, Float64Array, Int32Array, Int64Array

Connectivity = Literal[4, 8]
Queue = Literal["bucket", "exact"]

# Bits of a positive float32 order like the float. Without the lowest 17 of them, 64 steps remain
# between a power of two and the next: a bucket spans 1.6 % of a squared distance, at any scale.
_BUCKET_SHIFT = 17
_NUM_BUCKETS = 1 << (31 - _BUCKET_SHIFT)

# What `best` holds besides the bits of a distance: above and below all of them.
_UNREACHED = 0x7FFFFFFF
_SETTLED = -0x80000000

# Bounds within which no distance overflows a float32.
_MAX_LAB = 1e6
_MAX_COLOUR_SCALE = 1e6

# The first four are the 4-neighbours.
_ROW_STEPS = np.array([-1, 0, 0, 1, -1, -1, 1, 1], dtype=np.float32)
_COLUMN_STEPS = np.array([0, -1, 1, 0, -1, 1, -1, 1], dtype=np.float32)


def snic(
    lab: Float32Array,
    *,
    num_superpixels: int,
    compactness: float = 5.0,
    connectivity: Connectivity = 8,
    queue: Queue = "bucket",
) -> Int32Array:
    """Partition of an image into connected superpixels of similar colour.

    All superpixels grow at once from seeds on a regular grid. The unlabelled neighbours of each
    labelled pixel wait in a queue ordered by the distance to the superpixel that reached them;
    the nearest one leaves the queue, takes that superpixel's label and moves its centroid. The
    squared distance of a pixel (colour c, position x) to a centroid is

        |x - x_centroid|^2 / S  +  |c - c_centroid|^2 / compactness^2,

    the normalisation of SLIC; its order is that of the published square root.

    Args:
        lab: H x W x 3, CIELAB (see `hemaml.ops.lab`).
        num_superpixels: K, at least 1. More than N gives one superpixel a pixel.
        compactness: Weight of position against colour, in Lab units: large values give squares,
            small ones follow the edges of the image.
        connectivity: Whether superpixels grow over sides (4) or also over corners (8).
        queue: `exact` takes the nearest pixel. `bucket` takes one whose squared distance is
            within 1.6 % of the nearest's; faster, with other choices between near equals.

    Returns:
        H x W labels. Exactly min(K, N) of them, from 0 in the order of the seeds, all in use;
        each superpixel is one component in the chosen connectivity.

    Raises:
        ConfigError: An argument is out of bounds, or `lab` is no H x W x 3 array of Lab values.

    Source: Achanta and Susstrunk, "Superpixels and polygons using simple non-iterative
    clustering", CVPR 2017, algorithm 1.
    """
    _check(lab, num_superpixels, compactness, connectivity, queue)
    height, width, _ = lab.shape
    count = min(num_superpixels, height * width)
    # Dividing both terms by the weight of position leaves pixels as the unit of distance.
    colour_scale = min((height * width / count) ** 0.5 / compactness, _MAX_COLOUR_SCALE)
    framed = _grow(
        np.ascontiguousarray(lab, dtype=np.float32),
        _seeds(height, width, count),
        np.float32(colour_scale**2),
        int(connectivity),
        queue == "exact",
    )
    return np.ascontiguousarray(framed[1:-1, 1:-1])


def _check(
    lab: Float32Array, num_superpixels: int, compactness: float, connectivity: int, queue: str
) -> None:
    if lab.ndim != 3 or lab.shape[2] != 3 or lab.size == 0:
        raise ConfigError(f"`lab` must be H x W x 3 and not empty, but its shape is {lab.shape}.")
    largest = max(-float(lab.min()), float(lab.max()))
    if not largest <= _MAX_LAB:
        raise ConfigError(f"`lab` must hold CIELAB values, but got one of size {largest}.")
    if num_superpixels < 1:
        raise ConfigError(f"`num_superpixels >= 1` must hold, but got {num_superpixels}.")
    if not compactness > 0:
        raise ConfigError(f"`compactness > 0` must hold, but got {compactness}.")
    if connectivity not in (4, 8):
        raise ConfigError(f"`connectivity` must be 4 or 8, but got {connectivity}.")
    if queue not in ("bucket", "exact"):
        raise ConfigError(f"`queue` must be 'bucket' or 'exact', but got {queue!r}.")


def _seeds(height: int, width: int, count: int) -> Int64Array:
    """Rows and columns of `count` different pixels, spread evenly; count x 2, count <= N.

    Rows of the grid may differ by one seed, so that every count can be met exactly.
    """
    squares = round((count * height / width) ** 0.5)
    num_rows = min(max(squares, -(-count // width), 1), height, count)
    first_of_row = np.arange(num_rows + 1) * count // num_rows
    in_row = np.diff(first_of_row)
    row = np.repeat(np.arange(num_rows), in_row)
    place = np.arange(count) - first_of_row[row]
    rows = (2 * row + 1) * height // (2 * num_rows)
    columns = (2 * place + 1) * width // (2 * in_row[row])
    return np.stack([rows, columns], axis=1)


@compiled
def _grow(
    lab: Float32Array,
    seeds: Int64Array,
    colour_weight: np.float32,
    connectivity: int,
    exact: bool,
) -> Int32Array:
    """Labels in a frame one pixel wide; the frame counts as settled, so no bounds are checked.

    A queued distance is not updated when the centroid moves on. Of several distances of a pixel
    the smallest leaves the queue first and decides, so `best` and `labels` keep that one alone.

    Each bucket is a circular list of pixels. For the exact order, the pixels of the buckets up to
    `cursor` wait in a heap instead; a pixel that is reached again stays in it as a stale item.
    """
    height, width, _ = lab.shape
    stride = width + 2
    colours, best, labels = _framed(lab)
    steps = (_ROW_STEPS * stride + _COLUMN_STEPS).astype(np.int64)
    sums = np.zeros((len(seeds), 6), dtype=np.float64)
    keys = np.empty(8, dtype=np.int32)
    heads = best.size
    links = np.empty((heads + _NUM_BUCKETS, 2), dtype=np.int32)
    for bucket in range(_NUM_BUCKETS):
        links[heads + bucket] = heads + bucket
    heap = np.empty(best.size * connectivity if exact else 1, dtype=np.int64)
    heap_size = 0
    cursor = -1

    # Seeds have distance 0: all of them are settled before any pixel beside them is.
    for label in range(len(seeds)):
        pixel = (seeds[label, 0] + 1) * stride + seeds[label, 1] + 1
        labels[pixel] = label
        best[pixel] = _SETTLED

    for turn in range(height * width):
        if turn < len(seeds):
            pixel = (seeds[turn, 0] + 1) * stride + seeds[turn, 1] + 1
        elif exact:
            pixel = 0
            while best[pixel] == _SETTLED:
                if heap_size == 0:
                    cursor = _next_bucket(links, heads, cursor)
                    heap_size = _fill_heap(heap, links, heads + cursor, best)
                pixel = heap[0] & 0xFFFFFFFF
                heap_size = _heap_pop(heap, heap_size)
        else:
            cursor = _next_bucket(links, heads, cursor)
            pixel = int(links[heads + cursor, 0])
            _unlink(links, pixel)
        best[pixel] = _SETTLED
        label = int(labels[pixel])
        row = pixel // stride
        column = pixel - row * stride
        _join(pixel, row, column, colours, sums[label], steps, colour_weight, keys)

        for step in range(connectivity):
            near = pixel + steps[step]
            key = keys[step]
            old = best[near]
            if key >= old:
                continue
            best[near] = key
            labels[near] = label
            bucket = int(key >> _BUCKET_SHIFT)
            if old != _UNREACHED and not (exact and old >> _BUCKET_SHIFT <= cursor):
                _unlink(links, near)
            if exact and bucket <= cursor:
                heap_size = _heap_push(heap, heap_size, (int(key) << 32) | near)
            else:
                _link(links, heads + bucket, near)
                if bucket < cursor:
                    cursor = bucket
    return labels.reshape((height + 2, stride))


@compiled
def _framed(lab: Float32Array) -> tuple[Float32Array, Int32Array, Int32Array]:
    """Colours, best keys and labels by pixel, with a frame that is settled from the start."""
    height, width, _ = lab.shape
    colours = np.zeros((height + 2, width + 2, 3), dtype=np.float32)
    colours[1:-1, 1:-1] = lab
    best = np.full((height + 2, width + 2), _SETTLED, dtype=np.int32)
    best[1:-1, 1:-1] = _UNREACHED
    return colours.reshape((-1, 3)), best.reshape(-1), np.zeros(best.size, dtype=np.int32)


@compiled
def _join(
    pixel: int,
    row: int,
    column: int,
    colours: Float32Array,
    total: Float64Array,
    steps: Int64Array,
    colour_weight: np.float32,
    keys: Int32Array,
) -> None:
    """Adds a pixel to the sums of its superpixel, and measures its neighbours to the new centroid.

    Args:
        pixel: Index in the framed arrays.
        row: Row of the pixel, counted with the frame, as the sums do.
        column: Its column.
        colours: Of all pixels.
        total: Lab, row, column and number of the superpixel's pixels; changed.
        steps: From the pixel to its neighbours' indices.
        colour_weight: Of squared colour against squared pixels.
        keys: Becomes the bits of the distances of the neighbours.
    """
    total[0] += colours[pixel, 0]
    total[1] += colours[pixel, 1]
    total[2] += colours[pixel, 2]
    total[3] += row
    total[4] += column
    total[5] += 1
    share = 1 / total[5]
    light = np.float32(total[0] * share)
    green_red = np.float32(total[1] * share)
    blue_yellow = np.float32(total[2] * share)
    up = np.float32(row - total[3] * share)
    left = np.float32(column - total[4] * share)
    for step in range(8):
        near = pixel + steps[step]
        d_light = colours[near, 0] - light
        d_green_red = colours[near, 1] - green_red
        d_blue_yellow = colours[near, 2] - blue_yellow
        d_row = up + _ROW_STEPS[step]
        d_column = left + _COLUMN_STEPS[step]
        colour = d_light * d_light + d_green_red * d_green_red + d_blue_yellow * d_blue_yellow
        distance = d_row * d_row + d_column * d_column + colour_weight * colour
        keys[step] = np.float32(distance).view(np.int32)


@compiled
def _link(links: Int32Array, head: int, pixel: int) -> None:
    """Puts a pixel first in the list of a head; links are (next, previous)."""
    first = int(links[head, 0])
    links[pixel, 0] = first
    links[pixel, 1] = head
    links[first, 1] = pixel
    links[head, 0] = pixel


@compiled
def _unlink(links: Int32Array, pixel: int) -> None:
    after, before = int(links[pixel, 0]), int(links[pixel, 1])
    links[before, 0] = after
    links[after, 1] = before


@compiled
def _next_bucket(links: Int32Array, heads: int, cursor: int) -> int:
    """The first bucket from the cursor on that is not empty."""
    cursor = max(cursor, 0)
    while links[heads + cursor, 0] == heads + cursor:
        cursor += 1
    return cursor


@compiled
def _fill_heap(heap: Int64Array, links: Int32Array, head: int, best: Int32Array) -> int:
    """Moves the list of a head to the empty heap; returns the heap's size."""
    size = 0
    pixel = int(links[head, 0])
    while pixel != head:
        size = _heap_push(heap, size, (int(best[pixel]) << 32) | pixel)
        pixel = int(links[pixel, 0])
    links[head] = head
    return size


@compiled
def _heap_push(heap: Int64Array, size: int, item: int) -> int:
    """Adds an item to the binary heap in `heap[:size]`; returns the new size."""
    hole = size
    while hole > 0:
        parent = (hole - 1) >> 1
        if heap[parent] <= item:
            break
        heap[hole] = heap[parent]
        hole = parent
    heap[hole] = item
    return size + 1


@compiled
def _heap_pop(heap: Int64Array, size: int) -> int:
    """Removes the smallest item, `heap[0]`; returns the new size."""
    size -= 1
    item = heap[size]
    hole = 0
    child = 1
    while child < size:
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= item:
            break
        heap[hole] = heap[child]
        hole = child
        child = 2 * hole + 1
    heap[hole] = item
    return size
