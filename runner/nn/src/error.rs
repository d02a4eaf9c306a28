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
    /// The program was built without the feature `cuda`.
    #[error("this program was built without CUDA; scripts/cuda-build builds one with it")]
    WithoutCuda,
    /// The driver shows no GPU, or does not start.
    #[error("no GPU can be used: the driver says {0}")]
    NoCuda(String),
    /// A GPU that the driver does not show.
    #[error("there is no GPU {index}: {}", seen(*.count))]
    NoGpu {
        /// The index that was asked for.
        index: u32,
        /// How many GPUs there are.
        count: u32,
    },
    /// The device's memory is full. What works on fewer rows at once may still succeed.
    #[error("the device is out of memory")]
    OutOfMemory,
    /// The device could not do it.
    #[error("the device failed: {0}")]
    Device(String),
}

/// How many GPUs there are, in words.
fn seen(count: u32) -> String {
    let visible =
        if std::env::var_os("CUDA_VISIBLE_DEVICES").is_some() { " that CUDA_VISIBLE_DEVICES shows" } else { "" };
    match count {
        0 => format!("there is none{visible}"),
        1 => format!("there is one{visible}, 0"),
        count => format!("there are {count}{visible}, 0 to {}", count - 1),
    }
}

/// `found` must be `expected`.
pub(crate) fn check(operation: &'static str, what: &'static str, found: usize, expected: usize) -> Result<(), Error> {
    if found == expected { Ok(()) } else { Err(Error::Shape { operation, what, found, expected }) }
}
