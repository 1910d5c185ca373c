"""The type level: abundances of the cell types in each spot, one spot at a time, neighbours held."""

import numpy as np

from ..compile import kernel

FAST = {"reassoc", "contract", "nsz"}
INNER_SWEEPS = 60  # Gauss-Seidel sweeps over types for one Newton step, at most
FAINT = 0.02  # types below this part of the largest leave the active set after the warm steps
INNER_SHARE = 0.01  # the inner sweeps end when no type moves by more than this part of the longest move so far
SHORTENINGS = 12
LEVEL = 0.1
LANES = 64  # the non-zeros of a spot are padded to a multiple, so that no vector loop ends in single steps


@kernel(fastmath=FAST)
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


@kernel(fastmath=FAST)
def _pull_of_neighbours(i, graph_indptr, graph_indices, graph_weights, abundances, strength, pull):
    """Overwrite `pull` by strength * sum_j a_ij v_j."""
    n_types = pull.shape[0]
    pull[:] = 0
    for e in range(graph_indptr[i], graph_indptr[i + 1]):
        j = graph_indices[e]
        weight = strength * graph_weights[e]
        for k in range(n_types):
            pull[k] += weight * abundances[j, k]


@kernel(fastmath=FAST)
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


@kernel(fastmath=FAST)
def solve_spots(
    indptr, indices, data, totals, profiles_t, profile_sums,
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
        Counts of the kept genes, times the gene weights.
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
        Steps of expectation-maximisation before the first Newton step; for a start far off.
    max_steps : int
        Newton steps for each spot, at most.
    tolerance : float
        A spot is left when no abundance moved by more than this part of their sum.
    abundances : (n_spots, n_types) float, updated
    steps_out : (n_spots,) int32
        Steps taken.
    """
    n_types = profiles_t.shape[1]
    kind = profiles_t.dtype
    zero = kind.type(0)
    longest = 0
    for s in range(start, stop):
        longest = max(longest, indptr[spots[s] + 1] - indptr[spots[s]])
    longest = (longest + LANES - 1) // LANES * LANES
    room = np.empty(n_types * longest, kind)
    mean = np.empty(longest, kind)
    move = np.empty(longest, kind)
    ratio = np.empty(longest, kind)
    curve = np.empty(longest, kind)
    y = np.empty(longest, kind)
    hessian = np.empty((n_types, n_types), kind)
    pull = np.empty(n_types, kind)
    gradient = np.empty(n_types, kind)
    slope = np.empty(n_types, kind)
    direction = np.empty(n_types, kind)
    inverse = np.empty(n_types, kind)
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
            y[t] = data[first + t]
            gene = indices[first + t]
            for k in range(n_types):
                block[k, t] = profiles_t[gene, k]
        for t in range(filled, length):  # padding: no counts, some expectation
            y[t] = zero
            for k in range(n_types):
                block[k, t] = kind.type(1)
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
            top = zero
            _dot_rows(block, every, 0, n_types, ratio, gradient)
            for k in range(n_types):
                v[k] *= gradient[k] / (totals[i] * profile_sums[k])
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

            move[:length] = zero
            constant = zero  # slope of the terms without logarithm along the direction, at v
            bend = zero
            largest = zero
            for a in range(n_active):
                k = types[a]
                d = direction[a]
                if d != zero:
                    for t in range(length):
                        move[t] += d * block[k, t]
                    constant += d * (totals[i] * profile_sums[k] + diagonal * v[k] - pull[k])
                    bend += diagonal * d * d
                    largest = max(largest, abs(d))
            if largest == zero:
                break
            least = kind.type(tolerance) * v.sum()
            # slope of the convex objective along the step: where it still falls at the far end, or rises there by a
            # small part of the fall at the near end, the objective has fallen; else back to where it levels out
            near = constant
            for t in range(length):
                near -= ratio[t] * move[t]
            share = kind.type(1)
            accepted = False
            for _ in range(SHORTENINGS):
                outside = zero  # a count, as a float: so the loop stays a vector loop
                far = constant + share * bend
                for t in range(length):
                    reached = mean[t] + share * move[t]
                    outside += kind.type(0) if reached > zero else kind.type(1)
                    far -= y[t] * move[t] / reached
                if outside == zero:
                    accepted = far <= kind.type(-LEVEL) * near or share * largest < least
                    if accepted:
                        break
                    share *= min(max(near / (near - far), kind.type(0.1)), kind.type(0.9))
                else:
                    share *= kind.type(0.5)
            if not accepted:
                break
            for a in range(n_active):
                k = types[a]
                moved = v[k] + share * direction[a]
                v[k] = moved if moved > zero else zero
            for t in range(length):
                mean[t] += share * move[t]
            if share * largest < least:
                break
        steps_out[i] = steps


@kernel(fastmath=FAST)
def solve_spots_gaussian(
    products, gram, graph_indptr, graph_indices, graph_weights, degrees, spots, start, stop,
    lambda_spatial, phi, lambda_ridge, max_steps, tolerance, abundances, steps_out,
):  # fmt: skip
    """Gauss-Seidel over types on the least squares of each spot; updates `abundances` in place.

    Least of v'Gv/2 - v'c_i + lambda_s/2 (d_i |v|^2 - 2 phi v . sum_j a_ij v_j) + lambda_r/2 |v|^2 over v >= 0.

    Parameters
    ----------
    products : (n_spots, n_types) float
        c_i: profiles times the spot's log expression.
    gram : (n_types, n_types) float
        G: profiles times profiles.
    graph_indptr, graph_indices, graph_weights, degrees, spots, start, stop
        As in `solve_spots`.
    lambda_spatial, phi, lambda_ridge : float
        In the unit of `gram`.
    max_steps, tolerance, abundances, steps_out
        As in `solve_spots`; a step is one sweep over the types.
    """
    n_types = gram.shape[0]
    kind = gram.dtype
    zero = kind.type(0)
    pull = np.empty(n_types, kind)
    gradient = np.empty(n_types, kind)
    lam, ridge = kind.type(lambda_spatial), kind.type(lambda_ridge)
    for s in range(start, stop):
        i = spots[s]
        v = abundances[i]
        diagonal = lam * degrees[i] + ridge
        _pull_of_neighbours(i, graph_indptr, graph_indices, graph_weights, abundances, lam * kind.type(phi), pull)
        for k in range(n_types):
            product = zero
            for m in range(n_types):
                product += gram[k, m] * v[m]
            gradient[k] = product + diagonal * v[k] - products[i, k] - pull[k]
        steps = 0
        while steps < max_steps:
            steps += 1
            largest = zero
            for k in range(n_types):
                curvature = gram[k, k] + diagonal
                if curvature <= zero:
                    continue
                moved = max(v[k] - gradient[k] / curvature, zero)
                step = moved - v[k]
                if step != zero:
                    v[k] = moved
                    for m in range(n_types):
                        gradient[m] += gram[k, m] * step
                    gradient[k] += diagonal * step
                    largest = max(largest, abs(step))
            if largest < tolerance:
                break
        steps_out[i] = steps
