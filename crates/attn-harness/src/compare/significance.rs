//! Student's t and the adjustment for many tests.

use crate::stats::{student_p, student_quantile};

/// The adjusted p values of Benjamini and Hochberg (JRSS B 57, 1995), in the given order: the smallest rate of
/// false discoveries at which each would be one.
pub fn benjamini_hochberg(p_values: &[f64]) -> Vec<f64> {
    let n = p_values.len();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut adjusted = vec![1.0; n];
    let mut smallest = 1.0_f64;
    for (rank, &i) in order.iter().enumerate().rev() {
        smallest = smallest.min(p_values[i] * n as f64 / (rank + 1) as f64);
        adjusted[i] = smallest;
    }
    adjusted
}

/// The two-sided p value of a difference with its standard error.
pub(super) fn p_value(difference: f64, error: f64, degrees: f64) -> f64 {
    if difference == 0.0 {
        return 1.0;
    }
    if error == 0.0 {
        // Samples without any noise differ for certain.
        return 0.0;
    }
    student_p(difference / error, degrees)
}

/// How many standard errors an interval reaches to either side.
pub(super) fn reach(confidence: f64, degrees: f64) -> f64 {
    student_quantile(1.0 - confidence, degrees)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn fixture() -> Value {
        serde_json::from_str(include_str!("../../tests/fixtures/statistics.json")).unwrap()
    }

    #[test]
    fn samples_without_noise_differ_for_certain_or_not_at_all() {
        assert_eq!((p_value(0.0, 0.0, 3.0), p_value(0.1, 0.0, 3.0)), (1.0, 0.0));
        assert!(p_value(0.1, 0.02, 3.0) < p_value(0.1, 0.03, 3.0));
        assert!(reach(0.99, 3.0) > reach(0.95, 3.0));
    }

    #[test]
    fn adjusted_p_values_are_scipys() {
        let numbers = |list: &Value| -> Vec<f64> {
            let list = list.as_array().unwrap().iter();
            list.map(|number| number.as_f64().unwrap()).collect()
        };
        let case = &fixture()["benjamini_hochberg"];
        for (got, expected) in benjamini_hochberg(&numbers(&case["p"]))
            .into_iter()
            .zip(numbers(&case["adjusted"]))
        {
            assert!((got - expected).abs() < 1e-15, "{got} {expected}");
        }
    }

    #[test]
    fn the_example_of_benjamini_and_hochberg_rejects_four() {
        // The 15 p values of section 4.1 of the paper (thrombolysis); Bonferroni rejects three of them.
        let p = [
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719,
            0.6528, 0.7590, 1.0,
        ];
        let adjusted = benjamini_hochberg(&p);
        let rejected = adjusted.iter().filter(|p| **p <= 0.05).count();
        assert_eq!(rejected, 4);
        assert!((adjusted[3] - 0.0095 * 15.0 / 4.0).abs() < 1e-15);
        assert!(benjamini_hochberg(&[]).is_empty());
    }
}
