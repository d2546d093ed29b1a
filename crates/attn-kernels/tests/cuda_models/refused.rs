//! What has no kernel.

use attn_kernels::cuda::{
    Arch, AttendShape, CacheUpdateShape, Dtype, GroupedDecodeShape, LatentDecodeShape, Machine,
};

#[test]
fn what_no_kernel_takes_is_refused_with_a_remedy() {
    let machine = Machine::usual(Arch::Sm90a);
    let latents = LatentDecodeShape {
        dtype: Dtype::Bf16,
        n_heads: 8,
        rank: 63,
        rope_dim: 32,
        stride: 2,
    };
    let refused = latents.plan(machine, 1, 100).unwrap_err().to_string();
    assert_eq!(
        refused,
        "latent_decode: no kernel for rows of [190] bytes, use head sizes that are even, or f32"
    );
    let wide = LatentDecodeShape {
        rank: 4096,
        ..latents
    };
    assert!(
        wide.plan(machine, 1, 100)
            .unwrap_err()
            .to_string()
            .contains("4096 columns")
    );
    let heads = GroupedDecodeShape {
        dtype: Dtype::F32,
        n_heads: 8,
        n_kv_heads: 3,
        key_dim: 64,
        value_dim: 64,
    };
    assert!(
        heads
            .plan(machine, 1, 100)
            .unwrap_err()
            .to_string()
            .contains("3 KV heads")
    );
    let update = CacheUpdateShape {
        dtype: Dtype::F32,
        rank: 64,
        rope_dim: 3,
        stride: None,
        layer_norm: true,
        halves: false,
    };
    assert!(
        update
            .plan(machine, 1)
            .unwrap_err()
            .to_string()
            .ends_with("use an even size")
    );
    let attend = AttendShape {
        dtype: Dtype::Bf16,
        n_heads: 8,
        n_kv_heads: 8,
        key_dim: 100,
        shared_dim: 0,
        value_dim: 64,
        stride: None,
    };
    assert_eq!(
        attend.plan(machine, 1, 100).unwrap_err().to_string(),
        "attend: no kernel for keys of 100, 0 of them shared, and values of 64, use multiples of 8 up to 256"
    );
}
