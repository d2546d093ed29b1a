#!/usr/bin/env python3
"""Tests of the GPU peers on a CPU: the layers against the package mtla, the Triton kernel against the formula.

<a Python with torch, triton and mtla> scripts/peers/test_gpu_peers.py
"""

import os
import unittest

os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is imported

import torch

from gpu import attention, cases, formulas, layers, operands, package, timing

MTLA = cases.Case(
    case_id="",
    sweep="",
    variant="mtla",
    label="MTLA s=3",
    scope="layer",
    workload="prefill",
    batch=2,
    length=21,
    dtype="f32",
    d_model=48,
    n_heads=4,
    n_kv_heads=4,
    score_dim=24,
    v_dim=16,
    rank=32,
    rope=8,
    stride=3,
    bias=False,
    flops=0,
    bytes_moved=0,
)


class Layers(unittest.TestCase):
    def with_fact_b(self):
        return layers.layer(MTLA, attention.fact_b(MTLA, attention.cpu_with_lse, grouped=False))

    def test_a_prompt_by_fact_b_is_the_packages(self):
        o = operands.build(MTLA, "cpu")
        with torch.inference_mode():
            run, _, _ = package.build(MTLA, o)
            self.assertLess(formulas.relative_error(self.with_fact_b()(o), run().double()), 1e-5)

    def test_the_formulas_are_the_packages(self):
        o = operands.build(MTLA, "cpu")
        with torch.inference_mode():
            run, _, _ = package.build(MTLA, o)
            expected, pick = formulas.expected(MTLA, o)
            self.assertLess(formulas.relative_error(pick(run()), expected), 1e-5)

    def test_steps_after_a_prompt_are_the_prompts_last_rows(self):
        o = operands.build(MTLA, "cpu")
        step = MTLA.__class__(**{**vars(MTLA), "workload": "decode"})
        with torch.inference_mode():
            whole = self.with_fact_b()(o)
            at = {**o, "x": o["x"][:, -1:]} | operands.state(step, o, "cpu", lambda *shape: torch.zeros(shape))
            # What the two tokens before it left in the open slot.
            o["cache"].zero_()
            latents = layers.queries_and_latents(MTLA, o)[2][:, -3:-1]
            at["sum"] = (torch.sigmoid(latents @ at["u"][0] + at["b"][0])[..., None] * latents).sum(1)
            self.with_fact_b()(o)
            last = layers.layer(step, attention.absorbed(step))(at)
        self.assertLess(formulas.relative_error(last[:, 0], whole[:, -1].double()), 1e-5)


class Triton(unittest.TestCase):
    def test_the_split_decode_is_the_formula(self):
        from gpu import latent_triton

        for dtype, most in ((torch.float32, 1e-6), (torch.float16, 1e-3)):
            for batch, heads, entries, rank, rope in (
                (2, 8, 137, 256, 32),
                (1, 40, 90, 64, 16),
                (3, 1, 1, 32, 16),
            ):
                with self.subTest(dtype=dtype, heads=heads, entries=entries):
                    q = torch.randn(batch, heads, rank + rope, dtype=dtype)
                    cache = torch.randn(batch, entries, rank + rope, dtype=dtype)
                    out = latent_triton.decode(q, cache, rank, 0.1, processors=8)
                    expected = formulas.decode(q[:, :, None], cache[:, None], cache[:, None, :, :rank], 0.1)[
                        :, :, 0
                    ]
                    self.assertLess(formulas.relative_error(out, expected), most)


class Timing(unittest.TestCase):
    def test_copies_exceed_twice_the_cache(self):
        for bytes_of_one in (1, 7, 100, 199, 200, 201, 10_000):
            copies = timing.copies_for(bytes_of_one, 100)
            self.assertGreater(copies * bytes_of_one, 200)
            self.assertLessEqual((copies - 1) * bytes_of_one, 200)


if __name__ == "__main__":
    unittest.main()
