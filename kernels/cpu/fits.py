"""How sure the abundances of a spot are, and how well they explain its counts."""

import math

import numpy as np

from ..compile import kernel
from ..newton import FAST, dot_rows

LANES = 64  # the non-zeros of a spot are padded to a multiple, so that no vector loop ends in single steps
LARGE, SMALL = 1e100, 1e-100  # outside of these a running product is turned into its logarithm
HUGE, TINY = 1e50, 1e-50  # outside of these a factor is not put into it
SINGULAR = 1e-12  # a pivot below this part of its diagonal tells that the counts leave some mixture open


@kernel(fastmath=FAST, inline="always")
def _dot(a, b):
    total = a.dtype.type(0)
    for t in range(a.shape[0]):
        total += a[t] * b[t]
    return total


@kernel(fastmath=FAST, inline="always")
def _factorise(matrix, n):
    """Overwrite the lower triangle of matrix[:n, :n] by its Cholesky factor; False where it has none."""
    for a in range(n):
        diagonal = matrix[a, a]
        for b in range(a):
            matrix[a, b] = (matrix[a, b] - _dot(matrix[a, :b], matrix[b, :b])) / matrix[b, b]
        pivot = diagonal - _dot(matrix[a, :a], matrix[a, :a])
        if not pivot > SINGULAR * diagonal:
            return False
        matrix[a, a] = math.sqrt(pivot)
    return True


@kernel(fastmath=FAST, inline="always")
def _solve_back(factor, n, x):
    """Overwrite x[:n] by the solution of L' z = x, L the Cholesky factor."""
    for a in range(n - 1, -1, -1):
        rest = x[a]
        for b in range(a + 1, n):
            rest -= factor[b, a] * x[b]
        x[a] = rest / factor[a, a]


@kernel(fastmath=FAST)
def measure_errors(
    indptr, indices, data, gene_weights, spreads, profiles_t, degrees, contents, abundances, start, stop,
    lambda_spatial, lambda_ridge, errors_out,
):  # fmt: skip
    """Standard errors of the proportions of each spot from the curvature of its objective; overwrites `errors_out`.

    Over the types with v > 0, neighbours held: H = sum_g w_g y_g / mu_g^2 b_g b_g' + (lambda_s d_i + lambda_r) I with
    mu = B'v, M the same with w_g^2 dispersion_g in the place of w_g, cov(v) = H^-1 M H^-1 (H^-1 under Poisson counts
    without gene weights), p_k = (v_k / c_k) / s with s = sum_m v_m / c_m, J_km = (delta_km - p_k) / (c_m s),
    se_k = sqrt((J cov(v) J')_kk). A type at v = 0 has the error that it would have beside them, just above 0: an upper
    bound of its share is that many errors above 0. Sums and factorisation are float64.

    Parameters
    ----------
    indptr, indices, data : CSR arrays, (n_spots + 1,), (nnz,), (nnz,)
        Counts of the kept genes.
    gene_weights : (n_genes,) float
        w: weight of each gene.
    spreads : (n_genes,) float
        w_g^2 times the dispersion of the gene.
    profiles_t : (n_genes, n_types) float
        B, transposed.
    degrees : (n_spots,) float
        d_i: row sums of the attention weights.
    contents : (n_types,) float
        c: mRNA content of a cell of the type; 1 for shares of mRNA.
    abundances : (n_spots, n_types) float
        v, solved.
    start, stop : int
        Range of spots.
    lambda_spatial, lambda_ridge : float
        In counts.
    errors_out : (n_spots, n_types) float
        NaN for all types of a spot whose H is singular: without smoothing and ridge its counts may leave a mixture of
        types open (for a type at v = 0: if that is so with it). A spot with one type above 0 has the error 0 there.
    """
    n_types = profiles_t.shape[1]
    longest = 0
    for i in range(start, stop):
        longest = max(longest, indptr[i + 1] - indptr[i])
    longest = (longest + LANES - 1) // LANES * LANES
    room = np.empty(n_types * longest)
    mean = np.empty(longest)
    move = np.empty(longest)
    curve = np.empty(longest)
    loud = np.empty(longest)
    width = (n_types + 7) // 8 * 8
    hessian = np.empty((n_types, width))
    noise = np.empty((n_types, width))
    scale = np.empty(n_types)
    share = np.empty(n_types)
    x = np.empty(n_types)
    types = np.empty(n_types, np.int64)

    for i in range(start, stop):
        v = abundances[i]
        n_active = 0
        total = 0.0
        for k in range(n_types):
            errors_out[i, k] = np.nan
            if v[k] > 0:
                types[n_active] = k
                share[n_active] = v[k] / contents[k]
                total += share[n_active]
                n_active += 1
        if n_active == 0:
            continue
        n_all = n_active
        for k in range(n_types):
            if not v[k] > 0:
                types[n_all] = k
                n_all += 1
        first = indptr[i]
        filled = indptr[i + 1] - first
        length = (filled + LANES - 1) // LANES * LANES
        block = room[: n_types * length].reshape(n_types, length)
        mean[:length] = 0
        for t in range(filled):
            gene = indices[first + t]
            for a in range(n_types):
                block[a, t] = profiles_t[gene, types[a]]
        block[:, filled:] = 0  # padding: no counts, no profile
        for a in range(n_active):
            weight = float(v[types[a]])
            for t in range(length):
                mean[t] += weight * block[a, t]
        for t in range(filled):
            gene = indices[first + t]
            square = mean[t] * mean[t]
            curve[t] = gene_weights[gene] * data[first + t] / square if mean[t] > 0 else 0.0
            loud[t] = spreads[gene] * data[first + t] / square if mean[t] > 0 else 0.0
        curve[filled:length] = 0
        loud[filled:length] = 0
        diagonal = float(lambda_spatial) * degrees[i] + lambda_ridge
        for a in range(n_types):  # of a type at 0: with those above 0 and with itself
            beside = min(a, n_active)
            for t in range(length):
                move[t] = curve[t] * block[a, t]
            dot_rows(block, beside, length, move, hessian[a])
            hessian[a, a] = _dot(move[:length], block[a]) + diagonal
            for t in range(length):
                move[t] = loud[t] * block[a, t]
            dot_rows(block, beside, length, move, noise[a])
            noise[a, a] = _dot(move[:length], block[a]) + diagonal
            scale[a] = 1 / (contents[types[a]] * total)
            if a < n_active:
                share[a] /= total
        if not _factorise(hessian, n_active):
            continue
        for k in range(n_active):  # se_k^2 = x' M x with x = H^-1 J_k'
            for a in range(n_active):
                slope = ((1.0 if a == k else 0.0) - share[k]) * scale[a]
                x[a] = (slope - _dot(hessian[a, :a], x[:a])) / hessian[a, a]
            _solve_back(hessian, n_active, x)
            square = 0.0
            for a in range(n_active):
                square += x[a] * (noise[a, a] * x[a] + 2 * _dot(noise[a, :a], x[:a]))
            errors_out[i, types[k]] = math.sqrt(max(square, 0.0))
        for k in range(n_active, n_types):  # x = H^-1 e_k over those above 0 and k, times its pivot
            for a in range(n_active):
                x[a] = (hessian[k, a] - _dot(hessian[a, :a], x[:a])) / hessian[a, a]
            pivot = hessian[k, k] - _dot(x[:n_active], x[:n_active])
            if not pivot > SINGULAR * hessian[k, k]:
                continue
            _solve_back(hessian, n_active, x)
            square = noise[k, k]
            for a in range(n_active):
                square += x[a] * (noise[a, a] * x[a] + 2 * _dot(noise[a, :a], x[:a]) - 2 * noise[k, a])
            errors_out[i, types[k]] = math.sqrt(max(square, 0.0)) / pivot * scale[k]


@kernel(fastmath=FAST, inline="always")
def _expect_genes(genes, profiles_t, v, means_out):
    """Overwrite means_out by B'v of some genes, four at a time; up to three places beyond them are written, too."""
    last = genes.shape[0] - 1
    for t in range(0, genes.shape[0], 4):
        a, b, c, d = genes[t], genes[min(t + 1, last)], genes[min(t + 2, last)], genes[min(t + 3, last)]
        zero = profiles_t.dtype.type(0)
        mean_a, mean_b, mean_c, mean_d = zero, zero, zero, zero
        for k in range(profiles_t.shape[1]):
            mean_a += profiles_t[a, k] * v[k]
            mean_b += profiles_t[b, k] * v[k]
            mean_c += profiles_t[c, k] * v[k]
            mean_d += profiles_t[d, k] * v[k]
        means_out[t], means_out[t + 1], means_out[t + 2], means_out[t + 3] = mean_a, mean_b, mean_c, mean_d


@kernel(fastmath=FAST)
def measure_fits(
    indptr, indices, data, totals, profiles_t, profile_sums, direction, means, variances, abundances, start, stop,
    deviances_out, misfits_out, sums_out,
):  # fmt: skip
    """Compare the counts with what is expected, by spot and by gene; overwrites the first two outputs, adds to sums.

    Deviance: 2 sum_g (y_g ln(y_g / m_g) - (y_g - m_g)) / n_i with m = n_i B'v; genes without counts enter through
    sum_g m_g = n_i sum_k v_k S_k. Misfit: (sum_g a_g y_g - n_i e_i) / sqrt(n_i q_i) with e_i = sum_k v_k M_k /
    sum_k v_k S_k what a count of the spot is expected to add along a direction over genes, and q_i the same with Q_k:
    its variance under Poisson counts. The sums are float64.

    Parameters
    ----------
    indptr, indices, data : CSR arrays, (n_spots + 1,), (nnz,), (nnz,)
        Counts of the kept genes, without gene weights.
    totals : (n_spots,) float
        n_i, counts of each spot over the kept genes.
    profiles_t : (n_genes, n_types) float
        B, transposed.
    profile_sums : (n_types,) float64
        S_k: sum of B over genes, without gene weights.
    direction : (n_genes,) float64
        a.
    means, variances : (n_types,) float64
        M_k and Q_k: sums of a_g and a_g^2 times what v_k = 1 expects of gene g.
    abundances : (n_spots, n_types) float
    start, stop : int
        Range of spots.
    deviances_out : (n_spots,) float64
        Per count; inf where a seen gene is not expected, NaN without counts.
    misfits_out : (n_spots,) float64
        In standard deviations; NaN without counts or abundance.
    sums_out : (2, n_genes) float64
        Sums over the spots of y^2 / m, where the gene is expected, and of y.
    """
    n_types = profiles_t.shape[1]
    longest = 0
    for i in range(start, stop):
        longest = max(longest, indptr[i + 1] - indptr[i])
    expected = np.empty(longest + 3, profiles_t.dtype)
    ratios = np.empty(longest)
    powers = np.empty(longest)
    for i in range(start, stop):
        genes, counts = indices[indptr[i] : indptr[i + 1]], data[indptr[i] : indptr[i + 1]]
        length = genes.shape[0]
        n = float(totals[i])
        v = abundances[i]
        _expect_genes(genes, profiles_t, v, expected)
        seen = 0.0
        for t in range(length):  # (y / m)^y of the usual counts, without a branch
            y = float(counts[t])
            ratio = y / (n * float(expected[t]))
            square = ratio * ratio
            power = square * square if y == 4 else 0.0
            power = square * ratio if y == 3 else power
            power = square if y == 2 else power
            power = ratio if y == 1 else power
            ratios[t] = ratio
            powers[t] = power if (power > TINY) & (power < HUGE) else 0.0
            seen += y
        logs, along = 0.0, 0.0
        product = 1.0  # one logarithm for the powers of many genes
        for t in range(length):
            gene = genes[t]
            y = float(counts[t])
            ratio = ratios[t]
            if powers[t] > 0:
                product *= powers[t]
                if product > LARGE or product < SMALL:
                    logs += math.log(product)
                    product = 1.0
            elif not y > 0:
                ratio = 0.0
            elif ratio < np.inf:
                logs += y * math.log(ratio)
            else:
                logs = np.inf
                ratio = 0.0
            along += direction[gene] * y
            sums_out[0, gene] += y * ratio
            sums_out[1, gene] += y
        logs += math.log(product)
        whole, mean, variance = 0.0, 0.0, 0.0
        for k in range(n_types):
            whole += v[k] * profile_sums[k]
            mean += v[k] * means[k]
            variance += v[k] * variances[k]
        deviances_out[i] = 2 * ((logs - seen) / n + whole) if n > 0 else np.nan
        misfits_out[i] = np.nan
        if n > 0 and whole > 0 and variance > 0:
            misfits_out[i] = (along - n * mean / whole) / math.sqrt(n * variance / whole)


@kernel(fastmath=FAST)
def score_spots(indptr, indices, data, totals, profiles_t, profile_sums, abundances, start, stop, scores_out):
    """Poisson log-likelihood of each spot, without the terms of the data alone; overwrites `scores_out`.

    sum_g (y_g ln(n_i mu_g)) - n_i sum_k v_k S_k with mu = B'v. A spot that expects none of a seen gene scores -inf.

    Parameters
    ----------
    indptr, indices, data, totals, profiles_t, profile_sums
        As in `solve_spots`; `totals` times the rate at which these counts were drawn.
    abundances : (n_spots, n_types) float
    start, stop : int
        Range of spots.
    scores_out : (n_spots,) float64
    """
    n_types = profiles_t.shape[1]
    for i in range(start, stop):
        score = 0.0
        for k in range(n_types):
            score -= float(totals[i]) * abundances[i, k] * profile_sums[k]
        for e in range(indptr[i], indptr[i + 1]):
            if data[e] > 0:
                mean = _dot(profiles_t[indices[e]], abundances[i]) * totals[i]
                score += data[e] * math.log(mean) if mean > 0 else -np.inf
        scores_out[i] = score


@kernel(fastmath=FAST)
def sum_excess(indptr, indices, data, totals, profiles_t, abundances, start, stop, sums_out):
    """Sum y^2 / mu of each gene over the spots where it was seen; adds to `sums_out`.

    Parameters
    ----------
    indptr, indices, data, totals, profiles_t, abundances
        As in `score_spots`, counts without gene weights.
    start, stop : int
        Range of spots.
    sums_out : (n_genes,) float64
    """
    for i in range(start, stop):
        for e in range(indptr[i], indptr[i + 1]):
            gene = indices[e]
            mean = _dot(profiles_t[gene], abundances[i]) * totals[i]
            if mean > 0:
                sums_out[gene] += float(data[e]) * data[e] / mean
