//! Numbers with units for people: three or four significant digits and a fitting prefix.

/// A time: `131 µs`, `1.05 ms`, `12.3 s`.
pub fn format_time(seconds: f64) -> String {
    scaled(seconds, &[("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)])
}

/// A size: `512 B`, `1.00 MiB`.
pub fn format_bytes(bytes: f64) -> String {
    const KIB: f64 = 1024.0;
    if bytes.abs() < KIB {
        return format!("{bytes:.0} B");
    }
    let prefixes = [
        ("TiB", KIB.powi(4)),
        ("GiB", KIB.powi(3)),
        ("MiB", KIB.powi(2)),
        ("KiB", KIB),
    ];
    scaled(bytes, &prefixes)
}

/// A count or a rate: `950`, `12.3 k`, `1.20 M`.
pub fn format_count(count: f64) -> String {
    scaled(
        count,
        &[("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0)],
    )
}

/// The value in the largest unit in which it is not below one (units from large to small).
fn scaled(value: f64, units: &[(&str, f64)]) -> String {
    if !value.is_finite() {
        return "-".to_string();
    }
    // Rounding may carry a value over to the next unit: 999.96 µs is 1.00 ms.
    let fits = |scale: f64| (value / scale).abs() >= 0.9995;
    let Some((unit, scale)) = units.iter().find(|(_, scale)| fits(*scale)).or(units.last()) else {
        return three_digits(value);
    };
    format!("{} {unit}", three_digits(value / scale))
        .trim_end()
        .to_string()
}

/// Three significant digits, or all digits of a larger whole number.
fn three_digits(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 => 0,
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_a_fitting_unit() {
        let cases = [
            (12.34, "12.3 s"),
            (1.0, "1.00 s"),
            (0.001_049, "1.05 ms"),
            (0.000_999_96, "1.00 ms"),
            (131.2e-6, "131 µs"),
            (5e-9, "5.00 ns"),
            (0.0, "0 ns"),
            (1234.0, "1234 s"),
            (f64::NAN, "-"),
        ];
        for (seconds, text) in cases {
            assert_eq!(format_time(seconds), text);
        }
    }

    #[test]
    fn sizes_use_binary_prefixes() {
        let cases = [
            (0.0, "0 B"),
            (512.0, "512 B"),
            (1024.0, "1.00 KiB"),
            (1_048_576.0, "1.00 MiB"),
            (3.5e9, "3.26 GiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(format_bytes(bytes), text);
        }
    }

    #[test]
    fn counts_use_decimal_prefixes() {
        for (count, text) in [
            (950.0, "950"),
            (7.5, "7.50"),
            (12_345.0, "12.3 k"),
            (1_999_999.0, "2.00 M"),
        ] {
            assert_eq!(format_count(count), text);
        }
    }
}
