//! The size of a picture after the resize.

/// To which size pictures are resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// The short side; the long one follows, rounded down.
    ShortestEdge(usize),
    /// Both sides, whatever the picture's shape.
    Exact {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// As small as covers these, keeping the shape; sides are rounded, halves to even.
    Cover {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// As large as fits in these, keeping the shape; sides are rounded, halves to even.
    Contain {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
}

impl Size {
    /// The size of a picture of `height` × `width` after the resize.
    pub(super) fn of(self, height: usize, width: usize) -> (usize, usize) {
        let scaled = |to: (usize, usize), choose: fn(f64, f64) -> f64| {
            let ratio = choose(height as f64 / to.0 as f64, width as f64 / to.1 as f64);
            let side = |side: usize| (side as f64 / ratio).round_ties_even() as usize;
            (side(height), side(width))
        };
        match self {
            Self::Exact { height, width } => (height, width),
            // Python divides integers to the nearest double, as this does below 2⁵³.
            Self::ShortestEdge(edge) if width <= height => (((edge * height) as f64 / width as f64) as usize, edge),
            Self::ShortestEdge(edge) => (edge, ((edge * width) as f64 / height as f64) as usize),
            Self::Cover { height, width } => scaled((height, width), f64::min),
            Self::Contain { height, width } => scaled((height, width), f64::max),
        }
    }
}
