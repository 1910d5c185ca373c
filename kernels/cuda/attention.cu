// Twins of kernels/cpu/attention.py.
#include "common.cuh"

// A warp a spot, types over lanes.
extern "C" __global__ void
invert_sums(const real* __restrict__ abundances, int64 start, int64 stop, real* __restrict__ inverses_out, int n_types)
{
    const int64 i = start + warp_of();
    if (i >= stop) return;
    double total = 0;
    for (int k = lane_of(); k < n_types; k += WARP) total += (double)abundances[(size_t)i * n_types + k];
    total = warp_sum(total);
    const real inverse = total > 0.0 ? (real)(1.0 / total) : (real)0;
    if (lane_of() == 0) inverses_out[i] = inverse < (real)infinity() ? inverse : (real)0;
}

// A warp a spot, types over lanes.
extern "C" __global__ void
root_neighbourhoods(
    const int64* __restrict__ indptr, const int* __restrict__ indices, const double* __restrict__ place,
    const real* __restrict__ abundances, const real* __restrict__ inverses, int64 start, int64 stop,
    real* __restrict__ roots_out, int n_types)
{
    const int64 i = start + warp_of();
    if (i >= stop) return;
    for (int k = lane_of(); k < n_types; k += WARP) {
        double mean = (double)inverses[i] * (double)abundances[(size_t)i * n_types + k];
        int members = inverses[i] > (real)0;
        for (int64 e = indptr[i]; e < indptr[i + 1]; ++e) {
            const int j = indices[e];
            const real weight = place[e] > 0.0 ? inverses[j] : (real)0;
            members += weight > (real)0;
            mean += (double)weight * (double)abundances[(size_t)j * n_types + k];
        }
        roots_out[(size_t)i * n_types + k] = (real)sqrt(mean / (double)larger(members, 1));
    }
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

// sums_out: (parts, n_columns), a part a block.
extern "C" __global__ void
count_squares(
    const double* __restrict__ place, const real* __restrict__ squares, int64 low, int shift, int64 start, int64 stop,
    double* sums_out, int n_columns)
{
    int64 first, last;
    rows_of_part(start, stop, &first, &last);
    const int lane = lane_of();
    double* sums = sums_out + (size_t)blockIdx.x * n_columns;
    int below = 0;
    for (int64 base = first; base < last; base += WARP) {
        const int64 e = base + lane;
        int64 step = -1;
        if (e < last && place[e] > 0.0) {
            const int64 bits = __double_as_longlong((double)squares[e]);
            if (bits < low) ++below;
            else step = (bits - low) >> shift;
            if (step >= n_columns - 1) step = -1;
        }
        int found = 0;  // lanes of the same step: the first of them adds them all
        for (unsigned left = __ballot_sync(ALL, step >= 0); left;) {
            const int head = __ffs(left) - 1;
            const unsigned alike = __ballot_sync(ALL, step == __shfl_sync(ALL, step, head));
            if (lane == head) found = __popc(alike);
            left &= ~alike;
        }
        if (found) sums[step] += (double)found;
        __syncwarp();
    }
    below = warp_sum(below);
    if (lane == 0) sums[n_columns - 1] += (double)below;
}

// A thread a spot.
extern "C" __global__ void
attend_edges(
    const int64* __restrict__ indptr, const int64* __restrict__ reverse, const double* __restrict__ place, double tau,
    int64 start, int64 stop, real* __restrict__ weights, real* __restrict__ degrees_out,
    double* __restrict__ row_sums_out)
{
    const int64 i = start + (int64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= stop) return;
    double given = 0, total = 0;
    for (int64 e = indptr[i]; e < indptr[i + 1]; ++e) {
        const double likeness = exp(-0.5 * (double)weights[e] / tau);
        const double weight = 0.5 * (place[e] + place[reverse[e]]) * likeness;
        given += place[e] * likeness;
        weights[e] = (real)weight;
        total += weight;
    }
    row_sums_out[i] = given;
    degrees_out[i] = (real)total;
}

// A thread a spot.
extern "C" __global__ void
symmetrise_edges(
    const int64* __restrict__ indptr, const int64* __restrict__ reverse, const double* __restrict__ directed,
    int64 start, int64 stop, real* __restrict__ weights_out, real* __restrict__ degrees_out)
{
    const int64 i = start + (int64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= stop) return;
    double total = 0;
    for (int64 e = indptr[i]; e < indptr[i + 1]; ++e) {
        const double weight = 0.5 * (directed[e] + directed[reverse[e]]);
        weights_out[e] = (real)weight;
        total += weight;
    }
    degrees_out[i] = (real)total;
}
