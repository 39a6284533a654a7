"""From superpixels to a graph: features and targets of the nodes, edges by distance.

K nodes, one a superpixel, in the order of the labels 0..K-1; E directed edges.
"""

import numpy as np

from hemaml.core.compiled import compiled
from hemaml.core.errors import ConfigError
from hemaml.core.types import Float32Array, Float64Array, Int32Array, Int64Array, UInt8Array

VERSION = 1
"""Goes up whenever a result changes for the same arguments; part of cache keys."""


def node_features(image: UInt8Array, labels: Int32Array) -> Float32Array:
    """Mean colour and mean position of each superpixel.

    Args:
        image: H x W x 3, RGB.
        labels: H x W, 0..K-1, all in use.

    Returns:
        K x 5: red, green and blue in 0..1; row and column in pixels, the first pixel's being 0.

    Source: sections 2.1 and 3 of the SMGNN paper.
    """
    assert image.shape == (*labels.shape, 3)
    return _node_features(image, labels, int(labels.max()) + 1)


def node_targets(labels: Int32Array, mask: UInt8Array, *, num_classes: int) -> Float32Array:
    """Mean class of each superpixel, as a level between the first class (0) and the last (1).

    Args:
        labels: H x W, 0..K-1, all in use.
        mask: H x W class indices, below `num_classes`; their order is that of the levels.
        num_classes: At least 2.

    Returns:
        K values in 0..1.

    Raises:
        ConfigError: Fewer than two classes.

    Source: eq. 2.1 of the SMGNN paper, with levels scaled to 0..1.
    """
    if num_classes < 2:
        raise ConfigError(f"`num_classes >= 2` must hold, but got {num_classes}.")
    assert labels.shape == mask.shape
    flat = labels.ravel()
    mean = np.bincount(flat, weights=mask.ravel()) / np.bincount(flat)
    return (mean / (num_classes - 1)).astype(np.float32)


def radius_edges(centres: Float32Array, *, radius: float) -> Int64Array:
    """All pairs of different nodes that are nearer than `radius` in city-block distance.

    Nodes are sorted into square cells that are no smaller than the radius, so that only nine
    cells are searched for each node.

    Args:
        centres: K x 2 positions, finite, in any unit.
        radius: In the same unit; alpha * sqrt(S) in the paper, with alpha >= 2.

    Returns:
        2 x E: sources, then targets. Each edge in both directions, no loops; sorted by source,
        then by target.

    Raises:
        ConfigError: The radius is not positive, or the positions are not K x 2.

    Source: section 3 of the SMGNN paper.
    """
    if centres.ndim != 2 or centres.shape[1] != 2:
        raise ConfigError(f"`centres` must be K x 2, but its shape is {centres.shape}.")
    if not radius > 0:
        raise ConfigError(f"`radius > 0` must hold, but got {radius}.")
    if len(centres) == 0:
        return np.zeros((2, 0), dtype=np.int64)
    offsets: Float64Array = centres.astype(np.float64)
    offsets -= offsets.min(axis=0)
    # No more than about K cells, however small the radius. A hair wider than the radius, so that
    # rounding never puts a near pair two cells apart.
    cell = max(radius, float(offsets.max()) / len(centres) ** 0.5) * (1 + 1e-9)
    cells = (offsets / cell).astype(np.int64)
    num_columns = int(cells[:, 1].max()) + 3
    # A frame of empty cells, so that all nodes have nine.
    cell_of = (cells[:, 0] + 1) * num_columns + cells[:, 1] + 1
    num_cells = (int(cells[:, 0].max()) + 3) * num_columns
    order = np.argsort(cell_of, kind="stable")
    starts = np.searchsorted(cell_of[order], np.arange(num_cells + 1))
    return _radius_edges(centres.astype(np.float64), radius, cell_of, num_columns, order, starts)


@compiled
def _node_features(image: UInt8Array, labels: Int32Array, count: int) -> Float32Array:
    sums = np.zeros((count, 6), dtype=np.float64)
    height, width = labels.shape
    for row in range(height):
        for column in range(width):
            total = sums[labels[row, column]]
            for channel in range(3):
                total[channel] += image[row, column, channel]
            total[3] += row
            total[4] += column
            total[5] += 1
    features = np.empty((count, 5), dtype=np.float32)
    for node in range(count):
        for channel in range(3):
            features[node, channel] = sums[node, channel] / sums[node, 5] / 255
        features[node, 3] = sums[node, 3] / sums[node, 5]
        features[node, 4] = sums[node, 4] / sums[node, 5]
    return features


@compiled
def _radius_edges(
    centres: Float64Array,
    radius: float,
    cell_of: Int64Array,
    num_columns: int,
    order: Int64Array,
    starts: Int64Array,
) -> Int64Array:
    """Pairs are found node by node, then dealt to the other end of each.

    The relation is symmetric, so dealing the nodes in order leaves every list sorted.
    """
    count = len(centres)
    placed = centres[order]  # the nodes of a cell side by side
    ends = np.zeros(count + 1, dtype=np.int64)
    pairs = np.empty((32 * count, 2), dtype=np.int64)
    num_pairs = 0
    for node in range(count):
        row, column = centres[node]
        for row_step in (-1, 0, 1):
            # Three cells of a row are neighbours in memory.
            middle = cell_of[node] + row_step * num_columns
            first, last = starts[middle - 1], starts[middle + 2]
            if num_pairs + last - first > len(pairs):
                longer = np.empty((2 * len(pairs) + last - first, 2), dtype=np.int64)
                longer[:num_pairs] = pairs[:num_pairs]
                pairs = longer
            for place in range(first, last):
                # Written in any case, kept by counting: a branch would be mispredicted often.
                pairs[num_pairs] = node, order[place]
                distance = abs(row - placed[place, 0]) + abs(column - placed[place, 1])
                num_pairs += distance < radius and order[place] != node
    for pair in range(num_pairs):
        ends[pairs[pair, 1] + 1] += 1
    ends = np.cumsum(ends)
    edges = np.empty((2, num_pairs), dtype=np.int64)
    for pair in range(num_pairs):
        node, other = pairs[pair]
        edges[0, ends[other]] = other
        edges[1, ends[other]] = node
        ends[other] += 1
    return edges
