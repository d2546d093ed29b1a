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
    /// Where the answers stand on the task's own axes: one for each answer, one for all of them, or none where the task has
    /// no such axes.
    pub probes: Vec<Probe>,
}

impl Example {
    /// A text that answers as a whole.
    pub fn of_text(source: Source, text: Vec<u32>) -> Self {
        Self {
            source,
            is_answer: vec![true; text.len().saturating_sub(1)],
            text,
            probes: Vec::new(),
        }
    }

    /// The answers, in their order.
    pub fn answers(&self) -> impl Iterator<Item = u32> {
        let told = self.text.iter().skip(1).zip(&self.is_answer);
        told.filter(|(_, is_answer)| **is_answer).map(|(token, _)| *token)
    }
}

/// Where an answer stands on a task's own axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Tokens from what is asked for to the question, 1 where the one follows the other.
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

impl Part {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Train, Self::Valid, Self::Test];
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

impl Measure {
    /// Whether more of it is better.
    pub fn higher_is_better(self) -> bool {
        match self {
            Self::ExcessLoss | Self::Perplexity | Self::Wer => false,
            Self::TokenAccuracy | Self::ExactMatch | Self::Bleu | Self::RougeL => true,
        }
    }
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
    /// Longest [`Example::text`], its beginning and end among its tokens.
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

impl TaskSpec {
    /// A language model's: texts without a source and without an end, judged token by token.
    pub(crate) fn of_texts(bos: u32, vocab: usize, max_text: usize) -> Self {
        Self {
            source: SourceKind::None,
            max_source: 0,
            vocab,
            max_text,
            bos,
            eos: None,
            measure: Measure::TokenAccuracy,
            best: 1.0,
        }
    }
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

    /// Nats of the answers of one of its examples, all of them together, under the law that made it; none where that law is
    /// not known token by token. Excess loss is a model's nats less these.
    fn true_nats(&self, _example: &Example) -> Option<f64> {
        None
    }

    /// What corpus measures compare of a text: its words, without its beginning and what follows its end.
    fn words(&self, tokens: &[u32]) -> Vec<String> {
        self.body(tokens).iter().map(u32::to_string).collect()
    }

    /// The tokens of a text without its beginning, up to its end.
    fn body<'a>(&self, tokens: &'a [u32]) -> &'a [u32] {
        let spec = self.spec();
        let body = tokens.strip_prefix(&[spec.bos]).unwrap_or(tokens);
        let end = body.iter().position(|token| Some(*token) == spec.eos);
        &body[..end.unwrap_or(body.len())]
    }
}
