// Grouped decode: GQA and MQA where so many query heads share a KV head that they are rows of `mma`,
// `out = softmax(scale q K^T) V`.
//
// Queries q [B, H, D] against keys [B, Hkv, C, D] and values [B, Hkv, C, Dv]. streams.cuh has tiles, grid and
// accumulation; a tile has keys, and values behind them. few_heads_decode.cu has groups of fewer heads.
// Not yet run on a GPU.
#define VALUES_APART 1
#include "streams.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) grouped_decode(const Decode p) { decode_by_streams(p); }
