"""Attention: how much a spot listens to each of its neighbours, by place and by composition."""

import math

import numpy as np

from ..compile import kernel

FAST = {"reassoc", "contract", "nsz"}
BLOCK = 512  # edges whose powers of 2 are held at a time
LEAST_POWER = -126.0  # of 2, in float32; what is fainter stays there
BITS = 23  # of a float32, behind its exponent, whose bias is 127


@kernel(fastmath=FAST)
def invert_sums(abundances, start, stop, inverses_out):
    """One over the sum of the abundances of each spot, 0 where they sum to 0; overwrites `inverses_out`.

    Parameters
    ----------
    abundances : (n_spots, n_types) float
        v.
    start, stop : int
        Range of spots.
    inverses_out : (n_spots,) float
        0, too, where the inverse would be infinite.
    """
    kind = abundances.dtype
    for i in range(start, stop):
        total = kind.type(0)
        for k in range(abundances.shape[1]):
            total += abundances[i, k]
        inverse = kind.type(1) / total if total > kind.type(0) else kind.type(0)
        inverses_out[i] = inverse if inverse < np.inf else kind.type(0)


@kernel(fastmath=FAST)
def root_neighbourhoods(indptr, indices, place, abundances, inverses, start, stop, roots_out):
    """Square roots of the mean composition of each spot and its neighbours; overwrites `roots_out`.

    Parameters
    ----------
    indptr : (n_spots + 1,) int64
    indices : (n_edges,) int32
    place : (n_edges,) float64
        Spatial factors; 0 marks an edge that is none in this direction.
    abundances : (n_spots, n_types) float
        v.
    inverses : (n_spots,) float
        Result of `invert_sums`; a spot with 0 counts as no composition at all.
    start, stop : int
        Range of spots.
    roots_out : (n_spots, n_types) float
    """
    n_types = abundances.shape[1]
    kind = abundances.dtype
    zero = kind.type(0)
    one, four = np.uint64(1), np.uint64(4)  # unsigned: no check for a place counted from the end
    for i in range(start, stop):
        first, last = np.uint64(indptr[i]), np.uint64(indptr[i + 1])
        whole = first + (last - first) // four * four
        mean, own = roots_out[i], abundances[i]
        weight = inverses[i]
        members = 1 if weight > zero else 0
        for k in range(n_types):
            mean[k] = weight * own[k]
        for e in range(first, whole, four):
            f, g, h = e + one, e + one + one, e + one + one + one
            p, q = np.uint32(indices[e]), np.uint32(indices[f])
            r, s = np.uint32(indices[g]), np.uint32(indices[h])
            a, b = inverses[p] if place[e] > 0.0 else zero, inverses[q] if place[f] > 0.0 else zero
            c, d = inverses[r] if place[g] > 0.0 else zero, inverses[s] if place[h] > 0.0 else zero
            members += (1 if a > zero else 0) + (1 if b > zero else 0) + (1 if c > zero else 0) + (1 if d > zero else 0)
            at_p, at_q, at_r, at_s = abundances[p], abundances[q], abundances[r], abundances[s]
            for k in range(n_types):
                mean[k] += (a * at_p[k] + b * at_q[k]) + (c * at_r[k] + d * at_s[k])
        for e in range(whole, last):
            j = np.uint32(indices[e])
            weight = inverses[j] if place[e] > 0.0 else zero
            members += 1 if weight > zero else 0
            other = abundances[j]
            for k in range(n_types):
                mean[k] += weight * other[k]
        share = kind.type(1) / kind.type(max(members, 1))
        for k in range(n_types):
            mean[k] = math.sqrt(mean[k] * share)


@kernel(fastmath=FAST)
def compare_edges(indptr, indices, roots, start, stop, squares_out):
    """Squared Hellinger-like distance |sqrt z_i - sqrt z_j|^2 along each edge; overwrites `squares_out`.

    Parameters
    ----------
    indptr : (n_spots + 1,) int64
    indices : (n_edges,) int32
    roots : (n_spots, n_types) float
        Result of `root_neighbourhoods`.
    start, stop : int
        Range of spots.
    squares_out : (n_edges,) float
        The same bits for i -> j and j -> i.
    """
    n_types = roots.shape[1]
    zero = roots.dtype.type(0)
    one, four = np.uint64(1), np.uint64(4)
    for i in range(start, stop):
        own = roots[i]
        first, last = np.uint64(indptr[i]), np.uint64(indptr[i + 1])
        for e in range(first, last, four):  # four at a time; the last of the row stands in for what is missing
            f, g, h = min(e + one, last - one), min(e + one + one, last - one), min(e + one + one + one, last - one)
            at_e, at_f = roots[np.uint32(indices[e])], roots[np.uint32(indices[f])]
            at_g, at_h = roots[np.uint32(indices[g])], roots[np.uint32(indices[h])]
            a, b, c, d = zero, zero, zero, zero
            for k in range(n_types):
                x = own[k]
                p, q, r, s = x - at_e[k], x - at_f[k], x - at_g[k], x - at_h[k]
                a += p * p
                b += q * q
                c += r * r
                d += s * s
            squares_out[e], squares_out[f], squares_out[g], squares_out[h] = a, b, c, d


@kernel()
def count_squares(place, squares, low, shift, start, stop, sums_out):
    """Count the edges by the bits of their h^2, as a float64, in steps of 2^shift from `low` on; adds to `sums_out`.

    The bits of numbers >= 0 are in the order of the numbers, so a few counts, each finer, find a number of any rank.

    Parameters
    ----------
    place : (n_edges,) float64
        Spatial factors; edges with 0 do not count.
    squares : (n_edges,) float
        h^2 of `compare_edges`, >= 0.
    low : int
        The bits of the least h^2 that is counted.
    shift : int
    start, stop : int
        Range of edges.
    sums_out : (n_steps + 1,) float64
        The last one: edges below `low`. What lies beyond the steps is not counted.
    """
    n_steps = len(sums_out) - 1
    below = 0
    for e in range(start, stop):
        bits = np.float64(squares[e]).view(np.int64)
        step = np.uint64(bits - low) >> np.uint64(shift)
        below += (bits < low) & (place[e] > 0.0)  # no branch: it could not be foretold
        if step < np.uint64(n_steps) and place[e] > 0.0:
            sums_out[step] += 1.0
    sums_out[n_steps] += below


@kernel(fastmath=FAST, inline="always")
def _to_powers(values, factor, bits):
    """Overwrite float32 `values` by 2^(factor * value), factor * value <= 0; `bits` is room for as many int32."""
    half, one, scale = np.float32(0.5), np.float32(1), np.float32(math.log(2.0))
    powers = bits.view(np.float32)
    for t in range(len(values)):
        power = max(factor * values[t], np.float32(LEAST_POWER))
        whole = math.floor(power + half)
        bits[t] = (np.int32(whole) + np.int32(127)) << np.int32(BITS)
        x = (power - np.float32(whole)) * scale  # |x| <= ln(2) / 2: six terms of exp
        x5 = np.float32(1 / 24) + x * (np.float32(1 / 120) + x * np.float32(1 / 720))
        values[t] = one + x * (one + x * (half + x * (np.float32(1 / 6) + x * x5)))
    for t in range(len(values)):
        values[t] *= powers[t]


@kernel(fastmath=FAST)
def attend_edges(indptr, reverse, place, tau, start, stop, weights, degrees_out, row_sums_out):
    """Symmetric attention (place_ij + place_ji) / 2 * exp(-h^2 / (2 tau)); updates `weights` in place.

    Parameters
    ----------
    indptr : (n_spots + 1,) int64
    reverse : (n_edges,) int64
    place : (n_edges,) float64
        Spatial factors divided by the sum of their row.
    tau : float
        Scale of h^2, > 0.
    start, stop : int
        Range of spots.
    weights : (n_edges,) float, updated
        Comes as h^2 of `compare_edges`.
    degrees_out : (n_spots,) float
        Row sums of the weights.
    row_sums_out : (n_spots,) float64
        Row sums of place_ij exp(-h^2 / (2 tau)), before it is made symmetric.
    """
    kind = weights.dtype
    bits = np.empty(BLOCK, np.int32)
    first, last = indptr[start], indptr[stop]
    if weights.itemsize == 4:
        factor = np.float32(-0.5 / (math.log(2.0) * tau))
        for e in range(first, last, BLOCK):
            end = min(e + BLOCK, last)
            _to_powers(weights[e:end], factor, bits[: end - e])
    else:
        for e in range(first, last):
            weights[e] = math.exp(-0.5 * weights[e] / tau)
    for i in range(start, stop):
        given, total = 0.0, 0.0
        for e in range(np.uint64(indptr[i]), np.uint64(indptr[i + 1])):
            own, other = place[e], place[np.uint64(reverse[e])]
            given += own * weights[e]
            weights[e] *= kind.type(0.5 * (own + other))
            total += weights[e]
        row_sums_out[i] = given
        degrees_out[i] = total


@kernel()
def symmetrise_edges(indptr, reverse, directed, start, stop, weights_out, degrees_out):
    """Symmetric weights (w_ij + w_ji) / 2 and their row sums; overwrites both outputs.

    Parameters
    ----------
    indptr : (n_spots + 1,) int64
    reverse : (n_edges,) int64
    directed : (n_edges,) float64
    start, stop : int
        Range of spots.
    weights_out : (n_edges,) float
    degrees_out : (n_spots,) float
    """
    for i in range(start, stop):
        total = 0.0
        for e in range(np.uint64(indptr[i]), np.uint64(indptr[i + 1])):
            weight = 0.5 * (directed[e] + directed[np.uint64(reverse[e])])
            weights_out[e] = weight
            total += weight
        degrees_out[i] = total
