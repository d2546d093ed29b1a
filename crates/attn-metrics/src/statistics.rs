//! What every metric has in common: counts of an example that add up, and a value of their sum.

/// What a metric counts in an example. The counts of a corpus are the sum of its examples', which is all that the
/// metric needs of it: a resample costs one addition an example.
pub trait Statistics: Clone + Default {
    /// Adds what was counted in other examples.
    fn add(&mut self, other: &Self);

    /// The metric of everything that was counted; `None` where the metric of nothing is not defined.
    fn value(&self) -> Option<f64>;
}

/// The counts of all examples together.
pub fn total<S: Statistics>(examples: &[S]) -> S {
    let mut sum = S::default();
    for example in examples {
        sum.add(example);
    }
    sum
}
