//! `verify` on files and on the built-in suite.

mod common;

use common::Place;

/// The fixtures of a variant crate.
fn fixtures(variant: &str) -> String {
    format!("{}/../attn-{variant}/tests/fixtures", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn folders_and_files_of_every_variant_pass() {
    let place = Place::with("");
    let folders = ["mha", "gqa", "mqa", "mla", "mtla"].map(fixtures);
    let mut args = vec!["verify"];
    args.extend(folders.iter().map(String::as_str));
    let table = place.prints(&args);
    assert!(table.contains(" 0 failed"), "{table}");
    assert!(
        table.contains("not defined") && table.contains("seedlike") && table.contains("bf16"),
        "{table}"
    );
    let file = format!("{}/mtla-s3-prefill8.safetensors", fixtures("mtla"));
    let one = place.prints(&["verify", &file, "--dtype", "f32", "--path", "fused"]);
    assert!(one.contains("4 passed, 0 failed, 0 not defined"), "{one}");
}

#[test]
fn the_built_in_suite_needs_no_file() {
    let json = Place::with("").prints(&["verify", "--dtype", "f32", "--format", "json"]);
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["passed"], true);
    let checks = report["checks"].as_array().unwrap();
    for variant in ["mha", "gqa", "mqa", "mla", "mtla"] {
        assert!(
            checks.iter().any(|check| check["variant"] == variant),
            "{variant}"
        );
    }
}

#[test]
fn a_wrong_result_fails_with_exit_code_one() {
    let place = Place::with("");
    // A weight's sign: still a valid file, no longer the layer it was made with.
    let path = format!("{}/mtla-s2.safetensors", fixtures("mtla"));
    let mut bytes = std::fs::read(path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let at = json["weights.wo.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
    for i in 0..64 {
        bytes[8 + header + at + 4 * i + 3] ^= 0x80;
    }
    std::fs::write(place.path().join("wrong.safetensors"), bytes).unwrap();
    let out = place.run(&["verify", "wrong.safetensors"]);
    assert_eq!(out.status.code(), Some(1));
    let table = String::from_utf8(out.stdout).unwrap();
    assert!(table.contains("FAILED: differs by"), "{table}");
}

#[test]
fn damaged_and_foreign_files_are_bad_input() {
    let place = Place::with("");
    let good = std::fs::read(format!("{}/mtla-s2.safetensors", fixtures("mtla"))).unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(place.path().join(name), bytes).unwrap();
    write("cut.safetensors", &good[..good.len() / 2]);
    write("empty.safetensors", b"");
    write("text.safetensors", b"this is no tensor file at all, it is text");
    write("huge.safetensors", &u64::MAX.to_le_bytes());
    // A tensor file of something else.
    let header = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let mut foreign = (header.len() as u64).to_le_bytes().to_vec();
    foreign.extend_from_slice(header);
    foreign.extend_from_slice(&[0; 4]);
    write("foreign.safetensors", &foreign);
    for (name, says) in [
        ("cut.safetensors", "damaged"),
        ("empty.safetensors", "damaged"),
        ("text.safetensors", "damaged"),
        ("huge.safetensors", "damaged"),
        ("foreign.safetensors", "no conformance file"),
        ("absent.safetensors", "cannot read"),
    ] {
        let (code, text) = place.fails(&["verify", name]);
        assert_eq!(code, 2, "{name}");
        assert!(text.contains(says) && text.contains(name), "{name}: {text}");
    }
    std::fs::create_dir(place.path().join("folder")).unwrap();
    let (code, text) = place.fails(&["verify", "folder"]);
    assert!(code == 2 && text.contains("no *.safetensors"), "{text}");
    let (code, text) = place.fails(&["verify", "--device", "cuda"]);
    assert!(code == 2 && text.contains("cuda"), "{text}");
}

/// A copy of a saved model of the fixtures without the files in `but`.
fn model_without(place: &Place, but: &[&str]) {
    let from = format!("{}/llama-mtla-s3-qrank", fixtures("model"));
    std::fs::create_dir(place.path().join("saved")).unwrap();
    for name in ["config.json", "model.safetensors", "expected.safetensors"] {
        if !but.contains(&name) {
            let bytes = std::fs::read(format!("{from}/{name}")).unwrap();
            std::fs::write(place.path().join("saved").join(name), bytes).unwrap();
        }
    }
}

#[test]
fn saved_models_pass_on_logits_and_every_greedy_token() {
    let place = Place::with("");
    let folders = [
        "llama-mtla-s1",
        "llama-mtla-s2-wide-rope",
        "llama-mtla-s3-qrank",
        "llama-mtla-s4-tied",
    ]
    .map(|name| format!("{}/{name}", fixtures("model")));
    let mut args = vec!["verify"];
    args.extend(folders.iter().map(String::as_str));
    let table = place.prints(&args);
    // Four in f32 and two in half precision of each; the seed-like path has no half precision.
    assert!(table.contains("24 passed, 0 failed, 8 not defined"), "{table}");
    assert!(table.contains("greedy tokens"), "{table}");
}

#[test]
fn a_model_that_computes_something_else_fails_with_exit_code_one() {
    let place = Place::with("");
    model_without(&place, &[]);
    let path = place.path().join("saved/config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"down_rate\": 3", "\"down_rate\": 2")).unwrap();
    let out = place.run(&["verify", "saved", "--dtype", "f32"]);
    assert_eq!(out.status.code(), Some(1));
    let table = String::from_utf8(out.stdout).unwrap();
    assert!(
        table.contains("FAILED: differs by") && table.contains("FAILED: token"),
        "{table}"
    );
}

#[test]
fn a_model_with_nothing_to_compare_with_is_no_pass() {
    let place = Place::with("");
    model_without(&place, &["expected.safetensors"]);
    let out = place.run(&["verify", "saved"]);
    assert_eq!(out.status.code(), Some(2));
    let error = String::from_utf8(out.stderr).unwrap();
    assert!(
        error.contains("loaded a llama decoder of 3 layers of mtla") && error.contains("nothing to compare"),
        "{error}"
    );
    std::fs::remove_file(place.path().join("saved/model.safetensors")).unwrap();
    let out = place.run(&["verify", "saved"]);
    let error = String::from_utf8(out.stderr).unwrap();
    assert!(
        out.status.code() == Some(2) && error.contains("model.safetensors"),
        "{error}"
    );
}
