//! What each of several switches contributes to a whole whose parts depend on each other.

/// What turning one switch off gains.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Gain {
    /// The mean over all orders of turning them off: its Shapley value.
    pub(crate) mean: f64,
    /// Where it is turned off first, with all others on.
    pub(crate) first: f64,
    /// Where it is turned off last, with all others off.
    pub(crate) last: f64,
}

/// The gains of `n` switches, from the cost of each of the `2^n` sets of those that are on (bit `i` for switch
/// `i`).
///
/// The mean of switch i weights its gain `cost(S + i) - cost(S)` by `|S|! (n - |S| - 1)! / n!`, the share of
/// orders in which S is what is left beside it. Means add up to the cost of all less that of none.
pub(crate) fn gains(cost: &[f64]) -> Vec<Gain> {
    let n = cost.len().ilog2() as usize;
    let all = (1 << n) - 1;
    let factorial = |k: usize| (1..=k).map(|i| i as f64).product::<f64>();
    let gain = |i: usize| {
        let bit = 1 << i;
        let others = (0..=all).filter(|set| set & bit == 0);
        let weighted = others.map(|set: usize| {
            let size = set.count_ones() as usize;
            let weight = factorial(size) * factorial(n - size - 1) / factorial(n);
            weight * (cost[set | bit] - cost[set])
        });
        Gain {
            mean: weighted.sum(),
            first: cost[all] - cost[all & !bit],
            last: cost[bit] - cost[0],
        }
    };
    (0..n).map(gain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(n: usize, cost: impl Fn(usize) -> f64) -> (Vec<Gain>, Vec<f64>) {
        let costs: Vec<f64> = (0..1 << n).map(cost).collect();
        (gains(&costs), costs)
    }

    #[test]
    fn where_nothing_interacts_every_order_says_the_same() {
        let each = [3.0, -1.0, 0.5, 0.0, 2.0];
        let (gains, _) = of(5, |set| {
            10.0 + (0..5)
                .filter(|i| set & (1 << i) != 0)
                .map(|i| each[i])
                .sum::<f64>()
        });
        for (gain, want) in gains.iter().zip(each) {
            for got in [gain.mean, gain.first, gain.last] {
                assert!((got - want).abs() < 1e-12, "{gain:?}, expected {want}");
            }
        }
    }

    #[test]
    fn what_takes_both_is_shared_and_the_order_decides() {
        // A cost of 6 that is there only with both switches, and one of 2 for switch 0 alone.
        let (gains, _) = of(2, |set| match set {
            0b11 => 9.0,
            0b01 => 3.0,
            _ => 1.0,
        });
        let gain = |mean, first, last| Gain { mean, first, last };
        assert_eq!(gains, [gain(5.0, 8.0, 2.0), gain(3.0, 6.0, 0.0)]);
    }

    #[test]
    fn the_glove_game_has_its_textbook_values() {
        // Two left gloves and one right: a pair is worth 1.
        let (gains, _) = of(3, |set| f64::from(set & 0b100 != 0 && set & 0b011 != 0));
        let means: Vec<f64> = gains.iter().map(|gain| gain.mean).collect();
        for (got, want) in means.iter().zip([1.0 / 6.0, 1.0 / 6.0, 4.0 / 6.0]) {
            assert!((got - want).abs() < 1e-12, "{means:?}");
        }
    }

    #[test]
    fn means_add_up_whatever_the_costs() {
        let (gains, costs) = of(5, |set| ((set * 2_654_435_761) % 1009) as f64 / 7.0);
        let sum: f64 = gains.iter().map(|gain| gain.mean).sum();
        assert!((sum - (costs[31] - costs[0])).abs() < 1e-10);
    }
}
