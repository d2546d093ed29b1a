//! What models were trained on, and what their quality is measured by.

use crate::frame::Row;
use crate::units::{Unit, in_steps};

/// Trainings whose qualities may share an axis.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Task {
    pub(crate) name: String,
    measure: String,
    /// Updates.
    steps: Option<u64>,
    encoder_layers: Option<u64>,
    vocab: Option<u64>,
    decoder: Option<String>,
}

impl Task {
    pub(crate) fn of(row: &Row) -> Self {
        Self {
            name: Self::name_of(row),
            measure: row.quality_measure.clone().unwrap_or_default(),
            steps: row.train_steps,
            encoder_layers: row.encoder_layers,
            vocab: row.vocab,
            decoder: row.decoder.clone(),
        }
    }

    /// What is known of a training that failed as well.
    pub(crate) fn name_of(row: &Row) -> String {
        row.task
            .clone()
            .unwrap_or_else(|| "a task without a name".to_owned())
    }

    /// The name, with what tells it from the other tasks of the name.
    pub(crate) fn title(&self, all: &[&Self]) -> String {
        let rivals = || all.iter().filter(|other| other.name == self.name);
        let mut parts = vec![self.name.clone()];
        if rivals().any(|other| other.steps != self.steps) {
            parts.extend(self.steps.map(|n| format!("{n} updates")));
        }
        if rivals().any(|other| other.encoder_layers != self.encoder_layers) {
            parts.extend(self.encoder_layers.map(|n| format!("{n} encoder layers")));
        }
        if rivals().any(|other| other.vocab != self.vocab) {
            parts.extend(self.vocab.map(|n| format!("vocabulary {n}")));
        }
        if rivals().any(|other| other.decoder != self.decoder) {
            parts.extend(self.decoder.as_ref().map(|name| format!("{name} decoder")));
        }
        parts.join(", ")
    }

    /// `2000 updates`, or `500 to 2000 updates`, of several tasks.
    pub(crate) fn updates(all: &[&Self]) -> Option<String> {
        let steps = || all.iter().filter_map(|task| task.steps);
        let (least, most) = (steps().min()?, steps().max()?);
        Some(if least == most {
            format!("{least} updates")
        } else {
            format!("{least} to {most} updates")
        })
    }

    /// Whether a row that failed was to be of this task.
    pub(crate) fn may_be_of(&self, row: &Row) -> bool {
        self.name == Self::name_of(row) && (row.train_steps.is_none() || row.train_steps == self.steps)
    }

    pub(crate) fn measure(&self) -> Measure {
        Measure::named(&self.measure)
    }
}

/// A measure of quality.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Measure {
    pub(crate) title: String,
    pub(crate) unit: Unit,
    /// Where a row does not say it.
    pub(crate) is_higher_better: Option<bool>,
    /// Whether it is a loss, whose quotients count.
    pub(crate) is_loss: bool,
    /// Between which values it can be at all.
    pub(crate) range: (f64, f64),
}

impl Measure {
    fn named(name: &str) -> Self {
        const ANY: (f64, f64) = (f64::NEG_INFINITY, f64::INFINITY);
        // A test of some examples can have less loss than the entropy of its source.
        let (title, unit, is_higher_better, range) = match name {
            "excess_loss" => ("Excess loss (nats)", Unit::Score, Some(false), ANY),
            "perplexity" => ("Perplexity", Unit::Score, Some(false), (1.0, f64::INFINITY)),
            "token_accuracy" => ("Token accuracy", Unit::Share, Some(true), (0.0, 1.0)),
            "exact_match" => ("Exact match", Unit::Share, Some(true), (0.0, 1.0)),
            "bleu" => ("BLEU", Unit::Score, Some(true), (0.0, 100.0)),
            "wer" => (
                "Word error rate (%)",
                Unit::Score,
                Some(false),
                (0.0, f64::INFINITY),
            ),
            "rouge_l" => ("ROUGE-L (%)", Unit::Score, Some(true), (0.0, 100.0)),
            "" => ("Quality", Unit::Score, None, ANY),
            other => (other, Unit::Score, None, ANY),
        };
        Self {
            title: title.to_owned(),
            unit,
            is_higher_better,
            is_loss: matches!(name, "excess_loss" | "perplexity"),
            range,
        }
    }

    /// `BLEU (higher is better)`.
    pub(crate) fn axis_title(&self, is_higher_better: Option<bool>) -> String {
        match is_higher_better {
            Some(true) => format!("{}, higher is better", self.title),
            Some(false) => format!("{}, lower is better", self.title),
            None => self.title.clone(),
        }
    }

    /// A value of it, to a hundredth of the range it is compared in.
    pub(crate) fn value(&self, value: f64, range: f64) -> String {
        match self.unit {
            Unit::Share => format!("{}\u{a0}%", in_steps(100.0 * value, self.step(range))),
            _ => in_steps(value, self.step(range)),
        }
    }

    /// A difference with its sign, to the same digits; of shares in points.
    pub(crate) fn difference(&self, value: f64, range: f64) -> String {
        let sign = if value < 0.0 { "−" } else { "+" };
        let scale = if self.unit == Unit::Share { 100.0 } else { 1.0 };
        format!("{sign}{}", in_steps(scale * value.abs(), self.step(range)))
    }

    /// As it is written, so of shares in per cent.
    fn step(&self, range: f64) -> f64 {
        let scale = if self.unit == Unit::Share { 100.0 } else { 1.0 };
        (scale * range.abs() / 100.0).max(1e-9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_says_what_tells_a_task_from_its_namesakes() {
        let of = |name: &str, steps: u64| {
            Task::of(&Row {
                task: Some(name.into()),
                train_steps: Some(steps),
                ..Row::default()
            })
        };
        let all = [of("recall", 500), of("recall", 2000), of("copy", 2000)];
        let refs: Vec<&Task> = all.iter().collect();
        let titles: Vec<String> = all.iter().map(|task| task.title(&refs)).collect();
        assert_eq!(titles, ["recall, 500 updates", "recall, 2000 updates", "copy"]);
        assert_eq!(Task::updates(&refs).unwrap(), "500 to 2000 updates");
        assert_eq!(Task::updates(&refs[1..]).unwrap(), "2000 updates");
    }

    #[test]
    fn values_and_differences_have_the_same_digits() {
        let told = |name: &str, value: f64, difference: f64, range: f64| {
            let measure = Measure::named(name);
            let text = format!(
                "{} ({})",
                measure.value(value, range),
                measure.difference(difference, range)
            );
            text.replace('\u{a0}', " ")
        };
        assert_eq!(told("token_accuracy", 0.9123, -0.0312, 0.13), "91.2 % (−3.1)");
        assert_eq!(told("bleu", 23.234, 0.246, 1.2), "23.23 (+0.25)");
        assert_eq!(told("excess_loss", 0.0371, 0.0, 0.08), "0.0371 (+0.0000)");
    }
}
