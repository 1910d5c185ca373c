// Twins of kernels/cpu/laplacian.py that run in the passes. Sums are float64, as on the CPU.
#include "common.cuh"
#define LEFT_BY_NEWTON 400.0

// A warp a spot, types over lanes.
extern "C" __global__ void
apply_laplacian(
    const int64* __restrict__ indptr, const int* __restrict__ indices, const real* __restrict__ weights,
    const real* __restrict__ degrees, const real* __restrict__ values, double phi, int64 start, int64 stop,
    real* __restrict__ product_out, int n_types)
{
    const int64 i = start + warp_of();
    if (i >= stop) return;
    for (int k = lane_of(); k < n_types; k += WARP) {
        double product = (double)degrees[i] * (double)values[(size_t)i * n_types + k];
        for (int64 e = indptr[i]; e < indptr[i + 1]; ++e)
            product -= phi * (double)weights[e] * (double)values[(size_t)indices[e] * n_types + k];
        product_out[(size_t)i * n_types + k] = (real)product;
    }
}

// A thread a spot.
extern "C" __global__ void
owe_moves(
    const int64* __restrict__ indptr, const int* __restrict__ indices, const real* __restrict__ weights,
    const real* __restrict__ degrees, const int* __restrict__ ranks, const real* __restrict__ moves,
    const unsigned char* __restrict__ visited,
    double lambda_spatial, double phi, double lambda_ridge, double relax, int64 start, int64 stop, real* owed)
{
    const int64 i = start + (int64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= stop) return;
    double pull = 0;
    for (int64 e = indptr[i]; e < indptr[i + 1]; ++e) {
        const int j = indices[e];
        if (!visited[i] || ranks[j] > ranks[i]) pull += (double)weights[e] * (double)moves[j];
    }
    double debt = owed[i];
    const double own = moves[i];
    if (visited[i]) debt = own * smaller(relax - 1.0 + LEFT_BY_NEWTON * own, 1.0);
    const double curvature = lambda_spatial * (double)degrees[i] + lambda_ridge;
    if (pull > 0.0 && curvature > 0.0) debt += lambda_spatial * phi * pull / curvature;
    owed[i] = (real)debt;
}

// A warp a spot, types over lanes.
extern "C" __global__ void
owe_shift(
    const int64* __restrict__ indptr, const int* __restrict__ indices, const real* __restrict__ old_weights,
    const real* __restrict__ weights, const real* __restrict__ old_degrees, const real* __restrict__ degrees,
    const real* __restrict__ abundances, double lambda_spatial, double phi, double lambda_ridge, int64 start,
    int64 stop, real* owed, int n_types)
{
    const int64 i = start + warp_of();
    if (i >= stop) return;
    double largest = 0;
    for (int k = lane_of(); k < n_types; k += WARP) {
        double shift = (double)(degrees[i] - old_degrees[i]) * (double)abundances[(size_t)i * n_types + k];
        for (int64 e = indptr[i]; e < indptr[i + 1]; ++e)
            shift -= phi * (double)(weights[e] - old_weights[e])
                     * (double)abundances[(size_t)indices[e] * n_types + k];
        largest = larger(largest, shift < 0 ? -shift : shift);
    }
    largest = warp_max(largest);
    if (lane_of() == 0 && largest > 0.0)
        owed[i] += (real)(lambda_spatial * largest / (lambda_spatial * (double)degrees[i] + lambda_ridge));
}
