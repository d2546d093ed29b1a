//! What a whole decoder holds beside weights and caches while it generates: an estimate, like every predicted peak.

use attn_core::{Geometry, Habit, Habits, ModelShape, Prefix, Values, Workload};

/// How the case runs, as far as memory depends on it.
pub(super) struct Running<'a> {
    pub(super) layer: &'a Geometry,
    pub(super) shape: &'a ModelShape,
    pub(super) workload: &'a Workload,
    /// `None` on path fused.
    pub(super) habits: Option<Habits>,
    pub(super) prefix: Option<Prefix>,
    pub(super) kv_bytes: u64,
    pub(super) element_bytes: usize,
}

/// Bytes beside weights and caches at the largest moment: the prefix's keys and values of one layer, or a step's logits
/// with its activations and what reordering and growing caches copy.
pub(super) fn working_bytes(running: &Running<'_>) -> f64 {
    let (g, shape) = (running.layer, running.shape);
    let has = |habit| running.habits.is_some_and(|habits| habits.contains(habit));
    let (sentences, e) = (running.workload.batch() as f64, running.element_bytes as f64);
    let hypotheses = sentences * running.workload.beam() as f64;
    let (m, h, h_kv) = (g.d_model as f64, g.n_heads as f64, g.n_kv_heads as f64);
    let width = (g.score_dim + g.v_dim) as f64;
    let prefix_tokens = match *running.workload {
        Workload::Beam { tokens, .. } | Workload::Generate { tokens, .. } => tokens as f64,
        _ => 0.0,
    };
    let slots = g.slots(running.workload.cached_tokens()) as f64;

    // The encoder's states stay; a layer's keys and values pass, a latent decompressed before it is split.
    let rows = match running.prefix {
        Some(Prefix::Replicated) => hypotheses,
        _ => sentences,
    };
    let copies = match g.entry.values {
        Values::Own(_) => 1.0,
        Values::KeyPrefix(_) => 2.0,
    };
    let states = sentences * prefix_tokens * m * e;
    let prefill = rows * prefix_tokens * e * (m + copies * h_kv * width)
        + if has(Habit::DenseMask) {
            4.0 * rows * prefix_tokens * prefix_tokens
        } else {
            0.0
        };

    // Logits, their log-probabilities and the scores of all candidates, in f32.
    let logits = 3.0 * 4.0 * hypotheses * shape.vocab as f64;
    let activations = hypotheses * e * (4.0 * m + shape.d_ff as f64 + (h + h_kv) * width);
    let scores = if has(Habit::DenseMask) {
        2.0 * 4.0 * hypotheses * h * slots
    } else {
        0.0
    };
    let is_shared = g.entry.heads < g.n_heads && matches!(g.entry.values, Values::Own(_));
    let expanded = if has(Habit::Expand) && is_shared {
        hypotheses * h * slots * width * e
    } else {
        0.0
    };
    // One layer's cache beside itself, while it is concatenated or reordered.
    let copied = running.kv_bytes as f64 / shape.n_layers as f64;
    states + prefill.max(logits + activations + scores + expanded + copied)
}

/// More than any closed form of [`ModelShape`] reaches.
pub(super) fn bound(g: &Geometry, shape: &ModelShape, workload: &Workload) -> f64 {
    let hypotheses = workload.batch() as f64 * workload.beam() as f64;
    let tokens = workload.cached_tokens() as f64;
    let (m, layers) = (g.d_model as f64, shape.n_layers as f64);
    let widths = (g.score_dim + g.v_dim + g.entry.key + g.entry.values.width() + g.d_model) as f64;
    let heads = (g.n_heads + g.n_kv_heads + g.entry.heads) as f64;
    let macs = (g.forward_macs.query + g.forward_macs.key + g.decode_macs.query + g.decode_macs.key) as f64;
    let matrices = 3.0 * m * shape.d_ff as f64 + 16.0 * (m + shape.d_ff as f64);
    let tables = 2.0 * m * (shape.vocab as f64 + 1.0);
    let per_token = layers * (macs + matrices + (tokens + 2.0) * heads * widths) + tables;
    let weights = layers * (g.parameters as f64 + matrices) + tables;
    // A multiply-add counts two, an element at most 4 bytes.
    8.0 * (hypotheses * tokens * per_token + tokens * weights)
}
