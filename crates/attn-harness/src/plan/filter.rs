//! `--filter`: conditions on columns, of planned cases and of stored rows alike.

use std::borrow::Cow;

use attn_core::Variant;

use super::{Case, Plan};
use crate::error::Error;
use crate::sweep::unknown;

const GRAMMAR: &str = "conditions are joined by commas and all must hold, for example \
                       variant=mtla,batch=1,context>=2048; the comparisons are = != < <= > >=";

/// Columns of a case beside the settings of its variant.
const COLUMNS: [&str; 26] = [
    "case_id",
    "variant",
    "label",
    "workload",
    "batch",
    "context",
    "tokens",
    "new_tokens",
    "beam",
    "n_layers",
    "d_ff",
    "vocab",
    "decoder",
    "habits",
    "prefix",
    "task",
    "train_steps",
    "downsample",
    "dtype",
    "path",
    "scope",
    "device",
    "cache_regime",
    "launch_requested",
    "group",
    "seed",
];

/// Conditions that all must hold.
#[derive(Debug, Clone)]
pub struct Filter {
    terms: Vec<Term>,
}

#[derive(Debug, Clone)]
struct Term {
    column: String,
    comparison: Comparison,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

/// Longer spellings first: `<=` begins with `<`.
const COMPARISONS: [(&str, Comparison); 6] = [
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::LessEqual),
    (">=", Comparison::GreaterEqual),
    ("=", Comparison::Equal),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

impl Filter {
    /// Parses `expression` over the columns there are.
    ///
    /// # Errors
    /// [`Error::Option`] for a condition that is none and for an unknown column.
    pub fn parse(expression: &str, columns: &[&str]) -> Result<Self, Error> {
        let option = || format!("--filter {expression}");
        let mut terms = Vec::new();
        for part in expression.split(',').map(str::trim) {
            let at = |spelling: &str| part.find(spelling);
            let found = COMPARISONS
                .iter()
                .filter_map(|(s, c)| Some((at(s)?, s.len(), *c)));
            // The first comparison ends the column; of two that begin together the longer one is meant.
            let first = found.min_by_key(|&(start, len, _)| (start, usize::MAX - len));
            let Some((start, len, comparison)) = first.filter(|&(start, ..)| start > 0) else {
                return Err(Error::option(
                    option(),
                    format!("`{part}` is no condition"),
                    GRAMMAR,
                ));
            };
            let (column, value) = (part[..start].trim(), part[start + len..].trim());
            if !columns.contains(&column) {
                let problem = unknown("column", column, columns);
                return Err(Error::option(
                    option(),
                    problem.message,
                    problem.help.unwrap_or(GRAMMAR.to_string()),
                ));
            }
            let ordered = !matches!(comparison, Comparison::Equal | Comparison::NotEqual);
            if value.is_empty() || ordered && value.parse::<f64>().is_err() {
                let expected = if ordered { "a number" } else { "a value" };
                let message = format!("`{part}` compares with `{value}`, expected {expected}");
                return Err(Error::option(option(), message, GRAMMAR));
            }
            terms.push(Term {
                column: column.to_string(),
                comparison,
                value: value.to_string(),
            });
        }
        Ok(Self { terms })
    }

    /// Parses `expression` over what is known of a planned case.
    ///
    /// # Errors
    /// [`Error::Option`] for a condition that is none and for an unknown column.
    pub fn of_cases(expression: &str, variants: &[&'static Variant]) -> Result<Self, Error> {
        let mut columns = COLUMNS.to_vec();
        for spec in variants.iter().flat_map(|variant| variant.params) {
            if !columns.contains(&spec.name) {
                columns.push(spec.name);
            }
        }
        Self::parse(expression, &columns)
    }

    /// Whether all conditions hold where `cell` gives the value of a column, if it has one.
    pub fn accepts<'a>(&self, cell: impl Fn(&str) -> Option<Cow<'a, str>>) -> bool {
        self.terms
            .iter()
            .all(|term| term.holds(cell(&term.column).as_deref()))
    }
}

impl Term {
    /// A value that is not there equals nothing, and is neither more nor less than anything.
    fn holds(&self, cell: Option<&str>) -> bool {
        let Some(cell) = cell else {
            return self.comparison == Comparison::NotEqual;
        };
        let numbers = (cell.parse::<f64>().ok(), self.value.parse::<f64>().ok());
        match (self.comparison, numbers) {
            (Comparison::Equal, (Some(a), Some(b))) => a == b,
            (Comparison::NotEqual, (Some(a), Some(b))) => a != b,
            (Comparison::Equal, _) => cell == self.value,
            (Comparison::NotEqual, _) => cell != self.value,
            (Comparison::Less, (Some(a), Some(b))) => a < b,
            (Comparison::LessEqual, (Some(a), Some(b))) => a <= b,
            (Comparison::Greater, (Some(a), Some(b))) => a > b,
            (Comparison::GreaterEqual, (Some(a), Some(b))) => a >= b,
            _ => false,
        }
    }
}

impl Plan {
    /// Keeps the cases for which `expression` holds; they keep their ids, groups and sample lengths.
    ///
    /// # Errors
    /// [`Error::Option`] for a bad expression, and where no case is left.
    pub fn filter(mut self, expression: &str, variants: &[&'static Variant]) -> Result<Self, Error> {
        let filter = Filter::of_cases(expression, variants)?;
        let planned = self.cases.len();
        self.cases
            .retain(|case| filter.accepts(|column| case.cell(column)));
        if self.cases.is_empty() {
            let message = format!("none of the {planned} cases is left");
            return Err(Error::option(
                format!("--filter {expression}"),
                message,
                "`attn-bench plan` lists them",
            ));
        }
        Ok(self)
    }
}

impl Case {
    /// The case's value in a column of results, as text.
    pub fn cell(&self, column: &str) -> Option<Cow<'_, str>> {
        use attn_core::Workload::{Beam, Decode, Generate, Prefill, TrainStep, Trajectory};
        Some(match column {
            "case_id" => Cow::Borrowed(self.id.as_str()),
            "variant" => Cow::Borrowed(self.variant.key),
            "label" => Cow::Borrowed(self.label.as_str()),
            "workload" => Cow::Borrowed(self.workload_name()),
            "dtype" => Cow::Borrowed(self.dtype.name()),
            "path" => Cow::Borrowed(self.path.name()),
            "scope" => Cow::Borrowed(self.scope.name()),
            "cache_regime" => Cow::Borrowed(self.regime.name()),
            "launch_requested" => Cow::Borrowed(self.launch?.name()),
            "device" => self.device.to_string().into(),
            "group" => self.group.to_string().into(),
            "seed" => self.seed.to_string().into(),
            "batch" => self.workload.batch().to_string().into(),
            "context" => match self.workload {
                Decode { context, .. } => context.to_string().into(),
                _ => return None,
            },
            "tokens" => match self.workload {
                Prefill { tokens, .. }
                | TrainStep { tokens, .. }
                | Generate { tokens, .. }
                | Trajectory { tokens, .. }
                | Beam { tokens, .. } => tokens.to_string().into(),
                Decode { .. } => return None,
            },
            "new_tokens" => match self.workload {
                Generate { new_tokens, .. } | Trajectory { new_tokens, .. } | Beam { new_tokens, .. } => {
                    new_tokens.to_string().into()
                }
                _ => return None,
            },
            "beam" => match self.workload {
                Beam { beam, .. } => beam.to_string().into(),
                _ => return None,
            },
            "n_layers" => self.model?.n_layers.to_string().into(),
            "d_ff" => self.model?.d_ff.to_string().into(),
            "vocab" => self.model?.vocab.to_string().into(),
            "decoder" => Cow::Borrowed(self.model?.decoder.name()),
            "habits" => self.habits?.to_string().into(),
            "prefix" => Cow::Borrowed(self.prefix?.name()),
            "task" => Cow::Borrowed(self.quality.as_ref()?.training.task_name.as_str()),
            "train_steps" => self.quality.as_ref()?.training.options.steps.to_string().into(),
            "downsample" => self
                .quality
                .as_ref()?
                .training
                .sizes
                .downsample
                .to_string()
                .into(),
            setting => self.params.0.get(setting)?.to_string().into(),
        })
    }
}
