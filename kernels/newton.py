"""One Newton step of one spot over its non-zeros: the parts that `cpu.spots` is put together from.

A block holds the profile of type k over the genes of a spot in row k. Its rows are `length` long, a multiple of
`LANES`; what is beyond the non-zeros repeats the first gene, without counts.
"""

import numpy as np

from .compile import kernel
from .lanes import LANES, copy_line, cross_lines, dot_lines, mix_lines, prefetch, take_line, transpose_lines

FAST = {"reassoc", "contract", "nsz"}
INNER_SWEEPS = 60  # Gauss-Seidel sweeps over types for one Newton step, at most
INNER_SHARE = 0.01  # the inner sweeps end when no type moves by more than this part of the longest move
LEAST_PIVOT = 1e-5  # of its diagonal: below, a Hessian counts as singular
SHORTENINGS = 12
LEVEL = 0.1
LINE = 64  # bytes of a line of the cache


@kernel(inline="always")
def make_room(indptr, spots, start, stop, profiles_t):
    """Arrays that one spot after the other overwrites: five by gene, five by type, genes, types, and three of both."""
    n_types, kind = profiles_t.shape[1], profiles_t.dtype
    longest = 0
    for s in range(start, stop):
        longest = max(longest, indptr[spots[s] + 1] - indptr[spots[s]])
    longest = (longest + LANES - 1) // LANES * LANES
    by_gene = (
        np.empty(longest, kind), np.empty(longest, kind), np.empty(longest, kind), np.empty(longest, kind),
        np.empty(longest, kind),
    )  # fmt: skip
    genes, types = np.empty(longest, np.uint32), np.empty(n_types, np.uint32)
    room = np.empty(n_types * longest, kind)
    width = (n_types + 3) // 8 * 8 + 8  # in lines of eight, with room for a right side or three columns more
    by_type = (
        np.empty(n_types, kind), np.empty(width, kind), np.empty(n_types, kind), np.empty(n_types, kind),
        np.empty(n_types, kind),
    )  # fmt: skip
    hessian, factor = np.zeros((n_types, width), kind), np.zeros((n_types + 1, width), kind)
    return by_gene, by_type, genes, types, room, hessian, factor


@kernel(inline="always")
def look_ahead(i, indptr, indices, data, graph_indptr, graph_indices, abundances):
    """Have the counts of a spot and the abundances of its neighbours fetched: it is the next one."""
    for t in range(indptr[i], indptr[i + 1], LINE // indices.itemsize):
        prefetch(indices, t, 0)
    for t in range(indptr[i], indptr[i + 1], LINE // data.itemsize):
        prefetch(data, t, 0)
    for e in range(graph_indptr[i], graph_indptr[i + 1]):
        for places in range(0, abundances.shape[1] * abundances.itemsize, LINE):
            prefetch(abundances, graph_indices[e], places)


@kernel(fastmath=FAST, inline="always")
def gather_counts(indices, data, gene_weights, first, filled, length, genes, y):
    """Overwrite `genes` and `y` by the genes of a spot and their weighted counts."""
    first = np.uintp(first)  # unsigned: no check for a place counted from the end
    for t in range(np.uintp(filled)):
        gene = np.uint32(indices[first + t])
        genes[t] = gene
        y[t] = y.dtype.type(data[first + t]) * gene_weights[gene]
    for t in range(filled, length):
        genes[t] = genes[0]
        y[t] = y.dtype.type(0)


@kernel(fastmath=FAST, inline="always")
def gather_profiles(profiles_t, genes, length, block):
    """Overwrite the rows of a block by the profiles of all types over the genes of a spot."""
    n_types = profiles_t.shape[1]
    by_4 = n_types // 4 * 4
    for t in range(0, length, 8):
        transpose_lines(profiles_t, genes, t, by_4, block)
    for k in range(by_4, n_types):
        for t in range(length):
            block[k, t] = profiles_t[genes[t], k]


@kernel(fastmath=FAST, inline="always")
def dot_rows(block, count, length, x, out):
    """Overwrite out[:count], which ends at a multiple of eight or beyond, by products of the first rows and a vector.

    They are summed over so many places, a multiple of `PIECE`.
    """
    for a in range(0, count, 8):
        dot_lines(block, a, count, x, length, out)


@kernel(inline="always")
def mix_rows(block, rows, weights, count, length, out):
    """Overwrite `out` by sum_a weights[a] * block[rows[a]] over a < count."""
    for t in range(0, length, LANES):
        mix_lines(block, rows, weights, count, t, out)


@kernel(fastmath=FAST, inline="always")
def expect(block, v, length, types, weights, mean):
    """Overwrite `mean` by what abundances make expect; `types` and `weights` are room."""
    present = 0
    for k in range(v.shape[0]):
        types[present], weights[present] = k, v[k]
        present += 1 if v[k] != v.dtype.type(0) else 0
    mix_rows(block, types, weights, present, length, mean)


@kernel(fastmath=FAST, inline="always")
def pull_of_neighbours(i, graph_indptr, graph_indices, graph_weights, abundances, strength, pull):
    """Overwrite `pull` by strength * sum_j a_ij v_j."""
    n_types = pull.shape[0]
    pull[:] = 0
    for e in range(graph_indptr[i], graph_indptr[i + 1]):
        j = graph_indices[e]
        weight = strength * graph_weights[e]
        for k in range(n_types):
            pull[k] += weight * abundances[j, k]


@kernel(fastmath=FAST, inline="always")
def sum_curvature(block, types, n_active, length, curve, diagonal, hessian):
    """Overwrite the upper triangle of `hessian`, over the active types, by sum_t curve_t b_at b_bt + diagonal."""
    for a in range(0, n_active, 2):
        for b in range(a, n_active, 4):
            cross_lines(block, types, n_active, a, b, curve, length, hessian)
    for a in range(n_active):
        hessian[a, a] += diagonal


@kernel(fastmath=FAST, inline="always")
def solve_directly(hessian, gradient, types, n_active, v, direction, inverse, factor):
    """Overwrite `direction` by -H^-1 g, by the factors L D L' of H; whether H has them and v + d is not negative.

    `hessian` is read in its upper triangle. That of `factor`, of the same width, is overwritten by D L', eight numbers
    of a row at a time, and `inverse` by 1 / D. A type that those before it leave no curvature takes no part, and its
    step is 0.
    """
    zero, one = gradient.dtype.type(0), gradient.dtype.type(1)
    sound = True
    for a in range(n_active):
        for b in range(a // 8 * 8, n_active, 8):
            copy_line(hessian, factor, a, b)
        factor[a, n_active] = -gradient[types[a]]
    for c in range(n_active):
        own = factor[c, c] > gradient.dtype.type(LEAST_PIVOT) * hessian[c, c]
        sound = sound and own
        inverse[c] = one / factor[c, c] if own else zero
        for a in range(c + 1, n_active):
            part = factor[c, a] * inverse[c]
            for b in range(c // 8 * 8, n_active + 1, 8):
                take_line(factor, a, c, part, b)
    for a in range(n_active - 1, -1, -1):
        step = factor[a, n_active] * inverse[a]
        for b in range(a):
            factor[b, n_active] -= factor[b, a] * step
        direction[a] = step
        sound = sound and v[types[a]] + step >= zero
    return sound


@kernel(fastmath=FAST, inline="always")
def sweep_types(hessian, gradient, types, n_active, v, direction, inverse, back, factor):
    """Bring `direction` to the least of g'd + d'Hd/2 under v + d >= 0: Gauss-Seidel over the active types.

    `hessian` is read in its upper triangle. `factor` is overwritten by -H_ab / H_bb and, in its last row, by the step
    that each type would take without bounds, -(g + Hd)_b / H_bb; `back` by the longest step back of each type. So from
    one step to the next it is but a product, a sum and a comparison.
    """
    zero, one = gradient.dtype.type(0), gradient.dtype.type(1)
    wanted = factor.shape[0] - 1
    for a in range(n_active):
        inverse[a] = one / hessian[a, a] if hessian[a, a] > zero else zero
        factor[wanted, a] = -gradient[types[a]] * inverse[a]
        back[a] = -v[types[a]] - direction[a]
    for a in range(n_active):
        for b in range(a):
            factor[a, b] = -hessian[b, a] * inverse[b]
        for b in range(a, n_active):
            factor[a, b] = -hessian[a, b] * inverse[b]
    for a in range(n_active):
        if direction[a] != zero:
            for b in range(0, n_active, 8):
                take_line(factor, wanted, a, -direction[a], b)
    own = factor[wanted, 0]  # ahead of the line, whose way through memory would be waited for at each type
    for _ in range(INNER_SWEEPS):
        change, longest = zero, zero
        for a in range(n_active):
            step = max(own, back[a])
            least, reached = -v[types[a]], direction[a] + own
            after = a + 1 if a + 1 < n_active else 0
            own = factor[wanted, after] + factor[a, after] * step
            for b in range(0, n_active, 8):
                take_line(factor, wanted, a, -step, b)
            reached = max(reached, least)
            direction[a], back[a] = reached, least - reached
            change, longest = max(change, abs(step)), max(longest, abs(reached))
        if change <= gradient.dtype.type(INNER_SHARE) * longest:
            break


@kernel(fastmath=FAST, inline="always")
def find_step(
    block, length, counted, y, mean, total, profile_sums, diagonal, pull, v, near,
    ratio, curve, gradient, hessian, factor, types, direction, inverse, back,
):  # fmt: skip
    """Overwrite `types` by the active types and `direction` by their step; the number of active types.

    The types above 0 and those that the slope draws up from 0 take part. No place from `counted` on, a multiple of
    `PIECE`, has counts. `near` tells that the answer is near: then
    the least of the quadratic model without bounds is tried first, since it mostly keeps them, and the sweeps over
    the types begin there. All further arguments are room, and are overwritten: `gradient` by that at v.
    """
    zero, one = v.dtype.type(0), v.dtype.type(1)
    for t in range(length):
        inverted = one / mean[t]
        ratio[t] = y[t] * inverted
        curve[t] = ratio[t] * inverted
    dot_rows(block, v.shape[0], counted, ratio, gradient)
    n_active = 0
    for k in range(v.shape[0]):
        gradient[k] = total * profile_sums[k] - gradient[k] + diagonal * v[k] - pull[k]
        types[n_active] = k
        n_active += 1 if (v[k] > zero) | (gradient[k] < zero) else 0
    sum_curvature(block, types, n_active, counted, curve, diagonal, hessian)
    falls = zero  # slope along the step
    if near:
        if solve_directly(hessian, gradient, types, n_active, v, direction, inverse, factor):
            return n_active
        for a in range(n_active):
            direction[a] = max(direction[a], -v[types[a]])
        sweep_types(hessian, gradient, types, n_active, v, direction, inverse, back, factor)
        for a in range(n_active):
            falls += gradient[types[a]] * direction[a]
    if not falls < zero:  # as it does for sweeps from 0
        direction[:n_active] = zero
        sweep_types(hessian, gradient, types, n_active, v, direction, inverse, back, factor)
    return n_active


@kernel(fastmath=FAST, inline="always")
def share_of_step(
    block, length, types, n_active, direction, v, y, mean, gradient, total, profile_sums, diagonal, pull, least, move
):  # fmt: skip
    """How much of a step is taken, 0 for none, and its largest change; overwrites `move`, the change of the mean.

    Slope of the convex objective along the step: where it still falls at the far end, or rises there by a small part
    of the fall at the near end, the objective has fallen; else back to where it levels out. A step that moves no type
    by `least` is taken whole, and `move` left as it is. A step that is no number is not taken.
    """
    kind = v.dtype
    zero = kind.type(0)
    largest, whole = zero, zero
    for a in range(n_active):
        largest = max(largest, abs(direction[a]))
        whole += direction[a]
    if whole != whole:
        return zero, zero
    if largest < least:
        return kind.type(1), largest
    if largest == zero:
        return zero, zero
    mix_rows(block, types, direction, n_active, length, move)
    near, constant = zero, zero  # slope along the direction at v, and that of the terms without logarithm
    bend = zero
    for a in range(n_active):
        k, d = types[a], direction[a]
        near += d * gradient[k]
        constant += d * (total * profile_sums[k] + diagonal * v[k] - pull[k])
        bend += diagonal * d * d
    share = kind.type(1)
    for _ in range(SHORTENINGS):
        outside = zero  # a count, as a float: so the loop stays a vector loop
        far = constant + share * bend
        for t in range(length):
            reached = mean[t] + share * move[t]
            outside += kind.type(0) if reached > zero else kind.type(1)
            far -= y[t] * move[t] / reached
        if outside == zero:
            if far <= kind.type(-LEVEL) * near or share * largest < least:
                return share, largest
            share *= min(max(near / (near - far), kind.type(0.1)), kind.type(0.9))
        else:
            share *= kind.type(0.5)
    return zero, largest
