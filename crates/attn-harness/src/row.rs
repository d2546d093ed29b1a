//! A row of results: every column of `rows.parquet` and `samples.parquet`, declared once.

use std::collections::BTreeMap;

use attn_core::{ParamValue, Params};
use serde::{Deserialize, Serialize};

use crate::columns::table;
use crate::stats::Summary;
use crate::status::{Status, Trust};

table! {
    /// One case of a run. Null means not measured or not applicable; `null_reasons` says which.
    pub struct Row {
        /// Hash of all that defines the case.
        pub case_id: String,
        /// Number of the group whose variants took turns.
        pub group: u64,
        /// Name of the sweep.
        pub sweep_name: String,
        /// The question the sweep asks.
        pub question: String,
        /// Registry key of the variant, lower case.
        pub variant: String,
        /// Name in tables and figures: the variant and the settings that tell it from its siblings.
        pub label: String,
        /// Model width M.
        pub d_model: Option<u64>,
        /// Query heads H.
        pub n_heads: Option<u64>,
        /// Head size D.
        pub head_dim: Option<u64>,
        /// Key and value heads Hkv.
        pub n_kv_heads: Option<u64>,
        /// Rank r of the latent of keys and values.
        pub kv_rank: Option<u64>,
        /// Rank of the latent of queries; 0 is one plain projection.
        pub q_rank: Option<u64>,
        /// Size Dr of the rotary part of a head.
        pub rope_dim: Option<u64>,
        /// Size Dn of the part of a head without rotation.
        pub nope_dim: Option<u64>,
        /// Size Dv of a value head.
        pub v_dim: Option<u64>,
        /// Temporal stride s: tokens merged in one cache slot.
        pub stride: Option<u64>,
        /// Rank of the hyper-network that weighs the tokens of a slot.
        pub hyper_rank: Option<u64>,
        /// What the tokens of a slot are weighed by.
        pub merge: Option<String>,
        /// Whose rope key a slot has.
        pub rope_key: Option<String>,
        /// What a token sees in training.
        pub train_mask: Option<String>,
        /// Whether projections have biases.
        pub bias: Option<bool>,
        /// Base of the rotary frequencies.
        pub rope_theta: Option<f64>,
        /// Normalisation of the latent.
        pub norm: Option<String>,
        /// Epsilon of the normalisation.
        pub norm_eps: Option<f64>,
        /// Layers of a whole decoder.
        pub n_layers: Option<u64>,
        /// Width F of its feed-forward layers.
        pub d_ff: Option<u64>,
        /// Tokens V of its vocabulary.
        pub vocab: Option<u64>,
        /// What stands around its attention layers: `prefix` (the paper's decoder) or `llama` (a plain language model).
        pub decoder: Option<String>,
        /// Every setting of the variant as JSON, those without a column of their own included.
        pub params: String,
        /// What was run: `decode`, `prefill`, `train_step`, `generate`, `trajectory`, `beam`, `quality`.
        pub workload: String,
        /// What was timed: `layer` (projections, cache update, attention, output), `op` (attention alone) or `model` (a whole decoder).
        pub scope: String,
        /// Sequences B; of a beam search its sentences.
        pub batch: Option<u64>,
        /// Entries L that a decode step reads, its own token included.
        pub context: Option<u64>,
        /// Tokens T of one call, of the prompt, or states of the encoder's prefix.
        pub tokens: Option<u64>,
        /// Tokens generated after the prompt.
        pub new_tokens: Option<u64>,
        /// Hypotheses K of a sentence in a beam search.
        pub beam: Option<u64>,
        /// Where hypotheses keep their prefix: `replicated` (each computes and stores it), `copied` (computed once a sentence) or `shared` (computed and stored once a sentence).
        pub prefix: Option<String>,
        /// Habits of the seed's code that path `seedlike` had, joined by `+`; `none` is the empty set.
        pub habits: Option<String>,
        /// Task that a model was trained on, by its name in the sweep.
        pub task: Option<String>,
        /// Updates of a training.
        pub train_steps: Option<u64>,
        /// Layers of the encoder before the decoder, where the task has a source.
        pub encoder_layers: Option<u64>,
        /// States that a layer of the encoder looks at.
        pub encoder_kernel: Option<u64>,
        /// States of the encoder that are made one by their mean.
        pub downsample: Option<u64>,
        /// Highest learning rate of a training.
        pub lr: Option<f64>,
        /// The task's settings and how it was trained, as JSON.
        pub training: Option<String>,
        /// Consecutive steps in a sample; its time is divided by them.
        pub steps_per_sample: Option<u64>,
        /// Seed of weights and inputs.
        pub seed: Option<u64>,
        /// Element type asked for.
        pub dtype_requested: String,
        /// Element type it ran in.
        pub dtype_resolved: Option<String>,
        /// Device asked for.
        pub device_requested: String,
        /// Device it ran on.
        pub device_resolved: Option<String>,
        /// Path asked for: `fused` or `seedlike`.
        pub path_requested: String,
        /// Path it took.
        pub path_resolved: Option<String>,
        /// How a decode step was to get to the GPU: `graph` (one CUDA graph) or `eager` (launch by launch).
        pub launch_requested: Option<String>,
        /// How it did.
        pub launch_resolved: Option<String>,
        /// What the caches held when a sample began: `hot` (what the sample before left) or `cold` (none of its data).
        pub cache_regime: Option<String>,
        /// Bytes that were read, and on the CPU written, before each cold sample, outside the clock, to empty the caches.
        pub flush_bytes: Option<u64>,
        /// Size of the last-level cache, of a GPU its L2, that flushes and ceilings went by.
        pub llc_bytes: Option<u64>,
        /// What the sweep holds equal between variants: `width`, `params`, `kv_bytes` or `flops`.
        pub fair: Option<String>,
        /// Name of the variant they are matched to.
        pub fair_reference: Option<String>,
        /// How far the case is from that, as a fraction: 0.01 is 1 % more than the reference has.
        pub fair_mismatch: Option<f64>,
        /// How the case ended: `ok`, `oom`, `skipped_oom`, `crash`, `timeout`, `wrong`, `unsupported`, `diverged`.
        pub status: Status,
        /// Why it is not `ok`.
        pub reason: Option<String>,
        /// What weakens the times: `clean`, `shared`, `unconverged`, `throttled`, `fallback`.
        pub trust: Option<Trust>,
        /// Why they are not `clean`.
        pub trust_reason: Option<String>,
        /// What to know of how it was computed, beyond path and dtype.
        pub notes: Option<String>,
        /// What the output was compared with before it was timed.
        pub verified_against: Option<String>,
        /// Query rows compared.
        pub verified_rows: Option<u64>,
        /// Largest difference from the reference, relative to the scale of its output.
        pub error_max: Option<f64>,
        /// Cosine difference (1 - cosine similarity) from the reference.
        pub error_cosine: Option<f64>,
        /// Median time of a sample, in seconds (of one step for `decode`).
        pub time_median_s: Option<f64>,
        /// Lower end of the 95 % bootstrap interval of the median, in seconds.
        pub time_ci_low_s: Option<f64>,
        /// Upper end of the 95 % bootstrap interval of the median, in seconds.
        pub time_ci_high_s: Option<f64>,
        /// Interquartile range of the samples, in seconds.
        pub time_iqr_s: Option<f64>,
        /// Mean of the samples, in seconds.
        pub time_mean_s: Option<f64>,
        /// Shortest sample, in seconds.
        pub time_min_s: Option<f64>,
        /// Samples taken.
        pub n_samples: Option<u64>,
        /// Samples beyond 3 interquartile ranges from the quartiles; they are kept.
        pub n_outliers: Option<u64>,
        /// Bursts the samples come from, each in a process of its own.
        pub replicas: Option<u64>,
        /// Largest difference between medians of replicas, over the median of all.
        pub replica_spread: Option<f64>,
        /// Pause before every replica but the first, in seconds.
        pub cooldown_s: Option<f64>,
        /// What ended the sampling: `target_ci`, `stable_noise`, `max_samples` or `max_s`.
        pub stop_rule: Option<String>,
        /// Time spent warming the case, in seconds.
        pub warmup_s: Option<f64>,
        /// What `time_*` was read from: `wall`, or `device` for the events of a GPU.
        pub time_clock: Option<String>,
        /// Median wall time of a sample as the host saw it, in seconds (of one step for `decode`).
        pub wall_median_s: Option<f64>,
        /// Time spent building layer, inputs and cache, cache filling included, in seconds.
        pub build_s: Option<f64>,
        /// Time spent verifying, in seconds.
        pub verify_s: Option<f64>,
        /// Time spent in samples, in seconds.
        pub sampling_s: Option<f64>,
        /// Time spent between samples on rewinding and flushing, in seconds.
        pub reset_s: Option<f64>,
        /// Tokens per second at the median, over all sequences.
        pub tokens_per_s: Option<f64>,
        /// Seconds of a sample in which the prefix or prompt was computed, mean over the middle half of the samples.
        pub prefill_s: Option<f64>,
        /// Seconds of a sample in the attention layers' projections, norms and rotations, mean over the middle half of the samples.
        pub projections_s: Option<f64>,
        /// Seconds of a sample in which caches were written and grown, mean over the middle half of the samples.
        pub cache_update_s: Option<f64>,
        /// Seconds of a sample in scores, softmax and weighted sums, expanding heads and masks included, mean over the middle half of the samples.
        pub attention_s: Option<f64>,
        /// Seconds of a sample in which caches followed their hypotheses, mean over the middle half of the samples.
        pub reorder_s: Option<f64>,
        /// Seconds of a sample in the feed-forward layers with their norms, mean over the middle half of the samples.
        pub feed_forward_s: Option<f64>,
        /// Seconds of a sample in the projection to the vocabulary, mean over the middle half of the samples.
        pub vocabulary_s: Option<f64>,
        /// Seconds of a sample in log-probabilities and choosing candidates, mean over the middle half of the samples.
        pub choosing_s: Option<f64>,
        /// Seconds of a sample in none of the phases, mean over the middle half of the samples.
        pub other_s: Option<f64>,
        /// Seconds from the beginning of a sample to its first token: the prefix and the first step, median over samples.
        pub time_to_first_token_s: Option<f64>,
        /// The paper's time, in seconds: wall time of the first pass in its process, not warmed and not repeated.
        pub paper_time_s: Option<f64>,
        /// The paper's memory, in bytes: mean of allocated bytes looked at every 5 ms from before the model was built to the end of the first pass.
        pub paper_memory_bytes: Option<u64>,
        /// What `quality` is: `excess_loss` (nats), `perplexity`, `token_accuracy` (0 to 1), `exact_match` (0 to 1), `bleu`, `wer` (percent) or `rouge_l` (percent).
        pub quality_measure: Option<String>,
        /// Whether more of it is better.
        pub quality_higher_is_better: Option<bool>,
        /// The best value that is possible, or known.
        pub quality_best: Option<f64>,
        /// How good trained models are at the examples kept for the test, as they are used: token by token through the cache. Mean over seeds.
        pub quality: Option<f64>,
        /// Lower end of the 95 % interval of that mean over seeds (Student's t).
        pub quality_ci_low: Option<f64>,
        /// Upper end of the 95 % interval of that mean over seeds (Student's t).
        pub quality_ci_high: Option<f64>,
        /// Standard deviation over seeds.
        pub quality_sd: Option<f64>,
        /// Seeds: trainings that differ in weights and order of the data alone.
        pub n_seeds: Option<u64>,
        /// Trainings that ended with a loss that is not finite.
        pub n_diverged: Option<u64>,
        /// Examples of a test.
        pub test_examples: Option<u64>,
        /// Lowest loss on the validation part in nats an answer, mean over seeds: what a learning rate is chosen by.
        pub valid_nats: Option<f64>,
        /// Loss of the test in nats an answer, mean over seeds.
        pub test_nats: Option<f64>,
        /// Share of the test's answers that are the most likely token given the right ones before, mean over seeds.
        pub test_accuracy: Option<f64>,
        /// Share of the test's answers that the model chooses alike through its cache and in one pass as in training, mean over seeds.
        pub cache_agreement: Option<f64>,
        /// Parameters of the whole model, its encoder included.
        pub parameters: Option<u64>,
        /// Time of a training with its evaluations, in seconds, mean over seeds; other trainings may have run beside it.
        pub train_time_s: Option<f64>,
        /// Median time of an update, in seconds; other trainings may have run beside it.
        pub train_step_s: Option<f64>,
        /// Bytes of the cache at this length, by the closed formula.
        pub kv_bytes: Option<u64>,
        /// Bytes the cache holds allocated for its slots.
        pub kv_allocated_bytes: Option<u64>,
        /// Bytes of the open slot's accumulator and of the lengths.
        pub kv_state_bytes: Option<u64>,
        /// Bytes of the cache per token and sequence.
        pub kv_bytes_per_token: Option<f64>,
        /// Bytes of the layer's weights.
        pub weights_bytes: Option<u64>,
        /// Most bytes the allocator, of a GPU its memory pool, held for the case at once during the measurement: weights, inputs, cache, scratch. Of a training: during an update.
        pub peak_bytes: Option<u64>,
        /// Most bytes the allocator held for the case at once while it was built.
        pub peak_build_bytes: Option<u64>,
        /// Most bytes the allocator held for the case at once while it was verified, the reference included.
        pub peak_verify_bytes: Option<u64>,
        /// Most bytes the GPU's memory pool kept reserved during the measurement, in use or not: all variants of the group.
        pub reserved_peak_bytes: Option<u64>,
        /// Most bytes the GPU's memory pool kept reserved while the case was built.
        pub reserved_peak_build_bytes: Option<u64>,
        /// Most bytes the GPU's memory pool kept reserved while the case was verified.
        pub reserved_peak_verify_bytes: Option<u64>,
        /// Most bytes that CUDA graphs held for allocations of their own during the measurement: the pool does not count them.
        pub graph_peak_bytes: Option<u64>,
        /// Most bytes the GPU kept reserved for allocations of CUDA graphs during the measurement.
        pub graph_reserved_peak_bytes: Option<u64>,
        /// Most bytes of the worker resident in memory during the measurement: all variants of the group.
        pub rss_peak_bytes: Option<u64>,
        /// Most bytes of the worker resident in memory while the case was built.
        pub rss_peak_build_bytes: Option<u64>,
        /// Most bytes of the worker resident in memory while the case was verified.
        pub rss_peak_verify_bytes: Option<u64>,
        /// Bytes a worker might allocate.
        pub memory_limit_bytes: Option<u64>,
        /// Most bytes in use on the GPU during the measurement beyond those before its worker: of all its group.
        pub nvml_used_bytes: Option<u64>,
        /// Most bytes the driver lists for the worker during the measurement: of all its group.
        pub nvml_process_bytes: Option<u64>,
        /// Useful floating-point operations of the scope, by the cost model.
        pub flops: Option<u64>,
        /// The least bytes the scope must read and write, by the cost model.
        pub bytes_moved: Option<u64>,
        /// Bytes per second: `bytes_moved` over the median time.
        pub achieved_bytes_per_s: Option<f64>,
        /// Bytes per second: the read bandwidth measured on this device in this run.
        pub ceiling_bytes_per_s: Option<f64>,
        /// Operations per second: `flops` over the median time.
        pub achieved_flops_per_s: Option<f64>,
        /// Operations per second: the matrix product rate measured on this device in this run.
        pub ceiling_flops_per_s: Option<f64>,
        /// `achieved_bytes_per_s` over its ceiling. Above 1 where the data fit the caches: the ceiling is memory's.
        pub bandwidth_fraction: Option<f64>,
        /// `achieved_flops_per_s` over its ceiling.
        pub flops_fraction: Option<f64>,
        /// The roofline floor, in seconds: the larger of `bytes_moved` and `flops` over their ceilings.
        pub floor_s: Option<f64>,
        /// Median time over `floor_s`.
        pub time_over_floor: Option<f64>,
        /// Cost of handing work to the device, in seconds, as measured in this run.
        pub launch_overhead_s: Option<f64>,
        /// Joules the GPU takes for what `time_*` is the time of (a step or a sample), idle power included.
        pub energy_j: Option<f64>,
        /// `energy_j` over the tokens of all sequences that it was spent on, in joules.
        pub energy_per_token_j: Option<f64>,
        /// How long the case ran alone while the GPU counted its energy, in seconds.
        pub energy_window_s: Option<f64>,
        /// Power of the GPU on average in that window, in watts.
        pub energy_power_w: Option<f64>,
        /// Power of the GPU before the group, while nothing ran, in watts.
        pub idle_power_w: Option<f64>,
        /// Why columns are null, as JSON: column name to reason.
        pub null_reasons: String,
        /// Cache bytes the plan predicted.
        pub predicted_kv_bytes: Option<u64>,
        /// Peak bytes the plan predicted.
        pub predicted_peak_bytes: Option<u64>,
        /// Time the plan predicted for the whole case, in seconds.
        pub predicted_time_s: Option<f64>,
        /// When the case began, RFC 3339 in UTC.
        pub started_at: Option<String>,
        /// Threads used for computing.
        pub threads: Option<u64>,
        /// Instruction set level of attention kernels, of matrix products, of all other code, and of the processor.
        pub cpu_level: Option<String>,
        /// Commit the binary was built from.
        pub commit: Option<String>,
        /// Whether the sources differed from that commit.
        pub dirty: Option<bool>,
        /// Compiler the binary was built with.
        pub toolchain: Option<String>,
        /// Profile the binary was built in: `release` or `debug`.
        pub build_profile: Option<String>,
        /// Model of the processor.
        pub machine: Option<String>,
        /// Hash of the processor, its cores, the memory and the system: times of different ones do not compare.
        pub fingerprint: Option<String>,
        /// Operating system and kernel.
        pub os: Option<String>,
        /// Memory of the machine, in bytes.
        pub memory_total_bytes: Option<u64>,
        /// Model of the GPU.
        pub gpu: Option<String>,
        /// Version of the GPU's driver.
        pub driver: Option<String>,
        /// Clocks of the GPU during the measurement, as JSON, in MHz: lowest, median and highest of each.
        pub clocks: Option<String>,
        /// Median clock of the GPU's multiprocessors during the measurement, in MHz.
        pub gpu_sm_mhz_median: Option<f64>,
        /// Lowest clock of the GPU's multiprocessors during the measurement, in MHz.
        pub gpu_sm_mhz_min: Option<f64>,
        /// Median clock of the GPU's memory during the measurement, in MHz.
        pub gpu_memory_mhz_median: Option<f64>,
        /// Lowest clock of the GPU's memory during the measurement, in MHz.
        pub gpu_memory_mhz_min: Option<f64>,
        /// Mean power of the GPU while the cases of the group took turns, in watts.
        pub gpu_power_w_mean: Option<f64>,
        /// Highest power of the GPU while the cases of the group took turns, in watts.
        pub gpu_power_w_max: Option<f64>,
        /// Temperature of the GPU at its hottest during the measurement, in degrees Celsius.
        pub gpu_temperature_c: Option<f64>,
        /// What lowered the GPU's clocks during the measurement, as JSON: reason to part of the readings.
        pub gpu_throttle: Option<String>,
        /// Processes of others with work on the GPU during the measurement.
        pub gpu_foreign_processes: Option<u64>,
        /// Clock of the processor before the case, in MHz.
        pub cpu_mhz_start: Option<f64>,
        /// Clock of the processor after the case, in MHz.
        pub cpu_mhz_end: Option<f64>,
        /// Load average of the last minute before the case.
        pub load_1m_start: Option<f64>,
        /// Temperature of the processor at its hottest during the measurement, in degrees Celsius.
        pub cpu_temperature_c: Option<f64>,
        /// Part of the processors' time that other processes took during the measurement.
        pub other_cpu_fraction: Option<f64>,
        /// Part of the processors' time that the hypervisor gave to other machines during the measurement.
        pub stolen_cpu_fraction: Option<f64>,
        /// Usual speed of a fixed chain of operations during the measurement, over the fastest seen in this run.
        pub clock_ratio: Option<f64>,
        /// Times the processor throttled itself during the measurement.
        pub throttle_events: Option<u64>,
        /// Hash of the executable that measured.
        pub binary: Option<String>,
        /// Settings of the measurement, as JSON.
        pub measure: Option<String>,
        /// Shared by the two runs of `run --against`, whose samples of one round are neighbours in time.
        pub pair: Option<String>,
        /// Fault that a test planted in the worker.
        pub planted: Option<String>,
    }
}

table! {
    /// One timed sample of a case.
    pub struct Sample {
        /// The case's hash.
        pub case_id: String,
        /// Number of the sample in its case.
        pub index: u64,
        /// Time, in seconds (of one step for `decode`).
        pub time_s: f64,
        /// When it began, in seconds since the run did.
        pub started_at_s: f64,
        /// Round of the group in which it was taken: variants take turns within a round.
        pub round: u64,
        /// Number of the replica in which it was taken.
        pub replica: Option<u64>,
        /// Whether it lies beyond 3 interquartile ranges from the quartiles.
        pub outlier: bool,
    }
}

table! {
    /// One position of a trajectory: a token generated, and what it cost.
    pub struct Position {
        /// The case's hash.
        pub case_id: String,
        /// Tokens in the cache once this one is.
        pub position: u64,
        /// Samples.
        pub n_samples: u64,
        /// Median time of the step, in seconds.
        pub time_median_s: f64,
        /// Lower end of the 95 % bootstrap interval of the median, in seconds.
        pub time_ci_low_s: f64,
        /// Upper end of the 95 % bootstrap interval of the median, in seconds.
        pub time_ci_high_s: f64,
        /// Bytes of the cache after the step, by the closed formula.
        pub kv_bytes: u64,
        /// The least bytes the step must read and write, by the cost model.
        pub bytes_moved: u64,
        /// Whether the step completes a slot of the cache.
        pub closes_slot: bool,
    }
}

table! {
    /// One training of a case: one seed.
    pub struct Training {
        /// The case's hash.
        pub case_id: String,
        /// Seed of weights and order of the data.
        pub seed: u64,
        /// Updates done.
        pub steps: u64,
        /// The update at which a loss or gradient was not finite.
        pub diverged_at: Option<u64>,
        /// The task's measure on the test, through the cache.
        pub quality: Option<f64>,
        /// Loss of the test in nats an answer.
        pub test_nats: Option<f64>,
        /// Share of the test's answers that are the most likely token.
        pub test_accuracy: Option<f64>,
        /// Share of them that are chosen alike through the cache and in one pass.
        pub cache_agreement: Option<f64>,
        /// Time with evaluations, in seconds.
        pub train_time_s: f64,
        /// Median time of an update, in seconds.
        pub train_step_s: Option<f64>,
        /// Most bytes held at once during an update.
        pub peak_bytes: Option<u64>,
    }
}

table! {
    /// A point of a training's curve.
    pub struct CurvePoint {
        /// The case's hash.
        pub case_id: String,
        /// Seed of the training.
        pub seed: u64,
        /// Updates before it.
        pub step: u64,
        /// Mean loss of the updates since the point before, in nats an answer, label smoothing included.
        pub train_loss: f64,
        /// Loss on the validation part, in nats an answer.
        pub valid_nats: f64,
        /// Share of its answers that are the most likely token.
        pub valid_accuracy: f64,
        /// Largest norm of the gradients since the point before.
        pub grad_norm: f64,
    }
}

/// The lowest loss on the validation part that each seed came to, mean over seeds.
pub(crate) fn valid_nats<'a>(curves: impl IntoIterator<Item = &'a CurvePoint>) -> Option<f64> {
    let mut lowest: BTreeMap<u64, f64> = BTreeMap::new();
    for point in curves {
        let nats = lowest.entry(point.seed).or_insert(f64::INFINITY);
        *nats = nats.min(point.valid_nats);
    }
    (!lowest.is_empty()).then(|| lowest.values().sum::<f64>() / lowest.len() as f64)
}

table! {
    /// Answers of a test at one place of the task's own axes.
    pub struct Probe {
        /// The case's hash.
        pub case_id: String,
        /// Seed of the training.
        pub seed: u64,
        /// Tokens from what is asked for to the question.
        pub distance: u64,
        /// Things that were to be remembered meanwhile.
        pub load: u64,
        /// Share of the answers that are the most likely token.
        pub accuracy: f64,
        /// Answers.
        pub answers: u64,
    }
}

/// What belongs to a row and is stored in tables of its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    /// Timed samples.
    pub samples: Vec<Sample>,
    /// Positions of a trajectory.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub positions: Vec<Position>,
    /// Trainings, one a seed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trainings: Vec<Training>,
    /// Their curves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub curves: Vec<CurvePoint>,
    /// Their tests' answers by place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<Probe>,
}

impl Details {
    /// Those of a case that was sampled.
    pub fn of_samples(samples: Vec<Sample>) -> Self {
        Self {
            samples,
            ..Self::default()
        }
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.samples.extend(other.samples);
        self.positions.extend(other.positions);
        self.trainings.extend(other.trainings);
        self.curves.extend(other.curves);
        self.probes.extend(other.probes);
    }
}

impl Row {
    /// Whether the case was measured.
    pub fn is_ok(&self) -> bool {
        self.status == Status::Ok
    }

    /// Whether nothing weakens the measurement.
    pub fn is_clean(&self) -> bool {
        self.trust.is_none_or(|trust| trust == Trust::Clean)
    }

    /// Fills the columns of the variant's settings, and `params` with all of them.
    pub fn set_params(&mut self, params: &Params) {
        self.params = to_json(&params.0);
        macro_rules! fill {
            ($convert:ident: $($field:ident),+) => {
                $(self.$field = params.0.get(stringify!($field)).and_then($convert);)+
            };
        }
        fill!(count: n_kv_heads, kv_rank, q_rank, rope_dim, nope_dim, v_dim, stride, hyper_rank);
        fill!(flag: bias);
        fill!(real: rope_theta, norm_eps);
        fill!(word: norm, merge, rope_key, train_mask);
    }

    /// Fills the columns of the times.
    pub fn set_times(&mut self, summary: &Summary) {
        self.time_median_s = Some(summary.median);
        self.time_ci_low_s = Some(summary.ci.low);
        self.time_ci_high_s = Some(summary.ci.high);
        self.time_iqr_s = Some(summary.iqr);
        self.time_mean_s = Some(summary.mean);
        self.time_min_s = Some(summary.min);
        self.n_samples = Some(summary.n as u64);
        self.n_outliers = Some(summary.n_outliers as u64);
    }

    /// Says why a column is null.
    pub fn explain_null(&mut self, column: &'static str, reason: impl Into<String>) {
        debug_assert!(
            Self::columns().iter().any(|known| known.name == column),
            "no column `{column}`"
        );
        let mut reasons = self.null_reasons();
        reasons.insert(column.to_string(), reason.into());
        self.null_reasons = to_json(&reasons);
    }

    /// Says why several columns are null; a reason that is known already stays.
    pub fn explain_nulls(&mut self, reasons: &[(&'static str, &str)]) {
        let mut known = self.null_reasons();
        for (column, reason) in reasons {
            known
                .entry(column.to_string())
                .or_insert_with(|| reason.to_string());
        }
        self.null_reasons = to_json(&known);
    }

    /// Why columns are null: column name to reason.
    pub fn null_reasons(&self) -> BTreeMap<String, String> {
        serde_json::from_str(&self.null_reasons).unwrap_or_default()
    }
}

fn count(value: &ParamValue) -> Option<u64> {
    if let ParamValue::Int(value) = value {
        Some(*value)
    } else {
        None
    }
}

fn flag(value: &ParamValue) -> Option<bool> {
    if let ParamValue::Bool(value) = value {
        Some(*value)
    } else {
        None
    }
}

fn real(value: &ParamValue) -> Option<f64> {
    match value {
        ParamValue::Int(value) => Some(*value as f64),
        ParamValue::Float(value) => Some(*value),
        _ => None,
    }
}

fn word(value: &ParamValue) -> Option<String> {
    Some(value.to_string())
}

/// JSON of a map with text keys, which cannot fail.
fn to_json<V: Serialize>(map: &BTreeMap<String, V>) -> String {
    serde_json::to_string(map).unwrap_or_default()
}
