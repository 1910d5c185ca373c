// Curvature of the objective of one spot by one warp, in float64: sums over its genes, Cholesky, substitution. The only
// matrix is one packed triangle: what the genes scatter, x' M x, is summed over the genes for the x in hand.
#define SINGULAR 1e-12
#define TILE 8           // genes of a tile of the matrix
constexpr int AT_ONCE = 4;  // right-hand sides

// Shared memory of one warp; the loader counts the same bytes.
struct Bench {
    double* matrix;   // packed lower triangle over the types in hand
    double* tile;     // (TILE, n) of the sums, or (AT_ONCE, n) right-hand sides
    double* ratio;    // (32) of the genes in hand
    double* vectors;  // (n_vectors, n_types)
    int* types;       // (n_types) type at each place
    int* gene;        // (32)
};

struct Spot {
    const index_t* genes;
    const count_t* data;
    const real* gene_weights;
    const real* spreads;
    const real* profiles_t;
    int filled, n_types;
};

__device__ __forceinline__ Bench bench_of(unsigned char* shared, int n_types, int n_vectors)
{
    const int reals = n_types * (n_types + 1) / 2 + n_types * (TILE + n_vectors) + WARP;
    const int ints = n_types + WARP + (n_types & 1);
    Bench w;
    w.matrix = reinterpret_cast<double*>(shared + (reals * sizeof(double) + ints * sizeof(int)) * (threadIdx.x / WARP));
    w.tile = w.matrix + n_types * (n_types + 1) / 2;
    w.ratio = w.tile + n_types * TILE;
    w.vectors = w.ratio + WARP;
    w.types = reinterpret_cast<int*>(w.matrix + reals);
    w.gene = w.types + n_types;
    return w;
}

__device__ __forceinline__ int packed(int a, int b) { return a * (a + 1) / 2 + b; }

// What is expected of a gene; v stands by type.
__device__ __forceinline__ double mean_of(const Spot& s, const double* v, int gene)
{
    const real* row = s.profiles_t + (size_t)gene * s.n_types;
    double mean = 0;
    for (int k = 0; k < s.n_types; ++k)
        if (v[k] > 0) mean += v[k] * (double)row[k];
    return mean;
}

// w_g y_g / mu_g^2 with w the gene weights or the spreads; 0 where nothing is expected.
__device__ __forceinline__ double curve_of(const Spot& s, const double* v, const real* weights, int t)
{
    const int gene = s.genes[t];
    const double mean = mean_of(s, v, gene);
    return mean > 0 ? (double)weights[gene] * (double)s.data[t] / (mean * mean) : 0.0;
}

// Append the types above 0 (or not) to those in hand, ascending; returns how many there are now.
__device__ __forceinline__ int list_types(const Bench& w, const double* v, bool above, int n, int n_types, int lane)
{
    for (int base = 0; base < n_types; base += WARP) {
        const int k = base + lane;
        const bool wanted = k < n_types && (v[k] > 0) == above;
        const unsigned ballot = __ballot_sync(ALL, wanted);
        if (wanted) w.types[n + below(ballot, lane)] = k;
        n += __popc(ballot);
    }
    __syncwarp();
    return n;
}

// The packed matrix over the first n types in hand: sum_g w_g y_g / mu_g^2 b_g b_g' + diagonal.
__device__ __forceinline__ void sum_matrix(
    const Bench& w, const Spot& s, const double* v, int n, double diagonal, int lane)
{
    const int n_pairs = n * (n + 1) / 2;
    for (int p = lane; p < n_pairs; p += WARP) w.matrix[p] = 0;
    for (int base = 0; base < s.filled; base += WARP) {
        const int t = base + lane;
        __syncwarp();
        if (t < s.filled) {
            w.gene[lane] = s.genes[t];
            w.ratio[lane] = sqrt(curve_of(s, v, s.gene_weights, t));
        }
        __syncwarp();
        for (int first = 0; first < WARP && base + first < s.filled; first += TILE) {
            for (int q = lane; q < n * TILE; q += WARP) {
                const int u = first + q / n, a = q % n;
                w.tile[q] = base + u < s.filled
                    ? w.ratio[u] * (double)s.profiles_t[(size_t)w.gene[u] * s.n_types + w.types[a]] : 0.0;
            }
            __syncwarp();
            int a = 0, b = lane;
            for (int p = lane; p < n_pairs; p += WARP) {
                while (b > a) { ++a; b -= a; }
                double sum = 0;
                #pragma unroll
                for (int u = 0; u < TILE; ++u) sum += w.tile[u * n + a] * w.tile[u * n + b];
                w.matrix[p] += sum;
                b += WARP;
            }
            __syncwarp();
        }
    }
    __syncwarp();
    for (int a = lane; a < n; a += WARP) w.matrix[packed(a, a)] += diagonal;
    __syncwarp();
}

// Overwrite the matrix by its Cholesky factor; false, in all lanes, where it has none.
__device__ __forceinline__ bool factorise(const Bench& w, int n, int lane)
{
    double* matrix = w.matrix;
    for (int a = lane; a < n; a += WARP) w.tile[a] = matrix[packed(a, a)];
    __syncwarp();
    for (int c = 0; c < n; ++c) {
        const double pivot = matrix[packed(c, c)];
        const bool fine = pivot > SINGULAR * w.tile[c];
        __syncwarp();
        if (!fine) return false;
        const double root = sqrt(pivot);
        for (int a = c + lane; a < n; a += WARP) matrix[packed(a, c)] = a == c ? root : matrix[packed(a, c)] / root;
        __syncwarp();
        for (int a = c + 1; a < n; ++a) {
            const double head = matrix[packed(a, c)];
            for (int b = c + 1 + lane; b <= a; b += WARP) matrix[packed(a, b)] -= head * matrix[packed(b, c)];
        }
        __syncwarp();
    }
    return true;
}

// Overwrite the right-hand sides by the solutions of L z = x.
__device__ __forceinline__ void solve_forward(const Bench& w, int n, int lane)
{
    for (int a = 0; a < n; ++a) {
        const double root = w.matrix[packed(a, a)];
        for (int b = a + 1 + lane; b < n; b += WARP) {
            const double part = w.matrix[packed(b, a)] / root;
            #pragma unroll
            for (int r = 0; r < AT_ONCE; ++r) w.tile[r * n + b] -= part * w.tile[r * n + a];
        }
        __syncwarp();
        if (lane < AT_ONCE) w.tile[lane * n + a] /= root;  // no lane looks at it again
    }
    __syncwarp();
}

// Overwrite the right-hand sides by the solutions of L' z = x.
__device__ __forceinline__ void solve_back(const Bench& w, int n, int lane)
{
    for (int a = n - 1; a >= 0; --a) {
        const double root = w.matrix[packed(a, a)];
        for (int b = lane; b < a; b += WARP) {
            const double part = w.matrix[packed(a, b)] / root;
            #pragma unroll
            for (int r = 0; r < AT_ONCE; ++r) w.tile[r * n + b] -= part * w.tile[r * n + a];
        }
        __syncwarp();
        if (lane < AT_ONCE) w.tile[lane * n + a] /= root;
    }
    __syncwarp();
}

// |x|^2 of each right-hand side, in all lanes.
__device__ __forceinline__ void sum_squares(const Bench& w, int n, int lane, double* squares)
{
    #pragma unroll
    for (int r = 0; r < AT_ONCE; ++r) {
        double sum = 0;
        for (int a = lane; a < n; a += WARP) sum += w.tile[r * n + a] * w.tile[r * n + a];
        squares[r] = warp_sum(sum);
    }
    __syncwarp();
}

// sum_g spread_g y_g / mu_g^2 (b_g,own - b_g' x)^2 of each right-hand side, in all lanes. `own`: place of the type of
// the first of them, one after the other up to `stop`; none from there on.
__device__ __forceinline__ void sum_scatter(
    const Bench& w, const Spot& s, const double* v, int n, int own, int stop, int lane, double* sums)
{
    #pragma unroll
    for (int r = 0; r < AT_ONCE; ++r) sums[r] = 0;
    for (int t = lane; t < s.filled; t += WARP) {
        const real* row = s.profiles_t + (size_t)s.genes[t] * s.n_types;
        const double loud = curve_of(s, v, s.spreads, t);
        double moves[AT_ONCE];
        #pragma unroll
        for (int r = 0; r < AT_ONCE; ++r) moves[r] = own + r < stop ? (double)row[w.types[own + r]] : 0.0;
        for (int a = 0; a < n; ++a) {
            const double b = (double)row[w.types[a]];
            #pragma unroll
            for (int r = 0; r < AT_ONCE; ++r) moves[r] -= b * w.tile[r * n + a];
        }
        #pragma unroll
        for (int r = 0; r < AT_ONCE; ++r) sums[r] += loud * moves[r] * moves[r];
    }
    #pragma unroll
    for (int r = 0; r < AT_ONCE; ++r) sums[r] = warp_sum(sums[r]);
    __syncwarp();
}
