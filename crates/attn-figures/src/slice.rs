//! The rows that may share an axis.
//!
//! A time in bf16 and one in f32 answer different questions, and so do two devices, paths, scopes or
//! machines. A figure names the dimensions that its quantity depends on; where the frame holds several
//! values of one, there is a file for each.

use crate::frame::{Frame, Row};
use crate::style::{Look, SeriesKey, series_key};
use crate::tasks::Task;
use std::collections::BTreeSet;

mod dimension;

pub(crate) use dimension::{
    Dimension, SIZED, TIMED, TRAINED, TRAINED_ON_ONE, WAYS, setting, setting_in_words, sizes,
};

use Dimension::{
    Device, Dtype, Fair, Gpu, Launch, Machine, Model, Path, Prefix, Regime, Run, SeedHabits, Sizes, Sweep,
    Tasks,
};
use dimension::fair_mode;

/// Panels of one figure of tasks.
const MOST_TASKS: usize = 6;

/// Rows of one figure that agree in every dimension of it.
pub(crate) struct Slice<'a> {
    pub(crate) frame: &'a Frame,
    /// The measured ones.
    pub(crate) rows: Vec<&'a Row>,
    /// The others: they are counted, not drawn.
    pub(crate) failed: Vec<&'a Row>,
    dimensions: &'static [Dimension],
    /// Whether other figures of the frame are of another cache regime.
    has_other_regimes: bool,
    /// Appended to the figure's name: empty where the frame holds one slice only.
    pub(crate) suffix: String,
}

impl<'a> Slice<'a> {
    /// Splits the rows a figure uses. The slices come in a fixed order, whatever the order of the rows.
    pub(crate) fn split(
        frame: &'a Frame,
        dimensions: &'static [Dimension],
        uses: fn(&Row) -> bool,
    ) -> Vec<Self> {
        let key = |row: &Row| -> Vec<String> { dimensions.iter().map(|d| d.value(frame, row)).collect() };
        let used: Vec<&Row> = frame.rows().iter().filter(|row| uses(row)).collect();
        let keys: BTreeSet<Vec<String>> = used
            .iter()
            .filter(|row| row.is_ok())
            .map(|row| key(row))
            .collect();
        let named = distinguishing(&keys, dimensions.len());
        let regimes: BTreeSet<String> = used.iter().map(|row| Regime.value(frame, row)).collect();

        let mut taken = BTreeSet::new();
        let mut slices = Vec::new();
        for wanted in &keys {
            let of_slice = |row: &&&Row| {
                let values = key(row);
                // A case that failed early may not have resolved what `auto` would have meant.
                let same = |(value, want): (&String, &String)| {
                    value == want || (!row.is_ok() && (value.is_empty() || value == "auto"))
                };
                values.iter().zip(wanted).all(same)
            };
            let (rows, failed) = used
                .iter()
                .filter(of_slice)
                .copied()
                .partition(|row: &&Row| row.is_ok());
            // Where these are empty they do not apply, and what does is in the other suffixes.
            let applies = |at: &&usize| {
                !wanted[**at].is_empty() || !matches!(dimensions[**at], Model | Gpu | SeedHabits | Prefix)
            };
            let mut suffix: String = named
                .iter()
                .filter(applies)
                .map(|at| format!("-{}", slug(&wanted[*at])))
                .collect();
            while !taken.insert(suffix.clone()) {
                suffix.push_str("-2");
            }
            slices.push(Self {
                frame,
                rows,
                failed,
                dimensions,
                has_other_regimes: regimes.len() > 1,
                suffix,
            });
        }
        if dimensions.contains(&Tasks) {
            slices = slices.iter().flat_map(Self::by_tasks).collect();
        }
        slices
    }

    /// The same slice in parts with few enough tasks for one page. A row that failed may not know what its task is
    /// measured by: it goes with the first part that has the task's name, or with the first part.
    fn by_tasks(&self) -> Vec<Self> {
        let tasks: BTreeSet<Task> = self.rows.iter().map(|row| Task::of(row)).collect();
        let tasks: Vec<Task> = tasks.into_iter().collect();
        let first_with = |name: String| tasks.iter().position(|task| task.name == name).unwrap_or(0);
        let part_of = |row: &Row| {
            let at = tasks.iter().position(|task| *task == Task::of(row));
            at.unwrap_or_else(|| first_with(Task::name_of(row))) / MOST_TASKS
        };
        let part = |at: usize| {
            let mut part = self.narrowed(|row| part_of(row) == at);
            if at > 0 {
                part.suffix = format!("{}-{}", self.suffix, at + 1);
            }
            part
        };
        (0..tasks.len().div_ceil(MOST_TASKS)).map(part).collect()
    }

    /// The same slice with some of its rows, measured and failed ones alike.
    pub(crate) fn narrowed(&self, keep: impl Fn(&Row) -> bool) -> Self {
        let kept = |rows: &[&'a Row]| rows.iter().copied().filter(|row| keep(row)).collect();
        Self {
            rows: kept(&self.rows),
            failed: kept(&self.failed),
            suffix: self.suffix.clone(),
            ..*self
        }
    }

    /// The series that have a row among the given ones, in the order of legends.
    pub(crate) fn series(&self, rows: &[&Row]) -> Vec<(SeriesKey, Look)> {
        let present: BTreeSet<SeriesKey> = rows.iter().map(|row| series_key(row)).collect();
        let palette = self.frame.palette();
        let order = palette.order().iter().filter(|key| present.contains(*key));
        order.map(|key| (key.clone(), palette.look(key))).collect()
    }

    /// The question the sweep asks.
    pub(crate) fn question(&self) -> Option<&'a str> {
        self.rows
            .iter()
            .find_map(|row| row.question.as_deref())
            .filter(|question| !question.trim().is_empty())
    }

    /// What holds for everything drawn: machine, threads, device, dtype, path, scope, and what was held equal.
    pub(crate) fn provenance(&self) -> Vec<String> {
        let Some(row) = self.rows.first() else {
            return Vec::new();
        };
        let value = |d: &Dimension| d.value(self.frame, row);
        let named = |d: &Dimension| match d {
            Fair => Some(self.held_equal(row)),
            // Hot caches are what everyone expects, unless there are cold ones to tell them from.
            Regime if !self.has_other_regimes && value(d) == "hot" => None,
            _ => Some(d.caption(&value(d))).filter(|_| !value(d).is_empty()),
        };
        let shown = self.dimensions.iter().filter(|d| !matches!(d, Run | Sweep));
        let mut parts: Vec<String> = shown.filter_map(named).collect();
        // A name that is only there to tell files apart.
        parts.extend(
            self.dimensions
                .iter()
                .filter(|d| matches!(d, Run | Sweep))
                .filter_map(named),
        );
        parts
    }

    /// What the sweep holds equal: `same parameters as MHA (mismatch up to 1.2 %)`.
    fn held_equal(&self, row: &Row) -> String {
        let mode = fair_mode(row);
        let what = match mode {
            "width" => return "same width".to_owned(),
            "params" => "parameters",
            "kv_bytes" => "cache bytes",
            "flops" => "FLOPs",
            other => other,
        };
        let mut text = format!("same {what}");
        if let Some(reference) = &row.fair_reference {
            let label = self
                .rows
                .iter()
                .find(|row| row.variant == *reference)
                .map(|row| &row.label);
            text.push_str(&format!(" as {}", label.unwrap_or(reference)));
        }
        let mismatches = self.rows.iter().filter_map(|row| row.fair_mismatch);
        let percent = mismatches.map(|m| m.abs() * 100.0).fold(0.0, f64::max);
        let amount = if percent < 0.1 {
            "below 0.1".to_owned()
        } else {
            format!("up to {percent:.1}")
        };
        text.push_str(&format!(" (mismatch {amount}\u{a0}%)"));
        text
    }

    /// Whether something measured is of the seed-like path.
    pub(crate) fn is_measured_seedlike(&self) -> bool {
        let is_seedlike = |row: &&&Row| Path.value(self.frame, row) == "seedlike";
        self.dimensions.contains(&Machine) && self.rows.iter().any(|row| is_seedlike(&row))
    }

    /// What is missing or weak, in words: cases without a result and rows that ran as something else.
    pub(crate) fn reservations(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.failed.is_empty() {
            let statuses: BTreeSet<&str> = self.failed.iter().map(|row| row.status.as_str()).collect();
            let count = |status: &str| self.failed.iter().filter(|row| row.status == status).count();
            let each: Vec<String> = statuses
                .iter()
                .map(|s| format!("{} {}", count(s), s.replace('_', " ")))
                .collect();
            notes.push(format!(
                "{} not drawn: {}",
                cases(self.failed.len()),
                each.join(", ")
            ));
        }
        let has = |d: &Dimension| self.dimensions.contains(d) || self.dimensions.contains(&Sizes);
        let watched = [Device, Dtype, Path, Launch].into_iter().filter(has);
        let watched: Vec<Dimension> = watched.collect();
        let moved = self
            .rows
            .iter()
            .filter(|row| watched.iter().any(|d| d.differs(row)))
            .count();
        if moved > 0 {
            notes.push(format!("{} ran as shown here, not as requested", cases(moved)));
        }
        notes
    }
}

/// The dimensions it takes to tell the keys apart: where two vary together, the later one is enough.
fn distinguishing(keys: &BTreeSet<Vec<String>>, n_dimensions: usize) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..n_dimensions).collect();
    for candidate in 0..n_dimensions {
        let without: Vec<usize> = kept.iter().copied().filter(|at| *at != candidate).collect();
        let parts = |key: &Vec<String>| without.iter().map(|at| key[*at].clone()).collect::<Vec<_>>();
        if keys.iter().map(parts).collect::<BTreeSet<_>>().len() == keys.len() {
            kept = without;
        }
    }
    kept
}

/// `1 case`, `2 cases`.
pub(crate) fn cases(n: usize) -> String {
    format!("{n} {}", if n == 1 { "case" } else { "cases" })
}

/// A value as part of a file name.
fn slug(value: &str) -> String {
    let mut slug = String::new();
    for c in value.chars() {
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(48);
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() {
        "unknown".to_owned()
    } else {
        slug.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(dtype: &str, path: &str, status: &str) -> Row {
        Row {
            variant: "mha".into(),
            label: "MHA".into(),
            workload: "decode".into(),
            status: status.into(),
            dtype_requested: Some(dtype.into()),
            dtype_resolved: (status == "ok").then(|| dtype.into()),
            path_resolved: Some(path.into()),
            ..Row::default()
        }
    }

    fn suffixes(rows: Vec<Row>) -> Vec<String> {
        let frame = Frame::from_rows(rows);
        Slice::split(&frame, TIMED, |_| true)
            .into_iter()
            .map(|slice| slice.suffix)
            .collect()
    }

    #[test]
    fn one_combination_has_no_suffix() {
        assert_eq!(
            suffixes(vec![row("f32", "fused", "ok"), row("f32", "fused", "oom")]),
            [""]
        );
    }

    #[test]
    fn only_what_varies_is_in_the_suffix() {
        let rows = vec![
            row("f32", "fused", "ok"),
            row("bf16", "fused", "ok"),
            row("f16", "fused", "oom"),
        ];
        assert_eq!(suffixes(rows), ["-bf16", "-f32"]);
        let rows = vec![
            row("f32", "fused", "ok"),
            row("f32", "seedlike", "ok"),
            row("bf16", "fused", "ok"),
        ];
        assert_eq!(suffixes(rows), ["-bf16-fused", "-f32-fused", "-f32-seedlike"]);
    }

    #[test]
    fn what_varies_together_is_named_once() {
        let on = |sweep: &str, machine: &str| Row {
            sweep_name: Some(sweep.into()),
            machine: Some(machine.into()),
            ..row("f32", "fused", "ok")
        };
        assert_eq!(suffixes(vec![on("a", "one"), on("b", "two")]), ["-one", "-two"]);
        assert_eq!(suffixes(vec![on("a", "one"), on("b", "one")]), ["-a", "-b"]);
    }

    #[test]
    fn rows_of_different_machines_never_share_an_axis() {
        let on = |machine: &str, gpu: Option<&str>, fingerprint: Option<&str>| Row {
            machine: Some(machine.into()),
            gpu: gpu.map(str::to_owned),
            fingerprint: fingerprint.map(str::to_owned),
            ..row("f32", "fused", "ok")
        };
        let (first, second) = (Some("1111111122222222"), Some("3333333344444444"));
        let captions = |frame: &Frame| -> Vec<String> {
            let slices = Slice::split(frame, TIMED, |_| true);
            slices
                .iter()
                .map(|slice| slice.provenance().join(" · "))
                .collect()
        };

        let alone = vec![on("one", None, first), on("one", None, None)];
        assert_eq!(suffixes(alone.clone()), [""]);
        assert_eq!(
            captions(&Frame::from_rows(alone)),
            ["one · f32 · fused path · same width"],
            "one machine needs no mark, and an older run has none"
        );
        assert_eq!(
            suffixes(vec![on("one", None, first), on("two", None, second)]),
            ["-one", "-two"]
        );

        let twins = vec![on("one", None, first), on("one", None, second)];
        assert_eq!(suffixes(twins.clone()), ["-one-11111111", "-one-33333333"]);
        let apart = twins.into_iter().map(|row| Frame::from_rows(vec![row]));
        assert_eq!(
            captions(&Frame::joined(apart.collect())),
            [
                "one (11111111) · f32 · fused path · same width",
                "one (33333333) · f32 · fused path · same width"
            ]
        );

        let failed = Row {
            status: "oom".into(),
            ..on("one", None, first)
        };
        let gpus = vec![
            on("one", Some("A100"), first),
            on("one", Some("H100"), second),
            failed,
        ];
        assert_eq!(suffixes(gpus.clone()), ["-a100", "-h100"]);
        let frame = Frame::from_rows(gpus);
        assert_eq!(captions(&frame)[1], "one · H100 · f32 · fused path · same width");
        let slices = Slice::split(&frame, TIMED, |_| true);
        assert!(slices.iter().all(|slice| slice.failed.len() == 1));
    }

    #[test]
    fn values_with_one_slug_keep_files_of_their_own() {
        assert_eq!(
            suffixes(vec![row("a/b", "fused", "ok"), row("a b", "fused", "ok")]),
            ["-a-b", "-a-b-2"]
        );
        assert_eq!(slug("AMD EPYC 9654 (Genoa)"), "amd-epyc-9654-genoa");
        assert_eq!(slug("../../etc"), "etc");
        assert_eq!(slug("日本"), "unknown");
    }

    #[test]
    fn cold_and_hot_caches_are_two_figures_and_old_rows_are_hot() {
        let of = |regime: Option<&str>| Row {
            cache_regime: regime.map(str::to_owned),
            ..row("f32", "fused", "ok")
        };
        let captions = |rows: Vec<Row>| -> Vec<String> {
            let frame = Frame::from_rows(rows);
            let slices = Slice::split(&frame, TIMED, |_| true);
            slices
                .iter()
                .map(|slice| slice.provenance().join(" · "))
                .collect()
        };
        assert_eq!(
            captions(vec![of(None), of(Some("hot"))]),
            ["f32 · fused path · same width"]
        );
        assert_eq!(
            captions(vec![of(Some("cold"))]),
            ["f32 · fused path · cold caches · same width"]
        );
        let both = vec![of(None), of(Some("cold"))];
        assert_eq!(suffixes(both.clone()), ["-cold", "-hot"]);
        assert_eq!(captions(both)[1], "f32 · fused path · hot caches · same width");
    }

    #[test]
    fn what_was_held_equal_is_told_with_the_largest_mismatch() {
        let of = |fair: &str, mismatch: f64| Row {
            fair: Some(fair.into()),
            fair_reference: Some("mha".into()),
            fair_mismatch: Some(mismatch),
            ..row("f32", "fused", "ok")
        };
        let told = |rows: Vec<Row>| {
            let frame = Frame::from_rows(rows);
            let slice = Slice::split(&frame, TIMED, |_| true).remove(0);
            slice.provenance().pop().unwrap().replace('\u{a0}', " ")
        };
        let params = vec![of("params", 0.0), of("params", -0.0123), of("params", 0.004)];
        assert_eq!(told(params), "same parameters as MHA (mismatch up to 1.2 %)");
        assert_eq!(
            told(vec![of("flops", 0.0004)]),
            "same FLOPs as MHA (mismatch below 0.1 %)"
        );
        assert_eq!(told(vec![of("width", 0.5)]), "same width");
        let mixed = vec![of("width", 0.0), of("kv_bytes", 0.0)];
        assert_eq!(suffixes(mixed), ["-kv-bytes", "-width"]);
    }

    #[test]
    fn whole_decoders_never_share_an_axis_with_layers_or_other_ways() {
        let of = |prefix: Option<&str>, habits: Option<&str>, n_layers: u64| Row {
            scope: Some("model".into()),
            workload: "beam".into(),
            n_layers: Some(n_layers),
            prefix: prefix.map(str::to_owned),
            habits: habits.map(str::to_owned),
            ..row("f32", if habits.is_some() { "seedlike" } else { "fused" }, "ok")
        };
        let layer = Row {
            scope: Some("layer".into()),
            ..row("f32", "fused", "ok")
        };
        assert_eq!(suffixes(vec![layer, of(None, None, 9)]), ["-layer", "-model"]);
        let ways = vec![
            of(Some("copied"), None, 9),
            of(Some("shared"), None, 9),
            of(Some("copied"), Some("none"), 9),
            of(Some("copied"), Some("cat"), 9),
        ];
        assert_eq!(
            suffixes(ways.clone()),
            [
                "-copied-prefix",
                "-shared-prefix",
                "-habits-cat-copied-prefix",
                "-no-habits-copied-prefix"
            ]
        );
        assert_eq!(
            suffixes(vec![of(None, None, 9), of(None, None, 2)]),
            ["-2-layers", "-9-layers"]
        );
        let frame = Frame::from_rows(ways);
        let slices = Slice::split(&frame, WAYS, |_| true);
        assert_eq!(slices.len(), 1, "a figure of ways tells them apart itself");
        assert!(slices[0].is_measured_seedlike());
        assert_eq!(
            slices[0].provenance(),
            ["9 layers", "beam, batch 1", "model scope", "same width"]
        );
    }

    #[test]
    fn failed_cases_are_counted_by_status() {
        let rows = ["ok", "oom", "oom", "timeout"].map(|status| row("f32", "fused", status));
        let frame = Frame::from_rows(rows.to_vec());
        let slices = Slice::split(&frame, TIMED, |_| true);
        assert_eq!(slices[0].rows.len(), 1);
        assert_eq!(slices[0].reservations(), ["3 cases not drawn: 2 oom, 1 timeout"]);
    }

    #[test]
    fn a_fallback_is_told() {
        let mut fell = row("f32", "fused", "ok");
        fell.dtype_requested = Some("bf16".into());
        let frame = Frame::from_rows(vec![fell]);
        assert_eq!(
            Slice::split(&frame, TIMED, |_| true)[0].reservations(),
            ["1 case ran as shown here, not as requested"]
        );
    }
}
