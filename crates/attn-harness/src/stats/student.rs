//! Student's t, and the special functions around it: a few lines each, where a crate would change the features
//! of half the dependency tree.

use std::f64::consts::PI;

/// The two-sided p value of `t`, the probability of a larger value to either side.
pub(crate) fn student_p(t: f64, degrees: f64) -> f64 {
    // Abramowitz and Stegun, 26.5.27 and 26.7.1.
    incomplete_beta(degrees / (degrees + t * t), degrees / 2.0, 0.5)
}

/// The t beyond which `p` lies, both sides together.
pub(crate) fn student_quantile(p: f64, degrees: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while student_p(high, degrees) > p && high < 1e300 {
        high *= 2.0;
    }
    // Until the doubles between them are used up, whatever the scale.
    for _ in 0..200 {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            break;
        }
        if student_p(middle, degrees) > p {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// The regularised incomplete beta function by its continued fraction (Lentz's method; Press et al., Numerical
/// Recipes, 2007, section 6.4), for 0 <= x <= 1.
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    // The fraction converges fast below the mean, and the function is symmetric.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p()).exp();
    let away_from_0 = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let (mut c, mut d) = (1.0, 1.0 / away_from_0(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for m in 1..100_000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for term in [even, odd] {
            d = 1.0 / away_from_0(1.0 + term * d);
            c = away_from_0(1.0 + term / c);
            change = c * d;
            fraction *= change;
        }
        if (change - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * fraction / a
}

/// The logarithm of the gamma function for x > 0: Lanczos' sum with g = 7 and 9 terms, good to 15 digits.
fn ln_gamma(x: f64) -> f64 {
    const SUM: [f64; 9] = [
        0.999_999_999_999_809_9,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if x < 0.5 {
        return (PI / (PI * x).sin()).ln() - ln_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let t = x + 7.5;
    let terms = SUM[1..]
        .iter()
        .zip(1..)
        .map(|(term, i)| term / (x + f64::from(i)));
    let sum = SUM[0] + terms.sum::<f64>();
    0.5 * (2.0 * PI).ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

/// The derivative of the logarithm of the gamma function, for x > 0: its recurrence up to 6, then its asymptotic
/// series (Abramowitz and Stegun, 6.3.5 and 6.3.18).
pub(crate) fn digamma(mut x: f64) -> f64 {
    let mut sum = 0.0;
    while x < 6.0 {
        sum -= 1.0 / x;
        x += 1.0;
    }
    let y = 1.0 / (x * x);
    let series =
        y * (1.0 / 12.0 - y * (1.0 / 120.0 - y * (1.0 / 252.0 - y * (1.0 / 240.0 - y * (1.0 / 132.0)))));
    sum + x.ln() - 0.5 / x - series
}

/// The second derivative, likewise (6.4.6 and 6.4.12).
pub(crate) fn trigamma(mut x: f64) -> f64 {
    let mut sum = 0.0;
    while x < 6.0 {
        sum += 1.0 / (x * x);
        x += 1.0;
    }
    let y = 1.0 / (x * x);
    let series = y * (1.0 / 6.0 - y * (1.0 / 30.0 - y * (1.0 / 42.0 - y * (1.0 / 30.0 - y * 5.0 / 66.0))));
    sum + (1.0 + 1.0 / (2.0 * x) + series) / x
}

/// The x > 0 with this trigamma: Newton's method on its reciprocal, which is nearly straight (Smyth, 2004,
/// appendix).
pub(crate) fn inverse_trigamma(value: f64) -> f64 {
    // The ends, where the series has one term.
    if value > 1e7 {
        return value.sqrt().recip();
    }
    if value < 1e-6 {
        return value.recip();
    }
    let mut x = 0.5 + 1.0 / value;
    for _ in 0..50 {
        let here = trigamma(x);
        let slope = (trigamma(x * (1.0 + 1e-6)) - here) / (x * 1e-6);
        let step = here * (1.0 - here / value) / slope;
        x += step;
        if step.abs() < 1e-9 * x {
            break;
        }
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn fixture(part: &str) -> Vec<Value> {
        let fixture: Value =
            serde_json::from_str(include_str!("../../tests/fixtures/statistics.json")).unwrap();
        fixture[part].as_array().unwrap().clone()
    }

    #[track_caller]
    fn close(got: f64, expected: &Value, tolerance: f64) {
        let expected = expected.as_f64().unwrap();
        assert!((got / expected - 1.0).abs() < tolerance, "{got} {expected}");
    }

    #[test]
    fn student_is_scipys() {
        for case in fixture("student_t") {
            let (t, degrees) = (case["t"].as_f64().unwrap(), case["df"].as_f64().unwrap());
            close(student_p(-t, degrees), &case["p"], 1e-11);
            close(student_quantile(0.05, degrees), &case["quantile_975"], 1e-11);
        }
        assert_eq!(student_p(0.0, 3.0), 1.0);
        assert_eq!(student_p(f64::INFINITY, 3.0), 0.0);
        assert!(
            (student_quantile(0.05, 1e6) - 1.959_966).abs() < 1e-5,
            "nearly normal"
        );
    }

    #[test]
    fn digamma_and_trigamma_are_scipys_and_the_inverse_undoes_it() {
        for case in fixture("polygamma") {
            let x = case["x"].as_f64().unwrap();
            close(digamma(x), &case["digamma"], 1e-9);
            close(trigamma(x), &case["trigamma"], 1e-8);
            close(inverse_trigamma(trigamma(x)), &case["x"], 1e-6);
        }
    }
}
