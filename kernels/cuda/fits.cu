// Twins of kernels/cpu/fits.py. Sums over genes are float64.
#include "common.cuh"
#define SINGULAR 1e-12

// A warp a spot; the Hessian of the active types is a packed triangle in shared memory.
extern "C" __global__ void
measure_errors(
    const int64* __restrict__ indptr, const index_t* __restrict__ indices, const count_t* __restrict__ data,
    const real* __restrict__ gene_weights, const real* __restrict__ profiles_t, const real* __restrict__ degrees,
    const real* __restrict__ contents, const real* __restrict__ abundances, int64 start, int64 stop,
    double lambda_spatial, double lambda_ridge, double* __restrict__ errors_out, int n_types)
{
    DYNAMIC_SHARED(smem_raw)
    const int64 i = start + warp_of();
    if (i >= stop) return;
    const int lane = lane_of(), n_pairs_most = n_types * (n_types + 1) / 2;
    const size_t bytes = sizeof(double) * (n_pairs_most + 3 * n_types) + sizeof(int) * (n_types + (n_types & 1));
    double* packed = reinterpret_cast<double*>(smem_raw + bytes * (threadIdx.x / WARP));
    double* diagonal = packed + n_pairs_most;
    double* share = diagonal + n_types;
    double* right = share + n_types;
    int* types = reinterpret_cast<int*>(right + n_types);
    const real* v = abundances + (size_t)i * n_types;
    double* out = errors_out + (size_t)i * n_types;
    const double nan = not_a_number();
    int n_active = 0;
    double total = 0;
    for (int base = 0; base < n_types; base += WARP) {
        const int k = base + lane;
        const bool active = k < n_types && v[k] > real(0);
        const unsigned ballot = __ballot_sync(ALL, active);
        if (k < n_types) out[k] = nan;
        if (active) {
            const int a = n_active + below(ballot, lane);
            types[a] = k;
            share[a] = (double)(v[k] / contents[k]);
            total += share[a];
        }
        n_active += __popc(ballot);
    }
    if (n_active == 0) return;
    total = warp_sum(total);
    const int n_pairs = n_active * (n_active + 1) / 2;
    for (int p = lane; p < n_pairs; p += WARP) packed[p] = 0;
    __syncwarp();
    for (int64 e = indptr[i]; e < indptr[i + 1]; ++e) {
        const int gene = indices[e];
        const real* row = profiles_t + (size_t)gene * n_types;
        double mean = 0;
        for (int a = lane; a < n_active; a += WARP) mean += (double)v[types[a]] * (double)row[types[a]];
        mean = warp_sum(mean);
        const double curve = mean > 0 ? (double)(gene_weights[gene] * (real)data[e]) / (mean * mean) : 0.0;
        int a = 0, b = lane;
        for (int p = lane; p < n_pairs; p += WARP) {
            while (b > a) { ++a; b -= a; }
            packed[p] += curve * (double)row[types[a]] * (double)row[types[b]];
            b += WARP;
        }
    }
    __syncwarp();
    for (int a = lane; a < n_active; a += WARP) {
        packed[a * (a + 1) / 2 + a] += lambda_spatial * (double)degrees[i] + lambda_ridge;
        diagonal[a] = packed[a * (a + 1) / 2 + a];
    }
    __syncwarp();
    for (int j = 0; j < n_active; ++j) {  // Cholesky, column by column
        const double pivot = packed[j * (j + 1) / 2 + j];
        if (!(pivot > SINGULAR * diagonal[j])) return;
        const double root = sqrt(pivot);
        __syncwarp();
        for (int a = j + lane; a < n_active; a += WARP)
            packed[a * (a + 1) / 2 + j] = a == j ? root : packed[a * (a + 1) / 2 + j] / root;
        __syncwarp();
        for (int a = j + 1 + lane; a < n_active; a += WARP)
            for (int b = j + 1; b <= a; ++b)
                packed[a * (a + 1) / 2 + b] -= packed[a * (a + 1) / 2 + j] * packed[b * (b + 1) / 2 + j];
        __syncwarp();
    }
    for (int k = 0; k < n_active; ++k) {  // se_k = |L^-1 J_k'|
        for (int a = lane; a < n_active; a += WARP)
            right[a] = ((a == k ? 1.0 : 0.0) - share[k] / total) / ((double)contents[types[a]] * total);
        __syncwarp();
        double square = 0;
        for (int j = 0; j < n_active; ++j) {
            const double x = right[j] / packed[j * (j + 1) / 2 + j];
            square += x * x;
            for (int a = j + 1 + lane; a < n_active; a += WARP) right[a] -= packed[a * (a + 1) / 2 + j] * x;
            __syncwarp();
        }
        if (lane == 0) out[types[k]] = sqrt(square);
        __syncwarp();
    }
}

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
