"""Writes the numbers that crates/attn-harness/tests/statistics.rs is held against.

    python -m venv DIR && DIR/bin/pip install numpy scipy
    DIR/bin/python scripts/reference/harness_statistics.py

Every set has the samples, scipy's median, interquartile range and 95 % percentile bootstrap interval
of the median from 100,000 resamples, and the Monte-Carlo error of the interval's ends at our number of
resamples: the standard deviation of each end over scipy's own bootstrap with as many resamples and
different seeds. Ratios of medians come the same way, once with both sides resampled on their own and once
in pairs (the median of paired log ratios). Student's t and Benjamini-Hochberg are scipy's too.

Seeded: the file is the same from run to run with the same versions, which it names. About two minutes.
"""

import json
import pathlib
import platform
import re

import numpy as np
import scipy
from scipy import special, stats

RESAMPLES = 100_000
SEEDS = 200
OUT = pathlib.Path(__file__).parents[2] / "crates/attn-harness/tests/fixtures/statistics.json"


def our_resamples(n):
    """As `stats::resamples_of` in Rust."""
    return max(500, min(2_000, 4_000_000 // n))


def draw(kind, n, seed):
    """Times in milliseconds, as short decimals: what is written is exactly what is computed with."""
    rng = np.random.default_rng(seed)
    match kind:
        case "normal":
            values = 10 * (1 + 0.03 * rng.standard_normal(n))
        case "lognormal":
            values = 10 * np.exp(0.3 * rng.standard_normal(n))
        case "heavy_tail":
            values = 10 * (1 + 0.02 * np.abs(rng.standard_t(1.5, n)))
        case "ties":
            # A clock that ticks every tenth of a millisecond.
            return [round(float(value), 1) for value in 10 + 0.2 * rng.standard_normal(n)]
    return [round(float(value), 4) for value in values]


def median(values, axis=-1):
    return np.median(values, axis=axis)


def ratio(above, below, axis=-1):
    return np.median(above, axis=axis) / np.median(below, axis=axis)


def paired_ratio(above, below, axis=-1):
    return np.exp(np.median(np.log(above) - np.log(below), axis=axis))


def bootstrap(data, statistic, resamples, seed, paired=False):
    result = stats.bootstrap(
        data,
        statistic,
        n_resamples=resamples,
        batch=max(1, 4_000_000 // max(map(len, data))),
        vectorized=True,
        paired=paired,
        method="percentile",
        confidence_level=0.95,
        rng=np.random.default_rng(seed),
    )
    return [float(result.confidence_interval.low), float(result.confidence_interval.high)]


def interval(data, statistic, paired=False):
    """The interval, and the Monte-Carlo error of its ends at our number of resamples."""
    resamples = our_resamples(max(map(len, data)))
    repeated = [bootstrap(data, statistic, resamples, 1_000 + seed, paired) for seed in range(SEEDS)]
    return {
        "ci": bootstrap(data, statistic, RESAMPLES, 1, paired),
        "monte_carlo_error": np.std(repeated, axis=0, ddof=1).tolist(),
    }


def main():
    sets = []
    for i, (kind, n) in enumerate(
        [
            ("normal", 5), ("normal", 10), ("normal", 200),
            ("lognormal", 6), ("lognormal", 37), ("lognormal", 2000),
            ("heavy_tail", 10), ("heavy_tail", 37), ("heavy_tail", 200),
            ("ties", 6), ("ties", 37), ("ties", 200), ("ties", 2000),
        ]
    ):
        samples = draw(kind, n, 100 + i)
        sets.append({
            "name": f"{kind}, n = {n}",
            "samples": samples,
            "median": float(np.median(samples)),
            "iqr": float(stats.iqr(samples)),
            **interval((samples,), median),
        })

    ratios = []
    for i, (kind, n_above, n_below) in enumerate(
        [("normal", 5, 10), ("lognormal", 37, 37), ("heavy_tail", 10, 37), ("ties", 37, 200)]
    ):
        above, below = draw(kind, n_above, 200 + i), draw(kind, n_below, 300 + i)
        ratios.append({
            "name": f"{kind}, {n_above} over {n_below}",
            "above": above, "below": below,
            "ratio": float(ratio(above, below)),
            **interval((above, below), ratio),
        })

    paired = []
    for i, (kind, n) in enumerate([("normal", 6), ("normal", 37), ("lognormal", 10), ("heavy_tail", 200)]):
        # Both sides share the drift of the machine.
        drift = np.exp(np.linspace(0, 0.2, n))
        above, below = (
            [round(float(v), 4) for v in np.array(draw(kind, n, seed + i)) * drift] for seed in (400, 500)
        )
        paired.append({
            "name": f"{kind}, {n} pairs",
            "above": above, "below": below,
            "ratio": float(paired_ratio(above, below)),
            **interval((above, below), paired_ratio, paired=True),
        })

    p_values = [0.0021, 0.9, 0.012, 0.03, 0.03, 0.2, 0.0004, 1.0]
    fixture = {
        "made_with": {
            "python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__,
            "resamples": RESAMPLES, "seeds": SEEDS,
        },
        "sets": sets,
        "ratios": ratios,
        "paired": paired,
        "student_t": [
            {"t": t, "df": df, "p": float(2 * stats.t.sf(t, df)), "quantile_975": float(stats.t.ppf(0.975, df))}
            for t, df in [(2.0, 3), (2.776, 4), (4.5, 9), (1.0, 7.3), (12.0, 18.5), (3.0, 200)]
        ],
        "benjamini_hochberg": {
            "p": p_values,
            "adjusted": stats.false_discovery_control(p_values).tolist(),
        },
        # For the moderated variances of compare.
        "polygamma": [
            {"x": x, "digamma": float(special.digamma(x)), "trigamma": float(special.polygamma(1, x))}
            for x in (0.1, 0.5, 1.0, 2.5, 10.0, 300.0)
        ],
        "order_statistics": [
            # 1-based rank of the interval's lower end among n sorted samples: binomial(n, 1/2).
            [n, int(stats.binom.ppf(0.025, n, 0.5))] for n in (101, 200, 501, 2000, 10_000)
        ],
    }
    lines = json.dumps(fixture, indent=1)
    # One list of numbers a line.
    lines = re.sub(r"\[\s+([-0-9.e,\s]+?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", lines)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(lines + "\n")


if __name__ == "__main__":
    main()
