//! What `--help` prints, and that completions and the schema are whole.

mod common;

use common::{Place, root};
use insta::assert_snapshot;

fn help(command: &[&str]) -> String {
    Place::with("").prints(&[command, &["--help"]].concat())
}

#[test]
fn help_shows_every_command_and_the_exit_codes() {
    assert_snapshot!(help(&[]), @"");
}

#[test]
fn help_of_commands_on_sweeps() {
    assert_snapshot!(help(&["run"]), @"");
    assert_snapshot!(help(&["plan"]), @"");
}

#[test]
fn help_of_commands_on_runs() {
    assert_snapshot!(help(&["plot"]), @"");
    assert_snapshot!(help(&["show"]), @"");
    assert_snapshot!(help(&["export"]), @"");
}

#[test]
fn help_of_the_other_commands() {
    assert_snapshot!(help(&["verify"]), @"");
    assert_snapshot!(help(&["list"]), @"");
    assert_snapshot!(help(&["schema"]), @"");
    assert_snapshot!(help(&["completions"]), @"");
}

#[test]
fn completions_name_every_command_in_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let script = Place::with("").prints(&["completions", shell]);
        for command in [
            "run", "plan", "plot", "show", "export", "verify", "list", "schema",
        ] {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
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
    assert_snapshot!(place.prints(&["list", "variants"]), @"");
    assert_snapshot!(place.prints(&["list", "workloads"]), @"");
    let all = place.prints(&["list"]);
    assert!(
        ["mtla", "train_step", "latency-vs-context", "time_median_s"]
            .iter()
            .all(|word| all.contains(word))
    );
    let json: serde_json::Value = serde_json::from_str(&place.prints(&["list", "--format", "json"])).unwrap();
    assert_eq!(json["variants"].as_array().unwrap().len(), 5);
    assert_eq!(json["workloads"][0]["sizes"][0]["name"], "context");
    assert!(
        json["metrics"]
            .as_array()
            .unwrap()
            .iter()
            .any(|column| column["name"] == "time_median_s")
    );
}
