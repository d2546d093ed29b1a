// Latent decode: MLA and MTLA with the up-projections absorbed, `out = softmax(scale q E^T) E[.., ..r]`.
//
// Queries q [B, H, r + Dr] of all heads against one cache of entries E [B, C, r + Dr], of which ceil(L / s) are in use
// after L tokens; outputs [B, H, r] are latents, for the caller to take through W_UV. An entry is read from memory
// once, for all heads of a block, and as key and value. streams.cuh has tiles, grid and accumulation.
//
// An entry is r + Dr elements to read and 2 (2 r + Dr) H FLOP: with 16-bit elements memory decides up to about 100
// heads on an H200, and with 16 heads matrix units are busy for about a quarter of the time (an estimate).
// Not yet run on a GPU.
#define VALUES_APART 0
#include "streams.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) latent_decode(const Decode p) { decode_by_streams(p); }
