//! What a task is: examples by number, and how answers are judged.

use serde::{Deserialize, Serialize};

/// What a model reads before it writes: the prefix that its cache holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// Nothing: a language model reads what it wrote itself.
    None,
    /// Frames `[n, F]` of a signal, row by row.
    Frames {
        /// The elements.
        features: Vec<f32>,
        /// Elements F of a frame.
        dim: usize,
    },
    /// Tokens of the source vocabulary.
    Tokens(Vec<u32>),
}

impl Source {
    /// Frames or tokens.
    pub fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Frames { features, dim } => features.len() / (*dim).max(1),
            Self::Tokens(tokens) => tokens.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What kind of source a task has, with its sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// None.
    None,
    /// Frames of so many elements.
    Frames {
        /// Elements F of a frame.
        dim: usize,
    },
    /// Tokens of a vocabulary of their own.
    Tokens {
        /// Its size.
        vocab: usize,
    },
}

/// One example: a source, and a text `[T + 1]` of which token i is read and token i + 1 to be predicted.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// What is read first.
    pub source: Source,
    /// Tokens, the first of them the beginning of every text or of the prompt, the last its end where it has one.
    pub text: Vec<u32>,
    /// Which of `text[1..]` are answers: the loss is taken there, and there alone answers are judged. Of `text.len() - 1`.
    pub is_answer: Vec<bool>,
    /// Where the answers stand on the task's own axes, one for each answer or one for all of them: distance and load of a
    /// recall, depth of a needle.
    pub probes: Vec<Probe>,
}

/// Where an answer stands on a task's own axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Tokens between what is asked for and the question.
    pub distance: usize,
    /// Things that are to be remembered meanwhile.
    pub load: usize,
}

/// Which examples: those of one part never are in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// What a model is trained on.
    Train,
    /// What chooses checkpoints.
    Valid,
    /// What results are reported of.
    Test,
}

/// What says how good answers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Nats a token over what the language has: lower is better, 0 is best.
    ExcessLoss,
    /// Perplexity of a text: lower is better.
    Perplexity,
    /// Share of answers that are right, token by token given the right tokens before: higher is better.
    TokenAccuracy,
    /// Share of generated texts that are right as a whole: higher is better.
    ExactMatch,
    /// Corpus BLEU of generated texts, 0 to 100: higher is better.
    Bleu,
    /// Word error rate of generated texts, in percent: lower is better.
    Wer,
    /// ROUGE-L of generated texts, F1 in percent: higher is better.
    RougeL,
}

/// What a model needs to know of a task.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Source.
    pub source: SourceKind,
    /// Longest source, in frames or tokens.
    pub max_source: usize,
    /// Tokens V of the texts' vocabulary.
    pub vocab: usize,
    /// Longest text, in tokens.
    pub max_text: usize,
    /// The token that generated texts begin with.
    pub bos: u32,
    /// The token that ends a generated text; none where texts have no end.
    pub eos: Option<u32>,
    /// Main measure.
    pub measure: Measure,
    /// The best value of it that is possible, or known.
    pub best: f64,
}

/// A task.
pub trait Task: Send + Sync {
    /// What a model needs to know.
    fn spec(&self) -> TaskSpec;

    /// Examples of a part, `None` where there is no end to them.
    fn len(&self, part: Part) -> Option<u64>;

    /// Whether a part has none.
    fn is_empty(&self, part: Part) -> bool {
        self.len(part) == Some(0)
    }

    /// Example `index` of a part: the same on every machine and in every order.
    fn example(&self, part: Part, index: u64) -> Example;

    /// The words of a text, without its beginning and end: what corpus measures compare.
    fn words(&self, tokens: &[u32]) -> Vec<String> {
        tokens.iter().map(u32::to_string).collect()
    }
}
