// Twin of kernels/cpu/presence.py. A warp a spot, its types one after the other; all of it is float64. What is expected
// of a gene is summed anew in each pass, so that nothing hangs on the number of counts of a spot.
#include "common.cuh"
#include "curvature.cuh"
#define STEPS 30
#define HALVINGS 12
#define SWEEPS 200
#define ENOUGH 1e-6
#define STILL 1e-9

// sum_k (linear_k v_k + diagonal v_k^2 / 2) - sum_t seen_t ln mean_t, in all lanes.
__device__ __forceinline__ double objective(
    const Spot& s, const double* v, const double* linear, double diagonal, int lane)
{
    double value = 0;
    for (int k = lane; k < s.n_types; k += WARP) value += v[k] * (linear[k] + 0.5 * diagonal * v[k]);
    for (int t = lane; t < s.filled; t += WARP) {
        const int gene = s.genes[t];
        const double seen = (double)s.gene_weights[gene] * (double)s.data[t];
        if (!(seen > 0)) continue;
        const double mean = mean_of(s, v, gene);
        value += mean > 0 ? -seen * log(mean) : infinity();
    }
    return warp_sum(value);
}

// Overwrite `slope` by the slope of the objective, by type.
__device__ __forceinline__ void sum_slope(
    const Bench& w, const Spot& s, const double* v, const double* linear, double diagonal, double* slope, int lane)
{
    for (int k = lane; k < s.n_types; k += WARP) slope[k] = linear[k] + diagonal * v[k];
    for (int base = 0; base < s.filled; base += WARP) {
        const int t = base + lane, here = smaller(WARP, s.filled - base);
        __syncwarp();
        if (t < s.filled) {
            const int gene = s.genes[t];
            const double mean = mean_of(s, v, gene);
            w.gene[lane] = gene;
            w.ratio[lane] = mean > 0 ? (double)s.gene_weights[gene] * (double)s.data[t] / mean : 0.0;
        }
        __syncwarp();
        for (int k = lane; k < s.n_types; k += WARP) {
            double sum = 0;
            for (int u = 0; u < here; ++u) sum += w.ratio[u] * (double)s.profiles_t[(size_t)w.gene[u] * s.n_types + k];
            slope[k] -= sum;
        }
    }
    __syncwarp();
}

// Minimise the objective over v >= 0 with v[absent] = 0, by Newton steps; updates v, returns the value in all lanes.
__device__ __forceinline__ double descend(
    const Bench& w, const Spot& s, const double* linear, double diagonal, int absent, double* v, double* tried,
    double* slope, double* shift, int lane)
{
    const int n_types = s.n_types;
    for (int k = lane; k < n_types; k += WARP) w.types[k] = k;
    __syncwarp();
    double value = objective(s, v, linear, diagonal, lane);
    for (int turn = 0; turn < STEPS; ++turn) {
        sum_matrix(w, s, v, n_types, diagonal, lane);
        sum_slope(w, s, v, linear, diagonal, slope, lane);
        double largest = 1e-300;
        for (int k = lane; k < n_types; k += WARP) {
            shift[k] = 0;
            largest = larger(largest, v[k]);
        }
        largest = warp_max(largest);
        __syncwarp();
        for (int round = 0; round < SWEEPS; ++round) {  // the quadratic over v + shift >= 0
            double change = 0;
            for (int k = 0; k < n_types; ++k) {
                const double bend = w.matrix[packed(k, k)];
                if (k == absent || !(bend > 0)) continue;
                const double step = larger(-slope[k] / bend, -(v[k] + shift[k]));
                if (step == 0) continue;
                __syncwarp();
                for (int m = lane; m < n_types; m += WARP)
                    slope[m] += step * w.matrix[m > k ? packed(m, k) : packed(k, m)];
                if (lane == 0) shift[k] += step;
                __syncwarp();
                change = larger(change, step < 0 ? -step : step);
            }
            if (change <= STILL * largest) break;
        }
        double share = 1, gained = -1;
        for (int halving = 0; halving < HALVINGS; ++halving) {
            __syncwarp();
            for (int k = lane; k < n_types; k += WARP) tried[k] = larger(v[k] + share * shift[k], 0.0);
            __syncwarp();
            const double fresh = objective(s, tried, linear, diagonal, lane);
            if (fresh <= value) {
                gained = value - fresh;
                value = fresh;
                for (int k = lane; k < n_types; k += WARP) v[k] = tried[k];
                break;
            }
            share *= 0.5;
        }
        __syncwarp();
        if (gained < ENOUGH) break;
    }
    return value;
}

// Overwrite `ratios`: variance of each v_k > 0 by the genes' scatter over that by the curvature; 1 where open.
__device__ __forceinline__ void spread_of(
    const Bench& w, const Spot& s, const double* v, double diagonal, double* ratios, int lane)
{
    for (int k = lane; k < s.n_types; k += WARP) ratios[k] = 1;
    const int n = list_types(w, v, true, 0, s.n_types, lane);
    sum_matrix(w, s, v, n, diagonal, lane);
    if (!factorise(w, n, lane)) return;
    double sums[AT_ONCE], squares[AT_ONCE];
    for (int k = 0; k < n; k += AT_ONCE) {  // x = H^-1 e_k
        for (int q = lane; q < AT_ONCE * n; q += WARP) w.tile[q] = k + q / n < n && q % n == k + q / n ? 1.0 : 0.0;
        __syncwarp();
        solve_forward(w, n, lane);
        solve_back(w, n, lane);
        sum_squares(w, n, lane, squares);
        sum_scatter(w, s, v, n, n, n, lane, sums);
        #pragma unroll
        for (int r = 0; r < AT_ONCE; ++r)
            if (lane == r && k + r < n)
                ratios[w.types[k + r]] = (sums[r] + diagonal * squares[r]) / w.tile[r * n + k + r];
        __syncwarp();
    }
}

extern "C" __global__ void
weigh_presence(
    const int64* __restrict__ indptr, const index_t* __restrict__ indices, const count_t* __restrict__ data,
    const real* __restrict__ gene_weights, const real* __restrict__ spreads, const real* __restrict__ totals,
    const real* __restrict__ profiles_t, const real* __restrict__ profile_sums, const real* __restrict__ degrees,
    const double* __restrict__ pulls, const real* __restrict__ abundances, int64 start, int64 stop,
    double lambda_spatial, double lambda_ridge, double* __restrict__ statistics_out, int n_types)
{
    DYNAMIC_SHARED(smem_raw)
    const int64 i = start + warp_of();
    if (i >= stop) return;
    const int lane = lane_of();
    const Bench w = bench_of(smem_raw, n_types, 7);
    double *best = w.vectors, *v = best + n_types, *tried = v + n_types, *slope = tried + n_types;
    double *shift = slope + n_types, *linear = shift + n_types, *ratios = linear + n_types;
    const Spot s = {indices + indptr[i], data + indptr[i], gene_weights, spreads, profiles_t,
                    (int)(indptr[i + 1] - indptr[i]), n_types};
    const real* given = abundances + (size_t)i * n_types;
    double* own = statistics_out + (size_t)i * n_types;
    const double diagonal = lambda_spatial * (double)degrees[i] + lambda_ridge;
    for (int k = lane; k < n_types; k += WARP) {
        own[k] = n_types == 1 && totals[i] > real(0) && given[k] > real(0) ? infinity() : 0.0;
        linear[k] = (double)totals[i] * (double)profile_sums[k] - pulls[(size_t)i * n_types + k];
        best[k] = (double)given[k];
    }
    __syncwarp();
    if (!(totals[i] > real(0)) || n_types == 1) return;
    double lowest = 0;
    for (int k = -1; k < n_types; ++k) {  // -1: none is absent
        if (k >= 0 && !(given[k] > real(0) && best[k] > 0)) continue;
        for (int m = lane; m < n_types; m += WARP)
            v[m] = k < 0 ? best[m] : m == k ? 0.0 : best[m] + best[k] / (n_types - 1);
        __syncwarp();
        const double value = descend(w, s, linear, diagonal, k, v, tried, slope, shift, lane);
        if (k >= 0) {
            if (lane == 0) own[k] = larger(0.0, 2 * (value - lowest)) / ratios[k];
        } else {
            lowest = value;
            for (int m = lane; m < n_types; m += WARP) best[m] = v[m];
            spread_of(w, s, v, diagonal, ratios, lane);
        }
        __syncwarp();
    }
}
