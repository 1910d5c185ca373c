// Twins of kernels/cpu/fits.py. Sums over genes are float64.
#include "common.cuh"
#include "curvature.cuh"

// A warp a spot. Types stand in the order of the CPU: those above 0, then the others; each part ascending.
extern "C" __global__ void
measure_errors(
    const int64* __restrict__ indptr, const index_t* __restrict__ indices, const count_t* __restrict__ data,
    const real* __restrict__ gene_weights, const real* __restrict__ spreads, const real* __restrict__ profiles_t,
    const real* __restrict__ degrees, const real* __restrict__ contents, const real* __restrict__ abundances,
    int64 start, int64 stop, double lambda_spatial, double lambda_ridge, double* __restrict__ errors_out, int n_types)
{
    DYNAMIC_SHARED(smem_raw)
    const int64 i = start + warp_of();
    if (i >= stop) return;
    const int lane = lane_of();
    const Bench w = bench_of(smem_raw, n_types, 3);
    double *v = w.vectors, *share = v + n_types, *scale = share + n_types;  // by type; by place; by place
    const Spot s = {indices + indptr[i], data + indptr[i], gene_weights, spreads, profiles_t,
                    (int)(indptr[i + 1] - indptr[i]), n_types};
    double* own = errors_out + (size_t)i * n_types;
    double total = 0;
    for (int k = lane; k < n_types; k += WARP) {
        own[k] = not_a_number();
        v[k] = (double)abundances[(size_t)i * n_types + k];
        if (v[k] > 0) total += v[k] / (double)contents[k];
    }
    total = warp_sum(total);
    __syncwarp();
    const int n = list_types(w, v, true, 0, n_types, lane);
    if (n == 0) return;
    list_types(w, v, false, n, n_types, lane);
    for (int a = lane; a < n_types; a += WARP) {
        const int k = w.types[a];
        scale[a] = 1 / ((double)contents[k] * total);
        share[a] = v[k] / (double)contents[k] / total;
    }
    const double diagonal = lambda_spatial * (double)degrees[i] + lambda_ridge;
    sum_matrix(w, s, v, n, diagonal, lane);
    if (!factorise(w, n, lane)) return;
    double sums[AT_ONCE], squares[AT_ONCE], whole[AT_ONCE];
    for (int k = 0; k < n; k += AT_ONCE) {  // se_k^2 = x' M x with x = H^-1 J_k'
        for (int q = lane; q < AT_ONCE * n; q += WARP) {
            const int at = k + q / n, a = q % n;
            w.tile[q] = at < n ? ((a == at ? 1.0 : 0.0) - share[at]) * scale[a] : 0.0;
        }
        __syncwarp();
        solve_forward(w, n, lane);
        solve_back(w, n, lane);
        sum_squares(w, n, lane, squares);
        sum_scatter(w, s, v, n, n, n, lane, sums);
        #pragma unroll
        for (int r = 0; r < AT_ONCE; ++r)
            if (lane == r && k + r < n) own[w.types[k + r]] = sqrt(larger(sums[r] + diagonal * squares[r], 0.0));
        __syncwarp();
    }
    for (int k = n; k < n_types; k += AT_ONCE) {  // x = H^-1 e_k over those above 0 and k, times its pivot
        #pragma unroll
        for (int r = 0; r < AT_ONCE; ++r) whole[r] = 0;
        for (int q = lane; q < AT_ONCE * n; q += WARP) w.tile[q] = 0;
        for (int base = 0; base < s.filled; base += WARP) {
            const int t = base + lane, here = smaller(WARP, s.filled - base);
            __syncwarp();
            if (t < s.filled) {
                const real* row = profiles_t + (size_t)s.genes[t] * n_types;
                const double curve = curve_of(s, v, gene_weights, t);
                w.gene[lane] = s.genes[t];
                w.ratio[lane] = curve;
                #pragma unroll
                for (int r = 0; r < AT_ONCE; ++r) {
                    const double b = k + r < n_types ? (double)row[w.types[k + r]] : 0.0;
                    whole[r] += curve * b * b;
                }
            }
            __syncwarp();
            for (int q = lane; q < AT_ONCE * n; q += WARP) {
                const int at = k + q / n, a = w.types[q % n];
                if (at >= n_types) continue;
                double sum = 0;
                for (int u = 0; u < here; ++u) {
                    const real* row = profiles_t + (size_t)w.gene[u] * n_types;
                    sum += w.ratio[u] * (double)row[w.types[at]] * (double)row[a];
                }
                w.tile[q] += sum;
            }
        }
        __syncwarp();
        solve_forward(w, n, lane);
        sum_squares(w, n, lane, squares);
        #pragma unroll
        for (int r = 0; r < AT_ONCE; ++r) {
            whole[r] = warp_sum(whole[r]) + diagonal;
            const double pivot = whole[r] - squares[r];
            whole[r] = pivot > SINGULAR * whole[r] ? pivot : 0.0;
        }
        solve_back(w, n, lane);
        sum_squares(w, n, lane, squares);
        sum_scatter(w, s, v, n, k, n_types, lane, sums);
        #pragma unroll
        for (int r = 0; r < AT_ONCE; ++r)
            if (lane == r && k + r < n_types && whole[r] > 0)
                own[w.types[k + r]] = sqrt(sums[r] + diagonal * (1 + squares[r])) / whole[r] * scale[k + r];
        __syncwarp();
    }
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

// sums_out: (parts, 2, n_columns), a part a block of one warp, which takes its spots in turn.
extern "C" __global__ void
measure_fits(
    const int64* __restrict__ indptr, const index_t* __restrict__ indices, const count_t* __restrict__ data,
    const real* __restrict__ totals, const real* __restrict__ profiles_t, const double* __restrict__ profile_sums,
    const double* __restrict__ direction, const double* __restrict__ means, const double* __restrict__ variances,
    const real* __restrict__ abundances, int64 start, int64 stop, double* __restrict__ deviances_out,
    double* __restrict__ misfits_out, double* sums_out, int n_types, int n_columns)
{
    const int64 size = (stop - start + gridDim.x - 1) / gridDim.x;
    const int64 first = smaller(start + size * (int64)blockIdx.x, stop), last = smaller(first + size, stop);
    const int lane = lane_of();
    double* sums = sums_out + (size_t)blockIdx.x * 2 * n_columns;
    for (int64 i = first; i < last; ++i) {
        const real* v = abundances + (size_t)i * n_types;
        const double n = (double)totals[i];
        double whole = 0, mean = 0, variance = 0, logs = 0, along = 0;
        for (int k = lane; k < n_types; k += WARP) {
            const double share = (double)v[k];
            whole += share * profile_sums[k];
            mean += share * means[k];
            variance += share * variances[k];
        }
        for (int64 e = indptr[i] + lane; e < indptr[i + 1]; e += WARP) {
            const int gene = indices[e];
            const double y = (double)data[e];
            if (!(y > 0)) continue;
            const double expected = n * dot<double>(profiles_t + (size_t)gene * n_types, v, n_types);
            logs += expected > 0 ? y * log(y / expected) - y : infinity();
            along += direction[gene] * y;
            if (expected > 0) sums[gene] += y * y / expected;
            sums[n_columns + gene] += y;
        }
        whole = warp_sum(whole);
        mean = warp_sum(mean);
        variance = warp_sum(variance);
        logs = warp_sum(logs);
        along = warp_sum(along);
        if (lane == 0) {
            deviances_out[i] = n > 0 ? 2.0 * (logs / n + whole) : not_a_number();
            misfits_out[i] = n > 0 && whole > 0 && variance > 0
                ? (along - n * mean / whole) / sqrt(n * variance / whole) : not_a_number();
        }
        __syncwarp();
    }
}
