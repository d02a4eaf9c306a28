//! What can go wrong in the compute layer.

/// An operation was given operands that do not fit, or the device failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A parameter has another number of values than its shape says.
    #[error("tensor `{name}` has {found} values, expected {rows} × {width}")]
    ParameterSize {
        /// The parameter's name in the checkpoint.
        name: String,
        /// Rows of the expected shape.
        rows: usize,
        /// Columns of the expected shape.
        width: usize,
        /// How many values there were.
        found: usize,
    },
    /// Operands whose shapes do not fit each other.
    #[error("{operation}: {what} is {found}, expected {expected}")]
    Shape {
        /// The operation.
        operation: &'static str,
        /// Which dimension of which operand.
        what: &'static str,
        /// What it was.
        found: usize,
        /// What it has to be.
        expected: usize,
    },
    /// An index beyond the table or matrix that it selects from.
    #[error("{operation}: index {index} is out of range, there are {rows} rows")]
    Index {
        /// The operation.
        operation: &'static str,
        /// The index.
        index: usize,
        /// How many rows there are.
        rows: usize,
    },
    /// This backend has no such operation.
    #[error("{operation}: not available on this device")]
    Unsupported {
        /// The operation.
        operation: &'static str,
    },
    /// The operation was recorded for training, and its gradient is not known.
    #[error("{operation}: cannot be trained, only run")]
    NoGradient {
        /// The operation.
        operation: &'static str,
    },
    /// The device could not do it (out of memory, a failed kernel).
    #[error("the device failed: {0}")]
    Device(String),
}

/// `found` must be `expected`.
pub(crate) fn check(operation: &'static str, what: &'static str, found: usize, expected: usize) -> Result<(), Error> {
    if found == expected { Ok(()) } else { Err(Error::Shape { operation, what, found, expected }) }
}
