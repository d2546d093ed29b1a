//! A sweep expanded to cases, checked and predicted. No tensor is made: geometry and closed forms suffice.
//!
//! What can never run is bad input, and all of it is reported at once. What could run elsewhere stays in the
//! plan with its reason.

mod axes;
mod checks;
mod decoder_memory;
mod dominance;
mod fair;
mod filter;
mod labels;
mod predict;
mod quality;
mod shard;
mod spec;
mod task;
mod totals;
mod variants;
mod whole;
mod workloads;

use std::path::PathBuf;

use attn_core::{
    Cost, Geometry, Habits, ModelDims, ModelShape, Params, Path, Prefix, Scope, Variant, Workload,
};
use serde::Serialize;

use crate::device::{DeviceError, Resolved};
use crate::error::Error;
use crate::locate::KeyPath;
use crate::sweep::{DeviceRequest, Dtype, Launch, Measure, Regime, Sweep, SweepFile};

pub use dominance::dominates;
pub use fair::Fair;
pub use filter::Filter;
pub use predict::Rates;
use predict::memory_bytes;
pub use quality::{QUALITY, QUALITY_SETTINGS, QUALITY_SUMMARY, Quality, Training};
pub use shard::{Part, Shard};
pub use spec::{SizeSpec, WORKLOADS, WorkloadSpec};
pub use task::{ShardRequest, Which};
pub use totals::{NOTABLE_MISMATCH, Totals};
use whole::Way;

/// A mistyped axis multiplies quickly; no one waits for more cases than these.
pub const MAX_CASES: u128 = 1_000_000;

/// Enough for one screen; the rest shows once these are mended.
const MAX_PROBLEMS: usize = 20;

/// What a plan depends on beside the sweep.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// The variants there are.
    pub variants: &'a [&'static Variant],
    /// Names of the figures there are.
    pub figures: &'a [&'a str],
    /// Memory of the machine, where it is known: more is predicted not to fit, unless `measure.memory_limit` says
    /// another amount.
    pub memory_bytes: Option<u64>,
    /// What the machine can do, for floors and times.
    pub rates: Rates,
    /// Finds the device that a request means; what is missing for it is the reason why cases do not run here.
    pub device: fn(DeviceRequest) -> Result<Resolved, DeviceError>,
}

/// One variant at one point: what is verified, measured and stored as a row.
#[derive(Debug, Clone, Serialize)]
pub struct Case {
    /// 16 hex digits over all that defines the case; how long it is measured does not.
    #[serde(rename = "case_id")]
    pub id: String,
    /// Cases of one group are comparable, and take turns: they differ in the variant alone, whole decoders also in habits
    /// or in where the prefix is.
    pub group: usize,
    /// Cases of one unit are never in different shards: a group, or several that are one where memory holds them all.
    #[serde(skip)]
    pub(super) unit: usize,
    /// The variant.
    #[serde(serialize_with = "variant_key")]
    pub variant: &'static Variant,
    /// Name in tables and figures.
    pub label: String,
    /// The variant's settings, those that were given.
    pub params: Params,
    /// Sizes all variants share.
    #[serde(flatten)]
    pub dims: ModelDims,
    /// Workload and its sizes.
    pub workload: Workload,
    /// What is measured.
    pub scope: Scope,
    /// Sizes of the decoder around the layer, in scope `model`.
    #[serde(flatten)]
    pub model: Option<ModelShape>,
    /// Formulation asked for.
    pub path: Path,
    /// Element type asked for.
    pub dtype: Dtype,
    /// What of the seed's habits the case has; `None` on path fused.
    pub habits: Option<Habits>,
    /// Where a beam search keeps the prefix of its hypotheses; `None` for what searches nothing.
    pub prefix: Option<Prefix>,
    /// Device asked for.
    pub device: DeviceRequest,
    /// What the caches hold when a sample begins.
    pub regime: Regime,
    /// How a step gets to a GPU; `None` where that is no question, off GPUs and for what has no steps of their own.
    pub launch: Option<Launch>,
    /// Seed of weights, inputs and cache contents.
    pub seed: u64,
    /// Sizes of the layer.
    pub geometry: Geometry,
    /// Useful operations and least bytes of one run (one step, for `decode`).
    #[serde(flatten)]
    pub cost: Cost,
    /// Consecutive steps of a sample: for `decode` the least common multiple of the group's strides, so that
    /// every variant closes whole slots; else 1.
    pub steps_per_sample: usize,
    /// Tokens the cache must hold per sequence.
    pub cache_capacity: usize,
    /// The papers' cache formula at the tokens the workload ends with.
    pub kv_bytes: u64,
    /// The same formula at the capacity.
    pub kv_capacity_bytes: u64,
    /// Weights of the layer.
    pub weights_bytes: u64,
    /// Estimated peak of memory.
    pub predicted_peak_bytes: u64,
    /// Roofline floor of one run (one step, for `decode`) at the rates of the plan's setup, in seconds.
    pub predicted_floor_s: f64,
    /// Estimated time at most: verifying, warm-up and samples, with replicas and their pauses.
    pub predicted_time_s: f64,
    /// Why the case cannot run here, where it cannot.
    pub unsupported: Option<String>,
    /// Whether there is such a case on any machine.
    #[serde(skip)]
    pub(super) is_defined: bool,
    /// Whether the estimated peak is more than the machine or `measure.memory_limit` has.
    pub predicted_oom: bool,
    /// Id of a smaller case that is predicted not to fit either ([`dominates`]).
    pub dominated_by: Option<String>,
    /// What the variant was matched to, where the sweep says.
    pub fair: Option<Fair>,
    /// What is trained and how, for the workload `quality`; then [`workload`](Self::workload) is an update.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality: Option<Box<Quality>>,
}

fn variant_key<S: serde::Serializer>(variant: &&'static Variant, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(variant.key)
}

/// A sweep, ready to run.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// Name of the sweep.
    pub name: String,
    /// The question it asks.
    pub question: String,
    /// Device asked for.
    pub device: DeviceRequest,
    /// The cases, those of one group beside each other.
    pub cases: Vec<Case>,
    /// How long and how precisely to measure.
    pub measure: Measure,
    /// What the floors and times were predicted with.
    pub rates: Rates,
    /// Seed of the sweep; `measure.seed` is the same where it was not given.
    pub seed: u64,
    /// Figures to draw, by name.
    pub figures: Vec<String>,
    /// Points that were given more than once and are measured once: scenarios on the grid, and variants that became
    /// the same when they were matched.
    pub duplicates_removed: usize,
    /// The sweep as it runs, overrides applied.
    #[serde(skip)]
    pub sweep_yaml: String,
    /// Where relative paths of the sweep begin.
    #[serde(skip)]
    pub base: PathBuf,
}

impl Plan {
    /// Checks `sweep` and expands it.
    ///
    /// # Errors
    /// [`Error::Sweep`] with every problem found.
    pub fn build(sweep: &Sweep, setup: &Setup<'_>) -> Result<Self, Error> {
        let (file, source) = (&sweep.file, &sweep.source);
        let mut found = sweep.problems.clone();
        checks::check_name(sweep, &mut found);
        checks::check_measure(sweep, &mut found);
        let figures = checks::check_figures(sweep, setup, &mut found);
        axes::check(
            source,
            &KeyPath::of("paths"),
            &file.paths,
            |path| path.name().to_string(),
            &mut found,
        );
        axes::check(
            source,
            &KeyPath::of("scopes"),
            &file.scopes,
            |scope| scope.name().to_string(),
            &mut found,
        );
        axes::check(
            source,
            &KeyPath::of("regimes"),
            &file.regimes,
            |regime| regime.name().to_string(),
            &mut found,
        );
        axes::check(
            source,
            &KeyPath::of("launches"),
            &file.launches,
            |launch| launch.name().to_string(),
            &mut found,
        );
        let dtypes = checks::dtypes(sweep, &mut found);
        whole::check(sweep, &mut found);
        let model = whole::shape(sweep, &mut found);

        axes::check_count(sweep, dtypes.values.len(), &mut found);
        if found.iter().any(|problem| problem.message.contains("cases")) {
            return Err(source.error(found));
        }
        let (workloads, mut duplicates_removed) = workloads::expand(sweep, &mut found);
        let trainings = quality::expand(sweep, &mut found);
        if trainings.is_empty() || !workloads.is_empty() {
            whole::check_scopes(sweep, &workloads, model.as_ref(), &mut found);
        }
        let variants = variants::expand(sweep, setup.variants, &mut found);
        let steps = workloads::steps_per_sample(source, &workloads, &variants, &mut found);
        // What is wrong already would be wrong at every workload.
        let mut matched = fair::Matched::new(sweep, &variants);
        let mut groups = Vec::with_capacity(workloads.len());
        if found.is_empty() {
            for point in &workloads {
                let variants = matched.at(point, &mut found);
                predict::check_magnitude(source, point, &variants, model.as_ref(), &mut found);
                if found.len() > MAX_PROBLEMS {
                    break;
                }
                groups.push((point, variants));
            }
        }
        let mut trained = Vec::with_capacity(trainings.len());
        if found.is_empty() {
            for point in &trainings {
                let variants = matched.at(&point.at, &mut found);
                predict::check_magnitude(source, &point.at, &variants, None, &mut found);
                trained.push((point, variants));
            }
        }
        duplicates_removed += matched.n_equal;
        if !found.is_empty() {
            return Err(source.error(found));
        }

        let mut cases: Vec<Case> = Vec::new();
        let mut group = 0;
        for (point, variants) in groups {
            let has = point.workload.scopes();
            for &scope in file.scopes.values.iter().filter(|scope| has.contains(scope)) {
                for family in whole::ways(file, &dtypes.values, &point.workload) {
                    let regimes = file.regimes.values.iter();
                    for (&regime, launch) in regimes.flat_map(|regime| {
                        let launches = launches(file, &point.workload);
                        launches.into_iter().map(move |launch| (regime, launch))
                    }) {
                        let of_way = |way: &Way| {
                            let shared = predict::Shared {
                                group,
                                workload: point.workload,
                                scope,
                                model: model.filter(|_| scope == Scope::Model),
                                way: *way,
                                device: file.device,
                                regime,
                                launch,
                                seed: file.seed,
                                steps_per_sample: if point.workload.name() == "decode" {
                                    steps
                                } else {
                                    1
                                },
                            };
                            let of_variant = |v| shared.case(v, &file.measure, setup);
                            variants.iter().map(of_variant).collect::<Vec<_>>()
                        };
                        let mut ways: Vec<Vec<Case>> = family.iter().map(of_way).collect();
                        group += number(&mut ways, group, memory_bytes(&file.measure, setup));
                        cases.extend(ways.into_iter().flatten());
                    }
                }
            }
        }
        for (point, variants) in trained {
            let more = point.cases(sweep, &variants, &dtypes, setup, group, &mut found);
            group += more.len();
            cases.extend(more);
        }
        if !found.is_empty() {
            return Err(source.error(found));
        }
        dominance::mark(&mut cases);
        let measure = Measure {
            seed: Some(file.measure.seed.unwrap_or(file.seed)),
            ..file.measure.clone()
        };
        Ok(Self {
            name: file.name.clone(),
            question: file.question.clone(),
            device: file.device,
            cases,
            measure,
            rates: setup.rates,
            seed: file.seed,
            figures,
            duplicates_removed,
            sweep_yaml: source.yaml.clone(),
            base: quality::base(sweep).to_path_buf(),
        })
    }

    /// The cases group by group.
    pub fn groups(&self) -> impl Iterator<Item = &[Case]> {
        self.cases.chunk_by(|a, b| a.group == b.group)
    }

    /// Estimated time of the whole plan; cases that will not run take none.
    pub fn predicted_time_s(&self) -> f64 {
        self.cases
            .iter()
            .filter(|case| case.runs_here())
            .map(Case::predicted_part_s)
            .fold(0.0, |sum, time_s| sum + time_s)
    }
}

/// Numbers the groups and units of ways that differ in habits or prefix alone, from `first` on, and says how many groups
/// they are. Whole decoders are one, so that what the machine does falls on all of them alike, where half of the memory holds them all.
fn number(ways: &mut [Vec<Case>], first: usize, memory_bytes: Option<u64>) -> usize {
    let is_whole = ways.iter().flatten().all(|case| case.scope == Scope::Model);
    for (i, way) in ways.iter_mut().enumerate() {
        let unit = if is_whole { first } else { first + i };
        way.iter_mut().for_each(|case| case.unit = unit);
    }
    let all = || ways.iter().flatten();
    let needed = all().fold(0_u64, |sum, case| sum.saturating_add(case.predicted_peak_bytes));
    if is_whole && memory_bytes.is_none_or(|memory| needed <= memory / 2) {
        return 1;
    }
    for (i, way) in ways.iter_mut().enumerate() {
        way.iter_mut().for_each(|case| case.group = first + i);
    }
    ways.len()
}

/// The ways in which a workload's steps are launched; one that is none where there is nothing to choose.
fn launches(file: &SweepFile, workload: &Workload) -> Vec<Option<Launch>> {
    let has_steps = matches!(workload, Workload::Decode { .. } | Workload::Trajectory { .. });
    if !has_steps || file.device == DeviceRequest::Cpu {
        return vec![None];
    }
    file.launches.values.iter().copied().map(Some).collect()
}

impl Case {
    /// Name of the workload in rows.
    pub fn workload_name(&self) -> &'static str {
        match &self.quality {
            Some(_) => QUALITY,
            None => self.workload.name(),
        }
    }

    /// Estimated part of its plan's time: trainings run beside each other.
    fn predicted_part_s(&self) -> f64 {
        let beside = self
            .quality
            .as_ref()
            .map(|quality| quality.beside_each_other(self.device));
        self.predicted_time_s / beside.unwrap_or(1) as f64
    }

    /// Whether nothing is known that keeps the case from running.
    pub fn runs_here(&self) -> bool {
        self.unsupported.is_none() && !self.predicted_oom
    }
}
