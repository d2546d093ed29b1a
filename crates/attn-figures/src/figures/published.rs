//! The paper's rows beside ours: which belong together.

use crate::frame::Row;
use crate::paper::{self, Published};
use crate::slice::Slice;
use crate::style::{rank, series_key};

/// One of the paper's tasks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Task {
    /// In `data/paper.csv`, and in the names of its sweeps after `paper-`.
    pub(super) key: &'static str,
    pub(super) title: &'static str,
}

const TASKS: [Task; 4] = [
    Task {
        key: "st",
        title: "Speech translation (MuST-C En-De)",
    },
    Task {
        key: "xsum",
        title: "Summarisation (XSum)",
    },
    Task {
        key: "asr",
        title: "Speech recognition (AMI)",
    },
    Task {
        key: "slu",
        title: "Speech understanding (SLURP)",
    },
];

/// The task of a row's sweep: `paper-st`, `paper-st-cpu`.
pub(super) fn task_of(row: &Row) -> Option<Task> {
    let name = row.sweep_name.as_deref()?.strip_prefix("paper-")?;
    let is_of = |task: &&Task| {
        let rest = name.strip_prefix(task.key);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
    };
    TASKS.iter().find(is_of).copied()
}

/// A variant at one stride: what the paper printed of it, and how to find ours.
pub(super) struct Entry<'a> {
    pub(super) variant: String,
    pub(super) label: String,
    pub(super) published: Option<&'a Published>,
    /// Whether rows have it, by their label.
    is_measured: bool,
}

impl Entry<'_> {
    /// Whether a measured row is of this variant.
    pub(super) fn holds(&self, row: &Row) -> bool {
        self.is_measured && row.variant == self.variant && row.label == self.label
    }
}

/// A variant's place, its stride and its place among the rows: strides in their order, and what only the paper has among
/// ours.
type Place = (usize, Option<u64>, usize);

/// Every variant of the rows and of the paper's task, in the order of figures.
///
/// # Errors
/// What is wrong with the paper's file.
pub(super) fn entries<'a>(task: &str, slice: &Slice<'_>, rows: &[&Row]) -> Result<Vec<Entry<'a>>, String> {
    let printed: Vec<&Published> = paper::published()?
        .iter()
        .filter(|row| row.task == task && !row.is_flash)
        .collect();
    let mut found: Vec<(Place, Entry<'_>)> = Vec::new();
    for (at, (key, _)) in slice.series(rows).into_iter().enumerate() {
        let Some(row) = rows.iter().find(|row| series_key(row) == key) else {
            continue;
        };
        let entry = Entry {
            variant: key.0,
            label: key.1,
            published: printed.iter().copied().find(|published| is_same(published, row)),
            is_measured: true,
        };
        found.push(((rank(&entry.variant), row.stride, at), entry));
    }
    // Those that are no variant here have no place among them.
    let known = |published: &&&Published| published.cache_elements.is_some();
    for published in printed.iter().filter(known) {
        let is_there = |(_, entry): &(Place, Entry<'_>)| entry.published.is_some_and(|own| own == *published);
        if found.iter().any(is_there) {
            continue;
        }
        let name = published.variant.to_uppercase();
        let entry = Entry {
            variant: published.variant.clone(),
            label: match published.stride {
                Some(stride) => format!("{name} s={stride}"),
                None => name,
            },
            published: Some(published),
            is_measured: false,
        };
        found.push(((rank(&entry.variant), published.stride, usize::MAX), entry));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.label.cmp(&b.1.label)));
    Ok(found.into_iter().map(|(_, entry)| entry).collect())
}

/// Whether the paper's row is of the same variant: key, stride, and heads where both say.
fn is_same(published: &Published, row: &Row) -> bool {
    let heads = published.n_kv_heads.zip(row.n_kv_heads);
    published.variant == row.variant
        && published.stride == row.stride
        && heads.is_none_or(|(theirs, ours)| theirs == ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Frame;
    use crate::slice::WAYS;

    fn row(variant: &str, label: &str, stride: Option<u64>, n_kv_heads: Option<u64>) -> Row {
        Row {
            variant: variant.into(),
            label: label.into(),
            stride,
            n_kv_heads,
            status: "ok".into(),
            ..Row::default()
        }
    }

    #[test]
    fn tasks_are_known_by_the_sweeps_name() {
        let of = |name: &str| {
            let row = Row {
                sweep_name: Some(name.into()),
                ..Row::default()
            };
            task_of(&row).map(|task| task.key)
        };
        assert_eq!(of("paper-st"), Some("st"));
        assert_eq!(of("paper-st-cpu"), Some("st"));
        assert_eq!(of("paper-slu.2"), Some("slu"));
        assert_eq!(of("paper-stride"), None);
        assert_eq!(of("my-paper-st"), None);
    }

    #[test]
    fn what_one_side_lacks_is_still_an_entry() {
        let rows = [
            row("mtla", "MTLA s=8", Some(8), None),
            row("gqa", "GQA (4)", None, Some(4)),
            row("mha", "MHA", None, Some(8)),
            row("mtla", "MTLA s=2", Some(2), None),
        ];
        let frame = Frame::from_rows(rows.to_vec());
        let slice = Slice::split(&frame, WAYS, |_| true).remove(0);
        let refs: Vec<&Row> = frame.rows().iter().collect();
        let entries = entries("st", &slice, &refs).unwrap();
        let told: Vec<(&str, bool, bool)> = entries
            .iter()
            .map(|entry| (entry.label.as_str(), entry.published.is_some(), entry.is_measured))
            .collect();
        let expected = [
            ("MHA", true, true),
            ("GQA (4)", false, true),
            ("GQA", true, false),
            ("MQA", true, false),
            ("MLA", true, false),
            ("MTLA s=2", true, true),
            ("MTLA s=3", true, false),
            ("MTLA s=4", true, false),
            ("MTLA s=8", false, true),
        ];
        assert_eq!(told, expected);
    }
}
