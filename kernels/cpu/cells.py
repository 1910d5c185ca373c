"""The cell level: reference cells in each spot, one spot at a time, neighbours held."""

import math

import numpy as np

from ..compile import kernel

FAST = {"reassoc", "contract", "nsz"}


@kernel(fastmath=FAST, inline="always")
def _project(m, indptr, indices, data, rows, vector):
    """Profile of cell m times a vector over genes: dense rows where there are any, else compressed ones."""
    total = data.dtype.type(0)
    if rows.shape[0] > 0:
        for g in range(rows.shape[1]):
            total += rows[m, g] * vector[g]
    else:
        for e in range(indptr[m], indptr[m + 1]):
            total += data[e] * vector[indices[e]]
    return total


@kernel(fastmath=FAST, inline="always")
def _add_cell(m, weight, indptr, indices, data, rows, vector):
    """Add `weight` times the profile of cell m to `vector`."""
    if rows.shape[0] > 0:
        for g in range(rows.shape[1]):
            vector[g] += weight * rows[m, g]
    else:
        for e in range(indptr[m], indptr[m + 1]):
            vector[indices[e]] += weight * data[e]


@kernel(fastmath=FAST, inline="always")
def _keep_largest(p, offsets, n_visited, least, most, kept):
    """Mark the entries that stay: the largest of each type, then the largest of all above `least`, `most` in all."""
    kept[: offsets[n_visited]] = False
    count = 0
    while count < min(n_visited, most):
        best = -1
        for a in range(n_visited):
            top = offsets[a]
            for c in range(offsets[a], offsets[a + 1]):
                if p[c] > p[top]:
                    top = c
            if p[top] > 0 and not kept[top] and (best < 0 or p[top] > p[best]):
                best = top
        if best < 0:
            break
        kept[best] = True
        count += 1
    above = 0
    for c in range(offsets[n_visited]):
        if not kept[c] and p[c] >= least:
            above += 1
    room = most - count
    bar = least
    ties = above
    if above > room:
        values = np.empty(above, p.dtype)
        at = 0
        for c in range(offsets[n_visited]):
            if not kept[c] and p[c] >= least:
                values[at] = p[c]
                at += 1
        values.sort()
        bar = values[above - room] if room > 0 else p.dtype.type(np.inf)
        higher = 0
        for value in values:
            if value > bar:
                higher += 1
        ties = room - higher
    for c in range(offsets[n_visited]):
        if not kept[c] and p[c] >= bar:
            if p[c] > bar:
                kept[c] = True
            elif ties > 0:
                kept[c] = True
                ties -= 1


@kernel(fastmath=FAST)
def sweep_cells(
    indptr, indices, data, totals, gene_roots, cell_indptr, cell_indices, cell_data, cell_rows, cell_norms,
    type_starts,
    link_indptr, link_indices, link_weights, link_degrees,
    graph_indptr, graph_indices, graph_weights, degrees, abundances, old_indptr, old_indices, old_data, start, stop,
    anchor, lambda_ridge, lambda_cell, lambda_spatial, least_share, least_weight, n_sweeps,
    lengths_out, cells_out, weights_out,
):  # fmt: skip
    """Gauss-Seidel over reference cells in each spot; overwrites the three outputs.

    Least of |y~ - C'p|_W^2 / 2 + lambda_c p'Lp / 2 + lambda_s / (2 n_i) sum_j a_ij |p - p_j|^2
    + lambda_r |p - p0|^2 / 2 + anchor sum_k (sum_(m in k) p_m - v_k)^2 / 2 over p >= 0, with y~ = y / n_i and the
    residual kept. p0 spreads v_k over the cells of a type by their cosine with the spot.

    Parameters
    ----------
    indptr, indices, data, totals : CSR arrays and row sums of the spots' counts
    gene_roots : (n_genes,) float
        sqrt(W).
    cell_indptr, cell_indices, cell_data : CSR arrays, (n_cells + 1,), (n_cell_entries,), (n_cell_entries,)
        C times sqrt(W); cells sorted by type.
    cell_rows : (n_cells, n_genes) or (0, n_genes) float
        The same, dense; empty: the compressed rows are used, which pays off where few genes of a cell are seen.
    cell_norms : (n_cells,) float
        Squared length of each row of it.
    type_starts : (n_types + 1,) int64
        First cell of each type.
    link_indptr, link_indices, link_weights, link_degrees
        Attention graph among the cells (within a type) and its row sums.
    graph_indptr, graph_indices, graph_weights, degrees
        Attention graph of the spots and its row sums.
    abundances : (n_spots, n_types) float
        v of the type level.
    old_indptr, old_indices, old_data
        CSR arrays of the weights of all spots after the pass before; with no entries at all this is the first pass,
        which starts from p0 and knows no neighbours.
    start, stop : int
        Range of spots; outputs are relative to `start`.
    anchor, lambda_ridge, lambda_cell, lambda_spatial : float
    least_share : float
        Types with less of the spot are left out.
    least_weight : float
        Weights below are dropped; the rest of the type is scaled up, so that its sum stays.
    n_sweeps : int
    lengths_out : (n_chunk,) int64
    cells_out : (n_chunk, most) int32
        Ascending.
    weights_out : (n_chunk, most) float
    """
    n_types = abundances.shape[1]
    n_genes = gene_roots.shape[0]
    n_cells = type_starts[n_types]
    kind = cell_data.dtype
    zero, one = kind.type(0), kind.type(1)
    most = cells_out.shape[1]
    residual = np.zeros(n_genes, kind)
    p = np.empty(n_cells, kind)
    spread = np.empty(n_cells, kind)
    pull = np.empty(n_cells, kind)
    kept = np.empty(n_cells, np.bool_)
    local = np.full(n_cells, -1, np.int64)  # place of a cell among the visited ones
    visited = np.empty(n_types, np.int64)
    offsets = np.zeros(n_types + 1, np.int64)
    sums = np.empty(n_types, kind)
    has_old = old_indices.shape[0] > 0

    for i in range(start, stop):
        total = zero
        for k in range(n_types):
            total += abundances[i, k]
        n_visited = 0
        for k in range(n_types):
            if abundances[i, k] > kind.type(least_share) * total and type_starts[k + 1] > type_starts[k]:
                visited[n_visited] = k
                for m in range(type_starts[k], type_starts[k + 1]):
                    local[m] = offsets[n_visited] + m - type_starts[k]
                n_visited += 1
                offsets[n_visited] = offsets[n_visited - 1] + type_starts[k + 1] - type_starts[k]
        for e in range(indptr[i], indptr[i + 1]):
            residual[indices[e]] = residual.dtype.type(data[e]) / totals[i] * gene_roots[indices[e]]
        for a in range(n_visited):
            k = visited[a]
            likeness = zero
            for m in range(type_starts[k], type_starts[k + 1]):
                c = local[m]
                norm = cell_norms[m]
                spread[c] = zero
                if norm > zero:
                    spread[c] = _project(m, cell_indptr, cell_indices, cell_data, cell_rows, residual) / math.sqrt(norm)
                likeness += spread[c]
            size = type_starts[k + 1] - type_starts[k]
            for c in range(offsets[a], offsets[a + 1]):
                share = spread[c] / likeness if likeness > zero else one / size
                spread[c] = abundances[i, k] * share
        n_local = offsets[n_visited]
        pull[:n_local] = zero
        smooth = zero
        if has_old:
            p[:n_local] = zero
            for e in range(old_indptr[i], old_indptr[i + 1]):
                if local[old_indices[e]] >= 0:
                    p[local[old_indices[e]]] = old_data[e]
            strength = kind.type(lambda_spatial) / totals[i]
            smooth = strength * degrees[i]
            for e in range(graph_indptr[i], graph_indptr[i + 1]):
                j = graph_indices[e]
                for o in range(old_indptr[j], old_indptr[j + 1]):
                    c = local[old_indices[o]]
                    if c >= 0:
                        pull[c] += strength * graph_weights[e] * old_data[o]
        else:
            p[:n_local] = spread[:n_local]
        for e in range(indptr[i], indptr[i + 1]):
            residual[indices[e]] = -residual[indices[e]]
        for a in range(n_visited):
            sums[a] = zero
            for m in range(type_starts[visited[a]], type_starts[visited[a] + 1]):
                weight = p[local[m]]
                sums[a] += weight
                if weight != zero:
                    _add_cell(m, weight, cell_indptr, cell_indices, cell_data, cell_rows, residual)

        for _ in range(n_sweeps):
            for a in range(n_visited):
                k = visited[a]
                target = abundances[i, k]
                for m in range(type_starts[k], type_starts[k + 1]):
                    c = local[m]
                    slope = _project(m, cell_indptr, cell_indices, cell_data, cell_rows, residual)
                    slope += kind.type(anchor) * (sums[a] - target)
                    slope += kind.type(lambda_ridge) * (p[c] - spread[c]) + smooth * p[c] - pull[c]
                    curvature = cell_norms[m] + kind.type(anchor) + kind.type(lambda_ridge) + smooth
                    if lambda_cell > 0:
                        linked = link_degrees[m] * p[c]
                        for e in range(link_indptr[m], link_indptr[m + 1]):
                            linked -= link_weights[e] * p[local[link_indices[e]]]
                        slope += kind.type(lambda_cell) * linked
                        curvature += kind.type(lambda_cell) * link_degrees[m]
                    moved = max(p[c] - slope / curvature, zero)
                    step = moved - p[c]
                    if step != zero:
                        p[c] = moved
                        sums[a] += step
                        _add_cell(m, step, cell_indptr, cell_indices, cell_data, cell_rows, residual)

        _keep_largest(p, offsets, n_visited, kind.type(least_weight), most, kept)
        at = 0
        for a in range(n_visited):
            k = visited[a]
            whole, rest = zero, zero
            for c in range(offsets[a], offsets[a + 1]):
                whole += p[c]
                if kept[c]:
                    rest += p[c]
            for m in range(type_starts[k], type_starts[k + 1]):
                c = local[m]
                if kept[c]:
                    cells_out[i - start, at] = m
                    weights_out[i - start, at] = p[c] * (whole / rest)
                    at += 1
                local[m] = -1
        lengths_out[i - start] = at
        residual[:] = zero
