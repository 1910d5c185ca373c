"""The type level: abundances of the cell types in each spot, one spot at a time, neighbours held."""

import numpy as np

from ..compile import kernel

FAST = {"reassoc", "contract", "nsz"}
INNER_SWEEPS = 60  # Gauss-Seidel sweeps over types for one Newton step, at most
FAINT = 0.02  # types below this part of the largest leave the active set after the warm steps
INNER_SHARE = 0.01  # the inner sweeps end when no type moves by more than this part of the longest move so far
SHORTENINGS = 12
LEVEL = 0.1
LEAST_LEFT = 0.1  # of the abundances of a spot, after an over-relaxed step
LANES = 64  # the non-zeros of a spot are padded to a multiple, so that no vector loop ends in single steps


@kernel(fastmath=FAST, inline="always")
def _dot_rows(block, rows, first, count, x, out):
    """Overwrite out[first:count] by the products of some rows of a block with a vector, four at a time."""
    last = count - 1
    for r in range(first, count, 4):
        a, b, c, d = rows[r], rows[min(r + 1, last)], rows[min(r + 2, last)], rows[min(r + 3, last)]
        dot_a, dot_b, dot_c, dot_d = x.dtype.type(0), x.dtype.type(0), x.dtype.type(0), x.dtype.type(0)
        for t in range(block.shape[1]):
            dot_a += block[a, t] * x[t]
            dot_b += block[b, t] * x[t]
            dot_c += block[c, t] * x[t]
            dot_d += block[d, t] * x[t]
        out[r], out[min(r + 1, last)], out[min(r + 2, last)], out[min(r + 3, last)] = dot_a, dot_b, dot_c, dot_d


@kernel(fastmath=FAST, inline="always")
def _pull_of_neighbours(i, graph_indptr, graph_indices, graph_weights, abundances, strength, pull):
    """Overwrite `pull` by strength * sum_j a_ij v_j."""
    n_types = pull.shape[0]
    pull[:] = 0
    for e in range(graph_indptr[i], graph_indptr[i + 1]):
        j = graph_indices[e]
        weight = strength * graph_weights[e]
        for k in range(n_types):
            pull[k] += weight * abundances[j, k]


@kernel(fastmath=FAST, inline="always")
def _quadratic_step(hessian, gradient, types, n_active, v, direction, slope, inverse):
    """Overwrite `direction` by the least of g'd + d'Hd/2 under v + d >= 0: Gauss-Seidel over the active types.

    `slope`, the maintained gradient g + Hd, and `inverse`, the inverse diagonal, are overwritten; `hessian` is over
    the active types alone.
    """
    zero = gradient.dtype.type(0)
    for a in range(n_active):
        direction[a] = zero
        slope[a] = gradient[types[a]]
        inverse[a] = gradient.dtype.type(1) / hessian[a, a] if hessian[a, a] > zero else zero
    longest = zero
    for _ in range(INNER_SWEEPS):
        change = zero
        for a in range(n_active):
            step = max(direction[a] - slope[a] * inverse[a], -v[types[a]]) - direction[a]
            if step != zero:
                direction[a] += step
                for b in range(n_active):
                    slope[b] += hessian[a, b] * step
                change = max(change, abs(step))
                longest = max(longest, abs(direction[a]))
        if change <= gradient.dtype.type(INNER_SHARE) * longest:
            break


@kernel(fastmath=FAST, inline="always")
def _step_share(
    block, rows, types, n_active, direction, v, y, mean, ratio, length, total, profile_sums, diagonal, pull, least, move
):  # fmt: skip
    """How much of a step is taken, 0 for none, and its largest change; overwrites `move`, the change of the mean.

    Row rows[a] of the block is the profile of types[a]. Slope of the convex objective along the step: where it still
    falls at the far end, or rises there by a small part of the fall at the near end, the objective has fallen; else
    back to where it levels out.
    """
    kind = v.dtype
    zero = kind.type(0)
    move[:length] = zero
    constant = zero  # slope of the terms without logarithm along the direction, at v
    bend = zero
    largest = zero
    for a in range(n_active):
        k = types[a]
        d = direction[a]
        if d != zero:
            row = rows[a]
            for t in range(length):
                move[t] += d * block[row, t]
            constant += d * (total * profile_sums[k] + diagonal * v[k] - pull[k])
            bend += diagonal * d * d
            largest = max(largest, abs(d))
    if largest == zero:
        return zero, zero
    near = constant
    for t in range(length):
        near -= ratio[t] * move[t]
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


@kernel(fastmath=FAST, inline="always")
def _gather(profiles_t, genes, k, filled, row):
    """Overwrite a row of a block by the profile of type k over the genes of a spot, padded with 1."""
    for t in range(filled):
        row[t] = profiles_t[genes[t], k]
    for t in range(filled, row.shape[0]):
        row[t] = row.dtype.type(1)


@kernel(fastmath=FAST, inline="always")
def _subtract_rows(profiles_t, genes, ratio, filled, gradient):
    """Subtract the rows of `profiles_t` of the genes of a spot, times `ratio`, from `gradient`, four at a time."""
    whole = filled // 4 * 4
    for t in range(0, whole, 4):
        a, b, c, d = ratio[t], ratio[t + 1], ratio[t + 2], ratio[t + 3]
        one, two = profiles_t[genes[t]], profiles_t[genes[t + 1]]
        three, four = profiles_t[genes[t + 2]], profiles_t[genes[t + 3]]
        for k in range(gradient.shape[0]):
            gradient[k] -= a * one[k] + b * two[k] + c * three[k] + d * four[k]
    for t in range(whole, filled):
        for k in range(gradient.shape[0]):
            gradient[k] -= ratio[t] * profiles_t[genes[t], k]


@kernel(fastmath=FAST)
def solve_spots(
    indptr, indices, data, gene_weights, totals, profiles_t, profile_sums,
    graph_indptr, graph_indices, graph_weights, degrees, spots, start, stop,
    lambda_spatial, phi, lambda_ridge, warm_steps, max_steps, tolerance, abundances, steps_out,
):  # fmt: skip
    """Newton steps with an active set on the Poisson likelihood of each spot; updates `abundances` in place.

    Least of n_i sum_k v_k S_k - sum_g y_g ln(sum_k v_k B_kg) + lambda_s/2 (d_i |v|^2 - 2 phi v . sum_j a_ij v_j)
    + lambda_r/2 |v|^2 over v >= 0; only genes with counts enter the sums over genes. A spot without neighbours is
    not smoothed. No two spots of one call may be neighbours when the call runs beside others.

    Parameters
    ----------
    indptr, indices, data : CSR arrays, (n_spots + 1,), (nnz,), (nnz,)
        Counts of the kept genes, y.
    gene_weights : (n_genes,) float
        Weight of each gene; y below stands for the weighted count.
    totals : (n_spots,) float
        n_i, counts of each spot over the kept genes (not weighted).
    profiles_t : (n_genes, n_types) float
        B, transposed.
    profile_sums : (n_types,) float
        S_k: weighted sum of B over genes.
    graph_indptr, graph_indices, graph_weights, degrees
        CSR arrays of A and its row sums.
    spots : (n_visits,) int32
        The spots to visit.
    start, stop : int
        Range of `spots`.
    lambda_spatial, phi, lambda_ridge : float
        In counts.
    warm_steps : int
        Steps of expectation-maximisation before the first Newton step; for a start far off. All but the last one are
        taken twice as far (the factor of each type squared), and scaled to expect as many counts as there are.
    max_steps : int
        Newton steps for each spot, at most.
    tolerance : float
        A spot is left when no abundance moved by more than this part of their sum.
    abundances : (n_spots, n_types) float, updated
    steps_out : (n_spots,) int32, steps taken
    """
    n_types = profiles_t.shape[1]
    kind = profiles_t.dtype
    zero = kind.type(0)
    longest = 0
    for s in range(start, stop):
        longest = max(longest, indptr[spots[s] + 1] - indptr[spots[s]])
    longest = (longest + LANES - 1) // LANES * LANES
    room = np.empty(n_types * longest, kind)
    mean, move, ratio = np.empty(longest, kind), np.empty(longest, kind), np.empty(longest, kind)
    curve, y = np.empty(longest, kind), np.empty(longest, kind)
    genes = np.empty(longest, np.uint32)
    hessian = np.empty((n_types, n_types), kind)
    pull, gradient, slope = np.empty(n_types, kind), np.empty(n_types, kind), np.empty(n_types, kind)
    direction, inverse = np.empty(n_types, kind), np.empty(n_types, kind)
    types = np.empty(n_types, np.int64)
    every = np.arange(n_types)
    lam, ridge = kind.type(lambda_spatial), kind.type(lambda_ridge)

    for s in range(start, stop):
        i = spots[s]
        first = indptr[i]
        filled = indptr[i + 1] - first
        length = (filled + LANES - 1) // LANES * LANES
        v = abundances[i]
        block = room[: n_types * length].reshape(n_types, length)
        for t in range(filled):
            gene = np.uint32(indices[first + t])  # unsigned: no check for a place counted from the end
            genes[t] = gene
            y[t] = kind.type(data[first + t]) * gene_weights[gene]
        for t in range(filled, length):  # padding: no counts, some expectation
            y[t] = zero
        for k in range(n_types):
            _gather(profiles_t, genes, k, filled, block[k])
        diagonal = lam * degrees[i] + ridge
        _pull_of_neighbours(i, graph_indptr, graph_indices, graph_weights, abundances, lam * kind.type(phi), pull)
        mean[:length] = zero
        for k in range(n_types):
            weight = v[k]
            if weight > zero:
                for t in range(length):
                    mean[t] += weight * block[k, t]
        some = zero
        for t in range(filled):
            some += y[t]
        # without any count they would end at 0
        for turn in range(warm_steps if some > zero and totals[i] > zero else 0):
            # expectation-maximisation: cheap while all types are in; then the faint ones are left to the active set
            for t in range(length):
                ratio[t] = y[t] / mean[t]
            top, reached = zero, zero  # the largest abundance, the expected counts
            _dot_rows(block, every, 0, n_types, ratio, gradient)
            for k in range(n_types):
                growth = gradient[k] / (totals[i] * profile_sums[k])
                v[k] *= growth * growth if turn < warm_steps - 1 else growth
                reached += v[k] * totals[i] * profile_sums[k]
            scale = some / reached if turn < warm_steps - 1 else kind.type(1)
            for k in range(n_types):
                v[k] *= scale
                top = max(top, v[k])
            mean[:length] = zero
            for k in range(n_types):
                if turn == warm_steps - 1 and v[k] < kind.type(FAINT) * top:
                    v[k] = zero
                weight = v[k]
                if weight > zero:
                    for t in range(length):
                        mean[t] += weight * block[k, t]
        steps = 0
        while steps < max_steps:
            steps += 1
            for t in range(length):
                ratio[t] = y[t] / mean[t]
                curve[t] = ratio[t] / mean[t]
            n_active = 0
            _dot_rows(block, every, 0, n_types, ratio, gradient)
            for k in range(n_types):
                gradient[k] = totals[i] * profile_sums[k] - gradient[k] + diagonal * v[k] - pull[k]
                if v[k] > zero or gradient[k] < zero:
                    types[n_active] = k
                    n_active += 1
            for a in range(n_active):
                k = types[a]
                for t in range(length):
                    move[t] = curve[t] * block[k, t]
                _dot_rows(block, types, 0, a + 1, move, hessian[a])
                for b in range(a):
                    hessian[b, a] = hessian[a, b]
                hessian[a, a] += diagonal
            _quadratic_step(hessian, gradient, types, n_active, v, direction, slope, inverse)

            least = kind.type(tolerance) * v.sum()
            share, largest = _step_share(
                block, types, types, n_active, direction, v, y, mean, ratio, length, totals[i], profile_sums, diagonal,
                pull, least, move,
            )  # fmt: skip
            if share == zero:
                break
            for a in range(n_active):
                k = types[a]
                v[k] = max(v[k] + share * direction[a], zero)
            for t in range(length):
                mean[t] += share * move[t]
            if share * largest < least:
                break
        steps_out[i] = steps


@kernel(fastmath=FAST)
def visit_spots(
    indptr, indices, data, gene_weights, totals, profiles_t, profile_sums,
    graph_indptr, graph_indices, graph_weights, degrees, spots, start, stop,
    lambda_spatial, phi, lambda_ridge, relax, tolerance, abundances, moves_out,
):  # fmt: skip
    """One Newton step of each spot near its answer; updates `abundances` in place and overwrites the visited moves.

    The objective, the active set and the way a step is judged are those of `solve_spots`. Only the profiles of the
    active types are gathered, so that a visit costs a fraction of a cold solve.

    Parameters
    ----------
    indptr, indices, data, gene_weights, totals, profiles_t, profile_sums
    graph_indptr, graph_indices, graph_weights, degrees, spots, start, stop, lambda_spatial, phi, lambda_ridge
        As in `solve_spots`.
    relax : float
        The step is taken times this number, from 1 to below 2: over-relaxation, for strong smoothing.
    tolerance : float
        A step that moves no abundance by more than this part of their sum need not be judged.
    abundances : (n_spots, n_types) float, updated
        A row without any abundance stays as it is.
    moves_out : (n_spots,) float
        The largest change of an abundance of each visited spot.

    References
    ----------
    Over-relaxation: D. M. Young (1971), Iterative Solution of Large Linear Systems.
    """
    n_types = profiles_t.shape[1]
    kind = profiles_t.dtype
    zero = kind.type(0)
    longest = 0
    for s in range(start, stop):
        longest = max(longest, indptr[spots[s] + 1] - indptr[spots[s]])
    longest = (longest + LANES - 1) // LANES * LANES
    room = np.empty(n_types * longest, kind)
    mean, move, ratio = np.empty(longest, kind), np.empty(longest, kind), np.empty(longest, kind)
    curve, y = np.empty(longest, kind), np.empty(longest, kind)
    genes = np.empty(longest, np.uint32)
    hessian = np.empty((n_types, n_types), kind)
    pull, gradient, slope = np.empty(n_types, kind), np.empty(n_types, kind), np.empty(n_types, kind)
    direction, inverse = np.empty(n_types, kind), np.empty(n_types, kind)
    types = np.empty(n_types, np.int64)
    every = np.arange(n_types)
    lam, ridge = kind.type(lambda_spatial), kind.type(lambda_ridge)

    for s in range(start, stop):
        i = spots[s]
        first = indptr[i]
        filled = indptr[i + 1] - first
        length = (filled + LANES - 1) // LANES * LANES
        block = room[: n_types * length].reshape(n_types, length)
        v = abundances[i]
        moves_out[i] = zero
        for t in range(filled):
            gene = np.uint32(indices[first + t])
            genes[t] = gene
            y[t] = kind.type(data[first + t]) * gene_weights[gene]
        for t in range(filled, length):  # padding: no counts, some expectation
            y[t] = zero
        n_active = 0
        mean[:length] = zero
        for k in range(n_types):
            weight = v[k]
            if weight > zero:
                _gather(profiles_t, genes, k, filled, block[n_active])
                for t in range(length):
                    mean[t] += weight * block[n_active, t]
                types[n_active] = k
                n_active += 1
        if n_active == 0:
            continue
        diagonal = lam * degrees[i] + ridge
        _pull_of_neighbours(i, graph_indptr, graph_indices, graph_weights, abundances, lam * kind.type(phi), pull)
        for t in range(length):
            ratio[t] = y[t] / mean[t]
            curve[t] = ratio[t] / mean[t]
        for k in range(n_types):
            gradient[k] = totals[i] * profile_sums[k] + diagonal * v[k] - pull[k]
        _subtract_rows(profiles_t, genes, ratio, filled, gradient)
        for k in range(n_types):
            if v[k] <= zero and gradient[k] < zero:
                _gather(profiles_t, genes, k, filled, block[n_active])
                types[n_active] = k
                n_active += 1
        for a in range(n_active):
            for t in range(length):
                move[t] = curve[t] * block[a, t]
            _dot_rows(block, every, 0, a + 1, move, hessian[a])
            for b in range(a):
                hessian[b, a] = hessian[a, b]
            hessian[a, a] += diagonal
        _quadratic_step(hessian, gradient, types, n_active, v, direction, slope, inverse)
        share, _ = _step_share(
            block, every, types, n_active, direction, v, y, mean, ratio, length, totals[i], profile_sums, diagonal,
            pull, kind.type(tolerance) * v.sum(), move,
        )  # fmt: skip
        step = share * kind.type(relax)
        left = zero
        for a in range(n_active):
            left += max(v[types[a]] + step * direction[a], zero)
        if left < kind.type(LEAST_LEFT) * v.sum():  # relaxed too far: next to nothing would be left
            step = share
        for a in range(n_active):
            k = types[a]
            moved = max(v[k] + step * direction[a], zero)
            moves_out[i] = max(moves_out[i], abs(moved - v[k]))
            v[k] = moved
