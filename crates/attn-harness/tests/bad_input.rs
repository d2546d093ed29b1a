//! Every way a sweep can be wrong: what is said, and every place it points at.

mod fake;

use std::path::Path;

use attn_harness::{Override, Sweep};
use fake::{SWEEP, problems, with};
use insta::assert_snapshot;

fn of(yaml: &str) -> String {
    problems(yaml, &[]).join("\n")
}

#[test]
fn impossible_geometry_names_every_key_and_all_of_it_at_once() {
    let yaml = with("- full: {n_kv_heads: 2}", "- full: {n_kv_heads: [2, 3]}");
    let yaml = yaml.replace(
        "{kv_rank: 32, stride: [2, 3]}",
        "{kv_rank: 30, stride: [2, 3]}\n  - merged: {kv_rank: 32, rope_dim: 7}",
    );
    assert_snapshot!(of(&yaml), @r#"
    impossible geometry: 4 query heads cannot share 3 heads evenly (`model.n_heads`, `variants[1].full.n_kv_heads[1]`) | 3:n_heads (n_heads), 6:3 (n_kv_heads)
    impossible geometry: the gate needs a multiple of 4, 30 is none (`variants[2].merged.kv_rank`) | 7:kv_rank (kv_rank)
    impossible geometry: rope rotates pairs, 7 is odd (`variants[3].merged.rope_dim`) | 8:rope_dim (rope_dim)
    "#);
}

#[test]
fn a_default_that_does_not_exist_names_its_two_keys() {
    assert_snapshot!(of(&with("n_heads: 4", "n_heads: 5")), @r#"impossible geometry: `model.d_model` 64 is not divisible by `model.n_heads` 5, so that `model.head_dim` has no default | 3:d_model (d_model), 3:n_heads (n_heads)"#);
}

#[test]
fn unknown_keys_come_with_the_nearest_known_one() {
    let yaml = with("question:", "qestion:") + "measure: {max_sample: 3, warmup: 1}\n";
    assert_snapshot!(of(&yaml), @r#"
    unknown key `qestion`, expected one of: name, question, device, dtype, seed, model, variants, fair, paths, habits, prefixes, scopes, regimes, launches, workloads, grid, scenarios, tasks, training, measure, figures | 2:qestion (qestion)
    unknown key `measure.max_sample`, expected one of: warmup_ms, min_samples, max_samples, target_ci, max_s, seed, replicas, cooldown_ms, timeout_s, memory_limit, pin, ceilings, energy_s, llc_bytes | 11:max_sample (measure.max_sample)
    unknown key `measure.warmup`, expected one of: warmup_ms, min_samples, max_samples, target_ci, max_s, seed, replicas, cooldown_ms, timeout_s, memory_limit, pin, ceilings, energy_s, llc_bytes | 11:warmup (measure.warmup)
    "#);
}

#[test]
fn unknown_names_are_listed_with_the_known_ones() {
    let yaml = with("- full: {}", "- ful: {}")
        .replace("stride:", "strid:")
        .replace("prefill:", "prefil:")
        + "figures: [latncy]\n";
    assert_snapshot!(of(&yaml), @r#"
    unknown figure `latncy`, expected one of: latency, cache | 11:latncy (figures[0])
    unknown workload `prefil`, expected one of: decode, prefill, train_step, generate, trajectory, beam, quality | 10:prefil (workloads[1].prefil)
    unknown variant `ful`, expected one of: full, merged | 5:ful (variants[0].ful)
    unknown setting of merged: `strid`, expected one of: kv_rank, rope_dim, stride, norm | 7:strid (variants[2].merged.strid)
    "#);
    assert_snapshot!(of(&with("question:", "dtype: fp32\npaths: [fused, seed]\ndevice: gpu\nscopes: layers\nquestion:")), @r#"
    unknown value of `dtype`: `fp32`, expected one of: f32, f16, bf16 | 2:dtype (dtype)
    unknown value of `paths[1]`: `seed`, expected one of: seedlike, fused | 3:seed (paths[1])
    `device`: unknown device `gpu`, expected cpu, cuda, cuda:N or auto | 4:device (device)
    unknown value of `scopes`: `layers`, expected one of: layer, op, model | 5:scopes (scopes)
    "#);
}

#[test]
fn wrong_types_are_all_reported() {
    let yaml = with("name: test", "name: [1]").replace("d_model: 64", "d_model: wide")
        + "seed: -1\nmeasure: {max_s: long}\n";
    assert_snapshot!(of(&yaml), @r#"
    `name` is a list, expected a word | 1:name (name)
    `model.d_model` is the word "wide", expected an integer of at least 1 | 3:d_model (model.d_model)
    `seed` is -1, expected an integer of at least 0 | 11:seed (seed)
    `measure.max_s` is the word "long", expected a number | 12:max_s (measure.max_s)
    "#);
    assert_snapshot!(of(&with("- full: {}", "- 7")), @r#"`variants[0]` is 7, expected a name with its settings, as in `- mtla: {stride: 2}` | 5:7 (variants[0])"#);
    assert_snapshot!(of(&with("- full: {}", "- full: {}\n    merged: {}")), @r#"`variants[0]`: `full` and `merged` in one list item, expected one name with its settings: indent the settings below the name, or begin each name with a dash of its own | 5: (variants[0])"#);
    assert_snapshot!(of(&with("stride: [2, 3]", "stride: [2, [3]]")), @r#"`variants[2].merged.stride[1]` is a list, expected a number, a word, or true or false | 7:[ (variants[2].merged.stride[1])"#);
    assert_snapshot!(of(&with("stride: [2, 3]", "stride: [2, two, -3, 2.5], norm: rmss")), @r#"
    `variants[2].merged.norm` is rmss, expected one of rms, layer | 7:norm (variants[2].merged.norm)
    `variants[2].merged.stride[1]` is two, expected an integer of at least 1 | 7:two (variants[2].merged.stride[1])
    `variants[2].merged.stride[2]` is -3, expected an integer of at least 1 | 7:-3 (variants[2].merged.stride[2])
    `variants[2].merged.stride[3]` is 2.5, expected an integer of at least 1 | 7:2.5 (variants[2].merged.stride[3])
    "#);
}

#[test]
fn missing_settings_are_asked_for() {
    assert_snapshot!(of(&with("kv_rank: 32, ", "").replace("{context: [16, 64], ", "{")), @r#"
    `workloads[0].decode.context` is missing: entries L that a step reads, its own token included | 9:decode (here)
    `variants[2].merged.kv_rank` is missing, expected an integer of at least 1: rank of the latent | 7:merged (here)
    "#);
    assert_snapshot!(of("question: nothing\nmodel: {d_model: 3}\n"), @r#"
    `model.n_heads` is missing | 2:model (here)
    `name` is missing | 1: (here)
    `variants` is missing | 1: (here)
    "#);
}

#[test]
fn empty_axes_and_sizes_below_one_are_refused() {
    let yaml = with("batch: [1, 2]", "batch: []")
        .replace("[16, 64]", "[0, 64]")
        .replace("tokens: 32", "tokens: -1");
    assert_snapshot!(of(&yaml), @r#"
    `workloads[0].decode.context[0]` is 0, expected an integer from 1 to 1073741824 | 9:0 (workloads[0].decode.context[0])
    `workloads[0].decode.batch` is an empty list, expected at least one value | 9:batch (workloads[0].decode.batch)
    `workloads[1].prefill.tokens` is -1, expected an integer from 1 to 1073741824 | 10:tokens (workloads[1].prefill.tokens)
    "#);
    assert_snapshot!(of(&with("stride: [2, 3]", "stride: 0").replace("d_model: 64", "d_model: 0")), @r#"
    `model.d_model` is 0, expected an integer from 1 to 1048576 | 3:d_model (model.d_model)
    `variants[2].merged.stride` is 0, expected an integer of at least 1 | 7:stride (variants[2].merged.stride)
    "#);
    assert_snapshot!(of("name: a\nmodel: {d_model: 8, n_heads: 2}\nvariants: []\nworkloads: []\n"), @r#"
    there is nothing to run: `workloads` and `scenarios` are both empty | 4:workloads (workloads)
    `variants` is empty, expected at least one variant | 3:variants (variants)
    "#);
}

#[test]
fn the_same_point_twice_points_at_both_places() {
    assert_snapshot!(of(&with("batch: [1, 2]", "batch: [1, 1]").replace("[2, 3]", "[2, 2]")), @r#"
    `workloads[0].decode.batch` lists 1 twice | 9:1 (first here), 9:1 (and again here)
    `variants[2].merged.stride` lists 2 twice | 7:2 (first here), 7:2 (and again here)
    "#);
    assert_snapshot!(of(&with("- full: {n_kv_heads: 2}", "- full")), @r#"`variants[0].full` and `variants[1].full` both give full | 5:full (first here), 6:full (and again here)"#);
    let yaml = SWEEP.to_string()
        + "scenarios:\n  - {workload: decode, context: 9}\n  - {workload: decode, context: 9}\npaths: [fused, fused]\n";
    assert_snapshot!(of(&yaml), @r#"
    `paths` lists fused twice | 14:fused (first here), 14:fused (and again here)
    `scenarios[0]` and `scenarios[1]` both give decode with context 9, batch 1 | 12:{ (first here), 13:{ (and again here)
    "#);
}

#[test]
fn too_many_cases_and_too_large_numbers_are_refused_at_once() {
    let list = (1..2000).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    let yaml = with(
        "context: [16, 64], batch: [1, 2]",
        &format!("context: [{list}], batch: [{list}]"),
    );
    assert!(
        of(&yaml).starts_with("this sweep has 15984008 cases"),
        "{}",
        of(&yaml)
    );
    let huge =
        with("[16, 64]", "99999999999999999999999").replace("tokens: 32", "tokens: 18446744073709551615");
    assert_snapshot!(of(&huge), @r#"`workloads[0].decode.context` is 99999999999999999999999, expected an integer that fits 64 bits | 9: (here)"#);
    assert_snapshot!(of(&with("{tokens: 32}", "{tokens: 1073741824, batch: 1048576}")), @r#"`workloads[1].prefill` is too large to count in 64 bits for `variants[0].full`: prefill with tokens 1073741824, batch 1048576 | 10:prefill (workloads[1].prefill)"#);
    assert_snapshot!(of(&with("d_model: 64", "d_model: 1152921504606846976")), @r#"`model.d_model` is 1152921504606846976, expected an integer from 1 to 1048576 | 3:d_model (model.d_model)"#);
    assert_snapshot!(of(&with("stride: [2, 3]", "stride: [16381, 16369, 16363]")), @r#"the strides have the least common multiple 268140589, expected at most 65536: a decode sample is that many steps | 7:stride (variants[2].merged.stride)"#);
}

#[test]
fn grid_and_scenarios_are_checked_like_the_rest() {
    let yaml = SWEEP.to_string()
        + "grid: {batch: [4], new_tokens: [1], dtype: [f32]}\ndtype: f32\nscenarios:\n  - {workload: decod, context: 1}\n  - {context: 1}\n  - {workload: decode, tokens: 1}\n";
    assert_snapshot!(of(&yaml), @r#"
    `dtype` and `grid.dtype` are both given, expected one of them | 12:dtype (dtype), 11:dtype (grid.dtype)
    `workloads[0].decode.batch` and `grid.batch` are both given, expected one of them | 9:batch (workloads[0].decode.batch), 11:batch (grid.batch)
    no workload of this sweep has the size `grid.new_tokens` | 11:new_tokens (grid.new_tokens)
    unknown workload `decod`, expected one of: decode, prefill, train_step, generate, trajectory, beam | 14:workload (scenarios[0].workload)
    `scenarios[1].workload` is missing or no name, expected a workload | 15:{ (scenarios[1].workload)
    unknown size of decode: `tokens`, expected one of: context, batch | 16:tokens (scenarios[2].tokens)
    `scenarios[2].context` is missing: entries L that a step reads, its own token included | 16:{ (here)
    "#);
}

#[test]
fn measure_and_name_have_their_limits() {
    let yaml = with("name: test", "name: a/b")
        + "measure: {min_samples: 20, max_samples: 10, target_ci: 0, max_s: .nan}\n";
    assert_snapshot!(of(&yaml), @r#"
    `name` is "a/b", expected 1 to 64 lower-case letters, digits, `-`, `_` or `.`, no `.` first | 1:name (name)
    `measure.target_ci` is 0, expected a number between 0 and 1 | 11:target_ci (measure.target_ci)
    `measure.max_s` is NaN, expected seconds, up to a day | 11:max_s (measure.max_s)
    `measure.min_samples` is 20 and `measure.max_samples` 10, expected no more than that | 11:min_samples (measure.min_samples), 11:max_samples (measure.max_samples)
    "#);
}

#[test]
fn how_cases_are_run_has_its_limits() {
    let yaml = SWEEP.to_string()
        + "measure: {replicas: 0, cooldown_ms: 700000, timeout_s: 0, memory_limit: 8, energy_s: -1, llc_bytes: 1 KiB}\n";
    assert_snapshot!(of(&yaml), @r#"
    `measure.replicas` is 0, expected an integer from 1 to 1000 | 11:replicas (measure.replicas)
    `measure.cooldown_ms` is 700000, expected at most 600000 | 11:cooldown_ms (measure.cooldown_ms)
    `measure.timeout_s` is 0, expected seconds, up to a day | 11:timeout_s (measure.timeout_s)
    `measure.energy_s` is -1, expected seconds, up to an hour | 11:energy_s (measure.energy_s)
    `measure.memory_limit` is 8 B, expected at least 1.00 MiB, as bytes or with a unit: 8 GiB | 11:memory_limit (measure.memory_limit)
    `measure.llc_bytes` is 1.00 KiB, expected at least 1.00 MiB, as bytes or with a unit: 8 GiB | 11:llc_bytes (measure.llc_bytes)
    "#);
    let yaml = SWEEP.to_string() + "measure: {memory_limit: 8 gigs, llc_bytes: -1, replicas: two}\n";
    assert_snapshot!(of(&yaml), @r#"
    `measure.memory_limit`: `8 gigs` is no amount of memory, expected bytes or a number with a unit: 8 GiB, 512MB | 11:memory_limit (measure.memory_limit)
    `measure.llc_bytes` is -1, expected bytes, or a number with a unit as in `8 GiB` | 11:llc_bytes (measure.llc_bytes)
    `measure.replicas` is the word "two", expected an integer of at least 1 | 11:replicas (measure.replicas)
    "#);
    assert_snapshot!(of(&with("question:", "regimes: [hot, warm]\nquestion:")), @r#"unknown value of `regimes[1]`: `warm`, expected one of: hot, cold | 2:warm (regimes[1])"#);
    assert_snapshot!(of(&with("question:", "launches: [graph, lazy]\nquestion:")), @r#"unknown value of `launches[1]`: `lazy`, expected one of: graph, eager | 2:lazy (launches[1])"#);
    assert_snapshot!(of(&with("question:", "regimes: [hot, hot]\nquestion:")), @r#"`regimes` lists hot twice | 2:hot (first here), 2:hot (and again here)"#);
}

#[test]
fn what_an_option_set_is_blamed_on_the_option() {
    assert_snapshot!(problems(SWEEP, &["model.n_heads=5"]).join("\n"), @r#"impossible geometry: `model.d_model` 64 is not divisible by `model.n_heads` 5, so that `model.head_dim` has no default (set by --set model.n_heads=5) | 3:d_model (d_model)"#);
    assert_snapshot!(problems(SWEEP, &["model.n_hedas=5", "variants.merged.kv_rank=31"]).join("\n"), @r#"
    unknown key `model.n_hedas`, expected one of: d_model, n_heads, head_dim, n_layers, d_ff, vocab, decoder, encoder_layers, encoder_kernel (set by --set model.n_hedas=5) |
    impossible geometry: the gate needs a multiple of 4, 31 is none (`variants[2].merged.kv_rank`) (set by --set variants.merged.kv_rank=31) |
    "#);
}

#[test]
fn files_that_are_no_sweeps_say_what_they_are() {
    assert_snapshot!(of(""), @r#"the file is empty, expected a mapping with at least name, model, variants and workloads |"#);
    assert_snapshot!(of("# nothing\n"), @r#"the file is empty, expected a mapping with at least name, model, variants and workloads |"#);
    assert_snapshot!(of("- a\n- b\n"), @r#"the file holds a list, expected a mapping with at least name, model, variants and workloads |"#);
    assert_snapshot!(of("just words\n"), @r#"the file holds a single value, expected a mapping with at least name, model, variants and workloads |"#);
    assert_snapshot!(of("name: [a\n"), @r#"this cannot be read as YAML: while parsing a flow sequence, expected ',' or ']' | 1:a (here)"#);
    assert_snapshot!(of("name: a\n---\nname: b\n"), @r#"this cannot be read as YAML: a second document starts here, expected one | 2:--- (here)"#);
    assert_snapshot!(of(&with("question:", "name: again\nquestion:")), @r#"the key `name` stands twice | 1:name (first here), 2:name (and again here)"#);
}

#[test]
fn aliases_cannot_make_a_small_file_large() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_string();
    for i in 1..30 {
        let items = vec![format!("*a{}", i - 1); 10].join(", ");
        bomb += &format!("a{i}: &a{i} [{items}]\n");
    }
    assert_snapshot!(of(&bomb), @r#"with its aliases written out the sweep has more than 200000 values |"#);
    assert_snapshot!(of("a: &a [*a]\n"), @r#"this cannot be read as YAML: this alias stands inside the value it names | 1:*a (here)"#);
    let deep = "this cannot be read as YAML: this is nested deeper than 128 levels";
    assert!(of(&"[".repeat(100_000)).starts_with("this"));
    let closed = format!("name: {}{}", "[".repeat(5000), "]".repeat(5000));
    assert!(of(&closed).starts_with("this"), "{}", of(&closed));
    assert!(of(&"- ".repeat(5000)).starts_with(deep));
}

#[test]
fn unreadable_files_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let error = |path: &Path| Sweep::load(path, &[]).unwrap_err().to_string();
    assert!(error(&folder.path().join("none.yaml")).contains("No such file"));
    assert!(error(folder.path()).ends_with("it is a folder"));
    assert!(error(&file("latin.yaml", b"name: \xe9")).ends_with("it is not UTF-8 at byte 6"));
    assert!(error(&file("large.yaml", &vec![b'#'; 2 << 20])).ends_with("it is larger than 1 MiB"));
    let bom = [b"\xef\xbb\xbf", SWEEP.as_bytes()].concat();
    assert_eq!(
        Sweep::load(&file("bom.yaml", &bom), &[]).unwrap().file.name,
        "test"
    );
}

#[test]
fn overrides_that_fit_nowhere_are_errors_of_the_option() {
    let set = Override::parse("variants.mlta.stride=2").unwrap();
    let error = Sweep::parse(Path::new("sweep.yaml"), SWEEP.to_string(), &[set]).unwrap_err();
    assert_snapshot!(error, @r#"--set variants.mlta.stride=2: `variants` has no item `mlta`"#);
}
