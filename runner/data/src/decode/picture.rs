//! A decoded picture with what Pillow's mode says about it, and its conversions to RGB.
//!
//! A palette or black-and-white picture holds its colours, not indices, and is marked to be resized by nearest, as Pillow does with
//! modes `P` and `1`; so no other code needs to know about palettes.

use super::Pixels;

/// What the samples are, by Pillow's mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `L`, `1`
    Grey,
    /// `LA`
    GreyAlpha,
    /// `RGB`, `P`
    Rgb,
    /// `RGBA`, `P` with transparency
    Rgba,
    /// `CMYK`: 0 is no ink.
    Cmyk,
    /// `I;16`: two bytes a sample, little-endian.
    Grey16,
}

impl Kind {
    /// Bytes of a pixel.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::GreyAlpha | Self::Grey16 => 2,
            Self::Rgb => 3,
            Self::Rgba | Self::Cmyk => 4,
        }
    }
}

/// A decoded picture.
#[derive(Clone, Debug)]
pub(crate) struct Picture {
    /// Rows.
    pub(crate) height: usize,
    /// Columns.
    pub(crate) width: usize,
    pub(crate) kind: Kind,
    /// `[height, width, kind.bytes()]`.
    pub(crate) data: Vec<u8>,
    /// The colours of modes `P` and `1`, which are resized by nearest, whatever the filter.
    pub(crate) palette: Option<Vec<[u8; 3]>>,
    /// The colour that means transparent (PNG's `tRNS` without a palette), as RGB.
    pub(crate) transparent: Option<[u8; 3]>,
}

impl Picture {
    pub(crate) fn new(height: usize, width: usize, kind: Kind, data: Vec<u8>) -> Self {
        Self { height, width, kind, data, palette: None, transparent: None }
    }

    /// The same, in mode `P`.
    pub(crate) fn with_palette(self, colours: &[[u8; 3]]) -> Self {
        Self { palette: Some(colours.to_vec()), ..self }
    }

    /// The same, in mode `1`: every number but 0 is white.
    pub(crate) fn bilevel(self) -> Self {
        let mut colours = vec![[255; 3]; 256];
        colours[0] = [0; 3];
        Self { palette: Some(colours), ..self }
    }

    /// The colour of a border of the number `fill`, which is an index in a palette, black beyond its end.
    pub(crate) fn border(&self, fill: u8) -> [u8; 3] {
        if let Some(colours) = &self.palette {
            return colours.get(usize::from(fill)).copied().unwrap_or_default();
        }
        match self.kind {
            Kind::Cmyk => cmyk_to_rgb([fill; 4]),
            Kind::Grey | Kind::GreyAlpha | Kind::Rgb | Kind::Rgba | Kind::Grey16 => [fill; 3],
        }
    }

    /// `Image.convert("RGB")`: alpha is dropped, 16-bit grey saturates. Grey stays one channel.
    pub(crate) fn into_rgb(self) -> Pixels {
        let Self { height, width, kind, data, .. } = self;
        let (channels, data) = match kind {
            Kind::Grey => (1, data),
            Kind::Rgb => (3, data),
            Kind::GreyAlpha => (1, data.chunks_exact(2).map(|pixel| pixel[0]).collect()),
            Kind::Rgba => (3, data.chunks_exact(4).flat_map(|pixel| &pixel[..3]).copied().collect()),
            Kind::Grey16 => (1, data.chunks_exact(2).map(|pixel| if pixel[1] > 0 { 255 } else { pixel[0] }).collect()),
            Kind::Cmyk => (3, data.as_chunks::<4>().0.iter().flat_map(|pixel| cmyk_to_rgb(*pixel)).collect()),
        };
        Pixels { height, width, channels, data }
    }

    /// `transformers`' `convert_to_rgb`: what is transparent lies on white, with the rounding of Pillow's `alpha_composite`.
    pub(crate) fn into_rgb_on_white(self) -> Pixels {
        let Self { height, width, kind, transparent, .. } = self;
        match (kind, transparent) {
            (Kind::GreyAlpha, _) => {
                let data = self.data.chunks_exact(2).map(|pixel| over_white(pixel[0], pixel[1])).collect();
                Pixels { height, width, channels: 1, data }
            }
            (Kind::Rgba, _) => {
                let (pixels, _) = self.data.as_chunks::<4>();
                let data = pixels.iter().flat_map(|[r, g, b, a]| [r, g, b].map(|value| over_white(*value, *a)));
                Pixels { height, width, channels: 3, data: data.collect() }
            }
            (Kind::Grey | Kind::Rgb, Some(key)) => {
                let mut pixels = self.into_rgb();
                let channels = pixels.channels;
                for pixel in pixels.data.chunks_exact_mut(channels) {
                    if *pixel == key[..channels] {
                        pixel.fill(255);
                    }
                }
                pixels
            }
            _ => self.into_rgb(),
        }
    }

    /// Pillow's `RGBa` or `La`: colours times alpha. Nothing where there is no alpha.
    pub(crate) fn premultiply(&mut self) {
        let times = |value: &mut u8, alpha: u8| *value = div255(u32::from(*value) * u32::from(alpha));
        self.with_alpha(times);
    }

    /// Back from [`Picture::premultiply`].
    pub(crate) fn unpremultiply(&mut self) {
        let divide = |value: &mut u8, alpha: u8| {
            if !matches!(alpha, 0 | 255) {
                *value = (255 * u32::from(*value) / u32::from(alpha)).min(255) as u8;
            }
        };
        self.with_alpha(divide);
    }

    fn with_alpha(&mut self, change: impl Fn(&mut u8, u8)) {
        let bytes = self.kind.bytes();
        if !matches!(self.kind, Kind::GreyAlpha | Kind::Rgba) {
            return;
        }
        for pixel in self.data.chunks_exact_mut(bytes) {
            if let Some((alpha, colours)) = pixel.split_last_mut() {
                colours.iter_mut().for_each(|value| change(value, *alpha));
            }
        }
    }
}

/// Pillow's `MULDIV255`: n / 255, rounded.
fn div255(n: u32) -> u8 {
    let n = n + 128;
    (((n >> 8) + n) >> 8) as u8
}

/// Pillow's `cmyk2rgb`.
fn cmyk_to_rgb([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    let paper = 255 - k;
    [c, m, y].map(|ink| paper.saturating_sub(div255(u32::from(ink) * u32::from(paper))))
}

/// Pillow's `ImagingAlphaComposite` over opaque white.
fn over_white(value: u8, alpha: u8) -> u8 {
    if alpha == 0 {
        return 255;
    }
    let (own, white) = (u32::from(alpha) << 7, u32::from(255 - alpha) << 7);
    let sum = u32::from(value) * own + 255 * white + (0x80 << 7);
    ((((sum >> 8) + sum) >> 8) >> 7) as u8
}
