// Latent decode: MLA and MTLA with the up-projections absorbed, `out = softmax(scale q E^T) E[.., ..r]`.
//
// Queries q [B, H, r + Dr] of all heads against one cache of entries E [B, C, r + Dr], of which the first ceil(L / s) of
// L tokens are in use; outputs [B, H, r] are latents, for the caller to take through W_UV. An entry is read from memory
// once, for all heads of a block, and as key and value. streams.cuh has tiles, grid and accumulation.
//
// Reads (r + Dr) bytes-per-element per entry against 2 (2 r + Dr) H FLOP: up to 32 heads memory decides, about 100 heads
// are the ridge of an H200.
// Not yet run on a GPU.
#define VALUES_APART 0
#include "streams.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) latent_decode(const Decode p) { decode_by_streams(p); }
