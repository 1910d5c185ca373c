"""Whether a type is in a spot at all: likelihood ratios against its absence."""

import math

import numpy as np

from ..compile import kernel

FAST = {"reassoc", "contract", "nsz"}
STEPS, HALVINGS, SWEEPS = 30, 12, 200  # Newton steps of a fit, halvings of a step, rounds over the types in a step
ENOUGH = 1e-6  # counts: a fit ends when a step gains less
STILL = 1e-9  # of the largest abundance: the rounds in a step end when no type moves more
SINGULAR = 1e-12  # as in `fits`


@kernel(fastmath=FAST, inline="always")
def _dot(a, b):
    total = 0.0
    for t in range(a.shape[0]):
        total += a[t] * b[t]
    return total


@kernel(fastmath=FAST, inline="always")
def _expect(block, v, mean):
    """Overwrite `mean` by what the abundances expect of each seen gene."""
    mean[:] = 0
    for k in range(block.shape[0]):
        if v[k] > 0:
            for t in range(block.shape[1]):
                mean[t] += v[k] * block[k, t]


@kernel(fastmath=FAST, inline="always")
def _objective(v, mean, seen, linear, diagonal):
    """sum_k (linear_k v_k + diagonal v_k^2 / 2) - sum_t seen_t ln mean_t."""
    value = 0.0
    for k in range(v.shape[0]):
        value += v[k] * (linear[k] + 0.5 * diagonal * v[k])
    for t in range(mean.shape[0]):
        if seen[t] > 0:
            if not mean[t] > 0:
                return np.inf
            value -= seen[t] * math.log(mean[t])
    return value


@kernel(fastmath=FAST, inline="always")
def _curve(block, seen, mean, moved, hessian):
    """Overwrite the lower triangle of `hessian` by sum_t seen_t / mean_t^2 b_t b_t'."""
    for a in range(block.shape[0]):
        for t in range(block.shape[1]):
            moved[t] = seen[t] / (mean[t] * mean[t]) * block[a, t] if mean[t] > 0 else 0.0
        for b in range(a + 1):
            hessian[a, b] = _dot(moved, block[b])


@kernel(fastmath=FAST, inline="always")
def _descend(block, seen, linear, diagonal, absent, v, mean, tried, slope, shift, moved, hessian):
    """Minimise the objective of a spot over v >= 0 with v[absent] = 0, by Newton steps; updates `v` and `mean`."""
    n_types = block.shape[0]
    _expect(block, v, mean)
    value = _objective(v, mean, seen, linear, diagonal)
    for _ in range(STEPS):
        _curve(block, seen, mean, moved, hessian)
        for t in range(mean.shape[0]):
            moved[t] = seen[t] / mean[t] if mean[t] > 0 else 0.0
        for k in range(n_types):
            hessian[k, k] += diagonal
            slope[k] = linear[k] + diagonal * v[k] - _dot(moved, block[k])
            shift[k] = 0.0
            for m in range(k):
                hessian[m, k] = hessian[k, m]
        largest = 1e-300
        for k in range(n_types):
            largest = max(largest, v[k])
        for _ in range(SWEEPS):  # the quadratic over v + shift >= 0; `slope` is kept up to date
            change = 0.0
            for k in range(n_types):
                if k == absent or not hessian[k, k] > 0:
                    continue
                step = max(-slope[k] / hessian[k, k], -(v[k] + shift[k]))
                if step != 0:
                    shift[k] += step
                    for m in range(n_types):
                        slope[m] += step * hessian[k, m]
                    change = max(change, abs(step))
            if change <= STILL * largest:
                break
        share, gained = 1.0, -1.0
        for _ in range(HALVINGS):
            for k in range(n_types):
                tried[k] = max(v[k] + share * shift[k], 0.0)
            _expect(block, tried, mean)
            fresh = _objective(tried, mean, seen, linear, diagonal)
            if fresh <= value:
                gained = value - fresh
                value = fresh
                v[:] = tried
                break
            share *= 0.5
        if gained < 0:
            _expect(block, v, mean)
        if gained < ENOUGH:
            break
    return value


@kernel(fastmath=FAST, inline="always")
def _spread_of(block, seen, loud, mean, v, diagonal, moved, hessian, noise, x, types, ratios):
    """Overwrite `ratios`: variance of each v_k > 0 by the genes' scatter over that by the curvature; 1 where open."""
    n_types = block.shape[0]
    _curve(block, loud, mean, moved, noise)
    _curve(block, seen, mean, moved, hessian)
    n = 0
    for k in range(n_types):
        ratios[k] = 1.0
        if v[k] > 0:
            types[n] = k
            n += 1
    for a in range(n):  # the types above 0 move to the front, in order
        for b in range(a + 1):
            hessian[a, b] = hessian[types[a], types[b]]
            noise[a, b] = noise[types[a], types[b]]
        hessian[a, a] += diagonal
        noise[a, a] += diagonal
    for a in range(n):  # Cholesky
        whole = hessian[a, a]
        for b in range(a):
            hessian[a, b] = (hessian[a, b] - _dot(hessian[a, :b], hessian[b, :b])) / hessian[b, b]
        pivot = whole - _dot(hessian[a, :a], hessian[a, :a])
        if not pivot > SINGULAR * whole:
            return
        hessian[a, a] = math.sqrt(pivot)
    for k in range(n):  # x = H^-1 e_k
        for a in range(n):
            x[a] = ((1.0 if a == k else 0.0) - _dot(hessian[a, :a], x[:a])) / hessian[a, a]
        for a in range(n - 1, -1, -1):
            rest = x[a]
            for b in range(a + 1, n):
                rest -= hessian[b, a] * x[b]
            x[a] = rest / hessian[a, a]
        square = 0.0
        for a in range(n):
            square += noise[a, a] * x[a] * x[a]
            for b in range(a):
                square += 2 * noise[a, b] * x[a] * x[b]
        ratios[types[k]] = square / x[k]


@kernel(fastmath=FAST)
def weigh_presence(
    indptr, indices, data, gene_weights, spreads, totals, profiles_t, profile_sums, degrees, pulls, abundances,
    start, stop, lambda_spatial, lambda_ridge, statistics_out,
):  # fmt: skip
    """Likelihood ratio of each type above 0 against its absence; overwrites `statistics_out`.

    2 (min F_i over v >= 0 with v_k = 0 - min F_i over v >= 0) / r_k with F_i the spot's own part of the objective,
    neighbours held, and r_k = (H^-1 M H^-1)_kk / (H^-1)_kk, which is 1 under Poisson counts without gene weights:
    H = sum_g w_g y_g / mu_g^2 b_g b_g' + (lambda_s d_i + lambda_r) I, in M w_g^2 dispersion_g in the place of w_g.
    All of it is float64.

    Parameters
    ----------
    indptr, indices, data, gene_weights, totals, profiles_t, profile_sums
        As in `solve_spots`.
    spreads : (n_genes,) float
        w_g^2 times the dispersion of the gene.
    degrees : (n_spots,) float
        d_i: row sums of the attention weights.
    pulls : (n_spots, n_types) float
        lambda_s phi sum_j a_ij v_j.
    abundances : (n_spots, n_types) float
        v, solved.
    start, stop : int
        Range of spots.
    lambda_spatial, lambda_ridge : float
        In counts.
    statistics_out : (n_spots, n_types) float64
        >= 0; 0 where v is 0; inf for the only type of a reference where there are counts.
    """
    n_types = profiles_t.shape[1]
    longest = 0
    for i in range(start, stop):
        longest = max(longest, indptr[i + 1] - indptr[i])
    room = np.empty(n_types * longest)
    seen_room, loud_room, mean_room, moved_room = (
        np.empty(longest), np.empty(longest), np.empty(longest), np.empty(longest),
    )  # fmt: skip
    hessian, noise = np.empty((n_types, n_types)), np.empty((n_types, n_types))
    best, v, tried, slope = np.empty(n_types), np.empty(n_types), np.empty(n_types), np.empty(n_types)
    shift, linear, ratios, x = np.empty(n_types), np.empty(n_types), np.empty(n_types), np.empty(n_types)
    types = np.empty(n_types, np.int64)

    for i in range(start, stop):
        first, filled = indptr[i], indptr[i + 1] - indptr[i]
        block = room[: n_types * filled].reshape(n_types, filled)
        seen, loud = seen_room[:filled], loud_room[:filled]
        mean, moved = mean_room[:filled], moved_room[:filled]
        for t in range(filled):
            gene = indices[first + t]
            seen[t] = float(gene_weights[gene]) * data[first + t]
            loud[t] = float(spreads[gene]) * data[first + t]
            for k in range(n_types):
                block[k, t] = profiles_t[gene, k]
        diagonal = float(lambda_spatial) * degrees[i] + lambda_ridge
        for k in range(n_types):
            statistics_out[i, k] = 0.0
            linear[k] = float(totals[i]) * profile_sums[k] - pulls[i, k]
            best[k] = abundances[i, k]
        if not totals[i] > 0:
            continue
        if n_types == 1:
            statistics_out[i, 0] = np.inf if best[0] > 0 else 0.0
            continue
        lowest = 0.0
        for k in range(-1, n_types):  # -1: none is absent
            if k >= 0 and not (abundances[i, k] > 0 and best[k] > 0):
                continue
            for m in range(n_types):
                v[m] = abundances[i, m] if k < 0 else best[m] + best[k] / (n_types - 1)
            if k >= 0:
                v[k] = 0.0
            value = _descend(block, seen, linear, diagonal, k, v, mean, tried, slope, shift, moved, hessian)
            if k >= 0:
                statistics_out[i, k] = max(0.0, 2 * (value - lowest)) / ratios[k]
            else:
                lowest = value
                best[:] = v
                _spread_of(block, seen, loud, mean, v, diagonal, moved, hessian, noise, x, types, ratios)
