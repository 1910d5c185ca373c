// What every source begins with: the types of a build, sums over a warp. Built with -DREAL, -DINDEX, -DCOUNT (the types
// of abundances, of gene numbers, of counts) and, where types are striped over lanes, -DMAXT = ceil(n_types / 32).
typedef REAL real;
typedef INDEX index_t;
typedef COUNT count_t;
typedef long long int64;
typedef unsigned long long word;
#define WARP 32
#define ALL 0xffffffffu

#ifdef CUDA_ON_CPU
#define DYNAMIC_SHARED(name)  // the stand-in has one array of that name
#else
#define DYNAMIC_SHARED(name) extern __shared__ unsigned char name[];
#endif

template <class T> __device__ __forceinline__ T larger(T a, T b) { return a > b ? a : b; }
template <class T> __device__ __forceinline__ T smaller(T a, T b) { return a < b ? a : b; }

// The same bits in every lane: each adds the same pairs.
template <class T> __device__ __forceinline__ T warp_sum(T x)
{
    for (int o = WARP / 2; o; o >>= 1) x += __shfl_xor_sync(ALL, x, o);
    return x;
}

template <class T> __device__ __forceinline__ T warp_max(T x)
{
    for (int o = WARP / 2; o; o >>= 1) x = larger(x, __shfl_xor_sync(ALL, x, o));
    return x;
}

__device__ __forceinline__ int lane_of() { return threadIdx.x & (WARP - 1); }

// Number of the warp in the grid: kernels that give each row a warp.
__device__ __forceinline__ int64 warp_of()
{
    return (int64)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
}

// Rows of one part of a sum: a warp a block, the parts are the blocks.
__device__ __forceinline__ void rows_of_part(int64 start, int64 stop, int64* first, int64* last)
{
    const int64 size = (stop - start + gridDim.x - 1) / gridDim.x;
    *first = smaller(start + size * (int64)blockIdx.x, stop);
    *last = smaller(*first + size, stop);
}

// Lanes below this one among those of a ballot.
__device__ __forceinline__ int below(unsigned ballot, int lane) { return __popc(ballot & ((1u << lane) - 1u)); }

__device__ __forceinline__ double not_a_number() { return __longlong_as_double(0x7ff8000000000000LL); }
__device__ __forceinline__ double infinity() { return __longlong_as_double(0x7ff0000000000000LL); }

// Product of a row of profiles with abundances.
template <class T> __device__ __forceinline__ T dot(const real* __restrict__ a, const real* b, int n)
{
    T sum = 0;
    for (int k = 0; k < n; ++k) sum += (T)a[k] * (T)b[k];
    return sum;
}
