"""The type level by least squares: Gauss-Seidel over the types of each spot, neighbours held."""

import numpy as np

from ..compile import kernel
from ..newton import FAST, pull_of_neighbours


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
        pull_of_neighbours(i, graph_indptr, graph_indices, graph_weights, abundances, lam * kind.type(phi), pull)
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
