"""The type level: abundances of the cell types in each spot, one spot at a time, neighbours held."""

from ..compile import kernel
from ..lanes import LANES, PIECE, prefetch
from ..newton import (
    FAST,
    dot_rows,
    expect,
    find_step,
    gather_counts,
    gather_profiles,
    look_ahead,
    make_room,
    pull_of_neighbours,
    share_of_step,
)

# Loops over spots allocate nothing, and so do without numba's counts of references: each is a barrier for what the
# processor does ahead, and together they took a ninth of a visit. Each becomes part of the one kernel that calls it.
LOOP = {"fastmath": FAST, "_nrt": False, "forceinline": True}
FAINT = 0.02  # types below this part of the largest leave the active set after the warm steps
LEAST_LEFT = 0.1  # of the abundances of a spot, after an over-relaxed step


@kernel(**LOOP)
def _solve_spots(
    indptr, indices, data, gene_weights, totals, profiles_t, profile_sums,
    graph_indptr, graph_indices, graph_weights, degrees, spots, start, stop,
    lambda_spatial, phi, lambda_ridge, warm_steps, max_steps, tolerance, abundances, steps_out, rooms,
):  # fmt: skip
    """What `solve_spots` says, in room that `make_room` made."""
    n_types = profiles_t.shape[1]
    kind = profiles_t.dtype
    zero = kind.type(0)
    by_gene, by_type, genes, types, room, hessian, factor = rooms
    y, mean, move, ratio, curve = by_gene
    pull, gradient, direction, inverse, back = by_type
    lam, ridge = kind.type(lambda_spatial), kind.type(lambda_ridge)

    for s in range(start, stop):
        i = spots[s]
        filled = indptr[i + 1] - indptr[i]
        length, counted = (filled + LANES - 1) // LANES * LANES, (filled + PIECE - 1) // PIECE * PIECE
        v, block = abundances[i], room[: n_types * length].reshape(n_types, length)
        gather_counts(indices, data, gene_weights, indptr[i], filled, length, genes, y)
        gather_profiles(profiles_t, genes, length, block)
        expect(block, v, length, types, direction, mean)
        diagonal = lam * degrees[i] + ridge
        pull_of_neighbours(i, graph_indptr, graph_indices, graph_weights, abundances, lam * kind.type(phi), pull)
        some = zero
        for t in range(filled):
            some += y[t]
        # without any count they would end at 0
        for turn in range(warm_steps if some > zero and totals[i] > zero else 0):
            # expectation-maximisation: cheap while all types are in; then the faint ones are left to the active set
            for t in range(length):
                ratio[t] = y[t] / mean[t]
            top, reached = zero, zero  # the largest abundance, the expected counts
            dot_rows(block, n_types, counted, ratio, gradient)
            for k in range(n_types):
                growth = gradient[k] / (totals[i] * profile_sums[k])
                v[k] *= growth * growth if turn < warm_steps - 1 else growth
                reached += v[k] * totals[i] * profile_sums[k]
            scale = some / reached if turn < warm_steps - 1 else kind.type(1)
            for k in range(n_types):
                v[k] *= scale
                top = max(top, v[k])
            if turn == warm_steps - 1:
                for k in range(n_types):
                    if v[k] < kind.type(FAINT) * top:
                        v[k] = zero
            expect(block, v, length, types, direction, mean)
        steps = 0
        while steps < max_steps:
            steps += 1
            n_active = find_step(
                block, length, counted, y, mean, totals[i], profile_sums, diagonal, pull, v, False,
                ratio, curve, gradient, hessian, factor, types, direction, inverse, back,
            )  # fmt: skip
            least = kind.type(tolerance) * v.sum()
            share, largest = share_of_step(
                block, length, types, n_active, direction, v, y, mean, gradient, totals[i], profile_sums, diagonal,
                pull, least, move,
            )  # fmt: skip
            if share == zero:
                break
            for a in range(n_active):
                k = types[a]
                v[k] = max(v[k] + share * direction[a], zero)
            if share * largest < least:
                break
            for t in range(length):
                mean[t] += share * move[t]
        steps_out[i] = steps


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
    rooms = make_room(indptr, spots, start, stop, profiles_t)
    _solve_spots(
        indptr, indices, data, gene_weights, totals, profiles_t, profile_sums,
        graph_indptr, graph_indices, graph_weights, degrees, spots, start, stop,
        lambda_spatial, phi, lambda_ridge, warm_steps, max_steps, tolerance, abundances, steps_out, rooms,
    )  # fmt: skip


@kernel(**LOOP)
def _visit_spots(
    indptr, indices, data, gene_weights, totals, profiles_t, profile_sums,
    graph_indptr, graph_indices, graph_weights, degrees, spots, start, stop,
    lambda_spatial, phi, lambda_ridge, relax, tolerance, abundances, moves_out, rooms,
):  # fmt: skip
    """What `visit_spots` says, in room that `make_room` made."""
    n_types = profiles_t.shape[1]
    kind = profiles_t.dtype
    zero = kind.type(0)
    by_gene, by_type, genes, types, room, hessian, factor = rooms
    y, mean, move, ratio, curve = by_gene
    pull, gradient, direction, inverse, back = by_type
    lam, ridge = kind.type(lambda_spatial), kind.type(lambda_ridge)

    for s in range(start, stop):
        i = spots[s]
        filled = indptr[i + 1] - indptr[i]
        length, counted = (filled + LANES - 1) // LANES * LANES, (filled + PIECE - 1) // PIECE * PIECE
        v, block = abundances[i], room[: n_types * length].reshape(n_types, length)
        prefetch(graph_indices, graph_indptr[spots[min(s + 3, stop - 1)]], 0)
        if s + 1 < stop:
            look_ahead(spots[s + 1], indptr, indices, data, graph_indptr, graph_indices, abundances)
        whole = v.sum()
        moves_out[i] = zero
        if not whole > zero:
            continue
        gather_counts(indices, data, gene_weights, indptr[i], filled, length, genes, y)
        gather_profiles(profiles_t, genes, length, block)
        expect(block, v, length, types, direction, mean)
        diagonal = lam * degrees[i] + ridge
        pull_of_neighbours(i, graph_indptr, graph_indices, graph_weights, abundances, lam * kind.type(phi), pull)
        n_active = find_step(
            block, length, counted, y, mean, totals[i], profile_sums, diagonal, pull, v, True,
            ratio, curve, gradient, hessian, factor, types, direction, inverse, back,
        )  # fmt: skip
        share, _ = share_of_step(
            block, length, types, n_active, direction, v, y, mean, gradient, totals[i], profile_sums, diagonal, pull,
            kind.type(tolerance) * whole, move,
        )  # fmt: skip
        if share == zero:
            continue
        step = share * kind.type(relax)
        left = zero
        for a in range(n_active):
            left += max(v[types[a]] + step * direction[a], zero)
        if left < kind.type(LEAST_LEFT) * whole:  # relaxed too far: next to nothing would be left
            step = share
        largest = zero
        for a in range(n_active):
            k = types[a]
            moved = max(v[k] + step * direction[a], zero)
            largest = max(largest, abs(moved - v[k]))
            v[k] = moved
        moves_out[i] = largest


@kernel(fastmath=FAST)
def visit_spots(
    indptr, indices, data, gene_weights, totals, profiles_t, profile_sums,
    graph_indptr, graph_indices, graph_weights, degrees, spots, start, stop,
    lambda_spatial, phi, lambda_ridge, relax, tolerance, abundances, moves_out,
):  # fmt: skip
    """One Newton step of each spot near its answer; updates `abundances` in place and overwrites the visited moves.

    The objective, the active set and the way a step is judged are those of `solve_spots`.

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
    rooms = make_room(indptr, spots, start, stop, profiles_t)
    _visit_spots(
        indptr, indices, data, gene_weights, totals, profiles_t, profile_sums,
        graph_indptr, graph_indices, graph_weights, degrees, spots, start, stop,
        lambda_spatial, phi, lambda_ridge, relax, tolerance, abundances, moves_out, rooms,
    )  # fmt: skip
