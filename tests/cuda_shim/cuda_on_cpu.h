// Runs a CUDA kernel on one CPU core: each CUDA thread is a fibre; warp barriers and shuffles switch fibres.
//
// Blocks, warps and lanes run in an order drawn from a seed. Shared memory is poisoned before each block and has a guard
// behind it. All lanes of a warp must reach the same barrier: else the launch ends with an error, as a GPU would hang or
// worse. A static __shared__ array is refused: it would be private to a fibre here.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>
#define CUDA_ON_CPU
#define __global__ static
#define __device__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static_shared_memory_is_refused_use_DYNAMIC_SHARED
#define __syncthreads emu::sync_block
using std::cos;
using std::exp;
using std::floor;
using std::log;
using std::sqrt;

struct Index3 { unsigned x = 0, y = 0, z = 0; };
static Index3 threadIdx, blockIdx, blockDim, gridDim;
alignas(64) static unsigned char smem_raw[(1 << 17) + 256];

namespace emu {
enum State { READY, DONE, AT_BLOCK, AT_WARP, AT_SHUFFLE };
enum Error { FINE, DIVERGED, PART_OF_A_WARP, SHARED_OVERRUN };
static const size_t STACK = 128 << 10;
static const unsigned char POISON = 0xff, GUARD = 0xa5;  // poison: NaN as a float, -1 as an int

#if defined(__x86_64__)
extern "C" void emu_switch(void** save, void* load);
asm(".text\n.hidden emu_switch\n.globl emu_switch\n.type emu_switch,@function\nemu_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n.size emu_switch,.-emu_switch\n");
typedef void* Context;
static void switch_to(Context& from, Context& to)
{
    asm volatile("" ::: "memory");
    emu_switch(&from, to);
    asm volatile("" ::: "memory");
}
static void prepare(Context& context, char* stack, void (*entry)())
{
    uintptr_t top = (reinterpret_cast<uintptr_t>(stack) + STACK) & ~uintptr_t(15);
    void** at = reinterpret_cast<void**>(top) - 2;
    at[0] = reinterpret_cast<void*>(entry);
    at[1] = nullptr;
    at -= 6;
    std::memset(at, 0, 6 * sizeof(void*));
    context = at;
}
#else
typedef ucontext_t Context;
static void switch_to(Context& from, Context& to) { swapcontext(&from, &to); }
static void prepare(Context& context, char* stack, void (*entry)())
{
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = STACK;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
}
#endif

struct Fibre { Context context; State state; int parity; };
struct Warp { unsigned start, stride, turn; };
static std::vector<Fibre> fibres;
static std::vector<Warp> warps;
static std::vector<char> stacks;
static Context scheduler;
static int current, n_threads;
static Error error;
static uint64_t slots[2][1024], random_state;
static void (*body)(void*);
static void* closure;

static unsigned draw()
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (unsigned)(random_state >> 20);
}

static void new_round(Warp& warp)
{
    warp.start = draw() & 31;
    warp.stride = draw() | 1;
    warp.turn = 0;
}

// Go on with the next lane of the warp that is ready, or with the scheduler where there is none.
static void go_on(int from)
{
    const int first = from & ~31;
    Warp& warp = warps[first / 32];
    for (int pass = 0; pass < 2; ++pass) {
        while (warp.turn < 32) {
            const int next = first + ((warp.start + warp.stride * warp.turn++) & 31);
            if (fibres[next].state != READY) continue;
            if (next == from && fibres[from].state == READY) return;
            current = next;
            threadIdx.x = next;
            switch_to(fibres[from].context, fibres[next].context);
            return;
        }
        const State state = fibres[first].state;
        bool same = state == AT_WARP || state == AT_SHUFFLE;
        for (int t = first; t < first + 32; ++t) same = same && fibres[t].state == state;
        if (!same) break;
        for (int t = first; t < first + 32; ++t) fibres[t].state = READY;
        new_round(warp);
    }
    switch_to(fibres[from].context, scheduler);
}

static void resume_here(int t) { current = t; threadIdx.x = t; }

static void wait_for(State state)
{
    const int own = current;
    fibres[own].state = state;
    go_on(own);
    resume_here(own);
}

static void run_fibre()
{
    body(closure);
    const int own = current;
    fibres[own].state = DONE;
    go_on(own);
}

static bool run_block()
{
    const int n_warps = n_threads / 32;
    for (int t = 0; t < n_threads; ++t) {
        fibres[t].state = READY;
        fibres[t].parity = 0;
        prepare(fibres[t].context, &stacks[t * STACK], run_fibre);
    }
    std::vector<int> order(n_warps);
    std::iota(order.begin(), order.end(), 0);
    for (;;) {
        for (int w = n_warps - 1; w > 0; --w) std::swap(order[w], order[draw() % (w + 1)]);
        for (int w : order) {
            int ready = -1;
            new_round(warps[w]);
            for (int t = w * 32; t < w * 32 + 32; ++t) if (fibres[t].state == READY) ready = t;
            if (ready < 0) continue;
            const int next = w * 32 + (int)((warps[w].start + warps[w].stride * 0) & 31);
            const int t = fibres[next].state == READY ? next : ready;
            if (t == next) warps[w].turn = 1;
            resume_here(t);
            switch_to(scheduler, fibres[t].context);
            if (error != FINE) return false;
        }
        int done = 0, at_block = 0;
        for (const Fibre& fibre : fibres) { done += fibre.state == DONE; at_block += fibre.state == AT_BLOCK; }
        if (done == n_threads) return true;
        if (at_block != n_threads) { error = DIVERGED; return false; }
        for (Fibre& fibre : fibres) fibre.state = READY;
    }
}

template <class Run> int launch(unsigned grid, unsigned block, unsigned long long shared, unsigned long long seed, Run run)
{
    n_threads = block;
    blockDim.x = block;
    gridDim.x = grid;
    random_state = seed * 0x9e3779b97f4a7c15ull + 0x1234567ull;
    for (int i = 0; i < 8; ++i) draw();
    fibres.resize(block);
    warps.resize(block / 32);
    stacks.resize(block * STACK);
    body = [](void* what) { (*static_cast<Run*>(what))(); };
    closure = &run;
    error = FINE;
    std::vector<unsigned> order(grid);
    std::iota(order.begin(), order.end(), 0u);
    for (unsigned b = grid; b > 1; --b) std::swap(order[b - 1], order[draw() % b]);
    for (unsigned b : order) {
        blockIdx.x = b;
        std::memset(smem_raw, POISON, shared);
        std::memset(smem_raw + shared, GUARD, 256);
        if (!run_block()) return error;
        for (int g = 0; g < 256; ++g) if (smem_raw[shared + g] != GUARD) return SHARED_OVERRUN;
    }
    return error;
}

static void check_mask(unsigned mask) { if (mask != 0xffffffffu) error = PART_OF_A_WARP; }
static inline void sync_block() { wait_for(AT_BLOCK); }
template <class T> static T exchange(unsigned mask, T value, int source)
{
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
    check_mask(mask);
    const int own = current, parity = fibres[own].parity ^= 1;
    std::memcpy(&slots[parity][own], &value, sizeof value);
    wait_for(AT_SHUFFLE);
    T found;
    std::memcpy(&found, &slots[parity][(own & ~31) + source], sizeof found);
    return found;
}
}  // namespace emu

static inline void __syncwarp(unsigned mask = 0xffffffffu) { emu::check_mask(mask); emu::wait_for(emu::AT_WARP); }
template <class T> static T __shfl_sync(unsigned mask, T v, int s) { return emu::exchange(mask, v, s & 31); }
template <class T> static T __shfl_xor_sync(unsigned mask, T v, int m)
{
    return emu::exchange(mask, v, (emu::current & 31) ^ m);
}
static inline unsigned __ballot_sync(unsigned mask, int wanted)
{
    const int own = emu::current, parity = emu::fibres[own].parity ^ 1;
    emu::exchange(mask, wanted, 0);
    unsigned found = 0;
    for (int s = 0; s < 32; ++s) {
        int value;
        std::memcpy(&value, &emu::slots[parity][(own & ~31) + s], sizeof value);
        found |= (value ? 1u : 0u) << s;
    }
    return found;
}
static inline double cospi(double x) { return cos(3.14159265358979323846 * x); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline long long __double_as_longlong(double x) { long long b; std::memcpy(&b, &x, 8); return b; }
static inline double __longlong_as_double(long long x) { double d; std::memcpy(&d, &x, 8); return d; }
