//! numpy's default generator, so that a seed draws the resamples that sacrebleu draws: PCG64 (O'Neill, 2014; XSL-RR
//! with 128 bits of state), its seed mixed as `SeedSequence` does.

const MULTIPLIER: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;

/// `numpy.random.default_rng(seed)`.
pub(super) struct Pcg64 {
    state: u128,
    increment: u128,
    /// The upper half of the last 64 bits, drawn next.
    kept: Option<u32>,
}

impl Pcg64 {
    pub(super) fn new(seed: u64) -> Self {
        let [a, b, c, d] = mixed(seed).map(u128::from);
        let increment = (c << 64 | d) << 1 | 1;
        let mut rng = Self {
            state: increment.wrapping_add(a << 64 | b),
            increment,
            kept: None,
        };
        rng.step();
        rng
    }

    fn step(&mut self) {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
    }

    fn next_u64(&mut self) -> u64 {
        self.step();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    fn next_u32(&mut self) -> u32 {
        if let Some(kept) = self.kept.take() {
            return kept;
        }
        let both = self.next_u64();
        self.kept = Some((both >> 32) as u32);
        both as u32
    }

    /// One of `n`, which is 1 to 2^32 - 1, as `Generator.choice` draws it (Lemire, 2019).
    pub(super) fn below(&mut self, n: usize) -> usize {
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        if n <= 1 {
            return 0;
        }
        // So many of 2^32 are left over; they would make the first numbers likelier.
        let left_over = n.wrapping_neg() % n;
        loop {
            let product = u64::from(self.next_u32()) * u64::from(n);
            if product as u32 >= left_over {
                return (product >> 32) as usize;
            }
        }
    }
}

/// The first 256 bits of `SeedSequence(seed)`.
fn mixed(seed: u64) -> [u64; 4] {
    let mut factor = 0x43b0_d7e5;
    let mut pool = [seed as u32, (seed >> 32) as u32, 0, 0].map(|word| hash(word, &mut factor, 0x931e_8875));
    for from in 0..pool.len() {
        for to in 0..pool.len() {
            if from != to {
                let other = hash(pool[from], &mut factor, 0x931e_8875);
                let mixed = pool[to]
                    .wrapping_mul(0xca01_f9dd)
                    .wrapping_sub(other.wrapping_mul(0x4973_f715));
                pool[to] = mixed ^ mixed >> 16;
            }
        }
    }
    let mut factor = 0x8b51_f9dd;
    let words: [u32; 8] = std::array::from_fn(|i| hash(pool[i % 4], &mut factor, 0x58f3_8ded));
    std::array::from_fn(|i| u64::from(words[2 * i]) | u64::from(words[2 * i + 1]) << 32)
}

fn hash(word: u32, factor: &mut u32, multiplier: u32) -> u32 {
    let word = word ^ *factor;
    *factor = factor.wrapping_mul(multiplier);
    let word = word.wrapping_mul(*factor);
    word ^ word >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_what_numpy_draws() {
        let fixture: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/fixtures/metrics.json")).unwrap();
        let cases = fixture["draws"].as_array().unwrap();
        assert!(cases.len() > 5);
        for case in cases {
            let mut rng = Pcg64::new(case["seed"].as_u64().unwrap());
            let n = case["n"].as_u64().unwrap() as usize;
            for expected in case["drawn"].as_array().unwrap() {
                assert_eq!(rng.below(n) as u64, expected.as_u64().unwrap(), "{case}");
            }
        }
    }
}
