"""How far points of a grid are from the nearest of others, in millimetres.

Most points of a surface have one of the other beside them: the steps to all places near by are tried in the
order of their lengths. For those that are left there is a k-d tree. It is slow far away from the others, many
of which are nearly the nearest there. So if many points are left, as of a prediction that is noise, there is
a distance transform: along one axis, then along a second one, and along the third only at the points.

Steps and transform give the same distances, bit for bit. The tree compares positions: of neighbours that are
equally far but for rounding, it may find one whose distance is greater in the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctspine1k.errors import MissingPackageError
from ctspine1k.running.stops import check_stopped

__all__ = ["nearest_mm"]

#: Places around a point that are tried before a tree is built, and looks per point on average before that.
_PLACES, _LOOKS = 500, 30

#: Points that are looked at together: temporary arrays are some times as large. Few labels have more.
_POINTS = 1 << 20

#: Sums in a distance transform that take as long as one search along an axis.
_SUMS_OF_SEARCH = 20

#: Sums that are made together, so that they stay in the processor's cache.
_SUMS = 1 << 17


def nearest_mm(
    points: NDArray[np.int32],
    others: NDArray[np.int32],
    spacing: tuple[float, ...],
    within_mm: float = math.inf,
) -> NDArray[np.float64]:
    """Return how far each point is from the nearest of others, in mm.

    Args:
        points: (n, 3), whole numbers; many of them should be in the order of an axis.
        others: (m, 3); without any, all points are infinitely far.
        spacing: mm, of one along each axis.
        within_mm: what is farther than this is infinitely far, and costs little time.

    Raises:
        MissingPackageError: SciPy is not installed.
    """
    tree_type = _tree_type()
    distances = np.full(len(points), math.inf)
    if len(others):
        for start in range(0, len(points), _POINTS):
            check_stopped()  # surfaces without likeness take long
            piece = slice(start, start + _POINTS)
            _measure(points[piece], others, spacing, within_mm, distances[piece], tree_type)
    return distances


def _measure(
    points: NDArray[np.int32],
    others: NDArray[np.int32],
    spacing: tuple[float, ...],
    within_mm: float,
    distances: NDArray[np.float64],
    tree_type: Any,
) -> None:
    """Write the distances of some points; those that are infinite are left as they are."""
    left = _try_steps(points, others, spacing, within_mm, distances)
    if not left.size:
        return
    far = points[left]
    if math.isinf(within_mm):
        axes, sums = _cheapest_axes(far, others)
        if 2 * sums < len(far) * len(others):  # far away a tree looks at a good part of the others
            distances[left] = _transformed(far, others, spacing, axes)
            return
    # Of far places many are nearly the nearest: leaves of many points are searched faster.
    tree = tree_type(others * np.array(spacing), leafsize=64, compact_nodes=False)
    bound = within_mm * (1 + 1e-9)  # the tree leaves out what is just as far, and computes from positions
    nearest = tree.query(far * np.array(spacing), distance_upper_bound=bound)[1]
    is_found = nearest < len(others)
    # Again from steps, so that a distance does not depend on where the points are.
    distances[left[is_found]] = _lengths(far[is_found] - others[nearest[is_found]], spacing)


def _try_steps(
    points: NDArray[np.int32],
    others: NDArray[np.int32],
    spacing: tuple[float, ...],
    within_mm: float,
    distances: NDArray[np.float64],
) -> NDArray[np.intp]:
    """Write the distances of points that have one of the others near by; return which points are left."""
    steps, lengths = _steps(spacing)
    reach = steps.max(axis=0)
    is_enough = within_mm <= lengths[-1]  # a point without a step to another one is too far away
    (low, high), (first, last) = _extent(points), _extent(others)
    if (first < low - reach).any() or (last > high + reach).any():
        others = others[_is_within(others, low - reach, high + reach)]
        if not len(others):
            return np.zeros(0, np.intp) if is_enough else np.arange(len(points))
        first, last = _extent(others)
    left, beyond, near = np.arange(len(points)), np.zeros(0, np.intp), points
    if (low < first - reach).any() or (high > last + reach).any():
        is_near = _is_within(points, first - reach, last + reach)
        left, beyond, near = left[is_near], left[~is_near], points[is_near]
    origin = first - 2 * reach
    box = tuple((last + 2 * reach + 1 - origin).tolist())
    # Memory that is never written to is never allocated, so a stray point far away costs nothing.
    is_other = np.zeros(math.prod(box), bool)
    for start in range(0, len(others), _POINTS):
        is_other[_elements(others[start : start + _POINTS], origin, box)] = True
    places = _elements(near, origin, box)
    ways = steps @ [box[1] * box[2], box[2], 1]
    looks = _LOOKS * len(points)
    for way, length in zip(ways.tolist(), lengths.tolist(), strict=True):
        if length > within_mm:
            return left[:0]
        is_there = is_other[places + way]
        distances[left.compress(is_there)] = length
        left, places = left.compress(~is_there), places.compress(~is_there)
        looks -= len(left)
        if not left.size or looks < 0:
            break
    return left if is_enough else np.concatenate([left, beyond])


def _extent(points: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the smallest and the greatest index along each axis."""
    low, high = zip(*((along.min(), along.max()) for along in points.T), strict=True)  # as arrays of three
    return np.array(low, np.int64), np.array(high, np.int64)


def _elements(
    points: NDArray[np.int32], origin: NDArray[np.int64], shape: Sequence[int]
) -> NDArray[np.int64]:
    """Return which elements of a flattened array points are; much faster than `numpy.ravel_multi_index`.

    Args:
        points: (n, 3).
        origin: index of the array's first element.
        shape: of the array.
    """
    # NumPy 1 would subtract in 32 bits, in which elements of large arrays overflow.
    x, y, z = (
        np.subtract(along, start, dtype=np.int64) for along, start in zip(points.T, origin, strict=True)
    )
    elements: NDArray[np.int64] = (x * shape[1] + y) * shape[2] + z
    return elements


def _is_within(
    points: NDArray[np.int32], first: NDArray[np.int64], last: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which points are in a box, which contains its ends."""
    is_within = np.ones(len(points), bool)
    for along, start, end in zip(points.T, first.tolist(), last.tolist(), strict=True):
        is_within &= (along >= start) & (along <= end)
    return is_within


@lru_cache(maxsize=8)
def _steps(spacing: tuple[float, ...]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the steps to all places around a point within a ball of some `_PLACES`, the shortest first."""
    radius = (3 * _PLACES * math.prod(spacing) / (4 * math.pi)) ** (1 / 3)
    radius = min(radius, _PLACES * min(spacing))  # of voxels as thin as hairs, not millions along one axis
    reach = [int(radius / size) for size in spacing]
    steps = np.indices([2 * size + 1 for size in reach]).reshape(3, -1).T - reach
    lengths = _lengths(steps, spacing)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] <= radius]
    return steps[order], lengths[order]


def _lengths(steps: NDArray[Any], spacing: tuple[float, ...]) -> NDArray[np.float64]:
    in_mm: NDArray[np.float64] = steps * np.array(spacing)
    lengths: NDArray[np.float64] = np.sqrt((in_mm * in_mm).sum(axis=1))
    return lengths


def _cheapest_axes(points: NDArray[np.int32], others: NDArray[np.int32]) -> tuple[tuple[int, int, int], int]:
    """Return the order of axes in which a distance transform makes the fewest sums, and how many.

    The last axis stays the last, so that squares are added in the order of `_lengths`, or with the first two
    exchanged, which is the same.
    """
    (low, high), (first, last) = _extent(points), _extent(others)
    of_points, of_others = (high - low + 1).tolist(), (last - first + 1).tolist()
    ways = []
    for x, y in ((0, 1), (1, 0)):
        planes = of_points[x] * of_others[y] * (of_points[y] + _SUMS_OF_SEARCH)
        ways.append(((planes + len(points)) * of_others[2], (x, y, 2)))
    sums, axes = min(ways)
    return axes, sums


def _transformed(
    points: NDArray[np.int32],
    others: NDArray[np.int32],
    spacing: tuple[float, ...],
    axes: tuple[int, int, int],
) -> NDArray[np.float64]:
    """Return how far each point is from the nearest of others, in mm, by a distance transform.

    Args:
        points: (n, 3).
        others: (m, 3).
        spacing: mm.
        axes: their order.
    """
    x_mm, y_mm, z_mm = (spacing[axis] for axis in axes)
    low, high = (ends[[*axes]].tolist() for ends in _extent(points))
    first, last = (ends[[*axes]].tolist() for ends in _extent(others))
    xs, ys, zs = (points[:, axis] for axis in axes)
    # Squares of the distances along y and z, (points' places, others' places).
    along_y, along_z = (
        ((np.arange(start, stop + 1)[:, None] - np.arange(begin, end + 1)) * mm) ** 2
        for start, stop, begin, end, mm in zip(
            low[1:], high[1:], first[1:], last[1:], (y_mm, z_mm), strict=True
        )
    )
    (n_y, others_y), (_, others_z) = along_y.shape, along_z.shape
    # The others in a row: columns along x, one after the other.
    origin = min(low[0], first[0])
    span = max(high[0], last[0]) + 1 - origin
    other_x, other_y, other_z = (others[:, axis].astype(np.int64) for axis in axes)
    column = (other_y - first[1]) * others_z + other_z - first[2]
    row = np.sort(column * span + other_x - origin)
    row = np.concatenate([[-1], row, [others_y * others_z * span]])
    starts = np.arange(others_y * others_z)[:, None] * span

    order = np.argsort(xs, kind="stable")
    depth = max(1, _SUMS // (max(n_y, others_y) * others_z))
    edges = np.arange(low[0], high[0] + 1 + depth, depth)
    ends = np.searchsorted(xs[order], edges)
    distances = np.empty(len(points))
    for start, begin, end in zip(edges[:-1].tolist(), ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        if begin == end:
            continue
        check_stopped()
        # Along x: the one before each place and the one after it, of the same column.
        at = starts + np.arange(start - origin, min(start - origin + depth, span))
        after = np.searchsorted(row, at)
        before_mm, after_mm = (
            np.where((found >= starts) & (found < starts + span), np.abs(found - at) * x_mm, math.inf)
            for found in (row[after - 1], row[after])
        )
        nearest = np.minimum(before_mm, after_mm) ** 2
        nearest = np.ascontiguousarray(nearest.reshape(others_y, others_z, -1).transpose(0, 2, 1))
        # Along y.
        squares = np.full((nearest.shape[1], others_z, n_y), math.inf)
        sums = np.empty_like(squares)
        for plane, square in zip(nearest, along_y.T, strict=True):
            np.add(plane[:, :, None], square, out=sums)
            np.minimum(squares, sums, out=squares)
        rows = np.ascontiguousarray(squares.transpose(0, 2, 1)).reshape(-1, others_z)
        # Along z, at the points.
        step = max(1, _SUMS // others_z)
        for piece in range(begin, end, step):
            own = order[piece : min(piece + step, end)]
            of_points = along_z[zs[own] - low[2]]
            of_points += rows[(xs[own] - start) * n_y + ys[own] - low[1]]
            distances[own] = np.sqrt(of_points.min(axis=1))
    return distances


def _tree_type() -> Any:
    try:
        from scipy.spatial import cKDTree
    except ImportError:
        raise MissingPackageError("distances between surfaces", "scipy", "evaluate") from None
    return cKDTree
