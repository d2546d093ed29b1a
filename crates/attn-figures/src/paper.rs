//! The numbers that the MTLA paper prints (`data/paper.csv`).

use crate::csv::{self, Record};
use std::sync::LazyLock;

/// One printed row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Published {
    /// `st`, `xsum`, `asr`, `slu`.
    pub(crate) task: String,
    /// Registry key where there is one.
    pub(crate) variant: String,
    pub(crate) stride: Option<u64>,
    /// With the paper's FlashAttention-2 kernels.
    pub(crate) is_flash: bool,
    pub(crate) n_kv_heads: Option<u64>,
    /// Cache elements of a token in a layer.
    pub(crate) cache_elements: Option<f64>,
    pub(crate) time_s: f64,
    /// Mean allocated memory.
    pub(crate) memory_mib: f64,
    /// Name of the quality's measure, and its value.
    pub(crate) quality: Option<(String, f64)>,
    /// Table and row.
    pub(crate) source: String,
}

const HEADER: [&str; 11] = [
    "task",
    "variant",
    "stride",
    "implementation",
    "n_kv_heads",
    "cache_elements",
    "time_s",
    "memory_mib",
    "quality_name",
    "quality",
    "source",
];

static ROWS: LazyLock<Result<Vec<Published>, String>> =
    LazyLock::new(|| parse(include_str!("../data/paper.csv")));

/// Every row, in the order of the file.
///
/// # Errors
/// What is wrong with the file, which a test rules out.
pub(crate) fn published() -> Result<&'static [Published], String> {
    match &*ROWS {
        Ok(rows) => Ok(rows),
        Err(problem) => Err(format!("data/paper.csv, {problem}")),
    }
}

fn parse(text: &str) -> Result<Vec<Published>, String> {
    csv::read(text, &HEADER)?.iter().map(row).collect()
}

fn row(record: &Record) -> Result<Published, String> {
    let required = |at: usize| {
        let missing = || format!("line {}: `{}` is empty", record.line, HEADER[at]);
        record.text(at).ok_or_else(missing)
    };
    let quality = match (record.text(8), record.number(9)?) {
        (Some(name), Some(value)) => Some((name, value)),
        (None, None) => None,
        _ => return Err(format!("line {}: a quality needs name and value", record.line)),
    };
    Ok(Published {
        task: required(0)?,
        variant: required(1)?,
        stride: record.number(2)?,
        is_flash: match required(3)?.as_str() {
            "plain" => false,
            "flash" => true,
            other => return Err(format!("line {}: `{other}` is not plain or flash", record.line)),
        },
        n_kv_heads: record.number(4)?,
        cache_elements: record.number(5)?,
        time_s: record.positive(6)?,
        memory_mib: record.positive(7)?,
        quality,
        source: required(10)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_all_tables_and_the_papers_own_ratios() {
        let rows = published().unwrap();
        let of = |task: &str, variant: &str, stride: Option<u64>| {
            let mut found = rows.iter().filter(|row| {
                row.task == task && row.variant == variant && row.stride == stride && !row.is_flash
            });
            found.next().unwrap()
        };
        let n = |task: &str| rows.iter().filter(|row| row.task == task).count();
        assert_eq!(["st", "xsum", "asr", "slu"].map(n), [11, 3, 3, 3]);
        // The ratios as the paper prints them beside the times.
        let ratios = |task: &str, variant: &str, stride: Option<u64>| {
            let (base, own) = (of(task, "mha", None), of(task, variant, stride));
            let round = |ratio: f64| (ratio * 100.0).round() / 100.0;
            (
                round(base.time_s / own.time_s),
                round(base.memory_mib / own.memory_mib),
            )
        };
        assert_eq!(ratios("st", "mtla", Some(3)), (5.34, 8.28));
        assert_eq!(ratios("st", "mqa", None), (1.67, 6.07));
        assert_eq!(
            ratios("st", "mamba2", None),
            (1.79, 3.29),
            "the paper prints 1.78"
        );
        assert_eq!(ratios("xsum", "mtla", Some(2)), (3.35, 7.34));
        assert_eq!(ratios("asr", "mla", None), (2.56, 3.97));
        assert_eq!(ratios("slu", "mtla", Some(2)), (2.53, 7.01));
        assert!(rows.iter().all(|row| row.source.starts_with("Table")));
        assert!(rows.iter().all(|row| row.quality.is_some()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |line: &str| parse(&format!("{}\n{line}\n", HEADER.join(","))).unwrap_err();
        assert_eq!(
            error("st,mha,,fast,8,1024,1,2,BLEU,3,Table 1"),
            "line 2: `fast` is not plain or flash"
        );
        assert_eq!(
            error("st,mha,,plain,8,1024,,2,BLEU,3,Table 1"),
            "line 2: `` should be a positive number"
        );
        assert_eq!(
            error("st,mha,,plain,8,1024,1,2,BLEU,3,"),
            "line 2: `source` is empty"
        );
        assert_eq!(
            error("st,mha,,plain,8,1024,1,2,BLEU,,Table 1"),
            "line 2: a quality needs name and value"
        );
        assert_eq!(
            error("st,mtla,two,plain,,144,1,2,BLEU,3,Table 1"),
            "line 2: `two` is no number of its kind"
        );
    }
}
