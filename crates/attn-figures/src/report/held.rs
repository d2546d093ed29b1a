//! What was held equal between the cases of a run, and what was varied on purpose.

use serde::Serialize;
use serde_json::Value;

use super::cells::{Cells, plain};
use crate::frame::mark;

/// A setting of the cases.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Setting {
    pub(super) name: String,
    /// One, or several.
    pub(super) values: Vec<String>,
}

/// Settings by whether they are the same in every case.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Held {
    /// In a sentence.
    pub(super) sentence: String,
    pub(super) equal: Vec<Setting>,
    pub(super) varied: Vec<Setting>,
}

/// Columns that say under which conditions a case was measured, and their names.
const COLUMNS: [(&str, &str); 33] = [
    ("device_resolved", "device"),
    ("machine", "machine"),
    ("gpu", "GPU"),
    ("threads", "threads"),
    ("dtype_resolved", "element type"),
    ("path_resolved", "path"),
    ("habits", "habits of the seed's code"),
    ("scope", "scope"),
    ("launch_resolved", "launch"),
    ("cache_regime", "caches before a sample"),
    ("prefix", "prefix of a beam"),
    ("fair", "held equal between variants"),
    ("fair_reference", "matched to"),
    ("decoder", "decoder"),
    ("d_model", "model width"),
    ("n_heads", "query heads"),
    ("head_dim", "head size"),
    ("n_layers", "layers"),
    ("d_ff", "feed-forward width"),
    ("vocab", "vocabulary"),
    ("encoder_layers", "encoder layers"),
    ("workload", "workload"),
    ("batch", "batch"),
    ("context", "context"),
    ("tokens", "tokens"),
    ("new_tokens", "new tokens"),
    ("beam", "beam"),
    ("task", "task"),
    ("train_steps", "updates"),
    ("downsample", "encoder states made one"),
    ("lr", "learning rate"),
    ("n_seeds", "seeds of a training"),
    ("seed", "seed of weights and inputs"),
];

/// Settings of the measurement that are read from the column `measure`.
const MEASURE: [(&str, &str, &str); 6] = [
    ("warmup_ms", "warm-up", " ms"),
    ("min_samples", "fewest samples", ""),
    ("max_samples", "most samples", ""),
    ("target_ci", "target half width of an interval", ""),
    ("max_s", "longest sampling of a case", " s"),
    ("replicas", "replicas", ""),
];

/// The settings of the rows.
pub(super) fn of(cells: &Cells) -> Held {
    let mut held = Held::default();
    for (column, name) in COLUMNS {
        let mut values = cells.values(column);
        // Sizes by size; words in the order of the rows, which is that of the sweep.
        if values.iter().all(|value| value.parse::<f64>().is_ok()) {
            let size = |value: &String| value.parse::<f64>().unwrap_or_default();
            values.sort_by(|a, b| size(a).total_cmp(&size(b)));
        }
        put(&mut held, name, values);
    }
    // A single hash says nothing to a reader; several say that one model is several machines.
    let prints = cells.values("fingerprint");
    if prints.len() > 1 {
        let marks = prints.iter().map(|print| mark(print)).collect();
        put(&mut held, "fingerprint of the machine", marks);
    }
    for (key, name, unit) in MEASURE {
        let mut values: Vec<String> = Vec::new();
        for json in cells.values("measure") {
            let settings: Value = serde_json::from_str(&json).unwrap_or_default();
            if let Some(value) = settings.get(key).filter(|value| !value.is_null()) {
                let text = value.as_f64().map_or_else(|| value.to_string(), plain) + unit;
                if !values.contains(&text) {
                    values.push(text);
                }
            }
        }
        put(&mut held, name, values);
    }
    held.sentence = sentence(&held, &verified(cells));
    held
}

fn put(held: &mut Held, name: &str, values: Vec<String>) {
    let setting = Setting {
        name: name.to_owned(),
        values,
    };
    match setting.values.len() {
        0 => {}
        1 => held.equal.push(setting),
        _ => held.varied.push(setting),
    }
}

fn sentence(held: &Held, verified: &str) -> String {
    let written = |setting: &Setting| match setting.values.as_slice() {
        [one] => format!("{} {one}", setting.name),
        many if many.len() <= 8 => format!("{} ({})", setting.name, many.join(", ")),
        many => format!("{} ({} values)", setting.name, many.len()),
    };
    let join = |all: &[Setting]| all.iter().map(written).collect::<Vec<_>>().join(", ");
    let mut text = String::from(verified);
    if !held.equal.is_empty() {
        text.push_str(&format!(" Equal in every case: {}.", join(&held.equal)));
    }
    if !held.varied.is_empty() {
        text.push_str(&format!(
            " Varied on purpose: {}; where cases that differ in any of it are compared, the finding says so.",
            join(&held.varied)
        ));
    }
    text
}

/// How many of the measured cases agreed with a reference before anything was measured.
fn verified(cells: &Cells) -> String {
    let measured = || (0..cells.height).filter(|row| cells.text(*row, "status") == Some("ok"));
    let is_verified = |row: &usize| cells.text(*row, "verified_against").is_some();
    let by = cells.values("verified_against").join(", ");
    match (measured().filter(is_verified).count(), measured().count()) {
        (0, _) => "The rows do not say that results were compared with a reference.".to_owned(),
        (n, all) => {
            format!(
                "{n} of {all} measured cases agreed with a reference ({by}) before anything was measured."
            )
        }
    }
}
