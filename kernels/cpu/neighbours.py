"""Who is near whom: spots sorted into square bins, the nearest of each, and the symmetric pattern of neighbours."""

import math

import numpy as np

from ..compile import kernel

RANKED = 64  # neighbours of a spot, at most, that are sorted by counting


@kernel()
def tell_in_order(points):
    """Whether the points come row by row or column by column: then no two of them are at one place.

    Parameters
    ----------
    points : (n_points, n_axes) float64

    Returns
    -------
    bool
        Whether each point is beyond the one before it on the first axis (or else the last one) on which they differ.
    """
    first, last = True, True
    n_axes = points.shape[1]
    for i in range(1, points.shape[0]):
        forward, backward = 0, 0
        for a in range(n_axes):
            here, there = points[i, a], points[i - 1, a]
            step = 1 if here > there else 0 if here == there else -1
            forward = step if forward == 0 else forward
            backward = step if step != 0 else backward
        first &= forward > 0
        last &= backward > 0
    return first or last


@kernel()
def sort_into_bins(points, n_across, n_down, left, bottom, side, starts_out, members_out):
    """List the points bin by bin; overwrites both outputs.

    Parameters
    ----------
    points, n_across, n_down, left, bottom, side
        As in `find_near`.
    starts_out : (n_across * n_down + 1,) int32
        First of the members of each bin.
    members_out : (n_points,) int32
        Ascending within each bin.
    """
    starts_out[:] = 0
    for i in range(points.shape[0]):
        column = min(int((points[i, 0] - left) / side), n_across - 1)
        row = min(int((points[i, 1] - bottom) / side), n_down - 1)
        starts_out[row * n_across + column + 1] += 1
    for cell in range(n_across * n_down):
        starts_out[cell + 1] += starts_out[cell]
    for i in range(points.shape[0]):  # each start moves to the end of its bin, and is that of the next one
        column = min(int((points[i, 0] - left) / side), n_across - 1)
        row = min(int((points[i, 1] - bottom) / side), n_down - 1)
        cell = row * n_across + column
        members_out[starts_out[cell]] = i
        starts_out[cell] += 1
    for cell in range(n_across * n_down, 0, -1):
        starts_out[cell] = starts_out[cell - 1]
    starts_out[0] = 0


@kernel()
def find_near(
    points, members, bin_starts, n_across, n_down, left, bottom, side, k, most, tie, start, stop, lengths_out, near_out
):  # fmt: skip
    """Find the k nearest other points of each point and all that tie with the last of them; overwrites the outputs.

    The points lie in square bins; rings of bins around a point are searched until no point beyond them can be as near
    as the k-th.

    Parameters
    ----------
    points : (n_points, 2) float64
    members : (n_points,) int32
        The points in the order of their bins.
    bin_starts : (n_across * n_down + 1,) int32
        First of `members` in each bin; bin = row * n_across + column.
    n_across, n_down : int
        Columns and rows of bins.
    left, bottom, side : float
        Corner of the first bin, and the side of a bin, in the unit of the points.
    k : int
        At least 1, below n_points.
    most : int
        Neighbours a point has room for, at least k.
    tie : float
        Relative difference of distances that counts as a tie.
    start, stop : int
        Range of points; outputs are relative to `start`.
    lengths_out : (n_chunk,) int64
        Neighbours found; -1 where there are more than `most`.
    near_out : (n_chunk * most,) int32
        Neighbours of the points, sorted by number, laid end to end: from where they end on nothing is said.
    """
    first = 0
    room = 256
    found = np.empty(room, np.int64)
    squares = np.empty(room)
    nearest = np.empty(k)
    for i in range(start, stop):
        x, y = points[i, 0], points[i, 1]
        column = min(max(int((x - left) / side), 0), n_across - 1)
        row = min(max(int((y - bottom) / side), 0), n_down - 1)
        # how far the point is from the nearest edge of its bin: that much further the rings searched are whole
        inside = min(
            min(x - (left + column * side), left + (column + 1) * side - x),
            min(y - (bottom + row * side), bottom + (row + 1) * side - y),
        )
        n_found = 0
        reach = math.inf
        ring = 0
        while True:
            for r in range(max(row - ring, 0), min(row + ring, n_down - 1) + 1):
                edge = r == row - ring or r == row + ring
                step = 1 if edge or ring == 0 else 2 * ring
                for c in range(column - ring, column + ring + 1, step):
                    if c < 0 or c >= n_across:
                        continue
                    cell = r * n_across + c
                    # places without a sign: numba would look at each whether it is counted from the end
                    for m in range(np.uint64(bin_starts[cell]), np.uint64(bin_starts[cell + 1])):
                        j = np.uint64(members[m])
                        if j == np.uint64(i):
                            continue
                        dx, dy = points[j, 0] - x, points[j, 1] - y
                        if n_found == room:
                            room *= 2
                            more, further = np.empty(room, np.int64), np.empty(room)
                            more[:n_found] = found[:n_found]
                            further[:n_found] = squares[:n_found]
                            found, squares = more, further
                        found[n_found] = j
                        squares[n_found] = dx * dx + dy * dy
                        n_found += 1
            if n_found >= k:
                filled = 0
                for a in range(n_found):
                    if filled < k or squares[a] < nearest[k - 1]:
                        at = min(filled, k - 1)
                        while at > 0 and nearest[at - 1] > squares[a]:
                            nearest[at] = nearest[at - 1]
                            at -= 1
                        nearest[at] = squares[a]
                        filled = min(filled + 1, k)
                reach = math.sqrt(nearest[k - 1]) * (1.0 + tie)
            if reach < ring * side + inside or ring > max(n_across, n_down):
                break
            ring += 1
        length = 0
        for a in range(n_found):
            if math.sqrt(squares[a]) <= reach:
                if length == most:
                    length = -1
                    break
                at = first + length
                while at > first and near_out[at - 1] > found[a]:
                    near_out[at] = near_out[at - 1]
                    at -= 1
                near_out[at] = found[a]
                length += 1
        lengths_out[i - start] = length
        first += max(length, 0)


@kernel()
def find_one_sided(indptr, indices, start, stop, one_sided_out):
    """Mark the edges i -> j without an edge j -> i; overwrites `one_sided_out`.

    Parameters
    ----------
    indptr : (n_spots + 1,) int64
    indices : (n_edges,) int32
        Sorted within each row.
    start, stop : int
        Range of spots.
    one_sided_out : (n_edges,) bool
    """
    for i in range(start, stop):
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            low, high = indptr[j], indptr[j + 1]
            while low < high:
                middle = (low + high) // 2
                if indices[middle] < i:
                    low = middle + 1
                else:
                    high = middle
            one_sided_out[e] = low == indptr[j + 1] or indices[low] != i


@kernel()
def merge_edges(
    indptr, indices, back_indptr, back_indices, both_indptr, points, start, stop, indices_out, distances_out
):
    """Lay directed edges and missing way backs into one symmetric pattern; overwrites both outputs.

    Parameters
    ----------
    indptr, indices : CSR arrays, (n_spots + 1,), (n_edges,)
        Directed edges, sorted within each row.
    back_indptr, back_indices : CSR arrays, (n_spots + 1,), (n_back,)
        Neighbours of which a spot is one, but which are none of its own; sorted within each row.
    both_indptr : (n_spots + 1,) int64
        Sum of both.
    points : (n_spots, n_axes) float64
    start, stop : int
        Range of spots.
    indices_out : (n_both,) int32
        Sorted within each row.
    distances_out : (n_both,) float64
        In the unit of the points; inf on the way back of a directed edge.
    """
    n_axes = points.shape[1]
    for i in range(start, stop):
        e, stop_e = indptr[i], indptr[i + 1]
        b, stop_b = back_indptr[i], back_indptr[i + 1]
        for at in range(both_indptr[i], both_indptr[i + 1]):
            if b == stop_b or (e < stop_e and indices[e] < back_indices[b]):
                j = indices[e]
                square = 0.0
                for a in range(n_axes):
                    step = points[j, a] - points[i, a]
                    square += step * step
                indices_out[at], distances_out[at] = j, math.sqrt(square)
                e += 1
            else:
                indices_out[at] = back_indices[b]
                distances_out[at] = math.inf
                b += 1


@kernel()
def order_rows(indptr, keys, start, stop, indices, distances):
    """Sort the neighbours of each spot by their keys; updates `indices` and `distances` in place.

    Sums over neighbours are then the same to the last bit in whatever order the spots came.

    Parameters
    ----------
    indptr : (n_spots + 1,) int64
    keys : (n_spots,) uint64
    start, stop : int
        Range of spots.
    indices : (n_edges,) int32, updated
    distances : (n_edges,) float64, updated
    """
    own_keys = np.empty(RANKED, np.uint64)
    own, along = np.empty(RANKED, np.int32), np.empty(RANKED)
    for i in range(start, stop):
        first, length = indptr[i], indptr[i + 1] - indptr[i]
        if length <= RANKED:  # the place of each is the number of those before it: no branch that cannot be foretold
            for a in range(length):
                own[a], along[a] = indices[first + a], distances[first + a]
                own_keys[a] = keys[own[a]]
            for a in range(length):
                at = first
                for b in range(length):
                    at += (own_keys[b] < own_keys[a]) | ((own_keys[b] == own_keys[a]) & (b < a))
                indices[at], distances[at] = own[a], along[a]
            continue
        for e in range(indptr[i] + 1, indptr[i + 1]):
            neighbour, distance = indices[e], distances[e]
            at = e
            while at > indptr[i] and keys[indices[at - 1]] > keys[neighbour]:
                indices[at], distances[at] = indices[at - 1], distances[at - 1]
                at -= 1
            indices[at], distances[at] = neighbour, distance


@kernel()
def scale_spots(indptr, distances, start, stop, scales_out):
    """Median of the positive, finite distances of each row, 1 where there is none; overwrites `scales_out`.

    Parameters
    ----------
    indptr : (n_spots + 1,) int64
    distances : (n_edges,) float64
    start, stop : int
        Range of spots.
    scales_out : (n_spots,) float64
    """
    longest = 0
    for i in range(start, stop):
        longest = max(longest, indptr[i + 1] - indptr[i])
    values = np.empty(longest)
    for i in range(start, stop):
        n = 0
        for e in range(indptr[i], indptr[i + 1]):
            if 0.0 < distances[e] < math.inf:
                at = n
                while at > 0 and values[at - 1] > distances[e]:
                    values[at] = values[at - 1]
                    at -= 1
                values[at] = distances[e]
                n += 1
        scales_out[i] = 0.5 * (values[(n - 1) // 2] + values[n // 2]) if n > 0 else 1.0


@kernel()
def colour_places(points, corner, pitch, start, stop, colours_out):
    """Colour spots by whether they lie on odd or even rows, columns (and layers) of a grid; overwrites `colours_out`.

    Parameters
    ----------
    points : (n_spots, n_axes) float64
    corner : (n_axes,) float64
    pitch : float
        Distance of rows and columns.
    start, stop : int
        Range of spots.
    colours_out : (n_spots,) int32
        Sum of 2^a over the axes a on which the spot is odd.
    """
    for i in range(start, stop):
        colour = 0
        for a in range(points.shape[1]):
            colour += (int(math.floor((points[i, a] - corner[a]) / pitch + 0.5)) & 1) << a
        colours_out[i] = colour


@kernel()
def find_clashes(indptr, indices, colours, start, stop, clash_out):
    """Mark the spots that have the colour of a neighbour; overwrites `clash_out`.

    Parameters
    ----------
    indptr, indices : CSR arrays, (n_spots + 1,) int64, (n_edges,) int32
    colours : (n_spots,) int32
    start, stop : int
        Range of spots.
    clash_out : (n_spots,) bool
    """
    for i in range(start, stop):
        clash = False
        for e in range(indptr[i], indptr[i + 1]):
            clash |= colours[indices[e]] == colours[i]
        clash_out[i] = clash
