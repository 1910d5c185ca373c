// Twin of kernels/cpu/cells.py: a warp a spot at a time, the cells in turn, the genes of a cell over the lanes. Each block
// (one warp, a crew) has room of its own: reals p0, p, pull (n_cells each), residual (n_genes), sums (n_types); ints
// place of each cell, kept flag of each place, and visited types, offsets, tops (n_types + 1 each).
#include "common.cuh"

struct Cells {
    const int64* indptr;
    const int* indices;
    const real* data;
    const real* rows;
    int n_dense, n_genes;
};

// Part of the profile of cell m times a vector that falls to this lane.
__device__ __forceinline__ real project(const Cells& cells, int64 m, const real* vector, int lane)
{
    real sum = 0;
    if (cells.n_dense > 0) {
        const real* row = cells.rows + (size_t)m * cells.n_genes;
        for (int g = lane; g < cells.n_genes; g += WARP) sum += row[g] * vector[g];
    } else {
        for (int64 e = cells.indptr[m] + lane; e < cells.indptr[m + 1]; e += WARP)
            sum += cells.data[e] * vector[cells.indices[e]];
    }
    return sum;
}

__device__ __forceinline__ void add_cell(const Cells& cells, int64 m, real weight, real* vector, int lane)
{
    if (cells.n_dense > 0) {
        const real* row = cells.rows + (size_t)m * cells.n_genes;
        for (int g = lane; g < cells.n_genes; g += WARP) vector[g] += weight * row[g];
    } else {
        for (int64 e = cells.indptr[m] + lane; e < cells.indptr[m + 1]; e += WARP)
            vector[cells.indices[e]] += weight * cells.data[e];
    }
    __syncwarp();
}

// Position of the first of the largest of values[first:last]; first < last.
__device__ __forceinline__ int first_largest(const real* values, int first, int last, int lane)
{
    int best = -1;
    real top = 0;
    for (int c = first + lane; c < last; c += WARP)
        if (best < 0 || values[c] > top) { best = c; top = values[c]; }
    for (int o = WARP / 2; o; o >>= 1) {
        const int other = __shfl_xor_sync(ALL, best, o);
        const real its = __shfl_xor_sync(ALL, top, o);
        if (other >= 0 && (best < 0 || its > top || (its == top && other < best))) { best = other; top = its; }
    }
    return best;
}

// How many entries that are not kept lie at or above (or, strictly, above) a bar.
__device__ __forceinline__ int count_above(const real* p, const int* kept, int n, real bar, bool strictly, int lane)
{
    int found = 0;
    for (int c = lane; c < n; c += WARP) found += !kept[c] && (strictly ? p[c] > bar : p[c] >= bar);
    return warp_sum(found);
}

// Mark the entries that stay: the largest of each type, then the largest of all above `least`, `most` in all.
__device__ __forceinline__ void keep_largest(
    const real* p, const int* offsets, int* tops, int n_visited, real least, int most, int* kept, int lane)
{
    const int n = offsets[n_visited];
    for (int c = lane; c < n; c += WARP) kept[c] = 0;
    for (int a = 0; a < n_visited; ++a) {
        const int top = first_largest(p, offsets[a], offsets[a + 1], lane);
        if (lane == 0) tops[a] = top;
    }
    __syncwarp();
    int count = 0;
    while (count < smaller(n_visited, most)) {
        int best = -1;
        for (int a = 0; a < n_visited; ++a) {
            const int top = tops[a];
            if (p[top] > real(0) && !kept[top] && (best < 0 || p[top] > p[best])) best = top;
        }
        if (best < 0) break;
        __syncwarp();
        if (lane == 0) kept[best] = 1;
        __syncwarp();
        ++count;
    }
    const int above = count_above(p, kept, n, least, false, lane), room = most - count;
    real bar = least;
    int ties = above;
    if (above > room) {
        if (room > 0) {
            // the room-th largest, by halving between numbers it lies between; ends when no number is left inside
            real low = least, high = 0;  // count(>= low) >= room
            for (int c = lane; c < n; c += WARP) if (!kept[c]) high = larger(high, p[c]);
            high = warp_max(high);
            if (count_above(p, kept, n, high, false, lane) >= room) low = high;
            while (low < high) {
                const real middle = low + (high - low) / real(2);
                if (!(middle > low) || !(middle < high)) break;
                if (count_above(p, kept, n, middle, false, lane) >= room) low = middle;
                else high = middle;
            }
            bar = infinity();  // the least entry at or above `low`
            for (int c = lane; c < n; c += WARP) if (!kept[c] && p[c] >= low) bar = smaller(bar, p[c]);
            for (int o = WARP / 2; o; o >>= 1) bar = smaller(bar, __shfl_xor_sync(ALL, bar, o));
        } else {
            bar = infinity();
        }
        ties = room - count_above(p, kept, n, bar, true, lane);
    }
    for (int base = 0; base < n; base += WARP) {
        const int c = base + lane;
        const bool open = c < n && !kept[c];
        const unsigned ballot = __ballot_sync(ALL, open && p[c] == bar);
        if (open && (p[c] > bar || (p[c] == bar && below(ballot, lane) < ties))) kept[c] = 1;
        ties -= __popc(ballot);
    }
    __syncwarp();
}

extern "C" __global__ void
sweep_cells(
    const int64* __restrict__ indptr, const index_t* __restrict__ indices, const count_t* __restrict__ data,
    const real* __restrict__ totals, const real* __restrict__ gene_roots, const int64* __restrict__ cell_indptr,
    const int* __restrict__ cell_indices, const real* __restrict__ cell_data, const real* __restrict__ cell_rows,
    const real* __restrict__ cell_norms, const int64* __restrict__ type_starts,
    const int64* __restrict__ link_indptr, const int* __restrict__ link_indices,
    const real* __restrict__ link_weights, const real* __restrict__ link_degrees,
    const int64* __restrict__ graph_indptr, const int* __restrict__ graph_indices,
    const real* __restrict__ graph_weights, const real* __restrict__ degrees, const real* __restrict__ abundances,
    const int64* __restrict__ old_indptr, const int* __restrict__ old_indices, const real* __restrict__ old_data,
    int64 start, int64 stop, double anchor, double lambda_ridge, double lambda_cell, double lambda_spatial,
    double least_share, double least_weight, int n_sweeps, int64* lengths_out, int* cells_out, real* weights_out,
    int n_types, int n_genes, int n_cells, int n_dense, int n_old, int most, real* room, int* marks)
{
    const int lane = lane_of();
    const Cells cells = {cell_indptr, cell_indices, cell_data, cell_rows, n_dense, n_genes};
    real* spread = room + (size_t)blockIdx.x * (3 * (size_t)n_cells + n_genes + n_types);
    real* p = spread + n_cells;
    real* pull = p + n_cells;
    real* residual = pull + n_cells;
    real* sums = residual + n_genes;
    int* local = marks + (size_t)blockIdx.x * (2 * (size_t)n_cells + 3 * (n_types + 1));
    int* kept = local + n_cells;
    int* visited = kept + n_cells;
    int* offsets = visited + n_types + 1;
    int* tops = offsets + n_types + 1;
    const real anchored = (real)anchor, ridge = (real)lambda_ridge, linking = (real)lambda_cell;
    for (int m = lane; m < n_cells; m += WARP) local[m] = -1;
    for (int64 i = start + blockIdx.x; i < stop; i += gridDim.x) {
        const real* own = abundances + (size_t)i * n_types;
        const real n_i = totals[i];
        for (int g = lane; g < n_genes; g += WARP) residual[g] = 0;
        real whole = 0;
        for (int k = lane; k < n_types; k += WARP) whole += own[k];
        whole = warp_sum(whole);
        int n_visited = 0, n_local = 0;
        for (int k = 0; k < n_types; ++k) {
            const int size = (int)(type_starts[k + 1] - type_starts[k]);
            if (!(own[k] > (real)least_share * whole) || size == 0) continue;
            if (lane == 0) { visited[n_visited] = k; offsets[n_visited] = n_local; }
            for (int c = lane; c < size; c += WARP) local[type_starts[k] + c] = n_local + c;
            ++n_visited;
            n_local += size;
        }
        if (lane == 0) offsets[n_visited] = n_local;
        __syncwarp();
        for (int64 e = indptr[i] + lane; e < indptr[i + 1]; e += WARP)
            residual[indices[e]] = (real)data[e] / n_i * gene_roots[indices[e]];
        __syncwarp();
        for (int a = 0; a < n_visited; ++a) {
            const int k = visited[a];
            real likeness = 0;
            for (int c = offsets[a]; c < offsets[a + 1]; ++c) {
                const int64 m = type_starts[k] + c - offsets[a];
                const real norm = cell_norms[m];
                real like = warp_sum(project(cells, m, residual, lane));
                like = norm > real(0) ? like / sqrt(norm) : real(0);
                likeness += like;
                if (lane == 0) spread[c] = like;
            }
            __syncwarp();
            const real size = (real)(offsets[a + 1] - offsets[a]);
            for (int c = offsets[a] + lane; c < offsets[a + 1]; c += WARP)
                spread[c] = own[k] * (likeness > real(0) ? spread[c] / likeness : real(1) / size);
        }
        __syncwarp();
        for (int c = lane; c < n_local; c += WARP) { pull[c] = 0; p[c] = n_old > 0 ? real(0) : spread[c]; }
        __syncwarp();
        real smooth = 0;
        if (n_old > 0) {
            for (int64 o = old_indptr[i] + lane; o < old_indptr[i + 1]; o += WARP)
                if (local[old_indices[o]] >= 0) p[local[old_indices[o]]] = old_data[o];
            const real strength = (real)lambda_spatial / n_i;
            smooth = strength * degrees[i];
            for (int64 e = graph_indptr[i]; e < graph_indptr[i + 1]; ++e) {
                const int64 j = graph_indices[e];
                for (int64 o = old_indptr[j] + lane; o < old_indptr[j + 1]; o += WARP) {
                    const int c = local[old_indices[o]];
                    if (c >= 0) pull[c] += strength * graph_weights[e] * old_data[o];
                }
                __syncwarp();
            }
        }
        for (int64 e = indptr[i] + lane; e < indptr[i + 1]; e += WARP) residual[indices[e]] = -residual[indices[e]];
        __syncwarp();
        for (int a = 0; a < n_visited; ++a) {
            real sum = 0;
            for (int c = offsets[a]; c < offsets[a + 1]; ++c) {
                const real weight = p[c];
                sum += weight;
                if (weight != real(0))
                    add_cell(cells, type_starts[visited[a]] + c - offsets[a], weight, residual, lane);
            }
            if (lane == 0) sums[a] = sum;
        }
        __syncwarp();
        for (int turn = 0; turn < n_sweeps; ++turn)
            for (int a = 0; a < n_visited; ++a) {
                const int k = visited[a];
                real sum = sums[a];
                for (int c = offsets[a]; c < offsets[a + 1]; ++c) {
                    const int64 m = type_starts[k] + c - offsets[a];
                    real slope = project(cells, m, residual, lane);
                    real curvature = cell_norms[m] + anchored + ridge + smooth;
                    const real weight = p[c];
                    if (linking > real(0)) {
                        for (int64 e = link_indptr[m] + lane; e < link_indptr[m + 1]; e += WARP)
                            slope -= linking * link_weights[e] * p[local[link_indices[e]]];
                        curvature += linking * link_degrees[m];
                    }
                    slope = warp_sum(slope);
                    if (linking > real(0)) slope += linking * link_degrees[m] * weight;
                    slope += anchored * (sum - own[k]) + ridge * (weight - spread[c]) + smooth * weight - pull[c];
                    const real moved = larger(weight - slope / curvature, real(0)), step = moved - weight;
                    if (step != real(0)) {
                        __syncwarp();
                        if (lane == 0) p[c] = moved;
                        sum += step;
                        add_cell(cells, m, step, residual, lane);
                    }
                }
                if (lane == 0) sums[a] = sum;
                __syncwarp();
            }
        keep_largest(p, offsets, tops, n_visited, (real)least_weight, most, kept, lane);
        int64 at = (i - start) * most;
        int length = 0;
        for (int a = 0; a < n_visited; ++a) {
            real all = 0, rest = 0;
            for (int c = offsets[a] + lane; c < offsets[a + 1]; c += WARP) {
                all += p[c];
                if (kept[c]) rest += p[c];
            }
            all = warp_sum(all);
            rest = warp_sum(rest);
            for (int base = offsets[a]; base < offsets[a + 1]; base += WARP) {
                const int c = base + lane;
                const bool stays = c < offsets[a + 1] && kept[c];
                const unsigned ballot = __ballot_sync(ALL, stays);
                if (stays) {
                    cells_out[at + length + below(ballot, lane)] = (int)(type_starts[visited[a]] + c - offsets[a]);
                    weights_out[at + length + below(ballot, lane)] = p[c] * (all / rest);
                }
                length += __popc(ballot);
            }
            for (int c = offsets[a] + lane; c < offsets[a + 1]; c += WARP)
                local[type_starts[visited[a]] + c - offsets[a]] = -1;
        }
        if (lane == 0) lengths_out[i - start] = length;
        __syncwarp();
    }
}
