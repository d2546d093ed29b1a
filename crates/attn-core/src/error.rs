//! What can go wrong in a layer, with what was expected and what was found.
//!
//! ```
//! use attn_core::{Error, Queries};
//!
//! match Queries::Last(9).count(4) {
//!     Err(Error::Shape { op, got, .. }) => assert_eq!((op, got), ("queries", vec![9])),
//!     other => panic!("{other:?}"),
//! }
//! ```

use std::path::PathBuf;

/// The result of every fallible call in this crate.
///
/// ```
/// fn half(heads: usize) -> attn_core::Result<usize> {
///     match heads % 2 {
///         0 => Ok(heads / 2),
///         _ => Err(attn_core::Error::geometry(&["n_heads"], "n_heads must be even")),
///     }
/// }
///
/// assert_eq!(half(8)?, 4);
/// assert!(half(3).is_err());
/// # Ok::<(), attn_core::Error>(())
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a layer could not be configured, loaded or run.
///
/// ```
/// let error = attn_core::Error::CacheFull { capacity: 8, requested: 9 };
/// assert_eq!(error.to_string(), "cache of capacity 8 tokens cannot hold 9");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Sizes that no layer can have together. `keys` names every setting involved, as a sweep spells it.
    #[error("impossible geometry: {message}")]
    Geometry {
        /// The settings involved, as they are spelled in a sweep file.
        keys: Vec<&'static str>,
        /// What does not fit, with the numbers, and what would.
        message: String,
    },
    /// A setting the variant does not have.
    #[error("{variant} has no setting `{name}`, it has {known}")]
    UnknownParam {
        /// Registry key of the variant.
        variant: String,
        /// The setting as it was typed.
        name: String,
        /// The settings the variant has.
        known: String,
    },
    /// A setting of the wrong type or out of its range.
    #[error("{variant}.{name} is {got}, expected {expected}")]
    ParamValue {
        /// Registry key of the variant.
        variant: String,
        /// The setting.
        name: String,
        /// What was expected.
        expected: String,
        /// What was given.
        got: String,
    },
    /// A tensor that the layer needs is not among the weights.
    #[error("weight `{name}` of shape {expected:?} is missing")]
    MissingWeight {
        /// Name under the layer's prefix.
        name: String,
        /// The shape the geometry asks for.
        expected: Vec<usize>,
    },
    /// A weight whose shape is not what the geometry asks for.
    #[error("weight `{name}` has shape {got:?}, expected {expected:?}")]
    WeightShape {
        /// Name under the layer's prefix.
        name: String,
        /// The shape the geometry asks for.
        expected: Vec<usize>,
        /// The shape in the file.
        got: Vec<usize>,
    },
    /// A file that is no readable safetensors file.
    #[error("cannot read {path:?} as safetensors: {reason}")]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        reason: String,
    },
    /// An input whose shape the operation cannot take.
    #[error("shape mismatch in {op}, expected {expected}, got {got:?}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The shape it takes, in dimension letters or numbers.
        expected: String,
        /// The shape it was given.
        got: Vec<usize>,
    },
    /// More tokens than a cache of exact capacity can hold.
    #[error("cache of capacity {capacity} tokens cannot hold {requested}")]
    CacheFull {
        /// Tokens a sequence may hold.
        capacity: usize,
        /// Tokens it would have held.
        requested: usize,
    },
    /// A length to which a cache cannot be taken back.
    #[error("cannot rewind to length {requested}: {reason}")]
    Rewind {
        /// The length asked for.
        requested: usize,
        /// Why it cannot be restored.
        reason: String,
    },
    /// Possible in principle, but not here.
    #[error("{what} is not supported, {remedy}")]
    Unsupported {
        /// The combination asked for.
        what: String,
        /// What to ask for instead.
        remedy: String,
    },
    /// A kernel refused its operands.
    #[error(transparent)]
    Kernel(#[from] attn_kernels::Mismatch),
    /// The tensor library failed. Its text goes on with a backtrace where one was asked for; the first line says
    /// what went wrong.
    #[error("{}", .0.to_string().lines().next().unwrap_or("tensor library failed"))]
    Candle(#[from] candle_core::Error),
}

impl Error {
    /// An [`Error::Geometry`] over the given settings.
    ///
    /// ```
    /// use attn_core::Error;
    ///
    /// let error = Error::geometry(&["n_heads", "n_kv_heads"], "8 heads cannot share 3");
    /// assert_eq!(error.to_string(), "impossible geometry: 8 heads cannot share 3");
    /// ```
    pub fn geometry(keys: &[&'static str], message: impl Into<String>) -> Self {
        Self::Geometry {
            keys: keys.to_vec(),
            message: message.into(),
        }
    }
}
