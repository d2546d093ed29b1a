//! What was composed of candle's operations where a kernel was to compute it, and why: nobody shall take the time of the
//! one for that of the other.

use std::sync::{Mutex, PoisonError};

/// An operation that no kernel computed.
///
/// ```
/// use attn_core::ops::Fallback;
///
/// let fallback = Fallback { op: "decode", reason: "it does not compile here".to_string(), uses: 3 };
/// assert_eq!(fallback.op, "decode");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// The operation.
    pub op: &'static str,
    /// Why there was no kernel for it, or none that could be trusted.
    pub reason: String,
    /// How often that was so.
    pub uses: u64,
}

static NOTED: Mutex<Vec<Fallback>> = Mutex::new(Vec::new());

/// All that this process composed in place of a kernel, in the order in which it was first so.
///
/// ```
/// // On the processor nothing stands in for a kernel of a GPU.
/// assert!(attn_core::ops::fallbacks().is_empty());
/// ```
pub fn fallbacks() -> Vec<Fallback> {
    NOTED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// What was composed since `before` was all of it.
///
/// ```
/// use attn_core::ops::{fallbacks, fallbacks_since};
///
/// let before = fallbacks();
/// // ... a layer's call ...
/// assert!(fallbacks_since(&before).is_empty());
/// ```
pub fn fallbacks_since(before: &[Fallback]) -> Vec<Fallback> {
    let mut since = fallbacks();
    for (fallback, before) in since.iter_mut().zip(before) {
        fallback.uses -= before.uses; // the order never changes
    }
    since.retain(|fallback| fallback.uses > 0);
    since
}

/// Notes that `op` is composed.
#[cfg(any(feature = "cuda", test))]
pub(super) fn note(op: &'static str, reason: &str) {
    let mut noted = NOTED.lock().unwrap_or_else(PoisonError::into_inner);
    match noted
        .iter_mut()
        .find(|fallback| fallback.op == op && fallback.reason == reason)
    {
        Some(fallback) => fallback.uses += 1,
        None => noted.push(Fallback {
            op,
            reason: reason.to_string(),
            uses: 1,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_counted_by_operation_and_reason() {
        note("first", "no kernel");
        let before = fallbacks();
        assert!(fallbacks_since(&before).is_empty());
        note("first", "no kernel");
        note("first", "no kernel");
        note("second", "wrong");
        let fallback = |op, reason: &str, uses| Fallback {
            op,
            reason: reason.to_string(),
            uses,
        };
        assert_eq!(
            fallbacks_since(&before),
            [fallback("first", "no kernel", 2), fallback("second", "wrong", 1)]
        );
        assert!(fallbacks().contains(&fallback("first", "no kernel", 3)));
    }
}
