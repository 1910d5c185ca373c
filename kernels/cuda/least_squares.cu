// Twin of kernels/cpu/least_squares.py. A warp a spot; the types in turn, the gradient striped over lanes.
#include "common.cuh"

extern "C" __global__ void
solve_spots_gaussian(
    const real* __restrict__ products, const real* __restrict__ gram, const int64* __restrict__ graph_indptr,
    const int* __restrict__ graph_indices, const real* __restrict__ graph_weights, const real* __restrict__ degrees,
    const int* __restrict__ spots, int64 start, int64 stop, double lambda_spatial, double phi, double lambda_ridge,
    int max_steps, double tolerance, real* abundances, int* steps_out, int n_types)
{
    const int64 at = start + warp_of();
    if (at >= stop) return;
    const int lane = lane_of();
    const int64 i = spots[at];
    const real lam = (real)lambda_spatial, diagonal = lam * degrees[i] + (real)lambda_ridge;
    const real strength = lam * (real)phi;
    real* own = abundances + (size_t)i * n_types;
    real v[MAXT], gradient[MAXT], curvature[MAXT];
    #pragma unroll
    for (int m = 0; m < MAXT; ++m) {
        const int k = lane + WARP * m;
        v[m] = k < n_types ? own[k] : real(0);
        gradient[m] = k < n_types ? -products[(size_t)i * n_types + k] : real(0);
        curvature[m] = k < n_types ? gram[(size_t)k * n_types + k] + diagonal : real(0);
    }
    for (int64 e = graph_indptr[i]; e < graph_indptr[i + 1]; ++e) {
        const real weight = strength * graph_weights[e];
        const real* row = abundances + (size_t)graph_indices[e] * n_types;
        #pragma unroll
        for (int m = 0; m < MAXT; ++m)
            if (lane + WARP * m < n_types) gradient[m] -= weight * row[lane + WARP * m];
    }
    #pragma unroll
    for (int m = 0; m < MAXT; ++m) {
        gradient[m] += diagonal * v[m];
        for (int s = 0; s < WARP && s + WARP * m < n_types; ++s) {
            const real its = __shfl_sync(ALL, v[m], s);
            const real* row = gram + (size_t)(s + WARP * m) * n_types;
            #pragma unroll
            for (int u = 0; u < MAXT; ++u)
                if (lane + WARP * u < n_types) gradient[u] += row[lane + WARP * u] * its;
        }
    }
    int steps = 0;
    while (steps < max_steps) {
        ++steps;
        real largest = 0;
        #pragma unroll
        for (int m = 0; m < MAXT; ++m)
            for (int s = 0; s < WARP && s + WARP * m < n_types; ++s) {
                real mine = 0;
                if (curvature[m] > real(0)) mine = larger(v[m] - gradient[m] / curvature[m], real(0)) - v[m];
                const real step = __shfl_sync(ALL, mine, s);
                if (step == real(0)) continue;
                const real* row = gram + (size_t)(s + WARP * m) * n_types;
                #pragma unroll
                for (int u = 0; u < MAXT; ++u)
                    if (lane + WARP * u < n_types) gradient[u] += row[lane + WARP * u] * step;
                if (lane == s) {
                    gradient[m] += diagonal * step;
                    v[m] = larger(v[m] + step, real(0));
                }
                largest = larger(largest, step < real(0) ? -step : step);
            }
        if (largest < (real)tolerance) break;
    }
    #pragma unroll
    for (int m = 0; m < MAXT; ++m)
        if (lane + WARP * m < n_types) own[lane + WARP * m] = v[m];
    if (lane == 0) steps_out[i] = steps;
}
