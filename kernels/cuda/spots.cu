// Twins of kernels/cpu/spots.py. A warp a visit. The active types stand in the order of the CPU's inner sweeps, so that
// both end their sweeps at the same place; position a of the active set lies in lane a % 32, slot a / 32. The Hessian is
// a packed triangle in shared memory; what is expected of a gene is summed anew in each pass, so that nothing hangs on
// the number of counts of a spot.
#include "common.cuh"
#include "newton.cuh"

extern "C" __global__ void
solve_spots(
    const int64* __restrict__ indptr, const index_t* __restrict__ indices, const count_t* __restrict__ data,
    const real* __restrict__ gene_weights, const real* __restrict__ totals, const real* __restrict__ profiles_t,
    const real* __restrict__ profile_sums, const int64* __restrict__ graph_indptr,
    const int* __restrict__ graph_indices, const real* __restrict__ graph_weights, const real* __restrict__ degrees,
    const int* __restrict__ spots, int64 start, int64 stop, double lambda_spatial, double phi, double lambda_ridge,
    int warm_steps, int max_steps, double tolerance, real* abundances, int* steps_out, int n_types)
{
    DYNAMIC_SHARED(smem_raw)
    const int64 at = start + warp_of();
    if (at >= stop) return;
    const int lane = lane_of();
    const Room room = room_of(smem_raw, n_types);
    const int64 i = spots[at];
    const real lam = (real)lambda_spatial, total = totals[i], diagonal = lam * degrees[i] + (real)lambda_ridge;
    const Spot s = {indices + indptr[i], data + indptr[i], gene_weights, profiles_t,
                    (int)(indptr[i + 1] - indptr[i]), n_types};
    real* own = abundances + (size_t)i * n_types;
    real pull[MAXT], gradient[MAXT], sums[MAXT];
    pull_of_neighbours(i, graph_indptr, graph_indices, graph_weights, abundances, lam * (real)phi, n_types, lane, pull);
    #pragma unroll
    for (int m = 0; m < MAXT; ++m) {
        const int k = lane + WARP * m;
        sums[m] = k < n_types ? profile_sums[k] : real(0);
        if (k < n_types) room.v[k] = own[k];
    }
    real some = 0;
    for (int t = lane; t < s.filled; t += WARP) some += count_of(s, t);
    some = warp_sum(some);
    __syncwarp();
    const int warm = some > real(0) && total > real(0) ? warm_steps : 0;
    for (int turn = 0; turn < warm; ++turn) {
        sum_ratios(room, s, lane, gradient);
        const bool far = turn < warm - 1;  // twice as far, but for the last one, and scaled to the counts that there are
        real top = 0, reached = 0;
        #pragma unroll
        for (int m = 0; m < MAXT; ++m) {
            const int k = lane + WARP * m;
            if (k < n_types) {
                const real growth = gradient[m] / (total * sums[m]);
                gradient[m] = room.v[k] * (far ? growth * growth : growth);
                reached += gradient[m] * total * sums[m];
            }
        }
        reached = warp_sum(reached);
        const real scale = far ? some / reached : real(1);
        #pragma unroll
        for (int m = 0; m < MAXT; ++m)
            if (lane + WARP * m < n_types) {
                gradient[m] *= scale;
                top = larger(top, gradient[m]);
            }
        top = warp_max(top);
        #pragma unroll
        for (int m = 0; m < MAXT; ++m) {
            const int k = lane + WARP * m;
            if (k < n_types) room.v[k] = turn == warm - 1 && gradient[m] < real(FAINT) * top ? real(0) : gradient[m];
        }
        __syncwarp();
    }
    int steps = 0;
    while (steps < max_steps) {
        ++steps;
        bool wanted[MAXT];
        real whole = 0;
        sum_ratios(room, s, lane, gradient);
        #pragma unroll
        for (int m = 0; m < MAXT; ++m) {
            const int k = lane + WARP * m;
            wanted[m] = false;
            if (k < n_types) {
                gradient[m] = total * sums[m] - gradient[m] + diagonal * room.v[k] - pull[m];
                wanted[m] = room.v[k] > real(0) || gradient[m] < real(0);
                whole += room.v[k];
            }
        }
        whole = warp_sum(whole);
        const int n_active = append_types(room, wanted, 0, n_types, lane);
        sum_hessian(room, s, n_active, diagonal, lane);
        for (int a = lane; a < n_active; a += WARP) room.d[a] = 0;
        __syncwarp();
        sweep_types(room, n_active, gradient, n_types, lane);
        // slope of the terms without logarithm along the step: by type, so the steps are laid out by type first
        real near = 0, constant = 0, bend = 0, by_type[MAXT];
        #pragma unroll
        for (int m = 0; m < MAXT; ++m)
            if (lane + WARP * m < n_types) room.tile[lane + WARP * m] = 0;
        __syncwarp();
        for (int a = lane; a < n_active; a += WARP) room.tile[room.types[a]] = room.d[a];
        __syncwarp();
        #pragma unroll
        for (int m = 0; m < MAXT; ++m) {
            const int k = lane + WARP * m;
            by_type[m] = k < n_types ? room.tile[k] : real(0);
            if (k < n_types) {
                near += by_type[m] * gradient[m];
                constant += by_type[m] * (total * sums[m] + diagonal * room.v[k] - pull[m]);
                bend += diagonal * by_type[m] * by_type[m];
            }
        }
        near = warp_sum(near);
        constant = warp_sum(constant);
        bend = warp_sum(bend);
        const real least = (real)tolerance * whole;
        real largest;
        const real share = share_of_step(room, s, n_active, near, constant, bend, least, lane, &largest);
        if (share == real(0)) break;
        __syncwarp();
        #pragma unroll
        for (int m = 0; m < MAXT; ++m) {
            const int k = lane + WARP * m;
            if (k < n_types && by_type[m] != real(0)) room.v[k] = larger(room.v[k] + share * by_type[m], real(0));
        }
        __syncwarp();
        if (share * largest < least) break;
    }
    for (int k = lane; k < n_types; k += WARP) own[k] = room.v[k];
    if (lane == 0) steps_out[i] = steps;
}

extern "C" __global__ void
visit_spots(
    const int64* __restrict__ indptr, const index_t* __restrict__ indices, const count_t* __restrict__ data,
    const real* __restrict__ gene_weights, const real* __restrict__ totals, const real* __restrict__ profiles_t,
    const real* __restrict__ profile_sums, const int64* __restrict__ graph_indptr,
    const int* __restrict__ graph_indices, const real* __restrict__ graph_weights, const real* __restrict__ degrees,
    const int* __restrict__ spots, int64 start, int64 stop, double lambda_spatial, double phi, double lambda_ridge,
    double relax, double tolerance, real* abundances, real* moves_out, int n_types)
{
    DYNAMIC_SHARED(smem_raw)
    const int64 at = start + warp_of();
    if (at >= stop) return;
    const int lane = lane_of();
    const Room room = room_of(smem_raw, n_types);
    const int64 i = spots[at];
    const real lam = (real)lambda_spatial, total = totals[i], diagonal = lam * degrees[i] + (real)lambda_ridge;
    const Spot s = {indices + indptr[i], data + indptr[i], gene_weights, profiles_t,
                    (int)(indptr[i + 1] - indptr[i]), n_types};
    real* own = abundances + (size_t)i * n_types;
    real pull[MAXT], gradient[MAXT], sums[MAXT], by_type[MAXT];
    bool wanted[MAXT];
    real whole = 0;
    #pragma unroll
    for (int m = 0; m < MAXT; ++m) {
        const int k = lane + WARP * m;
        const real v = k < n_types ? own[k] : real(0);
        sums[m] = k < n_types ? profile_sums[k] : real(0);
        if (k < n_types) room.v[k] = v;
        whole += v;
    }
    whole = warp_sum(whole);
    if (!(whole > real(0))) {
        if (lane == 0) moves_out[i] = 0;
        return;
    }
    __syncwarp();
    pull_of_neighbours(i, graph_indptr, graph_indices, graph_weights, abundances, lam * (real)phi, n_types, lane, pull);
    sum_ratios(room, s, lane, gradient);
    #pragma unroll
    for (int m = 0; m < MAXT; ++m) {
        const int k = lane + WARP * m;
        wanted[m] = false;
        if (k < n_types) {
            gradient[m] = total * sums[m] + diagonal * room.v[k] - pull[m] - gradient[m];
            wanted[m] = room.v[k] > real(0) || gradient[m] < real(0);
        }
    }
    const int n_active = append_types(room, wanted, 0, n_types, lane);
    sum_hessian(room, s, n_active, diagonal, lane);
    if (!solve_directly(room, n_active, gradient, n_types, lane)) {
        sum_hessian(room, s, n_active, diagonal, lane);  // its factors have taken its place
        for (int a = lane; a < n_active; a += WARP) room.d[a] = larger(room.d[a], -room.v[room.types[a]]);
        __syncwarp();
        sweep_types(room, n_active, gradient, n_types, lane);
        #pragma unroll
        for (int m = 0; m < MAXT; ++m)
            if (lane + WARP * m < n_types) room.tile[lane + WARP * m] = gradient[m];
        __syncwarp();
        real falls = 0;  // slope along the step
        for (int a = lane; a < n_active; a += WARP) falls += room.tile[room.types[a]] * room.d[a];
        if (!(warp_sum(falls) < real(0))) {  // as it does for sweeps from 0
            for (int a = lane; a < n_active; a += WARP) room.d[a] = 0;
            __syncwarp();
            sweep_types(room, n_active, gradient, n_types, lane);
        }
    }
    real near = 0, constant = 0, bend = 0;
    #pragma unroll
    for (int m = 0; m < MAXT; ++m)
        if (lane + WARP * m < n_types) room.tile[lane + WARP * m] = 0;
    __syncwarp();
    for (int a = lane; a < n_active; a += WARP) room.tile[room.types[a]] = room.d[a];
    __syncwarp();
    #pragma unroll
    for (int m = 0; m < MAXT; ++m) {
        const int k = lane + WARP * m;
        by_type[m] = k < n_types ? room.tile[k] : real(0);
        if (k < n_types) {
            near += by_type[m] * gradient[m];
            constant += by_type[m] * (total * sums[m] + diagonal * room.v[k] - pull[m]);
            bend += diagonal * by_type[m] * by_type[m];
        }
    }
    near = warp_sum(near);
    constant = warp_sum(constant);
    bend = warp_sum(bend);
    real largest;
    const real share = share_of_step(room, s, n_active, near, constant, bend, (real)tolerance * whole, lane, &largest);
    if (share == real(0)) {
        if (lane == 0) moves_out[i] = 0;
        return;
    }
    real step = share * (real)relax, left = 0, moved = 0;
    #pragma unroll
    for (int m = 0; m < MAXT; ++m)
        if (lane + WARP * m < n_types) left += larger(room.v[lane + WARP * m] + step * by_type[m], real(0));
    if (warp_sum(left) < real(LEAST_LEFT) * whole) step = share;  // relaxed too far: next to nothing would be left
    #pragma unroll
    for (int m = 0; m < MAXT; ++m) {
        const int k = lane + WARP * m;
        if (k < n_types) {
            const real v = room.v[k], fresh = larger(v + step * by_type[m], real(0));
            moved = larger(moved, fresh < v ? v - fresh : fresh - v);
            own[k] = fresh;
        }
    }
    moved = warp_max(moved);
    if (lane == 0) moves_out[i] = moved;
}
