//! Convolutional networks as data: layers that read each other's results, which a backend runs as one operation.
//!
//! Pictures are matrices with a row a pixel and a column a channel (`[images · height · width, channels]`), so that a
//! 1 × 1 convolution is a linear map, and the values that a window covers in one line lie side by side.

use crate::{Activation, Backend, Error, error::check};

/// A square window that moves over pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its side in pixels.
    pub size: usize,
    /// Pixels from one place to the next, in both directions.
    pub stride: usize,
    /// Pixels put before the first row and the first column.
    pub before: usize,
    /// Pixels put after the last row and the last column.
    pub after: usize,
}

impl Window {
    /// One pixel: a linear map of the channels.
    pub const PIXEL: Self = Self { size: 1, stride: 1, before: 0, after: 0 };

    /// A window with as much padding on every side.
    pub fn new(size: usize, stride: usize, padding: usize) -> Self {
        Self { size, stride, before: padding, after: padding }
    }

    /// A window with TensorFlow's `SAME` padding for pictures of this side: ⌈side / stride⌉ places, the odd pixel of
    /// padding at the end.
    pub fn same(size: usize, stride: usize, side: usize) -> Self {
        let places = side.div_ceil(stride.max(1));
        let padding = (places.saturating_sub(1) * stride + size).saturating_sub(side);
        Self { size, stride, before: padding / 2, after: padding - padding / 2 }
    }

    /// Places along a side; none where the window or its stride is 0, or the window does not fit once.
    pub fn places(&self, side: usize) -> Option<usize> {
        let room = (side + self.before + self.after).checked_sub(self.size)?;
        (self.size > 0).then_some(room.checked_div(self.stride)? + 1)
    }

    /// The side of the pictures over which this window has as many places: [`Window::places`] the other way round, for
    /// layers that enlarge. With room to spare the smallest such side.
    pub fn side(&self, places: usize) -> Option<usize> {
        let reach = places.checked_sub(1)?.checked_mul(self.stride)?.checked_add(self.size)?;
        let side = reach.checked_sub(self.before + self.after).filter(|side| *side > 0)?;
        (self.places(side) == Some(places)).then_some(side)
    }

    /// Whether it is [`Window::PIXEL`].
    pub(crate) fn is_pixel(&self) -> bool {
        *self == Self::PIXEL
    }
}

/// One layer of a network.
pub struct Layer<B: Backend> {
    /// Whose result it reads: 0 is the network's input, i the layer before which i − 1 others stand.
    pub input: usize,
    /// Where it looks.
    pub window: Window,
    /// What it does there.
    pub operation: Operation<B>,
}

impl<B: Backend> Layer<B> {
    /// The result that it adds, numbered as [`Layer::input`].
    pub(crate) fn residual(&self) -> Option<usize> {
        match self.operation {
            Operation::Convolution { residual, .. } => residual,
            _ => None,
        }
    }
}

/// What a layer does with what its window covers.
pub enum Operation<B: Backend> {
    /// A linear map of all values: `activation(w·x + bias + residual)`. Padding is 0.
    Convolution {
        /// `[outputs, size · size · channels]`, inputs ordered row, column, channel: see [`channels_last`].
        weight: B::Kernel,
        /// `[1, outputs]`.
        bias: B::Param,
        /// Whose result is added, numbered as [`Layer::input`].
        residual: Option<usize>,
        /// Applied last.
        activation: Activation,
    },
    /// The same for each channel alone, without a residual.
    Depthwise {
        /// `[size · size, channels]`.
        weight: B::Param,
        /// `[1, channels]`.
        bias: B::Param,
        /// Applied last.
        activation: Activation,
    },
    /// A transposed convolution: the window moves over what comes out, and each pixel that comes in adds a linear map of
    /// itself to what the window covers at its place. What falls on the padding is dropped.
    Transposed {
        /// `[size · size · outputs, channels]`, its rows ordered row, column, output: see [`transposed_weight`].
        weight: B::Weight,
        /// `[1, outputs]`.
        bias: B::Param,
        /// Applied last.
        activation: Activation,
    },
    /// Each pixel fills what the window covers at its place in what comes out. The window tiles: its stride is its size and
    /// it has no padding.
    Upsample,
    /// Group normalisation (Wu and He 2018) of a picture at a time: channels in `groups` equal parts, each brought to mean 0
    /// and variance 1 over all pixels, then `activation(gain·x + bias)`. The window is one pixel.
    GroupNorm {
        /// `[1, channels]`.
        gain: B::Param,
        /// `[1, channels]`.
        bias: B::Param,
        /// Divides the channels.
        groups: usize,
        /// Added to the variance (1e-6 in VQGAN).
        eps: f32,
        /// Applied last.
        activation: Activation,
    },
    /// A function of each value. The window is one pixel.
    Activate(Activation),
    /// The largest value of each channel. Padding is never it.
    MaxPool,
    /// The mean of each channel. Padding counts as 0.
    MeanPool,
}

/// The size of pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Rows of pixels.
    pub height: usize,
    /// Columns of pixels.
    pub width: usize,
    /// Values of a pixel.
    pub channels: usize,
}

impl Size {
    /// Pixels of a picture.
    pub fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// What a layer makes of pictures of this size; `outputs` is the number of channels that come out.
    pub(crate) fn after(&self, window: Window, outputs: usize) -> Result<Self, Error> {
        let places = |side| {
            let (operation, what) = ("convolution", "side of a picture with its padding");
            window.places(side).ok_or(Error::Shape { operation, what, found: side, expected: window.size })
        };
        Ok(Self { height: places(self.height)?, width: places(self.width)?, channels: outputs })
    }

    /// As [`Size::after`] for layers that enlarge.
    pub(crate) fn enlarged(&self, window: Window, outputs: usize) -> Result<Self, Error> {
        let side = |places| {
            let (operation, what) = ("convolution", "places of a window that enlarges");
            window.side(places).ok_or(Error::Shape { operation, what, found: places, expected: 1 })
        };
        Ok(Self { height: side(self.height)?, width: side(self.width)?, channels: outputs })
    }

    /// Fails unless both are the same.
    pub(crate) fn check(&self, what: &'static str, other: Self) -> Result<(), Error> {
        check("convolution", what, self.height, other.height)?;
        check("convolution", what, self.width, other.width)?;
        check("convolution", what, self.channels, other.channels)
    }
}

/// Moves the channels last: `[n, channels, area]` to `[n, area, channels]`. For pictures, and for the weights of
/// convolutions, `[outputs, channels, size, size]`.
pub fn channels_last(values: &[f32], channels: usize, area: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    let whole = (channels * area).max(1);
    for (from, to) in values.chunks_exact(whole).zip(out.chunks_exact_mut(whole)) {
        for (channel, plane) in from.chunks_exact(area).enumerate() {
            for (to, value) in to.iter_mut().skip(channel).step_by(channels).zip(plane) {
                *to = *value;
            }
        }
    }
    out
}

/// The weight of a transposed convolution as [`Operation::Transposed`] has it, from a checkpoint's
/// `[channels, outputs, size, size]`.
pub fn transposed_weight(values: &[f32], outputs: usize, area: usize) -> Vec<f32> {
    let spread = (outputs * area).max(1);
    let channels = values.len() / spread;
    let mut out = vec![0.0; values.len()];
    for (channel, maps) in values.chunks_exact(spread).enumerate() {
        for (i, value) in maps.iter().enumerate() {
            let (output, tap) = (i / area, i % area);
            out[(tap * outputs + output) * channels + channel] = *value;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_padding_is_tensorflows() {
        assert_eq!(Window::same(3, 2, 224), Window { size: 3, stride: 2, before: 0, after: 1 });
        assert_eq!(Window::same(5, 2, 65), Window { size: 5, stride: 2, before: 2, after: 2 });
        for side in 1..40 {
            for (size, stride) in [(1, 1), (3, 1), (3, 2), (5, 1), (5, 2)] {
                assert_eq!(Window::same(size, stride, side).places(side), Some(side.div_ceil(stride)));
            }
        }
    }

    #[test]
    fn windows_that_do_not_fit_have_no_place() {
        assert_eq!(Window::new(3, 1, 0).places(2), None);
        assert_eq!(Window::new(3, 0, 1).places(5), None);
        assert_eq!(Window::new(0, 1, 0).places(5), None);
        assert_eq!(Window::new(2, 2, 0).places(5), Some(2));
    }

    #[test]
    fn channels_move_last() {
        assert_eq!(channels_last(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}
