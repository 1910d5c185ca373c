"""One Newton step of one spot over its non-zeros: the parts that `cpu.spots` is put together from.

A block holds the profile of type k over the genes of a spot in row k. Its rows are `length` long, a multiple of
`LANES`; what is beyond the non-zeros repeats the first gene, without counts.
"""

import numpy as np

from .compile import kernel
from .lanes import LANES, mix_lines, prefetch, take_line, transpose_lines

FAST = {"reassoc", "contract", "nsz"}
INNER_SWEEPS = 60  # Gauss-Seidel sweeps over types for one Newton step, at most
INNER_SHARE = 0.01  # the inner sweeps end when no type moves by more than this part of the longest move
LEAST_PIVOT = 1e-5  # of its diagonal: below, a Hessian counts as singular
SHORTENINGS = 12
LEVEL = 0.1
LINE = 64  # bytes of a line of the cache


@kernel(inline="always")
def make_room(indptr, spots, start, stop, profiles_t):
    """Arrays that one spot after the other overwrites: five by gene, four by type, genes, types, and four of both."""
    n_types, kind = profiles_t.shape[1], profiles_t.dtype
    longest = 0
    for s in range(start, stop):
        longest = max(longest, indptr[spots[s] + 1] - indptr[spots[s]])
    longest = (longest + LANES - 1) // LANES * LANES
    by_gene = (
        np.empty(longest, kind), np.empty(longest, kind), np.empty(longest, kind), np.empty(longest, kind),
        np.empty(longest, kind),
    )  # fmt: skip
    by_type = np.empty(n_types, kind), np.empty(n_types, kind), np.empty(n_types, kind), np.empty(n_types, kind)
    genes, types = np.empty(longest, np.uint32), np.empty(n_types, np.uint32)
    pair, room = np.empty((2, longest), kind), np.empty(n_types * longest, kind)
    width = n_types // 8 * 8 + 8  # more than n_types, in lines of eight
    hessian, factor = np.zeros((n_types + 1, width), kind), np.zeros((n_types, width), kind)
    return by_gene, by_type, genes, types, pair, room, hessian, factor


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
    """Overwrite out[:count] by the products of the first rows of a block with a vector, four at a time."""
    zero = x.dtype.type(0)
    last = count - 1
    for a in range(0, count, 4):
        b, c, d = min(a + 1, last), min(a + 2, last), min(a + 3, last)
        dot_a, dot_b, dot_c, dot_d = zero, zero, zero, zero
        for t in range(length):
            dot_a += block[a, t] * x[t]
            dot_b += block[b, t] * x[t]
            dot_c += block[c, t] * x[t]
            dot_d += block[d, t] * x[t]
        out[a], out[b], out[c], out[d] = dot_a, dot_b, dot_c, dot_d


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
        if v[k] != v.dtype.type(0):
            types[present], weights[present] = k, v[k]
            present += 1
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
def sum_curvature(block, types, n_active, length, curve, diagonal, pair, hessian):
    """Overwrite `hessian`, over the active types, by sum_t curve_t b_at b_bt + diagonal; two rows by four at a time.

    `pair`, (2, length or more), is overwritten.
    """
    zero = curve.dtype.type(0)
    last = n_active - 1
    one, two = pair[0], pair[1]
    for a in range(0, n_active, 2):
        c = min(a + 1, last)
        first, second = block[types[a]], block[types[c]]
        for t in range(length):
            one[t] = curve[t] * first[t]
            two[t] = curve[t] * second[t]
        for b in range(0, c + 1, 4):
            d, e, f = min(b + 1, last), min(b + 2, last), min(b + 3, last)
            row_b, row_d, row_e, row_f = block[types[b]], block[types[d]], block[types[e]], block[types[f]]
            ab, ad, ae, af, cb, cd, ce, cf = zero, zero, zero, zero, zero, zero, zero, zero
            for t in range(length):
                ab += one[t] * row_b[t]
                ad += one[t] * row_d[t]
                ae += one[t] * row_e[t]
                af += one[t] * row_f[t]
                cb += two[t] * row_b[t]
                cd += two[t] * row_d[t]
                ce += two[t] * row_e[t]
                cf += two[t] * row_f[t]
            hessian[a, b], hessian[a, d], hessian[a, e], hessian[a, f] = ab, ad, ae, af
            hessian[c, b], hessian[c, d], hessian[c, e], hessian[c, f] = cb, cd, ce, cf
    for a in range(n_active):
        hessian[a, a] += diagonal
        for b in range(a):
            hessian[b, a] = hessian[a, b]


@kernel(fastmath=FAST, inline="always")
def solve_directly(hessian, gradient, types, n_active, v, direction, inverse, factor):
    """Overwrite `direction` by -H^-1 g, by the factors L D L' of H; whether H has them and v + d is not negative.

    `factor`, (n_types, n_types + 1 or more, a multiple of 8), is overwritten: its upper triangle by D L', eight numbers
    of a row at a time, and `inverse` by 1 / D. A type that those before it leave no curvature takes no part, and its
    step is 0.
    """
    zero, one = gradient.dtype.type(0), gradient.dtype.type(1)
    sound = True
    for a in range(n_active):
        for b in range(n_active):
            factor[a, b] = hessian[a, b]
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
def sweep_types(hessian, gradient, types, n_active, v, direction, inverse):
    """Bring `direction` to the least of g'd + d'Hd/2 under v + d >= 0: Gauss-Seidel over the active types.

    `hessian` is over the active types alone; its last row, the maintained gradient g + Hd, and `inverse`, the inverse
    diagonal, are overwritten.
    """
    zero = gradient.dtype.type(0)
    slope = hessian.shape[0] - 1
    for a in range(n_active):
        hessian[slope, a] = gradient[types[a]]
        inverse[a] = gradient.dtype.type(1) / hessian[a, a] if hessian[a, a] > zero else zero
    for a in range(n_active):
        if direction[a] != zero:
            for b in range(0, n_active, 8):
                take_line(hessian, slope, a, -direction[a], b)
    own = hessian[slope, 0]  # ahead of the line, whose way through memory would be waited for at each type
    for _ in range(INNER_SWEEPS):
        change, longest = zero, zero
        for a in range(n_active):
            step = max(direction[a] - own * inverse[a], -v[types[a]]) - direction[a]
            after = a + 1 if a + 1 < n_active else 0
            own = hessian[slope, after]
            if step != zero:
                direction[a] += step
                own += hessian[a, after] * step
                for b in range(0, n_active, 8):
                    take_line(hessian, slope, a, -step, b)
                change = max(change, abs(step))
            longest = max(longest, abs(direction[a]))
        if change <= gradient.dtype.type(INNER_SHARE) * longest:
            break


@kernel(fastmath=FAST, inline="always")
def find_step(
    block, length, y, mean, total, profile_sums, diagonal, pull, v, near,
    ratio, curve, pair, gradient, hessian, factor, types, direction, inverse,
):  # fmt: skip
    """Overwrite `types` by the active types and `direction` by their step; the number of active types.

    The types above 0 and those that the slope draws up from 0 take part. `near` tells that the answer is near: then
    the least of the quadratic model without bounds is tried first, since it mostly keeps them, and the sweeps over
    the types begin there. All further arguments are room, and are overwritten: `gradient` by that at v.
    """
    zero = v.dtype.type(0)
    for t in range(length):
        ratio[t] = y[t] / mean[t]
        curve[t] = ratio[t] / mean[t]
    dot_rows(block, v.shape[0], length, ratio, gradient)
    n_active = 0
    for k in range(v.shape[0]):
        gradient[k] = total * profile_sums[k] - gradient[k] + diagonal * v[k] - pull[k]
        if v[k] > zero or gradient[k] < zero:
            types[n_active] = k
            n_active += 1
    sum_curvature(block, types, n_active, length, curve, diagonal, pair, hessian)
    falls = zero  # slope along the step
    if near:
        if solve_directly(hessian, gradient, types, n_active, v, direction, inverse, factor):
            return n_active
        for a in range(n_active):
            direction[a] = max(direction[a], -v[types[a]])
        sweep_types(hessian, gradient, types, n_active, v, direction, inverse)
        for a in range(n_active):
            falls += gradient[types[a]] * direction[a]
    if not falls < zero:  # as it does for sweeps from 0
        direction[:n_active] = zero
        sweep_types(hessian, gradient, types, n_active, v, direction, inverse)
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
