//! One row of a table, typed.

/// One case of a run. Field names are the columns of `rows.parquet`; null cells, and columns an older run
/// does not have, are `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row {
    /// Hash of all that defines the case.
    pub case_id: Option<String>,
    /// The run this row comes from, where several are drawn together.
    pub run: Option<String>,
    /// Registry key of the variant: `mha`, `gqa`, `mqa`, `mla`, `mtla`, or one defined elsewhere.
    pub variant: String,
    /// Display name, unique for a variant and its parameters.
    pub label: String,
    /// MTLA's temporal stride.
    pub stride: Option<u64>,
    /// Key and value heads.
    pub n_kv_heads: Option<u64>,
    /// Rank of the latent.
    pub kv_rank: Option<u64>,
    /// Size of the shared RoPE key.
    pub rope_dim: Option<u64>,
    /// What the tokens of a slot are weighed by: `hyper`, `constant`, `mean`, `sum` or `last`.
    pub merge: Option<String>,
    /// Whose rope key a slot has: `newest`, `first` or `mean`.
    pub rope_key: Option<String>,
    /// What a token sees in training: `strided` or `causal`.
    pub train_mask: Option<String>,
    /// `decode`, `prefill`, `train_step`, `generate`, `trajectory`, `beam`, `quality`.
    pub workload: String,
    /// `layer`, `op` or `model`.
    pub scope: Option<String>,
    /// Width of the model.
    pub d_model: Option<u64>,
    /// Query heads.
    pub n_heads: Option<u64>,
    /// Layers of a whole model.
    pub n_layers: Option<u64>,
    /// Width of its feed-forward layers.
    pub d_ff: Option<u64>,
    /// Entries of its vocabulary.
    pub vocab: Option<u64>,
    /// `prefix` (the paper's decoder) or `llama`.
    pub decoder: Option<String>,
    /// The task a model was trained on.
    pub task: Option<String>,
    /// Updates of a training.
    pub train_steps: Option<u64>,
    /// Highest learning rate of a training.
    pub lr: Option<f64>,
    /// Layers of the encoder, where the task has a source.
    pub encoder_layers: Option<u64>,
    /// States of the encoder that are made one by their mean.
    pub downsample: Option<u64>,
    /// Sequences.
    pub batch: Option<u64>,
    /// Entries a decode step reads, its own token included; the prompt's length for `generate`.
    pub context: Option<u64>,
    /// Tokens in one call.
    pub tokens: Option<u64>,
    /// Tokens generated.
    pub new_tokens: Option<u64>,
    /// Hypotheses of a sentence in a beam search.
    pub beam: Option<u64>,
    /// Where they keep the prefix: `replicated`, `copied` or `shared`.
    pub prefix: Option<String>,
    /// The costly habits of a seed-like case, joined by `+`, or `none`.
    pub habits: Option<String>,
    /// Element type asked for.
    pub dtype_requested: Option<String>,
    /// Element type it ran in.
    pub dtype_resolved: Option<String>,
    /// Device asked for.
    pub device_requested: Option<String>,
    /// Device it ran on.
    pub device_resolved: Option<String>,
    /// `fused` or `seedlike`, as asked for.
    pub path_requested: Option<String>,
    /// The path it took.
    pub path_resolved: Option<String>,
    /// `ok`, or why there is no time.
    pub status: String,
    /// `clean`, or what weakens the measurement; null counts as clean.
    pub trust: Option<String>,
    /// Median seconds of a sample (a decode step, a prefill, a training step, a generation).
    pub time_median_s: Option<f64>,
    /// Lower end of the 95 % bootstrap interval of the median.
    pub time_ci_low_s: Option<f64>,
    /// Upper end of it.
    pub time_ci_high_s: Option<f64>,
    /// Tokens per second at the median.
    pub tokens_per_s: Option<f64>,
    /// Bytes of the cache at this length, in closed form.
    pub kv_bytes: Option<f64>,
    /// Bytes the cache holds allocated.
    pub kv_allocated_bytes: Option<f64>,
    /// Bytes of the cache a token adds on average.
    pub kv_bytes_per_token: Option<f64>,
    /// Bytes of the parameters.
    pub weights_bytes: Option<f64>,
    /// Peak bytes of the allocator.
    pub peak_bytes: Option<f64>,
    /// Most bytes a GPU's memory pool kept reserved, in use or not.
    pub reserved_peak_bytes: Option<f64>,
    /// Mean of regularly sampled allocated bytes, from before the model is built: the paper's metric.
    pub paper_memory_bytes: Option<f64>,
    /// Seconds of the first pass, neither warmed nor repeated: the paper's metric.
    pub paper_time_s: Option<f64>,
    /// Seconds to the first token of a sample.
    pub time_to_first_token_s: Option<f64>,
    /// Of a sample's seconds, those spent on the prefix.
    pub prefill_s: Option<f64>,
    /// On the projections of attention layers.
    pub projections_s: Option<f64>,
    /// On writing new entries to the caches.
    pub cache_update_s: Option<f64>,
    /// On attention itself.
    pub attention_s: Option<f64>,
    /// On giving the hypotheses that go on their caches.
    pub reorder_s: Option<f64>,
    /// On feed-forward layers.
    pub feed_forward_s: Option<f64>,
    /// On scores of the vocabulary.
    pub vocabulary_s: Option<f64>,
    /// On log-probabilities and choosing tokens.
    pub choosing_s: Option<f64>,
    /// On everything else.
    pub other_s: Option<f64>,
    /// What `quality` is: `excess_loss` (nats), `perplexity`, `token_accuracy` and `exact_match` (0 to 1), `bleu`, `wer`
    /// or `rouge_l` (per cent).
    pub quality_measure: Option<String>,
    /// Whether more of it is better.
    pub quality_higher_is_better: Option<bool>,
    /// The best value that is possible, or known.
    pub quality_best: Option<f64>,
    /// How good trained models are at the test, token by token through the cache: mean over seeds.
    pub quality: Option<f64>,
    /// Lower end of the 95 % interval of that mean (Student's t); null with one seed.
    pub quality_ci_low: Option<f64>,
    /// Upper end of it.
    pub quality_ci_high: Option<f64>,
    /// Standard deviation over seeds.
    pub quality_sd: Option<f64>,
    /// Trainings that differ in weights and order of the data alone.
    pub n_seeds: Option<u64>,
    /// Those that ended with a loss that is not finite.
    pub n_diverged: Option<u64>,
    /// Examples of a test.
    pub test_examples: Option<u64>,
    /// Lowest loss on the validation part in nats an answer, mean over seeds: what a learning rate is chosen by.
    pub valid_nats: Option<f64>,
    /// Loss of the test in nats an answer, mean over seeds.
    pub test_nats: Option<f64>,
    /// Share of the test's answers that are the most likely token, mean over seeds.
    pub test_accuracy: Option<f64>,
    /// Share of the answers that are chosen alike through the cache and in one pass, mean over seeds.
    pub cache_agreement: Option<f64>,
    /// Parameters of the whole model, its encoder included.
    pub parameters: Option<u64>,
    /// Seconds of a training with its evaluations, mean over seeds.
    pub train_time_s: Option<f64>,
    /// Median seconds of an update.
    pub train_step_s: Option<f64>,
    /// The sweep's name.
    pub sweep_name: Option<String>,
    /// The question the sweep asks.
    pub question: Option<String>,
    /// Model of the processor.
    pub machine: Option<String>,
    /// Hash of the processor, its cores, the memory and the system.
    pub fingerprint: Option<String>,
    /// Model of the GPU, where the case ran on one.
    pub gpu: Option<String>,
    /// Threads used.
    pub threads: Option<u64>,
    /// What the caches held when a sample began: `hot` or `cold`; null counts as hot.
    pub cache_regime: Option<String>,
    /// How a decode step was to get to a GPU: `graph` or `eager`.
    pub launch_requested: Option<String>,
    /// How it did.
    pub launch_resolved: Option<String>,
    /// What the sweep holds equal: `width`, `params`, `kv_bytes` or `flops`; null counts as width.
    pub fair: Option<String>,
    /// Name of the variant the others are matched to.
    pub fair_reference: Option<String>,
    /// How far the case is from that, as a fraction.
    pub fair_mismatch: Option<f64>,
    /// Useful operations, by the cost model.
    pub flops: Option<f64>,
    /// The least bytes to read and write, by the cost model.
    pub bytes_moved: Option<f64>,
    /// Operations per second at the median.
    pub achieved_flops_per_s: Option<f64>,
    /// Operations per second of a matrix product, as measured in the run.
    pub ceiling_flops_per_s: Option<f64>,
    /// Bytes per second read from memory, as measured in the run.
    pub ceiling_bytes_per_s: Option<f64>,
}

impl Row {
    /// Whether the case was measured.
    pub fn is_ok(&self) -> bool {
        self.status == "ok"
    }

    /// Whether nothing weakens the measurement.
    pub fn is_clean(&self) -> bool {
        self.trust
            .as_deref()
            .is_none_or(|trust| trust.is_empty() || trust.eq_ignore_ascii_case("clean"))
    }

    /// Whether the case is a training, judged on a task.
    pub(crate) fn is_quality(&self) -> bool {
        self.workload == "quality"
    }

    /// Whether the case is a whole decoder that was timed.
    pub(crate) fn is_timed_model(&self) -> bool {
        self.is_model() && !self.is_quality()
    }

    /// Whether the case is a whole decoder, and no layer or operation of one.
    pub(crate) fn is_model(&self) -> bool {
        self.scope.as_deref() == Some("model")
    }
}
