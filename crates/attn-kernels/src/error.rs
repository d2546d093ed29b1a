//! What can be wrong with operands.

/// Operands that do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{op}: {what} is {got}, expected {expected}")]
pub struct Mismatch {
    /// The operation.
    pub op: &'static str,
    /// The operand, or what of it.
    pub what: &'static str,
    /// What it should be.
    pub expected: usize,
    /// What it is.
    pub got: usize,
}

/// Refuses what is too short.
pub(crate) fn at_least(
    op: &'static str,
    what: &'static str,
    got: usize,
    expected: usize,
) -> Result<(), Mismatch> {
    if got >= expected {
        return Ok(());
    }
    Err(Mismatch {
        op,
        what,
        expected,
        got,
    })
}

/// Of sizes. What is too large for the type is larger than any slice, and refused as such.
pub(crate) fn product(sizes: &[usize]) -> usize {
    sizes.iter().fold(1, |all, size| all.saturating_mul(*size))
}
