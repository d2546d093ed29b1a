// Advance: what a decode step begins with. Every sequence is a token longer, and its queries are turned.
//
//   positions[b] += 1;  turned[b, h] = RoPE(q[b, h])
//
// Positions are on the device and count by themselves, so that one graph of a step serves every length. Layers that
// turn their queries where they enter their keys (grouped_update.cu) have no HEADS here.
//
// Mapping: a block takes a sequence, so that whoever reads the position waits for no other block. Thread i has the
// pairs i, i + THREADS, ... of all heads.
//
// Not yet run on a GPU.
#include "common.cuh"

// Macros: HEADS H or 0, ROPE Dr, HALVES (pairs are i and i + Dr / 2, else 2 i and 2 i + 1), THREADS.

struct Advance {
    const Element *q;   // [B, H, Dr] at the strides below: the columns that are turned
    Element *turned;    // [B, H, Dr] at the strides below
    const float *cos;   // [positions, Dr / 2]
    const float *sin;   // [positions, Dr / 2]
    int *positions;     // [B], of the newest token, -1 where there is none: read and written
    long long q_stride; // elements from one sequence to the next, as below
    long long turned_stride;
    int q_head_stride; // elements from one head to the next
    int turned_head_stride;
    int n_positions; // rows of the tables; queries of tokens beyond are not written
};
static_assert(sizeof(Advance) == 72, "AdvanceParams is the same");

extern "C" __global__ void __launch_bounds__(THREADS) advance(const Advance p) {
    const int sequence = blockIdx.x;
    const int position = p.positions[sequence] + 1;
    __syncthreads(); // before one of them writes it
    if (threadIdx.x == 0) p.positions[sequence] = position;
    if constexpr (HEADS > 0) {
        if (position < 0 || position >= p.n_positions) return;
        const float *cos = p.cos + (long long)position * (ROPE / 2);
        const float *sin = p.sin + (long long)position * (ROPE / 2);
        for (int at = threadIdx.x; at < HEADS * (ROPE / 2); at += THREADS) {
            const int head = at / (ROPE / 2), i = at % (ROPE / 2);
            turn_pair<ROPE, HALVES>(p.turned + sequence * p.turned_stride + head * p.turned_head_stride,
                                    p.q + sequence * p.q_stride + head * p.q_head_stride, i, cos[i], sin[i]);
        }
    }
}
