//! `capacity`: limits in closed form, and caches that are really allocated at them.

#![allow(clippy::unwrap_used, reason = "a helper of tests, outside of a test function")]

mod common;

use common::{Place, SWEEP};
use insta::assert_snapshot;
use serde_json::Value;

fn limits(place: &Place, args: &[&str]) -> Vec<Value> {
    let args = [&["capacity", "sweep.yaml", "--format", "json"], args].concat();
    let answer: Value = serde_json::from_str(&place.prints(&args)).unwrap();
    answer["limits"].as_array().unwrap().clone()
}

#[test]
fn limits_are_a_table_a_question() {
    let place = Place::with(SWEEP);
    assert_snapshot!(place.prints(&["capacity", "sweep.yaml", "--memory", "1MiB"]), @r#"
    Weights, cache and state of one layer in 1.00 MiB; activations come on top.

     variant     dtype   batch   longest context   KV cache   weights
    ───────────────────────────────────────────────────────────────────
     MHA         f32         1              1917    958 KiB   65.0 KiB
     MHA         f32         2               958    958 KiB   65.0 KiB
     GQA Hkv=2   f32         1              3900    975 KiB   48.8 KiB
     GQA Hkv=2   f32         2              1950    975 KiB   48.8 KiB
     MTLA s=2    f32         1             12230    955 KiB   68.3 KiB
     MTLA s=2    f32         2              6114    955 KiB   68.3 KiB
     MTLA s=3    f32         1             18345    955 KiB   68.3 KiB
     MTLA s=3    f32         2              9171    955 KiB   68.3 KiB

     variant     dtype   context   largest batch   KV cache   weights
    ───────────────────────────────────────────────────────────────────
     MHA         f32          64              29    928 KiB   65.0 KiB
     MHA         f32         256               7    896 KiB   65.0 KiB
     GQA Hkv=2   f32          64              60    960 KiB   48.8 KiB
     GQA Hkv=2   f32         256              15    960 KiB   48.8 KiB
     MTLA s=2    f32          64             186    930 KiB   68.3 KiB
     MTLA s=2    f32         256              47    940 KiB   68.3 KiB
     MTLA s=3    f32          64             267    918 KiB   68.3 KiB
     MTLA s=3    f32         256              70    941 KiB   68.3 KiB
    "#);
    assert_snapshot!(place.prints(&[
        "capacity", "sweep.yaml", "--memory", "1MiB", "--layers", "4", "--verify", "--filter", "variant=mtla"
    ]), @r#"
    Weights, cache and state of 4 layers in 1.00 MiB; activations come on top.

     variant    dtype   batch   longest context   KV cache   weights    allocated
    ─────────────────────────────────────────────────────────────────────────────────
     MTLA s=2   f32         1              2400    188 KiB   68.3 KiB   as predicted
     MTLA s=2   f32         2              1198    187 KiB   68.3 KiB   as predicted
     MTLA s=3   f32         1              3600    188 KiB   68.3 KiB   as predicted
     MTLA s=3   f32         2              1797    187 KiB   68.3 KiB   as predicted

     variant    dtype   context   largest batch   KV cache   weights    allocated
    ─────────────────────────────────────────────────────────────────────────────────
     MTLA s=2   f32          64              36    180 KiB   68.3 KiB   as predicted
     MTLA s=2   f32         256               9    180 KiB   68.3 KiB   as predicted
     MTLA s=3   f32          64              52    179 KiB   68.3 KiB   as predicted
     MTLA s=3   f32         256              13    175 KiB   68.3 KiB   as predicted

    KV cache and weights are those of one layer
    "#);
}

#[test]
fn allocated_caches_are_what_was_predicted() {
    let place = Place::with(&SWEEP.replace("\nmodel:", "\ndtype: [f32, bf16]\nmodel:"));
    for memory in ["123456", "3 MB", "2MiB"] {
        let limits = limits(&place, &["--memory", memory, "--verify"]);
        // Four variants, two dtypes, two batches and two contexts.
        assert_eq!(limits.len(), 4 * 2 * (2 + 2));
        for limit in &limits {
            assert_eq!(limit["check"], "confirmed", "{limit}");
        }
    }
}

#[test]
fn half_the_bytes_an_element_are_twice_the_context() {
    let place = Place::with(&SWEEP.replace("\nmodel:", "\ndtype: [f32, bf16]\nmodel:"));
    let limits = limits(&place, &["--memory", "64MiB"]);
    let of = |dtype: &str| {
        let found = limits
            .iter()
            .find(|l| l["variant"] == "mha" && l["dtype"] == dtype && l["given"]["batch"] == 2);
        found.unwrap()["limit"].as_f64().unwrap()
    };
    assert!((of("bf16") / of("f32") - 2.0).abs() < 0.01);
}

#[test]
fn what_does_not_fit_is_not_tried() {
    let place = Place::with(SWEEP);
    let limits = limits(
        &place,
        &[
            "--memory",
            "900 TB",
            "--verify",
            "--filter",
            "variant=mha,context=64",
        ],
    );
    for limit in limits {
        let reason = limit["check"]["skipped"].as_str().unwrap();
        assert!(reason.contains("the machine has"), "{reason}");
    }
    let text = place.prints(&["capacity", "sweep.yaml", "--memory", "1 KiB", "--verify"]);
    assert!(text.contains("nothing fits"), "{text}");
    let (code, said) = place.fails(&["capacity", "sweep.yaml", "--memory", "1 gig"]);
    assert!(code == 2 && said.contains("is no amount of memory"), "{said}");
}
