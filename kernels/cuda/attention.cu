// Twins of kernels/cpu/attention.py.
#include "common.cuh"

// Sum of a row of abundances, the same in every lane.
__device__ __forceinline__ double row_sum(const real* row, int n_types, int lane)
{
    double total = 0;
    for (int k = lane; k < n_types; k += WARP) total += (double)row[k];
    return warp_sum(total);
}

// A warp a spot, types over lanes.
extern "C" __global__ void
root_neighbourhoods(
    const int64* __restrict__ indptr, const int* __restrict__ indices, const double* __restrict__ place,
    const real* __restrict__ abundances, int64 start, int64 stop, real* roots_out, int n_types)
{
    const int64 i = start + warp_of();
    if (i >= stop) return;
    const int lane = lane_of();
    real* out = roots_out + (size_t)i * n_types;
    int members = 0;
    for (int k = lane; k < n_types; k += WARP) out[k] = 0;
    for (int64 e = indptr[i] - 1; e < indptr[i + 1]; ++e) {  // the spot itself first
        const bool self = e < indptr[i];
        if (!self && !(place[e] > 0.0)) continue;
        const real* row = abundances + (size_t)(self ? i : (int64)indices[e]) * n_types;
        const double total = row_sum(row, n_types, lane);
        if (!(total > 0.0)) continue;
        ++members;
        for (int k = lane; k < n_types; k += WARP) out[k] += (real)((double)row[k] / total);
    }
    for (int k = lane; k < n_types; k += WARP) out[k] = (real)sqrt((double)out[k] / (double)larger(members, 1));
}

// A warp a spot, types over lanes.
extern "C" __global__ void
compare_edges(
    const int64* __restrict__ indptr, const int* __restrict__ indices, const real* __restrict__ roots, int64 start,
    int64 stop, real* __restrict__ squares_out, int n_types)
{
    const int64 i = start + warp_of();
    if (i >= stop) return;
    const int lane = lane_of();
    const real* own = roots + (size_t)i * n_types;
    for (int64 e = indptr[i]; e < indptr[i + 1]; ++e) {
        const real* other = roots + (size_t)indices[e] * n_types;
        double square = 0;
        for (int k = lane; k < n_types; k += WARP) {
            const double step = (double)(own[k] - other[k]);
            square += step * step;
        }
        square = warp_sum(square);
        if (lane == 0) squares_out[e] = (real)square;
    }
}

// A thread a spot.
extern "C" __global__ void
attend_edges(
    const int64* __restrict__ indptr, const double* __restrict__ place, const real* __restrict__ squares, double tau,
    int64 start, int64 stop, double* __restrict__ directed_out, double* __restrict__ row_sums_out)
{
    const int64 i = start + (int64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= stop) return;
    double total = 0;
    for (int64 e = indptr[i]; e < indptr[i + 1]; ++e) {
        const double weight = place[e] * exp(-0.5 * (double)squares[e] / tau);
        directed_out[e] = weight;
        total += weight;
    }
    row_sums_out[i] = total;
}

// A thread a spot.
extern "C" __global__ void
symmetrise_edges(
    const int64* __restrict__ indptr, const int64* __restrict__ reverse, const double* __restrict__ directed,
    double scale, int64 start, int64 stop, real* __restrict__ weights_out, real* __restrict__ degrees_out)
{
    const int64 i = start + (int64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= stop) return;
    double total = 0;
    for (int64 e = indptr[i]; e < indptr[i + 1]; ++e) {
        const double weight = 0.5 * scale * (directed[e] + directed[reverse[e]]);
        weights_out[e] = (real)weight;
        total += weight;
    }
    degrees_out[i] = (real)total;
}
