"""transformers' DeepseekV3Attention under the seed's names: MLA, and what can be written as MLA."""

import torch
from torch import nn
from transformers import DeepseekV3Config, DynamicCache
from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
    DeepseekV3Attention,
    DeepseekV3RMSNorm,
    DeepseekV3RotaryEmbedding,
)

from common import add_biases, decode, load

DEEPSEEK_NAMES = {
    "wq.": "q_proj.",
    "wq_a.": "q_a_proj.",
    "q_norm.": "q_a_layernorm.",
    "wq_b.": "q_b_proj.",
    "wkv_a.": "kv_a_proj_with_mqa.",
    "kv_norm.": "kv_a_layernorm.",
    "wkv_b.": "kv_b_proj.",
    "wo.": "o_proj.",
}


def norm_module(c, size):
    """DeepSeek has RMSNorm (in float32); the seed's MLA has LayerNorm with bias."""
    if c.get("norm", "layer") == "rms":
        return DeepseekV3RMSNorm(size, eps=c["norm_eps"])
    return nn.LayerNorm(size, eps=c["norm_eps"])


def deepseek_layer(c, weights, kv_norm=None):
    """The layer, and how it is called: part, position of its first token, cache.

    `kv_norm` is the module that normalises the latent, where that is not one norm over all of it.
    """
    h, d_r = c["n_heads"], c["rope_dim"]
    config = DeepseekV3Config(
        hidden_size=c["d_model"],
        num_attention_heads=h,
        num_key_value_heads=h,
        kv_lora_rank=c["kv_rank"],
        q_lora_rank=c["q_rank"] or None,
        qk_nope_head_dim=c["nope_dim"],
        qk_rope_head_dim=d_r,
        v_head_dim=c["v_dim"],
        rope_theta=c["rope_theta"],
        rope_interleave=True,
        attn_implementation="sdpa",
    )
    layer = DeepseekV3Attention(config, layer_idx=0)
    layer.kv_a_layernorm = kv_norm or norm_module(c, c["kv_rank"])
    if c["q_rank"]:
        layer.q_a_layernorm = norm_module(c, c["q_rank"])
    if c["bias"]:
        # DeepSeek has a bias on some projections only.
        add_biases(layer)
    renamed = {}
    for name, value in weights.items():
        head = name[: name.index(".") + 1]
        renamed[name.replace(head, DEEPSEEK_NAMES[head])] = value
    load(layer.double(), renamed)
    rotary = DeepseekV3RotaryEmbedding(config)

    def call(part, start, cache):
        positions = torch.arange(start, start + part.shape[1])[None]
        return layer(part, rotary(part, positions), None, past_key_value=cache)[0]

    return layer, call


def deepseek_paths(c, layer, call, x, prefill):
    """Both paths, and what a layer of this kind caches: latents after the norm, rope keys [B, T, .]."""
    latents = []
    hook = layer.kv_a_layernorm.register_forward_hook(lambda _m, _i, out: latents.append(out))
    parallel = call(x, 0, None)
    latents.clear()
    incremental, cache = decode(
        lambda part, start, cache: (call(part, start, cache), cache), x, prefill, DynamicCache()
    )
    hook.remove()
    # transformers caches decompressed keys, with the rope part stored as even elements
    # then odd ones; undo that order.
    d_r = c["rope_dim"]
    rope = cache[0][0][:, 0, :, -d_r:]
    rope = rope.unflatten(-1, (2, d_r // 2)).transpose(-1, -2).flatten(-2)
    return parallel, incremental, torch.cat(latents, dim=1), rope
