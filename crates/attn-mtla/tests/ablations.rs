//! What the ways that the paper's is held against are, said by formula.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use attn_core::{
    Attention, Build, Capacity, ModelDims, ParamValue, Params, Path, Queries, Weights, random_tensor,
};
use attn_mtla::VARIANT;
use candle_core::{DType, Device, Tensor};

const DIMS: ModelDims = ModelDims {
    d_model: 24,
    n_heads: 4,
    head_dim: 8,
};

fn params(more: &[(&str, &str)]) -> Params {
    let int = ParamValue::Int;
    let base = Params::default()
        .with("kv_rank", int(16))
        .with("rope_dim", int(6))
        .with("stride", int(3));
    let text = |word: &str| ParamValue::Text(word.to_string());
    more.iter()
        .fold(base, |params, (name, word)| params.with(name, text(word)))
}

fn layer(more: &[(&str, &str)], path: Path) -> (Box<dyn Attention>, Weights) {
    layer_of(&params(more), path)
}

fn layer_of(params: &Params, path: Path) -> (Box<dyn Attention>, Weights) {
    let config = VARIANT.configure(&DIMS, params).unwrap();
    let weights = Weights::seeded(&config.weight_specs(), 42).unwrap();
    (
        config.build(&weights, &Build::cpu(path, DType::F64)).unwrap(),
        weights,
    )
}

fn input(t: usize) -> Tensor {
    random_tensor(&[1, t, 24], 42, 1, DType::F64, &Device::Cpu).unwrap()
}

/// Entries `[slots, r + Dr]` of a cache after a prompt.
fn slots(more: &[(&str, &str)], t: usize) -> Vec<Vec<f64>> {
    entries(layer(more, Path::Fused).0.as_ref(), t)
}

fn entries(layer: &dyn Attention, t: usize) -> Vec<Vec<f64>> {
    let mut cache = layer.new_cache(1, Capacity::Exact(t)).unwrap();
    layer.prefill(&input(t), &mut cache, Queries::All).unwrap();
    cache
        .keys()
        .squeeze(0)
        .unwrap()
        .squeeze(0)
        .unwrap()
        .to_vec2()
        .unwrap()
}

fn assert_close(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12), "{a:?} {b:?}");
}

fn mean(rows: &[Vec<f64>]) -> Vec<f64> {
    (0..rows[0].len())
        .map(|d| rows.iter().map(|row| row[d]).sum::<f64>() / rows.len() as f64)
        .collect()
}

/// Every token's latent and key, from slots of one token each.
fn tokens(t: usize) -> Vec<Vec<f64>> {
    let single = params(&[("merge", "sum")]).with("stride", ParamValue::Int(1));
    entries(layer_of(&single, Path::Fused).0.as_ref(), t)
}

#[test]
fn slots_hold_what_their_names_say() {
    let (t, r) = (8, 16);
    let each = tokens(t);
    let block = |j: usize| &each[3 * j..(3 * j + 3).min(t)];
    let sum = |j: usize| -> Vec<f64> { mean(block(j)).iter().map(|x| x * block(j).len() as f64).collect() };
    let (sums, means) = (slots(&[("merge", "sum")], t), slots(&[("merge", "mean")], t));
    let last = slots(&[("merge", "last")], t);
    let first = slots(&[("rope_key", "first")], t);
    let averaged = slots(&[("rope_key", "mean")], t);
    for j in 0..3 {
        assert_close(&sums[j][..r], &sum(j)[..r]);
        let thirds: Vec<f64> = sum(j).iter().map(|x| x / 3.0).collect();
        assert_close(&means[j][..r], &thirds[..r]);
        assert_close(&last[j], block(j).last().unwrap());
        assert_close(&first[j][r..], &block(j)[0][r..]);
        assert_close(&averaged[j][r..], &mean(block(j))[r..]);
        assert_close(&sums[j][r..], &block(j).last().unwrap()[r..]);
    }
}

#[test]
fn a_constant_is_learned_and_nothing_else_of_a_hyper_network_is_there() {
    let (_, weights) = layer(&[("merge", "constant")], Path::Fused);
    assert!(weights.contains("merge_logit") && !weights.contains("hypernet_down.fc_c.weight"));
    let vars = weights.to_vars(DType::F64).unwrap();
    let config = attn_mtla::VARIANT
        .configure(&DIMS, &params(&[("merge", "constant")]))
        .unwrap();
    let layer = config.build(&vars, &Build::cpu(Path::Fused, DType::F64)).unwrap();
    let loss = layer
        .forward(&input(8), Queries::All)
        .unwrap()
        .sqr()
        .unwrap()
        .sum_all()
        .unwrap();
    let grads = loss.backward().unwrap();
    let (_, logit) = vars.iter().find(|(name, _)| *name == "merge_logit").unwrap();
    let grad: Vec<f64> = grads.get(logit).unwrap().to_vec1().unwrap();
    assert!(grad[0].abs() > 1e-6);
}

#[test]
fn training_by_a_causal_mask_is_not_what_decoding_does() {
    let causal = [("train_mask", "causal")];
    let x = input(8);
    let gap = |a: &Tensor, b: &Tensor| -> f64 {
        (a - b)
            .unwrap()
            .abs()
            .unwrap()
            .max_all()
            .unwrap()
            .to_scalar()
            .unwrap()
    };
    let (fused, _) = layer(&causal, Path::Fused);
    let (seedlike, _) = layer(&causal, Path::Seedlike);
    let trained = fused.forward(&x, Queries::All).unwrap();
    assert!(gap(&trained, &seedlike.forward(&x, Queries::All).unwrap()) < 1e-12);
    let mut cache = fused.new_cache(1, Capacity::Exact(8)).unwrap();
    let used = fused.prefill(&x, &mut cache, Queries::All).unwrap();
    let (strided, _) = layer(&[], Path::Fused);
    assert!(gap(&used, &strided.forward(&x, Queries::All).unwrap()) < 1e-12);
    assert!(gap(&trained, &used) > 1e-3);
    // The first token sees itself alone either way.
    assert!(gap(&trained.narrow(1, 0, 1).unwrap(), &used.narrow(1, 0, 1).unwrap()) < 1e-12);
}

#[test]
fn a_rank_of_what_is_not_there_is_refused() {
    let both = params(&[("merge", "sum")]).with("hyper_rank", ParamValue::Int(4));
    let error = attn_mtla::VARIANT.configure(&DIMS, &both).err().unwrap();
    assert!(error.to_string().contains("no hyper-network"), "{error}");
}

/// Rows and ids have the settings of what a layer has, and labels what is unusual about it.
#[test]
fn a_merge_without_a_hyper_network_has_no_rank_of_one() {
    let dims = ModelDims {
        d_model: 32,
        n_heads: 2,
        head_dim: 16,
    };
    let given = Params::default()
        .with("kv_rank", ParamValue::Int(16))
        .with("rope_dim", ParamValue::Int(4));
    let usual = VARIANT.complete(&dims, &given);
    assert_eq!(usual.0.get("hyper_rank"), Some(&ParamValue::Int(4)));
    assert_eq!(VARIANT.label(&usual, &["merge"]), "MTLA s=2");
    for name in ["constant", "mean", "sum", "last"] {
        let given = given.clone().with("merge", ParamValue::Text(name.to_string()));
        let complete = VARIANT.complete(&dims, &given);
        assert_eq!(complete.0.get("hyper_rank"), None);
        assert!(VARIANT.configure(&dims, &complete).is_ok(), "{name}");
        assert_eq!(
            VARIANT.label(&complete, &["merge"]),
            format!("MTLA s=2 merge={name}")
        );
    }
}
