//! Numbers as a reader wants them: `2k` tokens, `10 µs`, `288 KiB`, `3.6×`.
//!
//! A no-break space stands between a number and its unit, so that no line breaks there.

/// The kind of quantity on an axis or beside a bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Counted in powers of two where it is one: `512`, `1k`, `1.5k`, `128k`.
    Tokens,
    /// A plain integer: sequences, strides.
    Integer,
    /// From nanoseconds to seconds.
    Seconds,
    /// Bytes in powers of 1024.
    Bytes,
    /// A rate, in full: `12 000`.
    PerSecond,
    /// Operations per second: `50 GFLOP/s`.
    Flops,
    /// Operations for each byte moved: `0.25`.
    Intensity,
    /// A quotient: `3.6×`.
    Ratio,
    /// A score as it is, which may be below zero: nats, BLEU, per cent of errors.
    Score,
    /// A share of one: `97.5 %`.
    Share,
}

impl Unit {
    /// A title of bare numbers with the unit they are in: `Time per step (s)`. It stays as it is where it says so
    /// already, and where the number needs none.
    pub(crate) fn head(self, title: &str) -> String {
        let base = match self {
            Unit::Seconds => "s",
            Unit::Bytes if !title.starts_with("Bytes") => "bytes",
            Unit::Flops => "FLOP/s",
            Unit::Share => "share of 1",
            Unit::Bytes
            | Unit::Tokens
            | Unit::Integer
            | Unit::PerSecond
            | Unit::Intensity
            | Unit::Ratio
            | Unit::Score => return title.to_owned(),
        };
        if title.contains(&format!("({base})")) {
            return title.to_owned();
        }
        format!("{title} ({base})")
    }

    /// The value with `digits` significant digits; a tick passes 3 and `trim`, so that `10.0` is `10`.
    pub(crate) fn format(self, value: f64, digits: usize, trim: bool) -> String {
        let number = |v: f64| significant(v, digits, trim);
        match self {
            Unit::Seconds | Unit::Bytes if value == 0.0 => "0".to_owned(),
            Unit::Tokens => tokens(value),
            Unit::Integer | Unit::Intensity => number(value),
            Unit::Flops => {
                const STEPS: [(f64, &str); 4] = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1.0, "")];
                let step = STEPS
                    .iter()
                    .find(|(size, _)| value >= size * 0.999_999)
                    .unwrap_or(&STEPS[3]);
                format!("{}\u{a0}{}FLOP/s", number(value / step.0), step.1)
            }
            Unit::Seconds => {
                const STEPS: [(f64, &str); 4] = [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")];
                // A hair below, since 1e-3 / 1e-6 is not exactly 1000.
                let step = STEPS
                    .iter()
                    .find(|(size, _)| value >= size * 0.999_999)
                    .unwrap_or(&STEPS[3]);
                format!("{}\u{a0}{}", number(value / step.0), step.1)
            }
            Unit::Bytes => {
                const NAMES: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
                let mut scaled = value;
                let mut at = 0;
                while scaled >= 1023.999 && at + 1 < NAMES.len() {
                    scaled /= 1024.0;
                    at += 1;
                }
                format!("{}\u{a0}{}", number(scaled), NAMES[at])
            }
            Unit::PerSecond => grouped(value, digits),
            Unit::Ratio => format!("{}×", number(value)),
            Unit::Score => number(value).replace('-', "−"),
            Unit::Share => format!("{}\u{a0}%", number(100.0 * value).replace('-', "−")),
        }
    }
}

/// A number with as many decimals as a multiple of the step needs.
pub(crate) fn in_steps(value: f64, step: f64) -> String {
    let decimals = (-(step.log10() + 1e-9).floor()).clamp(0.0, 12.0) as usize;
    format!("{value:.decimals$}").replace('-', "−")
}

/// `1024` is `1k` and `1536` is `1.5k`; what is no multiple of 512 stays as it is.
fn tokens(value: f64) -> String {
    const K: f64 = 1024.0;
    let halves = |unit: f64| value >= unit && (value / unit * 2.0).fract() == 0.0;
    if halves(K * K) {
        format!("{}M", value / (K * K))
    } else if halves(K) {
        format!("{}k", value / K)
    } else {
        significant(value, 15, true)
    }
}

/// Significant digits without an exponent; integer digits are never dropped.
fn significant(value: f64, digits: usize, trim: bool) -> String {
    if value == 0.0 || !value.is_finite() {
        return "0".to_owned();
    }
    let decimals_of = |v: f64| (digits as i32 - 1 - v.abs().log10().floor() as i32).clamp(0, 15) as usize;
    // 9.996 to three digits is 10.0, not 10.00: round first, then count again.
    let mut text = format!("{value:.*}", decimals_of(value));
    if let Ok(rounded) = text.parse::<f64>()
        && rounded != 0.0
    {
        text = format!("{value:.*}", decimals_of(rounded));
    }
    if trim && text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    text
}

/// A rounded integer with a thin space every three digits.
fn grouped(value: f64, digits: usize) -> String {
    if value < 100.0 {
        return significant(value, digits, true);
    }
    let plain = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in plain.chars().enumerate() {
        if at > 0 && (plain.len() - at).is_multiple_of(3) && plain.len() > 4 {
            out.push('\u{2009}');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(unit: Unit, value: f64, expected: &str) {
        assert_eq!(
            unit.format(value, 3, true).replace(['\u{a0}', '\u{2009}'], " "),
            expected
        );
    }

    #[test]
    fn tokens_are_powers_of_two() {
        for (value, text) in [(512.0, "512"), (1024.0, "1k"), (1536.0, "1.5k"), (8192.0, "8k")] {
            check(Unit::Tokens, value, text);
        }
        check(Unit::Tokens, 1000.0, "1000");
        check(Unit::Tokens, 131_072.0, "128k");
        check(Unit::Tokens, 1_048_576.0, "1M");
    }

    #[test]
    fn times_choose_their_unit() {
        check(Unit::Seconds, 1e-5, "10 µs");
        check(Unit::Seconds, 1e-3, "1 ms");
        check(Unit::Seconds, 0.0123, "12.3 ms");
        check(Unit::Seconds, 2.5e-9, "2.5 ns");
        check(Unit::Seconds, 90.0, "90 s");
        check(Unit::Seconds, 0.0, "0");
    }

    #[test]
    fn operations_choose_their_unit() {
        check(Unit::Flops, 5e9, "5 GFLOP/s");
        check(Unit::Flops, 1.5e12, "1.5 TFLOP/s");
        check(Unit::Flops, 300.0, "300 FLOP/s");
        check(Unit::Intensity, 0.25, "0.25");
    }

    #[test]
    fn bytes_choose_their_unit() {
        check(Unit::Bytes, 512.0, "512 B");
        check(Unit::Bytes, 294_912.0, "288 KiB");
        check(Unit::Bytes, 1_048_576.0, "1 MiB");
        check(Unit::Bytes, 1_572_864.0, "1.5 MiB");
    }

    #[test]
    fn digits_are_significant_ones() {
        assert_eq!(significant(9.996, 3, false), "10.0");
        assert_eq!(significant(3.0, 3, false), "3.00");
        assert_eq!(significant(0.001_234, 3, true), "0.00123");
        assert_eq!(significant(123_456.0, 3, true), "123456");
    }

    #[test]
    fn scores_may_be_below_zero_and_shares_are_per_cent() {
        check(Unit::Score, -0.0312, "−0.0312");
        check(Unit::Share, 0.9746, "97.5 %");
        assert_eq!(in_steps(34.95, 0.05), "34.95");
        assert_eq!(in_steps(34.0, 0.2), "34.0");
        assert_eq!(in_steps(-20.0, 10.0), "−20");
    }

    #[test]
    fn a_head_has_its_unit_once() {
        assert_eq!(Unit::Seconds.head("Time per step"), "Time per step (s)");
        assert_eq!(Unit::Bytes.head("Memory"), "Memory (bytes)");
        assert_eq!(Unit::Bytes.head("KV cache (bytes)"), "KV cache (bytes)");
        assert_eq!(Unit::Bytes.head("Bytes added"), "Bytes added");
        assert_eq!(Unit::Flops.head("Achieved rate"), "Achieved rate (FLOP/s)");
        assert_eq!(Unit::Share.head("Token accuracy"), "Token accuracy (share of 1)");
        assert_eq!(Unit::Tokens.head("Context (tokens)"), "Context (tokens)");
        assert_eq!(Unit::Ratio.head("Times as fast as MHA"), "Times as fast as MHA");
    }

    #[test]
    fn rates_are_written_in_full() {
        check(Unit::PerSecond, 950.0, "950");
        check(Unit::PerSecond, 2000.0, "2000");
        check(Unit::PerSecond, 12_345.6, "12 346");
        check(Unit::PerSecond, 2.5, "2.5");
    }
}
