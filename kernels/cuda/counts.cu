// Twins of kernels/cpu/counts.py that the device needs. No gene stands twice in a row, so the lanes of a warp that works
// on one row at a time never meet in a sum: no atomics, and the order of the additions is fixed.
#include "common.cuh"
#define LARGE_COUNT 65536.0

// sums_out: (parts, n_columns), a part a block.
extern "C" __global__ void
sum_genes(
    const int64* __restrict__ indptr, const index_t* __restrict__ indices, const count_t* __restrict__ data,
    const int64* __restrict__ rows, int64 start, int64 stop, double* sums_out, int n_columns)
{
    int64 first, last;
    rows_of_part(start, stop, &first, &last);
    double* sums = sums_out + (size_t)blockIdx.x * n_columns;
    for (int64 r = first; r < last; ++r) {
        const int64 i = rows[r];
        for (int64 e = indptr[i] + lane_of(); e < indptr[i + 1]; e += WARP) sums[indices[e]] += (double)data[e];
        __syncwarp();
    }
}

// sums_out: (parts, n_segments, n_columns), a part a block.
extern "C" __global__ void
sum_segments(
    const int64* __restrict__ indptr, const index_t* __restrict__ indices, const count_t* __restrict__ data,
    const double* __restrict__ row_weights, const int* __restrict__ segments, int64 start, int64 stop,
    double* sums_out, int n_columns, int n_segments)
{
    int64 first, last;
    rows_of_part(start, stop, &first, &last);
    double* sums = sums_out + (size_t)blockIdx.x * n_segments * n_columns;
    for (int64 i = first; i < last; ++i) {
        const int s = segments[i];
        if (s >= 0)
            for (int64 e = indptr[i] + lane_of(); e < indptr[i + 1]; e += WARP)
                sums[(size_t)s * n_columns + indices[e]] += row_weights[i] * (double)data[e];
        __syncwarp();
    }
}

// A warp a row.
extern "C" __global__ void
count_kept(
    const int64* __restrict__ indptr, const index_t* __restrict__ indices, const count_t* __restrict__ data,
    const int* __restrict__ gene_map, const int64* __restrict__ rows, int64 start, int64 stop,
    int64* __restrict__ lengths_out, double* __restrict__ totals_out)
{
    const int64 r = start + warp_of();
    if (r >= stop) return;
    const int64 i = rows[r];
    int64 length = 0;
    double total = 0;
    for (int64 e = indptr[i] + lane_of(); e < indptr[i + 1]; e += WARP)
        if (gene_map[indices[e]] >= 0 && data[e] > 0) {
            ++length;
            total += (double)data[e];
        }
    length = warp_sum(length);
    total = warp_sum(total);
    if (lane_of() == 0) {
        lengths_out[r] = length;
        totals_out[r] = total;
    }
}

// A warp a row; the copies are of the types of the counts they come from.
extern "C" __global__ void
gather_kept(
    const int64* __restrict__ indptr, const index_t* __restrict__ indices, const count_t* __restrict__ data,
    const int* __restrict__ gene_map, const int64* __restrict__ rows, const int64* __restrict__ kept_indptr,
    int64 start, int64 stop, index_t* __restrict__ kept_indices_out, count_t* __restrict__ kept_data_out)
{
    const int64 r = start + warp_of();
    if (r >= stop) return;
    const int lane = lane_of();
    const int64 i = rows[r], last = indptr[i + 1];
    int64 at = kept_indptr[r];
    for (int64 base = indptr[i]; base < last; base += WARP) {
        const int64 e = base + lane;
        const int gene = e < last && data[e] > 0 ? gene_map[indices[e]] : -1;
        const unsigned ballot = __ballot_sync(ALL, gene >= 0);
        if (gene >= 0) {
            kept_indices_out[at + below(ballot, lane)] = (index_t)gene;
            kept_data_out[at + below(ballot, lane)] = data[e];
        }
        at += __popc(ballot);
    }
}

__device__ __forceinline__ word mixed(word x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ULL;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

__device__ __forceinline__ double uniform(word key, word number)
{
    return (double)(mixed(key + (number + 1) * 0x9e3779b97f4a7c15ULL) >> 11) * (1.0 / 9007199254740992.0);
}

// A warp a row.
extern "C" __global__ void
thin_counts(
    const int64* __restrict__ indptr, const index_t* __restrict__ indices, const count_t* __restrict__ data,
    const word* __restrict__ row_keys, const word* __restrict__ gene_keys, double share, int64 start, int64 stop,
    count_t* __restrict__ fit_out, count_t* __restrict__ test_out)
{
    const int64 i = start + warp_of();
    if (i >= stop) return;
    for (int64 e = indptr[i] + lane_of(); e < indptr[i + 1]; e += WARP) {
        const word key = mixed(row_keys[i] ^ mixed(gene_keys[indices[e]]));
        const double count = (double)data[e];
        double kept = 0;
        if (count > LARGE_COUNT) {
            const double radius = sqrt(-2.0 * log(1.0 - uniform(key, 0)));
            const double normal = radius * cospi(2.0 * uniform(key, 1));
            kept = floor(count * share + normal * sqrt(count * share * (1.0 - share)) + 0.5);
            kept = smaller(larger(kept, 0.0), count);
        } else {
            for (word molecule = 0; molecule < (word)count; ++molecule)
                if (uniform(key, molecule) < share) kept += 1.0;
        }
        fit_out[e] = (count_t)kept;
        test_out[e] = (count_t)(count - kept);
    }
}

// A warp a row. The sum is of whole numbers: its order does not matter.
extern "C" __global__ void
key_rows(
    const int64* __restrict__ indptr, const index_t* __restrict__ indices, const count_t* __restrict__ data,
    const word* __restrict__ gene_keys, int64 start, int64 stop, word* __restrict__ keys_out)
{
    const int64 i = start + warp_of();
    if (i >= stop) return;
    word total = 0;
    for (int64 e = indptr[i] + lane_of(); e < indptr[i + 1]; e += WARP)
        if (data[e] != 0)
            total += mixed(gene_keys[indices[e]] ^ mixed((word)(int64)((double)data[e] * 1000.0)));
    total = warp_sum(total);
    if (lane_of() == 0) keys_out[i] = mixed(total);
}
