//! The hypotheses of one sentence, and what becomes of its candidates.

use crate::beam::{BeamOptions, Hypothesis};
use crate::scores::{Candidate, keep_best};

/// What may be chosen after so many tokens.
pub(crate) struct Rules {
    /// The one token there is to choose from.
    pub(crate) only: Option<u32>,
    /// The token that must not be chosen.
    pub(crate) excluded: Option<u32>,
    /// Tokens of a hypothesis after this choice.
    len: usize,
    /// Whether no choice follows.
    is_last: bool,
}

impl Rules {
    /// After `len` tokens.
    pub(crate) fn new(options: &BeamOptions, len: usize) -> Self {
        let must_end = options.forced_len.is_none() && len >= options.max_len;
        let cannot_end = match options.forced_len {
            Some(_) => true,
            None => len < options.min_len,
        };
        Self {
            only: must_end.then_some(options.eos),
            excluded: cannot_end.then_some(options.eos),
            len: len + 1,
            is_last: must_end || options.forced_len == Some(len + 1),
        }
    }
}

/// What becomes of a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Continues,
    Finished,
}

/// A hypothesis that goes on.
#[derive(Debug, Clone, Copy)]
struct Live {
    /// Where it ends in [`Sentence::nodes`].
    node: usize,
    /// Its row among those of the sentence.
    row: usize,
    sum: f64,
}

/// A token, and the one before it.
#[derive(Debug, Clone, Copy)]
struct Node {
    token: u32,
    parent: Option<usize>,
}

/// The search of one sentence.
#[derive(Debug)]
pub(crate) struct Sentence {
    /// Which of the prompts.
    pub(crate) index: usize,
    /// All tokens chosen so far: hypotheses share their beginnings.
    nodes: Vec<Node>,
    /// Best first: their order is what ties are broken by.
    live: Vec<Live>,
    ended: Vec<Hypothesis>,
}

impl Sentence {
    pub(crate) fn new(index: usize) -> Self {
        Self {
            index,
            nodes: Vec::new(),
            live: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// Row and log-probability of every hypothesis, the first alone where there is no token yet.
    pub(crate) fn rows_and_sums(&self, is_first: bool) -> impl Iterator<Item = (usize, f64)> {
        let first = is_first.then_some((0, 0.0));
        first
            .into_iter()
            .chain(self.live.iter().map(|live| (live.row, live.sum)))
    }

    /// The last token of every row; rows without a hypothesis (a vocabulary smaller than the beam) decode any.
    pub(crate) fn last_tokens(&self, beam: usize) -> Vec<u32> {
        let mut tokens = vec![0; beam];
        for live in &self.live {
            tokens[live.row] = self.nodes[live.node].token;
        }
        tokens
    }

    /// Chooses among the best candidates of every hypothesis.
    pub(crate) fn extend(
        &mut self,
        mut candidates: Vec<Candidate>,
        rules: &Rules,
        options: &BeamOptions,
    ) -> Next {
        keep_best(&mut candidates, 2 * options.beam);
        let before = std::mem::take(&mut self.live);
        for (rank, candidate) in candidates.into_iter().enumerate() {
            // Before the first token there is no hypothesis to continue.
            let parent = before.get(candidate.hypothesis as usize);
            let node = Node {
                token: candidate.token,
                parent: parent.map(|live| live.node),
            };
            if candidate.token == options.eos && options.forced_len.is_none() {
                if rank < options.beam && self.ended.len() < options.beam {
                    self.end(node, candidate.score, rules.len, options);
                }
            } else if self.live.len() < options.beam {
                self.nodes.push(node);
                self.live.push(Live {
                    node: self.nodes.len() - 1,
                    row: parent.map_or(0, |live| live.row),
                    sum: candidate.score,
                });
            }
        }
        if options.forced_len.is_some() && rules.is_last {
            for live in std::mem::take(&mut self.live) {
                self.end(self.nodes[live.node], live.sum, rules.len, options);
            }
        }
        match rules.is_last || self.ended.len() == options.beam || self.live.is_empty() {
            true => Next::Finished,
            false => Next::Continues,
        }
    }

    fn end(&mut self, last: Node, sum: f64, len: usize, options: &BeamOptions) {
        let mut tokens = vec![last.token];
        let mut at = last.parent;
        while let Some(node) = at {
            tokens.push(self.nodes[node].token);
            at = self.nodes[node].parent;
        }
        tokens.reverse();
        self.ended.push(Hypothesis {
            tokens,
            score: sum / (len as f64).powf(options.length_penalty),
            sum_log_prob: sum,
        });
    }

    /// Gives every hypothesis a row, and returns the row that each row continues.
    ///
    /// Where hypotheses `stay`, the first child of a row keeps it, and further ones take rows that nobody continues: no
    /// row is read after it is written, and those that live on as they are need not move. Else the best has the first
    /// row, as the seed's code has it.
    pub(crate) fn place(&mut self, beam: usize, stay: bool, is_first: bool) -> Vec<usize> {
        if !stay {
            let mut parents = vec![self.live.first().map_or(0, |live| live.row); beam];
            for (row, live) in self.live.iter_mut().enumerate() {
                parents[row] = std::mem::replace(&mut live.row, row);
            }
            return parents;
        }
        if is_first {
            // All rows are alike: each is the next hypothesis' own.
            for (row, live) in self.live.iter_mut().enumerate() {
                live.row = row;
            }
            return (0..beam).collect();
        }
        let mut parents: Vec<usize> = (0..beam).collect();
        let mut is_taken = vec![false; beam];
        let mut moves = Vec::new();
        for (i, live) in self.live.iter().enumerate() {
            match is_taken[live.row] {
                true => moves.push(i),
                false => is_taken[live.row] = true,
            }
        }
        let free = (0..beam).filter(|&row| !is_taken[row]);
        for (i, row) in moves.into_iter().zip(free) {
            parents[row] = std::mem::replace(&mut self.live[i].row, row);
        }
        parents
    }

    /// Those that ended, best first; equal scores in the order in which they ended.
    pub(crate) fn into_hypotheses(self) -> Vec<Hypothesis> {
        let mut ended = self.ended;
        ended.sort_by(|a, b| b.score.total_cmp(&a.score));
        ended
    }
}
