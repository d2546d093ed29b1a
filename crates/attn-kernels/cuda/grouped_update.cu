// Grouped update: one token of every sequence of MHA, GQA and MQA: its keys turned and put into the cache, its values
// put into the cache, its queries turned.
//
//   keys[position] = RoPE(k);  values[position] = v;  turned = RoPE(q)
//
// Positions are on the device: a graph of a step holds for every length.
//
// Mapping: a warp takes a head of a sequence, of its queries, then keys, then values; WARPS of them are a block. Lane i
// has the pairs, or elements, i, i + 32, ...
//
// Not yet run on a GPU.
#include "common.cuh"

// Macros: KEY_DIM, VALUE_DIM, HEADS H, KV_HEADS Hkv, HALVES (pairs are i and i + Dk / 2, else 2 i and 2 i + 1), WARPS.

struct GroupedUpdate {
    const Element *q;     // [B, H, Dk], sequences at q_stride
    const Element *k;     // [B, Hkv, Dk], sequences at k_stride
    const Element *v;     // [B, Hkv, Dv], sequences at v_stride
    Element *turned;      // [B, H, Dk]
    Element *keys;        // [B, Hkv, C, Dk] at the strides below
    Element *values;      // [B, Hkv, C, Dv] at the strides below
    const float *cos;     // [positions, Dk / 2]
    const float *sin;     // [positions, Dk / 2]
    const int *positions; // [B], of the token; nothing is done if it is negative, or beyond the cache or the tables
    long long q_stride;   // elements, as all strides
    long long k_stride;
    long long v_stride;
    long long key_batch_stride;
    long long key_head_stride;
    long long value_batch_stride;
    long long value_head_stride;
    int key_row_stride;
    int value_row_stride;
    int batch;       // B
    int capacity;    // C
    int n_positions; // rows of the tables
};
static_assert(sizeof(GroupedUpdate) == 152, "GroupedUpdateParams is the same");

constexpr int ALL_HEADS = HEADS + 2 * KV_HEADS;

extern "C" __global__ void __launch_bounds__(WARPS *WARP) grouped_update(const GroupedUpdate p) {
    const int lane = threadIdx.x % WARP;
    const int at = blockIdx.x * WARPS + threadIdx.x / WARP;
    const int sequence = at / ALL_HEADS, head = at % ALL_HEADS;
    if (sequence >= p.batch) return;
    const int position = p.positions[sequence];
    if (position < 0 || position >= p.n_positions || position >= p.capacity) return;

    if (head >= HEADS + KV_HEADS) {
        const int kv_head = head - HEADS - KV_HEADS;
        const Element *from = p.v + sequence * p.v_stride + kv_head * VALUE_DIM;
        Element *to = p.values + sequence * p.value_batch_stride + kv_head * p.value_head_stride +
                      (long long)position * p.value_row_stride;
        for (int d = lane; d < VALUE_DIM; d += WARP) to[d] = from[d];
        return;
    }
    const int kv_head = head - HEADS;
    const Element *from = head < HEADS ? p.q + sequence * p.q_stride + head * KEY_DIM
                                       : p.k + sequence * p.k_stride + kv_head * KEY_DIM;
    Element *to = head < HEADS ? p.turned + ((long long)sequence * HEADS + head) * KEY_DIM
                               : p.keys + sequence * p.key_batch_stride + kv_head * p.key_head_stride +
                                     (long long)position * p.key_row_stride;
    const float *cos = p.cos + (long long)position * (KEY_DIM / 2);
    const float *sin = p.sin + (long long)position * (KEY_DIM / 2);
    for (int i = lane; i < KEY_DIM / 2; i += WARP) turn_pair<KEY_DIM, HALVES>(to, from, i, cos[i], sin[i]);
}
