// One Newton step of one spot by one warp: sums over its genes, the packed Hessian, the inner sweeps, the share taken.
#define INNER_SWEEPS 60
#define FAINT 0.02
#define INNER_SHARE 0.01
#define LEAST_PIVOT 1e-5
#define SHORTENINGS 12
#define LEVEL 0.1
#define LEAST_LEFT 0.1
#define TILE 8  // genes of a tile of the Hessian

// Shared memory of one warp; the loader counts the same bytes.
struct Room {
    real* hessian;  // packed lower triangle over the active types
    real* tile;     // (TILE, n_active) roots of curvature times profiles
    real* v;        // (n_types) by type
    real* d;        // (n_types) step, by active position
    real* ratio;    // (32) of the genes in hand
    int* types;     // (n_types) type at each active position
    int* gene;      // (32)
};

struct Spot {
    const index_t* genes;
    const count_t* data;
    const real* gene_weights;
    const real* profiles_t;
    int filled, n_types;
};

__device__ __forceinline__ Room room_of(unsigned char* shared, int n_types)
{
    const int reals = n_types * (n_types + 1) / 2 + n_types * TILE + 2 * n_types + WARP;
    const int ints = n_types + WARP + (n_types & 1);
    const size_t bytes = (reals + (reals & 1)) * sizeof(real) + ints * sizeof(int);
    Room room;
    room.hessian = reinterpret_cast<real*>(shared + bytes * (threadIdx.x / WARP));
    room.tile = room.hessian + n_types * (n_types + 1) / 2;
    room.v = room.tile + n_types * TILE;
    room.d = room.v + n_types;
    room.ratio = room.d + n_types;
    room.types = reinterpret_cast<int*>(room.hessian + reals + (reals & 1));
    room.gene = room.types + n_types;
    return room;
}

__device__ __forceinline__ real count_of(const Spot& s, int t) { return (real)s.data[t] * s.gene_weights[s.genes[t]]; }

// What is expected of a gene, from the types with any abundance.
__device__ __forceinline__ real mean_of(const Room& room, const Spot& s, int gene)
{
    const real* row = s.profiles_t + (size_t)gene * s.n_types;
    real mean = 0;
    for (int k = 0; k < s.n_types; ++k) {
        const real weight = room.v[k];
        if (weight > real(0)) mean += weight * row[k];
    }
    return mean;
}

// sum_g (y_g / mu_g) B_gk for the types of this lane.
__device__ __forceinline__ void sum_ratios(const Room& room, const Spot& s, int lane, real* sums)
{
    #pragma unroll
    for (int m = 0; m < MAXT; ++m) sums[m] = 0;
    for (int base = 0; base < s.filled; base += WARP) {
        const int t = base + lane, here = smaller(WARP, s.filled - base);
        if (t < s.filled) {
            const int gene = s.genes[t];
            room.gene[lane] = gene;
            room.ratio[lane] = count_of(s, t) / mean_of(room, s, gene);
        }
        __syncwarp();
        for (int u = 0; u < here; ++u) {
            const real* row = s.profiles_t + (size_t)room.gene[u] * s.n_types;
            const real ratio = room.ratio[u];
            #pragma unroll
            for (int m = 0; m < MAXT; ++m)
                if (lane + WARP * m < s.n_types) sums[m] += ratio * row[lane + WARP * m];
        }
        __syncwarp();
    }
}

// strength * sum_j a_ij v_j for the types of this lane.
__device__ __forceinline__ void pull_of_neighbours(
    int64 i, const int64* indptr, const int* indices, const real* weights, const real* abundances, real strength,
    int n_types, int lane, real* pull)
{
    #pragma unroll
    for (int m = 0; m < MAXT; ++m) pull[m] = 0;
    for (int64 e = indptr[i]; e < indptr[i + 1]; ++e) {
        const real weight = strength * weights[e];
        const real* row = abundances + (size_t)indices[e] * n_types;
        #pragma unroll
        for (int m = 0; m < MAXT; ++m)
            if (lane + WARP * m < n_types) pull[m] += weight * row[lane + WARP * m];
    }
}

// Append the types for which `wanted` holds, ascending; returns the new number of active types.
__device__ __forceinline__ int append_types(const Room& room, const bool* wanted, int n_active, int n_types, int lane)
{
    #pragma unroll
    for (int m = 0; m < MAXT; ++m) {
        const unsigned ballot = __ballot_sync(ALL, lane + WARP * m < n_types && wanted[m]);
        if (lane + WARP * m < n_types && wanted[m]) room.types[n_active + below(ballot, lane)] = lane + WARP * m;
        n_active += __popc(ballot);
    }
    __syncwarp();
    return n_active;
}

// The packed Hessian over the active types: sum_g y_g / mu_g^2 b_g b_g' + diagonal.
__device__ __forceinline__ void sum_hessian(const Room& room, const Spot& s, int n_active, real diagonal, int lane)
{
    const int n_pairs = n_active * (n_active + 1) / 2;
    for (int p = lane; p < n_pairs; p += WARP) room.hessian[p] = 0;
    for (int base = 0; base < s.filled; base += WARP) {
        const int t = base + lane;
        __syncwarp();
        if (t < s.filled) {
            const int gene = s.genes[t];
            const real mean = mean_of(room, s, gene);
            room.gene[lane] = gene;
            room.ratio[lane] = sqrt(count_of(s, t)) / mean;
        }
        __syncwarp();
        for (int first = 0; first < WARP && base + first < s.filled; first += TILE) {
            for (int q = lane; q < n_active * TILE; q += WARP) {
                const int u = first + q / n_active, a = q % n_active;
                room.tile[q] = base + u < s.filled
                    ? room.ratio[u] * s.profiles_t[(size_t)room.gene[u] * s.n_types + room.types[a]] : real(0);
            }
            __syncwarp();
            int a = 0, b = lane;
            for (int p = lane; p < n_pairs; p += WARP) {
                while (b > a) { ++a; b -= a; }
                real sum = 0;
                #pragma unroll
                for (int u = 0; u < TILE; ++u) sum += room.tile[u * n_active + a] * room.tile[u * n_active + b];
                room.hessian[p] += sum;
                b += WARP;
            }
            __syncwarp();
        }
    }
    __syncwarp();
    for (int a = lane; a < n_active; a += WARP) room.hessian[a * (a + 1) / 2 + a] += diagonal;
    __syncwarp();
}

__device__ __forceinline__ real entry(const real* packed, int a, int b)
{
    return a > b ? packed[a * (a + 1) / 2 + b] : packed[b * (b + 1) / 2 + a];
}

// -H^-1 g by the factors L D L' of H, which take its place; the step goes to room.d. Tells whether H has them and
// v + d is not negative. `gradient` comes by type; `tile` of the room carries it to the active positions.
__device__ __forceinline__ bool solve_directly(const Room& room, int n_active, const real* gradient, int n_types, int lane)
{
    real* was = room.tile + n_types;  // the diagonal as it was
    #pragma unroll
    for (int m = 0; m < MAXT; ++m)
        if (lane + WARP * m < n_types) room.tile[lane + WARP * m] = gradient[m];
    __syncwarp();
    for (int a = lane; a < n_active; a += WARP) {
        room.d[a] = -room.tile[room.types[a]];
        was[a] = room.hessian[a * (a + 1) / 2 + a];
    }
    __syncwarp();
    bool sound = true;
    for (int c = 0; c < n_active; ++c) {
        const real pivot = room.hessian[c * (c + 1) / 2 + c], step = room.d[c];
        const bool own = pivot > real(LEAST_PIVOT) * was[c];  // else it takes no part, and its step is 0
        const real inverse = own ? real(1) / pivot : real(0);
        sound = sound && own;
        for (int b = c + 1 + lane; b < n_active; b += WARP) {  // the lane's columns of the rows below
            const real here = room.hessian[b * (b + 1) / 2 + c];
            for (int a = c + 1; a <= b; ++a)
                room.hessian[b * (b + 1) / 2 + a] -= room.hessian[a * (a + 1) / 2 + c] * inverse * here;
            room.d[b] -= here * inverse * step;
        }
        __syncwarp();
        if (lane == 0) was[c] = inverse;
        __syncwarp();
    }
    for (int a = n_active - 1; a >= 0; --a) {
        real left = 0;
        for (int b = a + 1 + lane; b < n_active; b += WARP) left += room.hessian[b * (b + 1) / 2 + a] * room.d[b];
        left = warp_sum(left);
        const real step = (room.d[a] - left) * was[a];
        __syncwarp();
        if (lane == 0) room.d[a] = step;
        __syncwarp();
        if (!(room.v[room.types[a]] + step >= real(0))) sound = false;
    }
    return sound;
}

// The least of g'd + d'Hd/2 under v + d >= 0 by Gauss-Seidel over the active types, from room.d on.
// `gradient` comes by type; `scratch` of the room (tile) carries it to the active positions.
__device__ __forceinline__ void sweep_types(const Room& room, int n_active, const real* gradient, int n_types, int lane)
{
    real slope[MAXT], step_of[MAXT], inverse[MAXT], least[MAXT];
    #pragma unroll
    for (int m = 0; m < MAXT; ++m)
        if (lane + WARP * m < n_types) room.tile[lane + WARP * m] = gradient[m];
    __syncwarp();
    #pragma unroll
    for (int m = 0; m < MAXT; ++m) {
        const int a = lane + WARP * m;
        slope[m] = step_of[m] = inverse[m] = least[m] = 0;
        if (a < n_active) {
            const int k = room.types[a];
            const real h = room.hessian[a * (a + 1) / 2 + a];
            slope[m] = room.tile[k];
            inverse[m] = h > real(0) ? real(1) / h : real(0);
            least[m] = -room.v[k];
            step_of[m] = room.d[a];
        }
    }
    for (int a = 0; a < n_active; ++a) {
        const real step = room.d[a];
        if (step != real(0))
            #pragma unroll
            for (int u = 0; u < MAXT; ++u)
                if (lane + WARP * u < n_active) slope[u] += entry(room.hessian, a, lane + WARP * u) * step;
    }
    for (int turn = 0; turn < INNER_SWEEPS; ++turn) {
        real change = 0, longest = 0;
        #pragma unroll
        for (int m = 0; m < MAXT; ++m)
            for (int s = 0; s < WARP; ++s) {
                const int a = s + WARP * m;
                if (a >= n_active) break;
                const real own = larger(step_of[m] - slope[m] * inverse[m], least[m]) - step_of[m];
                const real step = __shfl_sync(ALL, own, s);
                if (step != real(0)) {
                    #pragma unroll
                    for (int u = 0; u < MAXT; ++u) {
                        const int b = lane + WARP * u;
                        if (b < n_active) slope[u] += entry(room.hessian, a, b) * step;
                    }
                    if (lane == s) step_of[m] += step;
                    change = larger(change, step < real(0) ? -step : step);
                }
            }
        #pragma unroll
        for (int m = 0; m < MAXT; ++m) longest = larger(longest, step_of[m] < real(0) ? -step_of[m] : step_of[m]);
        longest = warp_max(longest);
        if (change <= real(INNER_SHARE) * longest) break;
    }
    #pragma unroll
    for (int m = 0; m < MAXT; ++m)
        if (lane + WARP * m < n_active) room.d[lane + WARP * m] = step_of[m];
    __syncwarp();
}

// How much of the step is taken, 0 for none; `largest` gets its largest change. `near`, `constant` and `bend` come summed
// over the active types: the slope along the step at v, that of its terms without logarithm, and the growth of these. A
// step that moves no type by `least` is taken whole, one that is no number not at all.
__device__ __forceinline__ real share_of_step(
    const Room& room, const Spot& s, int n_active, real near, real constant, real bend, real least, int lane,
    real* largest)
{
    real top = 0, whole = 0;
    for (int a = lane; a < n_active; a += WARP) {
        top = larger(top, room.d[a] < real(0) ? -room.d[a] : room.d[a]);
        whole += room.d[a];
    }
    top = warp_max(top);
    whole = warp_sum(whole);
    *largest = top;
    if (!(whole == whole)) return 0;
    if (top < least) return 1;
    if (top == real(0)) return 0;
    real share = 1;
    for (int turn = 0; turn < SHORTENINGS; ++turn) {
        real sum = 0;
        int outside = 0;
        for (int t = lane; t < s.filled; t += WARP) {
            const int gene = s.genes[t];
            const real* row = s.profiles_t + (size_t)gene * s.n_types;
            real move = 0;
            for (int a = 0; a < n_active; ++a) {
                const real d = room.d[a];
                if (d != real(0)) move += d * row[room.types[a]];
            }
            const real reached = mean_of(room, s, gene) + share * move;
            if (!(reached > real(0))) ++outside;
            sum += count_of(s, t) * move / reached;
        }
        sum = warp_sum(sum);
        outside = __ballot_sync(ALL, outside > 0) != 0u;
        if (!outside) {
            const real far = constant + share * bend - sum;
            if (far <= real(-LEVEL) * near || share * top < least) return share;
            share *= smaller(larger(near / (near - far), real(0.1)), real(0.9));
        } else {
            share *= real(0.5);
        }
    }
    return 0;
}
