// Twins of some kernels of kernels/cpu/fits.py. Sums over genes are float64.
#include "common.cuh"

// A warp a spot.
extern "C" __global__ void
measure_deviance(
    const int64* __restrict__ indptr, const index_t* __restrict__ indices, const count_t* __restrict__ data,
    const real* __restrict__ totals, const real* __restrict__ profiles_t, const real* __restrict__ profile_sums,
    const real* __restrict__ abundances, int64 start, int64 stop, double* __restrict__ deviances_out, int n_types)
{
    const int64 i = start + warp_of();
    if (i >= stop) return;
    const int lane = lane_of();
    const double n = (double)totals[i];
    if (!(n > 0)) {
        if (lane == 0) deviances_out[i] = not_a_number();
        return;
    }
    const real* v = abundances + (size_t)i * n_types;
    double expected = 0, logs = 0;
    for (int k = lane; k < n_types; k += WARP) expected += (double)v[k] * (double)profile_sums[k];
    for (int64 e = indptr[i] + lane; e < indptr[i + 1]; e += WARP) {
        const double y = (double)data[e];
        if (!(y > 0)) continue;
        const double mean = n * dot<double>(profiles_t + (size_t)indices[e] * n_types, v, n_types);
        logs += mean > 0 ? y * log(y / mean) - y : infinity();
    }
    expected = warp_sum(expected);
    logs = warp_sum(logs);
    if (lane == 0) deviances_out[i] = 2.0 * (logs / n + expected);
}

// A warp a spot.
extern "C" __global__ void
score_spots(
    const int64* __restrict__ indptr, const index_t* __restrict__ indices, const count_t* __restrict__ data,
    const real* __restrict__ totals, const real* __restrict__ profiles_t, const real* __restrict__ profile_sums,
    const real* __restrict__ abundances, int64 start, int64 stop, double* __restrict__ scores_out, int n_types)
{
    const int64 i = start + warp_of();
    if (i >= stop) return;
    const int lane = lane_of();
    const real* v = abundances + (size_t)i * n_types;
    double score = 0;
    for (int k = lane; k < n_types; k += WARP) score -= (double)totals[i] * (double)v[k] * (double)profile_sums[k];
    for (int64 e = indptr[i] + lane; e < indptr[i + 1]; e += WARP)
        if (data[e] > 0) {
            const double mean = (double)totals[i] * dot<double>(profiles_t + (size_t)indices[e] * n_types, v, n_types);
            score += mean > 0 ? (double)data[e] * log(mean) : -infinity();
        }
    score = warp_sum(score);
    if (lane == 0) scores_out[i] = score;
}

// sums_out: (parts, n_columns), a part a block of one warp; no gene stands twice in a row.
extern "C" __global__ void
sum_excess(
    const int64* __restrict__ indptr, const index_t* __restrict__ indices, const count_t* __restrict__ data,
    const real* __restrict__ totals, const real* __restrict__ profiles_t, const real* __restrict__ abundances,
    int64 start, int64 stop, double* sums_out, int n_types, int n_columns)
{
    const int64 size = (stop - start + gridDim.x - 1) / gridDim.x;
    const int64 first = smaller(start + size * (int64)blockIdx.x, stop), last = smaller(first + size, stop);
    double* sums = sums_out + (size_t)blockIdx.x * n_columns;
    for (int64 i = first; i < last; ++i) {
        const real* v = abundances + (size_t)i * n_types;
        for (int64 e = indptr[i] + lane_of(); e < indptr[i + 1]; e += WARP) {
            const int gene = indices[e];
            const double y = (double)data[e];
            const double mean = (double)totals[i] * dot<double>(profiles_t + (size_t)gene * n_types, v, n_types);
            if (mean > 0) sums[gene] += y * y / mean;
        }
        __syncwarp();
    }
}
