// The end of every decode kernel: parts of a block's entries to one result, and results of blocks to the output.
//
// A part is an online softmax over some entries: for each head its maximum m of scores, its sum l of weights
// 2^(factor (score - m)), and its weighed values. Parts of a block lie in shared memory; they are added up in the order
// of their numbers. Where a sequence has one block, that is the output. Otherwise blocks put their result into global
// memory and draw a ticket; the one that draws the last adds all of them up, in the order of their numbers, so that
// which block is last changes nothing. Tickets are zero again afterwards, so that a graph can be launched again.
//
// Not yet run on a GPU.
#pragma once
#include "common.cuh"

// Operands of every decode kernel. g = H / Hkv query heads share a KV head; a latent cache has Hkv = 1.
struct Decode {
    const Element *q;           // [B, H, Dk]
    const Element *keys;        // [B, Hkv, C, Dk] at the strides below
    const Element *values;      // [B, Hkv, C, Dv] at the strides below; not read where they are the keys' first columns
    Element *out;               // [B, H, Dv]
    float *partial;             // [B Hkv, splits, g, columns]; not used with one split
    float2 *partial_sums;       // [B Hkv, splits, g]: m and l; not used with one split
    u32 *tickets;               // [B Hkv, blocks of heads], zero; not used with one split
    const int *positions;       // [B], of the newest token; a negative one has no entries and gives zeros
    long long key_batch_stride; // elements, as all strides
    long long key_head_stride;
    long long value_batch_stride;
    long long value_head_stride;
    int key_row_stride;
    int value_row_stride;
    int n_kv_heads; // Hkv
    int capacity;   // C
    float factor;   // of the scores, times log2(e)
};
static_assert(sizeof(Decode) == 120, "DecodeParams is the same");

// Entries of one sequence that a block goes through.
struct Range {
    int from, to;
    int active; // blocks of the sequence that have entries, at least 1: an empty sequence has a block to write zeros
};

// Split `split` of `splits` of a sequence with this position. Splits are whole tiles, all but the last alike.
DEVICE Range range_of(int position, int stride, int capacity, int split, int splits, int tile) {
    const int slots = position < 0 ? 0 : min(position / stride + 1, capacity);
    const int each = round_up(max(ceil_div(slots, splits), 1), tile);
    Range range;
    range.from = min(split * each, slots);
    range.to = min(range.from + each, slots);
    range.active = max(ceil_div(slots, each), 1);
    return range;
}

// The maximum and the sum of PARTS parts of a row, `sums` being [PARTS, ROWS] of m and l.
template <int PARTS, int ROWS> DEVICE float2 total_of(const float2 *sums, int row, float factor) {
    float2 total = make_float2(minus_infinity(), 0.0f);
#pragma unroll
    for (int part = 0; part < PARTS; ++part) total.x = fmaxf(total.x, sums[part * ROWS + row].x);
#pragma unroll
    for (int part = 0; part < PARTS; ++part) {
        const float2 own = sums[part * ROWS + row];
        total.y += own.y * shrink(own.x, total.x, factor);
    }
    return total;
}

// Four columns of a head's output: `values` over the sum of weights; zeros where there was no entry.
template <int COLUMNS> DEVICE void write_out(Element *out, int column, float4 values, float sum) {
    const float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
    const float all[4] = {values.x, values.y, values.z, values.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (column + i < COLUMNS) out[column + i] = from_f32(all[i] * inverse);
    }
}

// Adds up the parts of a block and, in the last block of a sequence, those of blocks.
//
// PARTS of `parts`, [PARTS, ROWS, ROW_FLOATS] with COLUMNS values in a row, relative to the maxima of `sums` (by
// `total_of`, [PARTS, ROWS]); rows are the heads `first_head..` of GROUP, as far as there are. PADDED is COLUMNS
// rounded up to a multiple of 4, the length of rows of `partial`. All THREADS threads call it, after a barrier; `parts`
// is used again for ROWS times `active` floats and ROWS more, and `sums` for the ticket.
template <int PARTS, int ROWS, int ROW_FLOATS, int GROUP, int COLUMNS, int PADDED, int THREADS>
DEVICE void finish(const Decode &p, float *parts, float2 *sums, Range range, int sequence_head, int first_head) {
    const int rows = min(ROWS, GROUP - first_head);
    const int thread = threadIdx.x;
    const int split = blockIdx.z, splits = gridDim.z;
    constexpr int FOURS = PADDED / 4;
    Element *out = p.out + ((long long)sequence_head * GROUP + first_head) * COLUMNS;
    const auto place = [&](int of_split, int row) {
        return ((long long)sequence_head * splits + of_split) * GROUP + first_head + row;
    };
    for (int i = thread; i < rows * FOURS; i += THREADS) {
        const int row = i / FOURS, column = i % FOURS * 4;
        float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
        for (int part = 0; part < PARTS; ++part) {
            const float *at = parts + (part * ROWS + row) * ROW_FLOATS + column;
            const float4 one = *reinterpret_cast<const float4 *>(at);
            sum.x += one.x, sum.y += one.y, sum.z += one.z, sum.w += one.w;
        }
        const float2 total = total_of<PARTS, ROWS>(sums, row, p.factor);
        if (range.active == 1) {
            write_out<COLUMNS>(out + row * COLUMNS, column, sum, total.y);
        } else {
            *reinterpret_cast<float4 *>(p.partial + place(split, row) * PADDED + column) = sum;
            if (column == 0) p.partial_sums[place(split, row)] = total;
        }
    }
    if (range.active == 1) return;

    // Maxima and sums have been used, by all threads behind the next barrier.
    u32 *drawn = reinterpret_cast<u32 *>(sums);
    // What this thread wrote is seen before its block's ticket, and what others wrote before theirs is seen after.
    __threadfence();
    __syncthreads();
    u32 *ticket = p.tickets + sequence_head * gridDim.y + blockIdx.y;
    if (thread == 0) *drawn = atomicAdd(ticket, 1);
    __syncthreads();
    if (*drawn != range.active - 1) return;
    __threadfence();
    if (thread == 0) *ticket = 0;

    float *weights = parts;                         // [ROWS, active]
    float *totals = parts + ROWS * range.active;    // [ROWS]
    const int lane = thread % WARP;
    for (int row = thread / WARP; row < rows; row += THREADS / WARP) {
        float max = minus_infinity(), sum = 0.0f;
        for (int s = lane; s < range.active; s += WARP) {
            max = fmaxf(max, load_past_first_cache(p.partial_sums + place(s, row)).x);
        }
        max = max_of_lanes<WARP>(max);
        for (int s = lane; s < range.active; s += WARP) {
            const float2 own = load_past_first_cache(p.partial_sums + place(s, row));
            const float weight = shrink(own.x, max, p.factor);
            weights[row * range.active + s] = weight;
            sum += weight * own.y;
        }
        sum = sum_of_lanes<WARP>(sum);
        if (lane == 0) totals[row] = sum;
    }
    __syncthreads();
    for (int i = thread; i < rows * FOURS; i += THREADS) {
        const int row = i / FOURS, column = i % FOURS * 4;
        float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        // Several loads are under way at once: they come from the second cache.
#pragma unroll 8
        for (int s = 0; s < range.active; ++s) {
            const float *at = p.partial + place(s, row) * PADDED + column;
            const float4 one = load_past_first_cache(reinterpret_cast<const float4 *>(at));
            const float weight = weights[row * range.active + s];
            sum.x = fmaf(weight, one.x, sum.x), sum.y = fmaf(weight, one.y, sum.y);
            sum.z = fmaf(weight, one.z, sum.z), sum.w = fmaf(weight, one.w, sum.w);
        }
        write_out<COLUMNS>(out + row * COLUMNS, column, sum, totals[row]);
    }
}
