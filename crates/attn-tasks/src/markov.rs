//! A Markov source over few symbols: each of them depends on those just before, and only some can follow.

use crate::rng::Rng;

/// The source. Its context is the last symbols, with what stands before the text as a symbol of its own.
#[derive(Debug)]
pub(crate) struct Markov {
    symbols: usize,
    order: usize,
    rows: Vec<Row>,
}

/// What follows a context: symbols, and how often each of them in `total` times.
#[derive(Debug)]
struct Row {
    next: Vec<usize>,
    weights: Vec<u64>,
    total: u64,
}

impl Row {
    fn draw(rng: &mut Rng, symbols: usize, branching: usize) -> Self {
        let next = rng.distinct(symbols, branching);
        let weights: Vec<u64> = next.iter().map(|_| 1 << rng.below(4)).collect();
        let total = weights.iter().sum();
        Self { next, weights, total }
    }

    fn probability(&self, i: usize) -> f64 {
        self.weights[i] as f64 / self.total as f64
    }
}

impl Markov {
    /// A source whose symbols depend on `order` before them, of which `branching` can follow each context: 1, 2, 4 or 8
    /// times as likely as the rarest. A text begins with any symbol.
    pub(crate) fn new(rng: &mut Rng, symbols: usize, order: usize, branching: usize) -> Self {
        let rows = (0..contexts(symbols, order)).map(|context| {
            let branching = if context == 0 { symbols } else { branching };
            Row::draw(rng, symbols, branching)
        });
        Self {
            symbols,
            order,
            rows: rows.collect(),
        }
    }

    /// A text of so many symbols `0..symbols`.
    pub(crate) fn draw(&self, rng: &mut Rng, tokens: usize) -> Vec<usize> {
        let mut context = 0;
        let text = (0..tokens).map(|_| {
            let row = &self.rows[context];
            let symbol = row.next[rng.weighted(&row.weights)];
            context = self.after(context, symbol);
            symbol
        });
        text.collect()
    }

    /// Nats of a text, infinite where the source never writes it.
    pub(crate) fn nats(&self, text: impl IntoIterator<Item = usize>) -> f64 {
        let mut context = 0;
        let mut nats = 0.0;
        for symbol in text {
            let row = &self.rows[context];
            nats += match row.next.iter().position(|next| *next == symbol) {
                Some(i) => -row.probability(i).ln(),
                None => return f64::INFINITY,
            };
            context = self.after(context, symbol);
        }
        nats
    }

    /// Nats that a text of so many symbols has in the mean, exactly: the sum over its places of the entropy of every row
    /// times the probability of its context there.
    pub(crate) fn mean_nats(&self, tokens: usize) -> f64 {
        let mut reached = vec![0.0; self.rows.len()];
        reached[0] = 1.0;
        let mut nats = 0.0;
        for _ in 0..tokens {
            let mut then = vec![0.0; self.rows.len()];
            for (context, row) in self.rows.iter().enumerate() {
                let here: f64 = reached[context];
                for (i, symbol) in row.next.iter().enumerate().filter(|_| here > 0.0) {
                    let p = row.probability(i);
                    nats -= here * p * p.ln();
                    then[self.after(context, *symbol)] += here * p;
                }
            }
            reached = then;
        }
        nats
    }

    fn after(&self, context: usize, symbol: usize) -> usize {
        (context * (self.symbols + 1) + symbol + 1) % contexts(self.symbols, self.order)
    }
}

/// Contexts of a source, those with less than `order` symbols before them included.
pub(crate) fn contexts(symbols: usize, order: usize) -> usize {
    (symbols + 1).saturating_pow(order as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_texts(symbols: usize, tokens: usize) -> Vec<Vec<usize>> {
        (0..symbols.pow(tokens as u32))
            .map(|code| {
                (0..tokens)
                    .map(|i| code / symbols.pow(i as u32) % symbols)
                    .collect()
            })
            .collect()
    }

    #[test]
    fn nats_agree_with_a_sum_over_all_texts() {
        for (symbols, order, branching, tokens) in [(3, 1, 2, 6), (3, 2, 2, 6), (4, 2, 3, 5), (2, 3, 2, 7)] {
            let source = Markov::new(&mut Rng::world(7, "tiny"), symbols, order, branching);
            let (mut mass, mut nats) = (0.0, 0.0);
            for text in all_texts(symbols, tokens) {
                let own = source.nats(text);
                if own.is_finite() {
                    mass += (-own).exp();
                    nats += (-own).exp() * own;
                }
            }
            assert!((mass - 1.0).abs() < 1e-12, "{mass}");
            assert!((nats - source.mean_nats(tokens)).abs() < 1e-12);
        }
    }

    #[test]
    fn texts_are_as_frequent_as_their_nats_say() {
        let source = Markov::new(&mut Rng::world(8, "tiny"), 2, 2, 2);
        let rng = &mut Rng::world(9, "texts");
        let drawn: Vec<Vec<usize>> = (0..20_000).map(|_| source.draw(rng, 4)).collect();
        for text in all_texts(2, 4) {
            let share = drawn.iter().filter(|other| **other == text).count() as f64 / 20_000.0;
            assert!((share - (-source.nats(text)).exp()).abs() < 0.015);
        }
    }

    #[test]
    fn a_text_that_is_never_written_has_infinite_nats() {
        let source = Markov::new(&mut Rng::world(7, "tiny"), 3, 1, 1);
        let possible = all_texts(3, 4)
            .into_iter()
            .filter(|text| source.nats(text.clone()).is_finite());
        assert_eq!(possible.count(), 3);
    }
}
