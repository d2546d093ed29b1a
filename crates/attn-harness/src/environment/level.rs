//! How far the processor's instruction sets go, and how far the code that is timed uses them.
//!
//! The levels are those of the x86-64 psABI: 2 adds SSE4.2, 3 AVX2 and FMA, 4 AVX-512.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What each level adds, as `/proc/cpuinfo` names it; SSE2 and what else every x86-64 has is level 1.
const LEVELS: [(u8, &str); 3] = [
    (2, "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3"),
    (3, "avx avx2 bmi1 bmi2 f16c fma abm movbe"),
    (4, "avx512f avx512bw avx512cd avx512dq avx512vl"),
];

/// The levels gemm has kernels for; the last of them with a feature that candle leaves off and this workspace turns on.
const GEMM_LEVELS: [u8; 2] = [3, 4];

/// Levels of x86-64, from 1 to 4.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// That of the processor.
    pub available: u8,
    /// Instruction sets of the processor beyond the levels that attention kernels could use.
    pub beyond: Vec<String>,
    /// That of matrix products, which are dispatched at run time.
    pub matrix_products: u8,
    /// That the binary was compiled for: all of it but the matrix products and the kernels.
    pub compiled: u8,
    /// That of the attention kernels, by the name they have for it.
    #[serde(default)]
    pub kernels: String,
}

impl Level {
    /// The levels here; `None` where there are none. `features` are those of the processor.
    pub(super) fn probe(features: &[String], flags: &[&str]) -> Option<Self> {
        if !cfg!(target_arch = "x86_64") || flags.is_empty() {
            return None;
        }
        Some(Self::of(features, flags))
    }

    fn of(features: &[String], flags: &[&str]) -> Self {
        let available = level(|name| flags.contains(&name));
        let in_levels = |feature: &str| {
            LEVELS
                .iter()
                .any(|(_, names)| names.split(' ').any(|it| it == feature))
        };
        Self {
            available,
            beyond: features
                .iter()
                .filter(|feature| !in_levels(feature))
                .cloned()
                .collect(),
            matrix_products: if GEMM_LEVELS.contains(&available) {
                available
            } else {
                1
            },
            compiled: compiled(),
            // A variable that names no level is refused before anything runs.
            kernels: attn_core::ops::level()
                .map_or_else(|_| "unknown".to_string(), |level| level.to_string()),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            available,
            beyond,
            matrix_products,
            compiled,
            kernels,
        } = self;
        write!(
            f,
            "attention kernels {kernels}, matrix products x86-64-v{matrix_products}, other code x86-64-v{compiled}, "
        )?;
        write!(f, "processor x86-64-v{available}")?;
        if beyond.is_empty() {
            Ok(())
        } else {
            write!(f, " with {}", beyond.join(" "))
        }
    }
}

/// The highest level all of whose instruction sets, and those of the levels below, are there.
fn level(has: impl Fn(&str) -> bool) -> u8 {
    let complete = |(_, names): &&(u8, &str)| names.split(' ').all(&has);
    LEVELS
        .iter()
        .take_while(complete)
        .last()
        .map_or(1, |(level, _)| *level)
}

/// What the compiler was allowed to use; the sets that tell the levels apart are enough.
fn compiled() -> u8 {
    if cfg!(all(target_feature = "avx512bw", target_feature = "avx512vl")) {
        4
    } else if cfg!(all(target_feature = "avx2", target_feature = "fma")) {
        3
    } else if cfg!(target_feature = "sse4.2") {
        2
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V3: &str = "sse2 cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3 avx avx2 bmi1 bmi2 f16c fma abm movbe";

    fn of(flags: &str, features: &[&str]) -> Level {
        let flags: Vec<&str> = flags.split(' ').collect();
        let features: Vec<String> = features.iter().map(|feature| feature.to_string()).collect();
        Level::of(&features, &flags)
    }

    #[test]
    fn a_level_needs_all_below_it() {
        assert_eq!(of("sse2", &[]).available, 1);
        assert_eq!(of(V3, &["avx2"]).available, 3);
        let v4 = format!("{V3} avx512f avx512bw avx512cd avx512dq avx512vl");
        assert_eq!(of(&v4, &[]).available, 4);
        assert_eq!(of(&v4.replace("movbe ", ""), &[]).available, 2, "a gap ends it");
        assert_eq!(of(&v4.replace("avx512cd ", ""), &[]).available, 3);
    }

    #[test]
    fn what_is_used_and_what_is_not_is_told() {
        let level = of(
            &format!("{V3} amx_bf16"),
            &["avx2", "fma", "amx_bf16", "avx512_vnni"],
        );
        assert_eq!(level.beyond, ["amx_bf16", "avx512_vnni"]);
        assert_eq!(level.matrix_products, 3);
        let (compiled, kernels) = (level.compiled, &level.kernels);
        assert_eq!(*kernels, attn_core::ops::level().unwrap().to_string());
        assert_eq!(
            level.to_string(),
            format!(
                "attention kernels {kernels}, matrix products x86-64-v3, other code x86-64-v{compiled}, processor \
                 x86-64-v3 with amx_bf16 avx512_vnni"
            )
        );
        assert_eq!(of("sse2", &[]).matrix_products, 1);
    }

    #[test]
    fn gemm_is_built_with_its_level_4() {
        let manifest = include_str!("../../../../Cargo.toml");
        let gemm = manifest.lines().find(|line| line.starts_with("gemm = "));
        assert!(
            gemm.is_some_and(|line| line.contains("x86-v4")),
            "lower GEMM_LEVELS"
        );
        let v4 = format!("{V3} avx512f avx512bw avx512cd avx512dq avx512vl");
        assert_eq!(of(&v4, &[]).matrix_products, 4);
    }
}
