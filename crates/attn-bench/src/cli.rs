//! The command line, as `--help` shows it.
#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::invalid_html_tags,
    reason = "the comments of arguments are help texts, not Markdown"
)]

use std::path::PathBuf;

use attn_harness::DeviceRequest;
use attn_harness::device::DeviceList;
use attn_harness::plan::ShardRequest;
use attn_harness::sweep::ByteCount;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Compares attention variants fairly: what does each cost in time and memory at the same workload, with
/// kernels of the same quality, and how sure are we?
#[derive(Debug, Parser)]
#[command(
    name = "attn-bench",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  attn-bench plan experiments/quick.yaml            what would be run, and what it would need
  attn-bench run experiments/quick.yaml             run it; results/ and plots/ receive the outcome
  attn-bench list variants                          the variants and their settings

Exit codes:
  0 done, 1 a check failed, 2 bad input, 3 some cases failed, 4 the machine failed the run,
  130 interrupted"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a sweep and draw its figures
    Run(RunArgs),
    /// Hand a sweep to Slurm or HyperQueue as a job array, one shard a task
    Submit(SubmitArgs),
    /// Say how far runs are, and every shard of what was submitted
    Status(StatusArgs),
    /// Join the shards of a sweep to one run, finished or not
    Merge(MergeArgs),
    /// Show the cases of a sweep with their predicted memory and time; runs nothing
    Plan(PlanArgs),
    /// Say which contexts and batches fit in some memory, for every variant of a sweep
    Capacity(CapacityArgs),
    /// Draw the figures of stored runs again
    Plot(PlotArgs),
    /// Write one page of HTML about stored runs: findings, figures, rows, environment
    Report(ReportArgs),
    /// Print the summary table of stored runs again
    Show(ShowArgs),
    /// Write the rows of stored runs for other tools
    Export(ExportArgs),
    /// Say case by case whether a run got slower or faster than another
    Compare(CompareArgs),
    /// Compare every variant with the reference
    Verify(VerifyArgs),
    /// List variants, workloads, axes, figures or metrics
    List(ListArgs),
    /// Say what this build can compute on here, what is missing, and how to mend it
    Doctor(DoctorArgs),
    /// Print the JSON schema of sweep files
    #[command(after_help = "\
Examples:
  attn-bench schema > sweep.schema.json
  # and as the first line of a sweep, for editors with a YAML language server:
  # yaml-language-server: $schema=../sweep.schema.json")]
    Schema,
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Write manual pages, one for the program and one for each command
    Man(ManArgs),
    /// Serve a runner; started by `run` and of no use otherwise
    #[command(hide = true)]
    Worker(WorkerArgs),
}

/// A sweep, and changes to it.
#[derive(Debug, Args)]
pub struct SweepArgs {
    /// Sweep file (experiments/ has some)
    pub file: PathBuf,
    /// Device to run on instead of the sweep's: cpu, cuda, cuda:N or auto
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceRequest>,
    /// Keep the cases for which all conditions hold: variant=mtla,batch=1,context>=2048
    #[arg(long, value_name = "EXPR")]
    pub filter: Option<String>,
    /// Replace a value of the sweep: model.d_model=1024, variants.mtla.stride=[2,4] (may be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Keep part I of N, whole groups of comparable cases, about equal in time; `auto` or `auto/N` asks the environment
    /// of Slurm, HyperQueue or Kubernetes which part
    #[arg(long, value_name = "I/N")]
    pub shard: Option<ShardRequest>,
}

/// How tables are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table for people
    #[default]
    Table,
    /// JSON for programs, numbers in base units
    Json,
}

/// How tables are printed.
#[derive(Debug, Args)]
pub struct FormatArgs {
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attn-bench run experiments/quick.yaml
  attn-bench run experiments/quick.yaml --out results/mine --filter variant=mla,workload=decode
  attn-bench run experiments/compression.yaml --set 'variants.mtla.stride=[2,8]'
  attn-bench run experiments/quick.yaml --out results/mine --resume
  attn-bench run experiments/quick.yaml --devices cuda:0,cuda:1 --set measure.energy_s=3
  attn-bench run experiments/quick.yaml --against ../before/target/release/attn-bench --gate

A case that runs out of memory, crashes or hangs becomes a row that says so, and the sweep goes on.")]
pub struct RunArgs {
    /// The sweep.
    #[command(flatten)]
    pub sweep: SweepArgs,
    /// GPUs that share the sweep, as in cuda:0,cuda:1: each measures a group at a time
    #[arg(long, value_name = "LIST", conflicts_with = "device")]
    pub devices: Option<DeviceList>,
    /// The run's own folder; must not exist [default: results/<name>-<utc time>-<machine>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Continue the interrupted run in --out: cases that have a row are not run again
    #[arg(long, requires = "out")]
    pub resume: bool,
    /// With --resume: begin the run where there is none yet, and wait where its last runner has only just died, so that
    /// one command serves every start of a task
    #[arg(long, requires = "resume")]
    pub or_begin: bool,
    /// Continue although sweep, build or machine have changed, or the machine alone; the change goes on record
    #[arg(long, requires = "resume", value_enum, value_name = "WHAT", num_args = 0..=1, require_equals = true, default_missing_value = "all")]
    pub accept_changes: Option<Accepted>,
    /// Draw no figures; `plot` draws them later
    #[arg(long)]
    pub no_figures: bool,
    /// Measure every case with this other build of attn-bench too, in turns sample by sample, and compare; its run goes
    /// to base/ in --out
    #[arg(long, value_name = "BINARY", conflicts_with = "resume")]
    pub against: Option<PathBuf>,
    /// Exit with 1 where this build is slower than the other, or fails where the other does not
    #[arg(long, requires = "against")]
    pub gate: bool,
}

/// What may have changed when a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Accepted {
    /// Sweep, build and machine
    All,
    /// The machine
    Machine,
}

/// Arguments of `worker`.
#[derive(Debug, Args)]
pub struct WorkerArgs {
    /// Where to note what it does
    pub slate: PathBuf,
    /// Process of the runner
    pub runner: u32,
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attn-bench plan experiments/quick.yaml
  attn-bench plan experiments/quick.yaml --filter workload=decode,batch=1
  attn-bench plan experiments/quick.yaml --format json
  attn-bench plan experiments/quick.yaml --out results/mine

Peak memory, floor and time are estimates; cache, weights and FLOPs are exact.")]
pub struct PlanArgs {
    /// The sweep.
    #[command(flatten)]
    pub sweep: SweepArgs,
    /// A run of the sweep: say how many cases it has stored, and what is left
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// How to print.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// Arguments of `submit`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attn-bench submit experiments/quick.yaml --slurm --dry-run
  attn-bench submit sweep.yaml --slurm --array 16 --gres gpu:1 --cpus-per-task 8 --time 02:00:00
  attn-bench submit sweep.yaml --slurm --partition gpu --account me --sbatch-option=--constraint=h100
  attn-bench submit sweep.yaml --hq --array 16 --gres gpu:1

The run's folder gets the scripts, the sweep, the tasks' output, and shards/1, shards/2, ... Every task can be killed and
started again at any time: it goes on from what is stored. A last job merges the shards.")]
#[command(group = clap::ArgGroup::new("scheduler").required(true).args(["slurm", "hq"]))]
pub struct SubmitArgs {
    /// Sweep file (experiments/ has some)
    pub file: PathBuf,
    /// Submit to Slurm, by its sbatch
    #[arg(long)]
    pub slurm: bool,
    /// Submit to HyperQueue, by its hq
    #[arg(long)]
    pub hq: bool,
    /// Shards, a task each [default: one for every 10 minutes of predicted time, at most 256]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub array: Option<u32>,
    /// Tasks that run at the same time, at most
    #[arg(long, value_name = "N", conflicts_with = "hq", value_parser = clap::value_parser!(u32).range(1..))]
    pub at_once: Option<u32>,
    /// The run's own folder, which every node must see; must not exist [default: results/<name>-<utc time>-<scheduler>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Generic resources of a task, as in gpu:1
    #[arg(long, value_name = "LIST")]
    pub gres: Option<String>,
    /// Time limit of a task, as in 90 (minutes) or 02:00:00; with Slurm, a task that reaches it goes on in a new one
    #[arg(long, value_name = "TIME")]
    pub time: Option<String>,
    /// Processors of a task
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub cpus_per_task: Option<u32>,
    /// Memory of a task, as in 32G
    #[arg(long, value_name = "SIZE", conflicts_with = "hq")]
    pub mem: Option<String>,
    /// Partition
    #[arg(long, value_name = "NAME", conflicts_with = "hq")]
    pub partition: Option<String>,
    /// Account
    #[arg(long, value_name = "NAME", conflicts_with = "hq")]
    pub account: Option<String>,
    /// Another option of sbatch for both jobs, as in --sbatch-option=--constraint=h100 (may be repeated)
    #[arg(
        long,
        value_name = "OPTION",
        conflicts_with = "hq",
        allow_hyphen_values = true
    )]
    pub sbatch_option: Vec<String>,
    /// Refuse to go on with a shard on another machine than it was begun on
    #[arg(long)]
    pub same_machine: bool,
    /// Print what would be submitted; write and submit nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Device to run on instead of the sweep's: cpu, cuda, cuda:N or auto
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceRequest>,
    /// Keep the cases for which all conditions hold: variant=mtla,batch=1,context>=2048
    #[arg(long, value_name = "EXPR")]
    pub filter: Option<String>,
    /// Replace a value of the sweep: model.d_model=1024, variants.mtla.stride=[2,4] (may be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attn-bench status results/mine
  attn-bench status results/shards/1 results/shards/2
  attn-bench status results/mine --format json

A shard is done, running (a runner has its log), stopped (begun, and nobody is at work on it) or waiting.")]
pub struct StatusArgs {
    /// Folders of runs, of shards, or of what was submitted
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// How to print.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// Arguments of `merge`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attn-bench merge results/mine --out results/mine/merged
  attn-bench merge shard-1 shard-2 shard-3 --out results/whole

Works while shards still run: merge again later into the same folder. A case that several runs have is kept once: a row
that is ok goes before one that is not, else the run named first. Exits with 3 where cases are missing.")]
pub struct MergeArgs {
    /// Folders of runs of one sweep, or of what was submitted
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// The merged run's folder; must not exist, or be an earlier merge, which is replaced
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Arguments of `capacity`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attn-bench capacity experiments/quick.yaml --memory 8GiB
  attn-bench capacity experiments/quick.yaml --memory 40GiB --layers 32
  attn-bench capacity experiments/quick.yaml --memory 512MiB --verify

Batches and contexts are those of the sweep. Exits with 1 where an allocated cache is not what was predicted.")]
pub struct CapacityArgs {
    /// The sweep.
    #[command(flatten)]
    pub sweep: SweepArgs,
    /// Memory for weights, cache and state: bytes, or a number with a unit
    #[arg(long, value_name = "SIZE")]
    pub memory: ByteCount,
    /// Layers that share the memory
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub layers: u32,
    /// Allocate the cache of one layer at each limit, and one step beyond
    #[arg(long)]
    pub verify: bool,
    /// How to print.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// Arguments of `plot`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attn-bench plot results/quick-2cores
  attn-bench plot results/a results/b --out plots/a-and-b")]
pub struct PlotArgs {
    /// Folders of runs
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// Folder for the figures [default: plots/<run> for results/<run>, else <run>/plots]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Arguments of `report`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attn-bench report results/quick-2cores
  attn-bench report results/before results/after --out before-and-after.html

The page is one file that asks nothing of the network. Several runs stand side by side, every one
against the first. A file that is no report is not overwritten.")]
pub struct ReportArgs {
    /// Folders of runs
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// The page [default: report.html beside the figures of a run, else here; of several runs here]
    #[arg(long, value_name = "FILE.html")]
    pub out: Option<PathBuf>,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attn-bench show results/quick-2cores
  attn-bench show results/quick-2cores --filter workload=decode,batch=1 --sort time_median_s")]
pub struct ShowArgs {
    /// Folders of runs
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// Keep the rows for which all conditions hold, over any column of `list metrics`
    #[arg(long, value_name = "EXPR")]
    pub filter: Option<String>,
    /// Sort by a column of `list metrics`, smallest first, empty cells last
    #[arg(long, value_name = "COLUMN")]
    pub sort: Option<String>,
    /// How to print.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// What `export` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Comma-separated values with a header
    Csv,
    /// A JSON list of objects
    Json,
}

/// Arguments of `export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attn-bench export results/quick-2cores --format csv > quick.csv
  attn-bench export results/a results/b --format json | jq '.[].time_median_s'")]
pub struct ExportArgs {
    /// Folders of runs
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// What to write to standard output
    #[arg(long, value_enum)]
    pub format: ExportFormat,
}

/// How a comparison is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum CompareFormat {
    /// A table for people
    #[default]
    Table,
    /// Markdown for a pull request: counts and regressions, the rest folded
    Markdown,
    /// JSON for programs, numbers in base units
    Json,
}

/// Arguments of `compare`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attn-bench compare results/before results/after
  attn-bench compare results/before results/after --gate --format markdown > comment.md
  attn-bench compare results/before results/after --filter variant=mla,workload=decode

A case is SLOWER or FASTER where the difference is certain, with all cases taken into account, and
above --min-effect; SAME where a difference above it is excluded; otherwise UNCLEAR. Trainings are
compared by the qualities of the same seeds: worse, better, equal to the last digit, or open.")]
pub struct CompareArgs {
    /// Folder of the run to compare with
    #[arg(value_name = "BASE")]
    pub base: PathBuf,
    /// Folder of the run that is judged
    #[arg(value_name = "NEW")]
    pub new: PathBuf,
    /// Exit with 1 where a trusted case is SLOWER or worse, or one that was measured is not any more
    #[arg(long)]
    pub gate: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: CompareFormat,
    /// Smallest difference that matters, as a part of the time: 0.05 is 5 %
    #[arg(long, value_name = "F", default_value_t = attn_harness::compare::Rules::default().min_effect)]
    pub min_effect: f64,
    /// Compare runs of different machines, build profiles or thread counts all the same
    #[arg(long)]
    pub other_hardware: bool,
    /// Count SLOWER or worse cases that are not trusted as regressions too
    #[arg(long)]
    pub include_untrusted: bool,
    /// Keep the rows for which all conditions hold, over any column of `list metrics`
    #[arg(long, value_name = "EXPR")]
    pub filter: Option<String>,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attn-bench verify                                 the built-in suite
  attn-bench verify conformance/                    every safetensors file in a folder
  attn-bench verify saved-model/                    a model with what it is to compute
  attn-bench verify --dtype bf16 --path fused")]
pub struct VerifyArgs {
    /// Conformance files, folders of them, or of a saved model; none is the built-in suite
    #[arg(value_name = "FILE or DIR")]
    pub files: Vec<PathBuf>,
    /// Device to run on: cpu, cuda, cuda:N or auto
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: DeviceRequest,
    /// Only this element type: f32, f16 or bf16
    #[arg(long, value_name = "DTYPE")]
    pub dtype: Option<attn_harness::Dtype>,
    /// Only this path
    #[arg(long, value_enum)]
    pub path: Option<PathChoice>,
    /// How to print.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// A path, as an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PathChoice {
    /// The compact formulation
    Fused,
    /// Operation by operation as the seed's PyTorch does
    Seedlike,
}

impl From<PathChoice> for attn_core::Path {
    fn from(path: PathChoice) -> Self {
        match path {
            PathChoice::Fused => Self::Fused,
            PathChoice::Seedlike => Self::Seedlike,
        }
    }
}

/// What `list` lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Topic {
    /// Attention variants with their settings
    Variants,
    /// Workloads with their sizes
    Workloads,
    /// What else multiplies the cases: paths, scopes, cache regimes, launches, element types
    Axes,
    /// Figures that runs can be drawn as
    Figures,
    /// Columns of results
    Metrics,
}

/// Arguments of `list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attn-bench list
  attn-bench list variants
  attn-bench list metrics --format json")]
pub struct ListArgs {
    /// What to list; all of it where nothing is named
    #[arg(value_enum)]
    pub topic: Option<Topic>,
    /// How to print.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attn-bench doctor
  attn-bench doctor --device cuda
  attn-bench doctor --format json

Exits with 2 where the device cannot be used.")]
pub struct DoctorArgs {
    /// Device that is wanted: cpu, cuda, cuda:N or auto
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceRequest,
    /// How to print.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attn-bench completions bash > ~/.local/share/bash-completion/completions/attn-bench
  attn-bench completions fish > ~/.config/fish/completions/attn-bench.fish")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attn-bench man ~/.local/share/man/man1
  man attn-bench-run")]
pub struct ManArgs {
    /// Folder for the pages, made where there is none
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}
