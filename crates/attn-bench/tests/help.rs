//! What `--help` prints, and that the schema is whole.

mod common;

use common::{Place, root};
use insta::assert_snapshot;

fn help(command: &[&str]) -> String {
    Place::with("").prints(&[command, &["--help"]].concat())
}

#[test]
fn help_shows_every_command_and_the_exit_codes() {
    assert_snapshot!(help(&[]), @r#"
    Compares attention variants fairly: what does each cost in time and memory at the same workload,
    with kernels of the same quality, and how sure are we?

    Usage: attn-bench <COMMAND>

    Commands:
      run          Run a sweep and draw its figures
      submit       Hand a sweep to Slurm or HyperQueue as a job array, one shard a task
      status       Say how far runs are, and every shard of what was submitted
      merge        Join the shards of a sweep to one run, finished or not
      plan         Show the cases of a sweep with their predicted memory and time; runs nothing
      capacity     Say which contexts and batches fit in some memory, for every variant of a sweep
      plot         Draw the figures of stored runs again
      report       Write one page of HTML about stored runs: findings, figures, rows, environment
      show         Print the summary table of stored runs again
      export       Write the rows of stored runs for other tools
      compare      Say case by case whether a run got slower or faster than another
      verify       Compare every variant with the reference
      list         List variants, workloads, axes, figures or metrics
      doctor       Say what this build can compute on here, what is missing, and how to mend it
      schema       Print the JSON schema of sweep files
      completions  Print completions for a shell
      man          Write manual pages, one for the program and one for each command
      help         Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help
      -V, --version  Print version

    Examples:
      attn-bench plan experiments/quick.yaml            what would be run, and what it would need
      attn-bench run experiments/quick.yaml             run it; results/ and plots/ receive the outcome
      attn-bench list variants                          the variants and their settings

    Exit codes:
      0 done, 1 a check failed, 2 bad input, 3 some cases failed, 4 the machine failed the run,
      130 interrupted
    "#);
}

#[test]
fn help_of_commands_on_sweeps() {
    assert_snapshot!(help(&["run"]), @r#"
    Run a sweep and draw its figures

    Usage: attn-bench run [OPTIONS] <FILE>

    Arguments:
      <FILE>
              Sweep file (experiments/ has some)

    Options:
          --device <DEVICE>
              Device to run on instead of the sweep's: cpu, cuda, cuda:N or auto

          --filter <EXPR>
              Keep the cases for which all conditions hold: variant=mtla,batch=1,context>=2048

          --set <KEY=VALUE>
              Replace a value of the sweep: model.d_model=1024, variants.mtla.stride=[2,4] (may be
              repeated)

          --shard <I/N>
              Keep part I of N, whole groups of comparable cases, about equal in time; `auto` or
              `auto/N` asks the environment of Slurm, HyperQueue or Kubernetes which part

          --devices <LIST>
              GPUs that share the sweep, as in cuda:0,cuda:1: each measures a group at a time

          --out <DIR>
              The run's own folder; must not exist [default: results/<name>-<utc time>-<machine>]

          --resume
              Continue the interrupted run in --out: cases that have a row are not run again

          --or-begin
              With --resume: begin the run where there is none yet, and wait where its last runner has
              only just died, so that one command serves every start of a task

          --accept-changes[=<WHAT>]
              Continue although sweep, build or machine have changed, or the machine alone; the change
              goes on record

              Possible values:
              - all:     Sweep, build and machine
              - machine: The machine

          --no-figures
              Draw no figures; `plot` draws them later

          --against <BINARY>
              Measure every case with this other build of attn-bench too, in turns sample by sample, and
              compare; its run goes to base/ in --out

          --gate
              Exit with 1 where this build is slower than the other, or fails where the other does not

      -h, --help
              Print help (see a summary with '-h')

    Examples:
      attn-bench run experiments/quick.yaml
      attn-bench run experiments/quick.yaml --out results/mine --filter variant=mla,workload=decode
      attn-bench run experiments/compression.yaml --set 'variants.mtla.stride=[2,8]'
      attn-bench run experiments/quick.yaml --out results/mine --resume
      attn-bench run experiments/quick.yaml --devices cuda:0,cuda:1 --set measure.energy_s=3
      attn-bench run experiments/quick.yaml --against ../before/target/release/attn-bench --gate

    A case that runs out of memory, crashes or hangs becomes a row that says so, and the sweep goes on.
    "#);
    assert_snapshot!(help(&["plan"]), @r#"
    Show the cases of a sweep with their predicted memory and time; runs nothing

    Usage: attn-bench plan [OPTIONS] <FILE>

    Arguments:
      <FILE>
              Sweep file (experiments/ has some)

    Options:
          --device <DEVICE>
              Device to run on instead of the sweep's: cpu, cuda, cuda:N or auto

          --filter <EXPR>
              Keep the cases for which all conditions hold: variant=mtla,batch=1,context>=2048

          --set <KEY=VALUE>
              Replace a value of the sweep: model.d_model=1024, variants.mtla.stride=[2,4] (may be
              repeated)

          --shard <I/N>
              Keep part I of N, whole groups of comparable cases, about equal in time; `auto` or
              `auto/N` asks the environment of Slurm, HyperQueue or Kubernetes which part

          --out <DIR>
              A run of the sweep: say how many cases it has stored, and what is left

          --format <FORMAT>
              How to print

              Possible values:
              - table: A table for people
              - json:  JSON for programs, numbers in base units

              [default: table]

      -h, --help
              Print help (see a summary with '-h')

    Examples:
      attn-bench plan experiments/quick.yaml
      attn-bench plan experiments/quick.yaml --filter workload=decode,batch=1
      attn-bench plan experiments/quick.yaml --format json
      attn-bench plan experiments/quick.yaml --out results/mine

    Peak memory, floor and time are estimates; cache, weights and FLOPs are exact.
    "#);
}

#[test]
fn help_of_commands_on_runs() {
    assert_snapshot!(help(&["plot"]), @r#"
    Draw the figures of stored runs again

    Usage: attn-bench plot [OPTIONS] <RUN>...

    Arguments:
      <RUN>...  Folders of runs

    Options:
          --out <DIR>  Folder for the figures [default: plots/<run> for results/<run>, else <run>/plots]
      -h, --help       Print help

    Examples:
      attn-bench plot results/quick-2cores
      attn-bench plot results/a results/b --out plots/a-and-b
    "#);
    assert_snapshot!(help(&["report"]), @r#"
    Write one page of HTML about stored runs: findings, figures, rows, environment

    Usage: attn-bench report [OPTIONS] <RUN>...

    Arguments:
      <RUN>...  Folders of runs

    Options:
          --out <FILE.html>  The page [default: report.html beside the figures of a run, else here; of
                             several runs here]
      -h, --help             Print help

    Examples:
      attn-bench report results/quick-2cores
      attn-bench report results/before results/after --out before-and-after.html

    The page is one file that asks nothing of the network. Several runs stand side by side, every one
    against the first. A file that is no report is not overwritten.
    "#);
    assert_snapshot!(help(&["show"]), @r#"
    Print the summary table of stored runs again

    Usage: attn-bench show [OPTIONS] <RUN>...

    Arguments:
      <RUN>...
              Folders of runs

    Options:
          --filter <EXPR>
              Keep the rows for which all conditions hold, over any column of `list metrics`

          --sort <COLUMN>
              Sort by a column of `list metrics`, smallest first, empty cells last

          --format <FORMAT>
              How to print

              Possible values:
              - table: A table for people
              - json:  JSON for programs, numbers in base units

              [default: table]

      -h, --help
              Print help (see a summary with '-h')

    Examples:
      attn-bench show results/quick-2cores
      attn-bench show results/quick-2cores --filter workload=decode,batch=1 --sort time_median_s
    "#);
    assert_snapshot!(help(&["export"]), @r#"
    Write the rows of stored runs for other tools

    Usage: attn-bench export --format <FORMAT> <RUN>...

    Arguments:
      <RUN>...
              Folders of runs

    Options:
          --format <FORMAT>
              What to write to standard output

              Possible values:
              - csv:  Comma-separated values with a header
              - json: A JSON list of objects

      -h, --help
              Print help (see a summary with '-h')

    Examples:
      attn-bench export results/quick-2cores --format csv > quick.csv
      attn-bench export results/a results/b --format json | jq '.[].time_median_s'
    "#);
}

#[test]
fn help_of_the_other_commands() {
    assert_snapshot!(help(&["verify"]), @r#"
    Compare every variant with the reference

    Usage: attn-bench verify [OPTIONS] [FILE or DIR]...

    Arguments:
      [FILE or DIR]...
              Conformance files, folders of them, or of a saved model; none is the built-in suite

    Options:
          --device <DEVICE>
              Device to run on: cpu, cuda, cuda:N or auto

              [default: cpu]

          --dtype <DTYPE>
              Only this element type: f32, f16 or bf16

          --path <PATH>
              Only this path

              Possible values:
              - fused:    The compact formulation
              - seedlike: Operation by operation as the seed's PyTorch does

          --format <FORMAT>
              How to print

              Possible values:
              - table: A table for people
              - json:  JSON for programs, numbers in base units

              [default: table]

      -h, --help
              Print help (see a summary with '-h')

    Examples:
      attn-bench verify                                 the built-in suite
      attn-bench verify conformance/                    every safetensors file in a folder
      attn-bench verify saved-model/                    a model with what it is to compute
      attn-bench verify --dtype bf16 --path fused
    "#);
    assert_snapshot!(help(&["list"]), @r#"
    List variants, workloads, axes, figures or metrics

    Usage: attn-bench list [OPTIONS] [TOPIC]

    Arguments:
      [TOPIC]
              What to list; all of it where nothing is named

              Possible values:
              - variants:  Attention variants with their settings
              - workloads: Workloads with their sizes
              - axes:      What else multiplies the cases: paths, scopes, cache regimes, launches,
                element types
              - figures:   Figures that runs can be drawn as
              - metrics:   Columns of results

    Options:
          --format <FORMAT>
              How to print

              Possible values:
              - table: A table for people
              - json:  JSON for programs, numbers in base units

              [default: table]

      -h, --help
              Print help (see a summary with '-h')

    Examples:
      attn-bench list
      attn-bench list variants
      attn-bench list metrics --format json
    "#);
    assert_snapshot!(help(&["doctor"]), @r#"
    Say what this build can compute on here, what is missing, and how to mend it

    Usage: attn-bench doctor [OPTIONS]

    Options:
          --device <DEVICE>
              Device that is wanted: cpu, cuda, cuda:N or auto

              [default: auto]

          --format <FORMAT>
              How to print

              Possible values:
              - table: A table for people
              - json:  JSON for programs, numbers in base units

              [default: table]

      -h, --help
              Print help (see a summary with '-h')

    Examples:
      attn-bench doctor
      attn-bench doctor --device cuda
      attn-bench doctor --format json

    Exits with 2 where the device cannot be used.
    "#);
    assert_snapshot!(help(&["schema"]), @r#"
    Print the JSON schema of sweep files

    Usage: attn-bench schema

    Options:
      -h, --help  Print help

    Examples:
      attn-bench schema > sweep.schema.json
      # and as the first line of a sweep, for editors with a YAML language server:
      # yaml-language-server: $schema=../sweep.schema.json
    "#);
    assert_snapshot!(help(&["completions"]), @r#"
    Print completions for a shell

    Usage: attn-bench completions <SHELL>

    Arguments:
      <SHELL>  The shell [possible values: bash, elvish, fish, powershell, zsh]

    Options:
      -h, --help  Print help

    Examples:
      attn-bench completions bash > ~/.local/share/bash-completion/completions/attn-bench
      attn-bench completions fish > ~/.config/fish/completions/attn-bench.fish
    "#);
}

#[test]
fn help_of_man() {
    assert_snapshot!(help(&["man"]), @r#"
    Write manual pages, one for the program and one for each command

    Usage: attn-bench man <DIR>

    Arguments:
      <DIR>  Folder for the pages, made where there is none

    Options:
      -h, --help  Print help

    Examples:
      attn-bench man ~/.local/share/man/man1
      man attn-bench-run
    "#);
}

#[test]
fn the_schema_accepts_every_experiment_and_every_experiment_plans() {
    let place = Place::with("");
    let schema: serde_json::Value = serde_json::from_str(&place.prints(&["schema"])).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let mut n_experiments = 0;
    for entry in root().join("experiments").read_dir().unwrap() {
        let path = entry.unwrap().path();
        let sweep: serde_json::Value =
            serde_yaml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let errors: Vec<String> = validator
            .iter_errors(&sweep)
            .map(|e| format!("{}: {e}", e.instance_path()))
            .collect();
        assert_eq!(errors, Vec::<String>::new(), "{}", path.display());
        place.prints(&["plan", path.to_str().unwrap()]);
        n_experiments += 1;
    }
    assert!(n_experiments >= 3);
}

#[test]
fn lists_are_tables_and_json() {
    let place = Place::with("");
    let variants = place.prints(&["list", "variants"]);
    let json: serde_json::Value = serde_json::from_str(&place.prints(&["list", "--format", "json"])).unwrap();
    let listed = json["variants"].as_array().unwrap();
    assert!(listed.len() >= 5);
    for variant in listed {
        let of = |key: &str| variant[key].as_str().unwrap().to_string();
        // A sentence may be part of another variant's.
        let is_its_line = |line: &&str| {
            line.split_whitespace().next() == Some(&of("name")) && line.contains(&of("summary"))
        };
        let line = variants.lines().find(is_its_line).unwrap();
        for key in ["name", "cache_formula", "paper"] {
            assert!(line.contains(&of(key)), "{key}: {line}");
        }
        for setting in variant["settings"].as_array().unwrap() {
            let of = |key: &str| setting[key].as_str().unwrap();
            let is_its_line = |line: &str| {
                let mut words = line.split_whitespace();
                words.next() == variant["name"].as_str() && words.next() == Some(of("name"))
            };
            let line = variants.lines().find(|line| is_its_line(line)).unwrap();
            for key in ["is", "default", "help"] {
                assert!(line.contains(of(key)), "{key}: {line}");
            }
        }
    }
    assert_snapshot!(place.prints(&["list", "workloads"]), @r#"
     workload     scopes             what it is
    ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
     decode       layer, op          one token per sequence against a cache of `context` tokens, its own included
     prefill      layer, op          a prompt of `tokens` into an empty cache, every token a query
     train_step   layer, op          forward and backward over `tokens`, gradients of all weights and of the input
     generate     layer, op, model   a prompt of `tokens`, then `new_tokens` decoded one at a time
     trajectory   layer, op          `new_tokens` decoded one at a time after a cache of `tokens`, each step timed
     beam         model              search of width `beam` by a whole decoder: `tokens` of prefix, then `new_tokens` generated
     quality      model              models trained on a task, once for each seed, and tested token by token through their caches

     workload     size         default    meaning
    ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
     decode       context      required   entries L that a step reads, its own token included
     decode       batch        1          sequences B
     prefill      tokens       required   tokens T of the call or the prompt
     prefill      batch        1          sequences B
     train_step   tokens       required   tokens T of the call or the prompt
     train_step   batch        1          sequences B
     generate     tokens       required   tokens T of the call or the prompt
     generate     new_tokens   required   tokens decoded after the prompt
     generate     batch        1          sequences B
     trajectory   tokens       required   tokens in the cache before the first step
     trajectory   new_tokens   required   tokens decoded one at a time, each timed
     trajectory   batch        1          sequences B
     beam         tokens       required   encoder states of each sentence, or tokens of its prompt
     beam         new_tokens   required   tokens generated after them, to a forced length
     beam         beam         required   hypotheses K of each sentence
     beam         batch        1          sentences B
     quality      task         required   a name under `tasks`, or a generated task with its defaults
     quality      downsample   1          states of the encoder that are made one by their mean before the cache
     quality      steps        1000       updates
     quality      batch        16         examples of an update

     task of quality        what it asks for
    ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────
     entropy                write a language of exactly known entropy, a sparse Markov source
     copy                   write random tokens again after a separator
     recall                 answer with the values of many keys that were read before (multi-query associative recall)
     needle                 answer a question at the end of a long text with the one fact in it that has the key
     speech_translation     translate the words whose frames are read into a language of another order, with agreement
     speech_recognition     write the words whose frames are read, phones that last and sound differently each time
     spoken_understanding   say what a speaker wants, which two words decide together, and with which slots
     summarisation          sum up records by those of the entity that is mentioned most often, in order of time
    "#);
    assert_snapshot!(place.prints(&["list", "axes"]), @r#"
     key             value          meaning
    ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
     paths           fused          the compact formulation
     paths           seedlike       operation by operation as the seed's PyTorch does
     scopes          layer          projections, cache update, attention and output projection
     scopes          op             attention alone
     scopes          model          a whole decoder, for workloads beam and generate
     habits          all            every habit: the seed's way
     habits          none           no habit: bf16, and the two operations
     habits          combinations   every set of habits there is, 32 of them
     habits          cat            caches grow by concatenation in place of being allocated once
     habits          expand         keys and values that heads share are repeated for each, at every step
     habits          reorder-copy   a step of a beam search copies every layer's whole cache
     habits          dense-mask     scores of all pairs, and masks made anew by every call, in place of the two kernels
     habits          f32            everything is f32, without it bf16
     prefixes        replicated     every hypothesis computes and stores the prefix, as in the seed
     prefixes        copied         the prefix is computed once a sentence and copied to its hypotheses
     prefixes        shared         the prefix is computed and stored once a sentence
     model.decoder   prefix         the paper's: encoder states are keys and values of every layer, LayerNorm and ReLU
     model.decoder   llama          a plain language model: the prefix is a prompt through all layers, RMSNorm and SwiGLU
     launches        graph          a decode step on a GPU is one CUDA graph, recorded before: the time is the GPU's
     launches        eager          its launches are made one by one: beside a graph's, the time is what launching costs
     regimes         hot            the device's caches hold what the sample before left there
     regimes         cold           they hold none of the case's data: flushed before each sample, outside the clock
     fair            width          the model's width and heads, nothing is solved
     fair            params         parameters of the layer
     fair            kv_bytes       bytes of cache per token, at the length of the workload
     fair            flops          operations of the workload over the whole layer
     dtype           f32            element type of weights, activations and cache
     dtype           f16            element type of weights, activations and cache
     dtype           bf16           element type of weights, activations and cache
    "#);
    let all = place.prints(&["list"]);
    assert!(
        ["mtla", "train_step", "latency-vs-context", "time_median_s"]
            .iter()
            .all(|word| all.contains(word))
    );
    assert_eq!(json["workloads"][0]["sizes"][0]["name"], "context");
    assert_eq!(json["axes"][0]["key"], "paths");
    assert!(
        json["metrics"]
            .as_array()
            .unwrap()
            .iter()
            .any(|column| column["name"] == "time_median_s")
    );
}

#[test]
fn help_of_commands_on_clusters() {
    assert_snapshot!(help(&["submit"]), @r#"
    Hand a sweep to Slurm or HyperQueue as a job array, one shard a task

    Usage: attn-bench submit [OPTIONS] <--slurm|--hq> <FILE>

    Arguments:
      <FILE>  Sweep file (experiments/ has some)

    Options:
          --slurm                   Submit to Slurm, by its sbatch
          --hq                      Submit to HyperQueue, by its hq
          --array <N>               Shards, a task each [default: one for every 10 minutes of predicted
                                    time, at most 256]
          --at-once <N>             Tasks that run at the same time, at most
          --out <DIR>               The run's own folder, which every node must see; must not exist
                                    [default: results/<name>-<utc time>-<scheduler>]
          --gres <LIST>             Generic resources of a task, as in gpu:1
          --time <TIME>             Time limit of a task, as in 90 (minutes) or 02:00:00; with Slurm, a
                                    task that reaches it goes on in a new one
          --cpus-per-task <N>       Processors of a task
          --mem <SIZE>              Memory of a task, as in 32G
          --partition <NAME>        Partition
          --account <NAME>          Account
          --sbatch-option <OPTION>  Another option of sbatch for both jobs, as in
                                    --sbatch-option=--constraint=h100 (may be repeated)
          --same-machine            Refuse to go on with a shard on another machine than it was begun on
          --dry-run                 Print what would be submitted; write and submit nothing
          --device <DEVICE>         Device to run on instead of the sweep's: cpu, cuda, cuda:N or auto
          --filter <EXPR>           Keep the cases for which all conditions hold:
                                    variant=mtla,batch=1,context>=2048
          --set <KEY=VALUE>         Replace a value of the sweep: model.d_model=1024,
                                    variants.mtla.stride=[2,4] (may be repeated)
      -h, --help                    Print help

    Examples:
      attn-bench submit experiments/quick.yaml --slurm --dry-run
      attn-bench submit sweep.yaml --slurm --array 16 --gres gpu:1 --cpus-per-task 8 --time 02:00:00
      attn-bench submit sweep.yaml --slurm --partition gpu --account me
      --sbatch-option=--constraint=h100
      attn-bench submit sweep.yaml --hq --array 16 --gres gpu:1

    The run's folder gets the scripts, the sweep, the tasks' output, and shards/1, shards/2, ... Every
    task can be killed and
    started again at any time: it goes on from what is stored. A last job merges the shards.
    "#);
    assert_snapshot!(help(&["status"]), @r#"
    Say how far runs are, and every shard of what was submitted

    Usage: attn-bench status [OPTIONS] <RUN>...

    Arguments:
      <RUN>...
              Folders of runs, of shards, or of what was submitted

    Options:
          --format <FORMAT>
              How to print

              Possible values:
              - table: A table for people
              - json:  JSON for programs, numbers in base units

              [default: table]

      -h, --help
              Print help (see a summary with '-h')

    Examples:
      attn-bench status results/mine
      attn-bench status results/shards/1 results/shards/2
      attn-bench status results/mine --format json

    A shard is done, running (a runner has its log), stopped (begun, and nobody is at work on it) or
    waiting.
    "#);
    assert_snapshot!(help(&["merge"]), @r#"
    Join the shards of a sweep to one run, finished or not

    Usage: attn-bench merge --out <DIR> <RUN>...

    Arguments:
      <RUN>...  Folders of runs of one sweep, or of what was submitted

    Options:
          --out <DIR>  The merged run's folder; must not exist, or be an earlier merge, which is
                       replaced
      -h, --help       Print help

    Examples:
      attn-bench merge results/mine --out results/mine/merged
      attn-bench merge shard-1 shard-2 shard-3 --out results/whole

    Works while shards still run: merge again later into the same folder. A case that several runs have
    is kept once: a row
    that is ok goes before one that is not, else the run named first. Exits with 3 where cases are
    missing.
    "#);
}
