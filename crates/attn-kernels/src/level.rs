//! Which instructions the kernels use.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// The environment variable that lowers the level: `ATTN_CPU_LEVEL=avx2`.
pub const LEVEL_VARIABLE: &str = "ATTN_CPU_LEVEL";

/// A set of instructions, the later ones holding the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// What every processor has.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// The same with AMX and AVX-512 for bf16.
    Amx,
}

/// A word that names no level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown level `{0}`, expected portable, avx2, avx512 or amx")]
pub struct UnknownLevel(pub String);

impl Level {
    /// All levels, the lowest first.
    pub const ALL: [Self; 4] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Amx];

    /// The name in rows and in [`LEVEL_VARIABLE`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
        }
    }

    /// The highest level of this processor.
    pub fn detect() -> Self {
        static DETECTED: OnceLock<Level> = OnceLock::new();
        *DETECTED.get_or_init(probe)
    }

    /// The level in use: that of the processor, or the lower one that [`LEVEL_VARIABLE`] names.
    ///
    /// # Errors
    /// [`UnknownLevel`] where the variable names none.
    pub fn current() -> Result<Self, UnknownLevel> {
        static CURRENT: OnceLock<Result<Level, UnknownLevel>> = OnceLock::new();
        let read = || match std::env::var(LEVEL_VARIABLE) {
            Ok(word) => word.parse::<Level>().map(|level| level.min(Level::detect())),
            Err(_) => Ok(Level::detect()),
        };
        CURRENT.get_or_init(read).clone()
    }

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        self <= Self::detect()
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(word: &str) -> Result<Self, UnknownLevel> {
        let named = Self::ALL.into_iter().find(|level| level.name() == word.trim());
        named.ok_or_else(|| UnknownLevel(word.to_string()))
    }
}

#[cfg(target_arch = "x86_64")]
fn probe() -> Level {
    use std::arch::is_x86_feature_detected as has;
    let avx2 = has!("avx2") && has!("fma") && has!("f16c");
    let avx512 = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
    match (avx2, avx512) {
        (true, true) if crate::amx::is_available() => Level::Amx,
        (true, true) => Level::Avx512,
        (true, false) => Level::Avx2,
        (false, _) => Level::Portable,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn probe() -> Level {
    Level::Portable
}

/// Defines `$name`, which runs `$kernel::<S, E>` with the vectors of a level, compiled for its instructions. The
/// kernel and all it calls with vectors must be `#[inline(always)]`, and call it directly: what is not inlined here is
/// compiled without them.
macro_rules! for_each_level {
    ($(#[$attribute:meta])* fn $name:ident(level, $work:ident<E>) = $kernel:ident) => {
        $(#[$attribute])*
        fn $name<E: $crate::Element>(level: $crate::Level, work: $work<'_, E>) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
                unsafe fn avx512<E: $crate::Element>(work: $work<'_, E>) {
                    $kernel::<$crate::simd::Avx512, E>(work);
                }

                #[target_feature(enable = "avx2,fma,f16c")]
                unsafe fn avx2<E: $crate::Element>(work: $work<'_, E>) {
                    $kernel::<$crate::simd::Avx2, E>(work);
                }

                match level.min($crate::Level::detect()) {
                    // SAFETY: the processor was found to have these instructions.
                    $crate::Level::Avx512 | $crate::Level::Amx => return unsafe { avx512(work) },
                    // SAFETY: the same.
                    $crate::Level::Avx2 => return unsafe { avx2(work) },
                    $crate::Level::Portable => {}
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = level;
            $kernel::<$crate::simd::Portable, E>(work);
        }
    };
}
pub(crate) use for_each_level;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ordered_and_named() {
        assert!(Level::ALL.is_sorted());
        for level in Level::ALL {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        let error = "sse9".parse::<Level>().unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown level `sse9`, expected portable, avx2, avx512 or amx"
        );
        assert!(Level::Portable.is_available());
        assert!(Level::current().is_ok_and(Level::is_available));
    }
}
