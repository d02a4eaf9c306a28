//! Convolutional networks against plain loops in f64, on every instruction set of this machine, over sizes and windows that
//! fit nothing; the same bits for any number of threads; and what is refused.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use runner_nn::{
    Activation, Backend, Cpu, Dfdx, Error, Fused, Isa, Layer, Operation, Session, Size, Stock, Window, Workers,
    channels_last,
};

/// Numbers in −1..1 that look random and differ by `stream`.
fn numbers(stream: usize, count: usize) -> Vec<f32> {
    let mut state = (stream as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// What a layer does, with the number of channels that come out where it chooses.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Convolution(usize),
    Depthwise,
    MaxPool,
    MeanPool,
}

#[derive(Debug, Clone)]
struct Case {
    images: usize,
    size: Size,
    kind: Kind,
    window: Window,
    activation: Activation,
    /// Adds the result of a convolution of the same shape.
    residual: bool,
}

impl Case {
    fn outputs(&self) -> usize {
        if let Kind::Convolution(outputs) = self.kind { outputs } else { self.size.channels }
    }

    fn places(&self) -> (usize, usize) {
        (self.window.places(self.size.height).unwrap(), self.window.places(self.size.width).unwrap())
    }

    fn pictures(&self) -> Vec<f32> {
        numbers(0, self.images * self.size.pixels() * self.size.channels)
    }

    /// `[outputs, inputs, size, size]` of a convolution, as checkpoints have it, and the bias.
    fn parameters(&self, stream: usize) -> (Vec<f32>, Vec<f32>) {
        let inputs = if self.kind == Kind::Depthwise { 1 } else { self.size.channels };
        let weight = numbers(stream, self.outputs() * inputs * self.window.size * self.window.size);
        (weight, numbers(stream + 1, self.outputs()))
    }

    /// The layer, and before it one whose result it adds.
    fn layers<B: Backend>(&self, backend: &B) -> Vec<Layer<B>> {
        let (area, channels) = (self.window.size * self.window.size, self.size.channels);
        let convolution = |stream: usize, residual: Option<usize>, activation: Activation| {
            let (weight, bias) = self.parameters(stream);
            let weight = channels_last(&weight, channels, area);
            Operation::Convolution {
                weight: backend.weight("weight", self.outputs(), area * channels, weight).unwrap(),
                bias: backend.param("bias", 1, self.outputs(), bias).unwrap(),
                residual,
                activation,
            }
        };
        let layer = |operation| Layer { input: 0, window: self.window, operation };
        match self.kind {
            Kind::Convolution(_) if self.residual => {
                vec![layer(convolution(3, None, Activation::None)), layer(convolution(1, Some(1), self.activation))]
            }
            Kind::Convolution(_) => vec![layer(convolution(1, None, self.activation))],
            Kind::Depthwise => {
                let (weight, bias) = self.parameters(1);
                let weight = backend.param("weight", area, channels, channels_last(&weight, channels, area)).unwrap();
                let bias = backend.param("bias", 1, channels, bias).unwrap();
                vec![layer(Operation::Depthwise { weight, bias, activation: self.activation })]
            }
            Kind::MaxPool => vec![layer(Operation::MaxPool)],
            Kind::MeanPool => vec![layer(Operation::MeanPool)],
        }
    }

    fn run<B: Backend>(&self, backend: &B) -> Vec<f32> {
        let rows = self.images * self.size.pixels();
        let x = backend.tensor(rows, self.size.channels, self.pictures()).unwrap();
        let y = backend.convolutions(&x, self.size, &self.layers(backend)).unwrap();
        let (height, width) = self.places();
        assert_eq!(backend.shape(&y), (self.images * height * width, self.outputs()));
        backend.values(&y).unwrap()
    }

    /// The same by its definition.
    fn expected(&self) -> Vec<f64> {
        let first = self.sums(1);
        let residual =
            if self.residual && matches!(self.kind, Kind::Convolution(_)) { self.sums(3) } else { Vec::new() };
        let sums = first.iter().enumerate().map(|(i, sum)| sum + residual.get(i).copied().unwrap_or(0.0));
        let curved = !matches!(self.kind, Kind::MaxPool | Kind::MeanPool);
        sums.map(|x| match self.activation {
            Activation::Relu if curved => x.max(0.0),
            Activation::Relu6 if curved => x.clamp(0.0, 6.0),
            Activation::QuickGelu if curved => x / (1.0 + (-1.702 * x).exp()),
            _ => x,
        })
        .collect()
    }

    fn sums(&self, stream: usize) -> Vec<f64> {
        let (pictures, (weight, bias)) = (self.pictures(), self.parameters(stream));
        let Size { height, width, channels } = self.size;
        let Window { size, stride, before, .. } = self.window;
        let (down, across) = self.places();
        let mut out = Vec::new();
        for place in 0..self.images * down * across {
            let (image, y, x) = (place / (down * across), place / across % down, place % across);
            // Every pixel under the window: its line and column there, and its row in the matrix, if it is no padding.
            let under = (0..size * size).map(|tap| {
                let at = |place: usize, offset: usize, side: usize| {
                    (place * stride + offset).checked_sub(before).filter(|at| *at < side)
                };
                let pixel = at(y, tap / size, height).zip(at(x, tap % size, width));
                (tap, pixel.map(|(y, x)| (image * height + y) * width + x))
            });
            for output in 0..self.outputs() {
                let value = |row: usize, channel: usize| f64::from(pictures[row * channels + channel]);
                let own = |row: Option<usize>| row.map(|row| value(row, output));
                out.push(match self.kind {
                    Kind::MaxPool => under.clone().filter_map(|(_, row)| own(row)).fold(f64::NEG_INFINITY, f64::max),
                    Kind::MeanPool => under.clone().filter_map(|(_, row)| own(row)).sum::<f64>() / (size * size) as f64,
                    Kind::Depthwise => {
                        let taps = under
                            .clone()
                            .filter_map(|(tap, row)| Some(f64::from(weight[output * size * size + tap]) * own(row)?));
                        taps.sum::<f64>() + f64::from(bias[output])
                    }
                    Kind::Convolution(_) => {
                        let taps = under.clone().filter_map(|(tap, row)| Some((tap, row?)));
                        let each = taps.flat_map(|(tap, row)| (0..channels).map(move |channel| (tap, row, channel)));
                        let each = each.map(|(tap, row, channel)| {
                            f64::from(weight[(output * channels + channel) * size * size + tap]) * value(row, channel)
                        });
                        each.sum::<f64>() + f64::from(bias[output])
                    }
                });
            }
        }
        out
    }
}

fn case() -> impl Strategy<Value = Case> {
    let kind = prop_oneof![
        (1usize..40).prop_map(Kind::Convolution),
        Just(Kind::Depthwise),
        Just(Kind::MaxPool),
        Just(Kind::MeanPool)
    ];
    let activation = prop_oneof![
        Just(Activation::None),
        Just(Activation::Relu),
        Just(Activation::Relu6),
        Just(Activation::QuickGelu)
    ];
    // Padding is smaller than the window, so that it never covers padding alone.
    let window = (1usize..6, 1usize..4)
        .prop_flat_map(|(size, stride)| (Just((size, stride)), 0..size, 0..size))
        .prop_map(|((size, stride), before, after)| Window { size, stride, before, after });
    let size = (5usize..14, 5usize..14, 1usize..70);
    let size = size.prop_map(|(height, width, channels)| Size { height, width, channels });
    (1usize..4, size, kind, window, activation, any::<bool>()).prop_map(
        |(images, size, kind, window, activation, residual)| Case { images, size, kind, window, activation, residual },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn layers_compute_what_their_definition_says(case in case()) {
        let expected = case.expected();
        let scale = expected.iter().fold(1.0f64, |scale, x| scale.max(x.abs()));
        for isa in Isa::supported() {
            let workers = Workers::with_isa(2, isa).unwrap();
            let fused = case.run(&Fused::over(workers.clone()));
            for found in [case.run(&Dfdx::inference_over(Cpu::over(workers))), fused] {
                prop_assert_eq!(found.len(), expected.len());
                for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    let error = (f64::from(*found) - expected).abs();
                    prop_assert!(error < 1e-5 * scale, "{i}: {found}, expected {expected}");
                }
            }
        }
    }
}

/// Large enough to be cut into several parts, by pixels and by channels.
fn large(kind: Kind, side: usize, channels: usize) -> Case {
    let size = Size { height: side, width: side, channels };
    Case { images: 3, size, kind, window: Window::new(3, 1, 1), activation: Activation::Relu, residual: false }
}

#[test]
fn threads_do_not_change_a_bit() {
    let cases = [
        large(Kind::Convolution(24), 60, 16),
        large(Kind::Convolution(300), 7, 40),
        large(Kind::Depthwise, 60, 24),
        large(Kind::MaxPool, 60, 24),
    ];
    for case in cases {
        let one = case.run(&Dfdx::<Cpu>::inference(1).unwrap());
        let fused = case.run(&Fused::new(1).unwrap());
        for threads in 2..4 {
            assert_eq!(one, case.run(&Dfdx::<Cpu>::inference(threads).unwrap()), "{case:?}");
            assert_eq!(fused, case.run(&Fused::new(threads).unwrap()), "{case:?}");
        }
    }
}

#[test]
fn what_is_not_a_number_stays_so() {
    for (kind, activation) in [(Kind::Convolution(3), Activation::Relu6), (Kind::Depthwise, Activation::Relu)] {
        let case = Case { activation, ..large(kind, 5, 3) };
        let backend = Dfdx::<Cpu>::inference(1).unwrap();
        let mut pictures = case.pictures();
        pictures[0] = f32::NAN;
        let x = backend.tensor(pictures.len() / 3, 3, pictures).unwrap();
        let y = backend.values(&backend.convolutions(&x, case.size, &case.layers(&backend)).unwrap()).unwrap();
        assert!(y[0].is_nan() && y.last().unwrap().is_finite(), "{kind:?}");
    }
}

#[test]
fn the_mean_stands_before_each_sequence() {
    let backend = Dfdx::<Cpu>::inference(1).unwrap();
    let x = backend.tensor(4, 2, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 9.0]).unwrap();
    let y = backend.prepend_mean(&x, 2).unwrap();
    assert_eq!(backend.values(&y).unwrap(), [2.0, 3.0, 1.0, 2.0, 3.0, 4.0, 6.0, 7.5, 5.0, 6.0, 7.0, 9.0]);
    assert!(backend.prepend_mean(&x, 3).is_err());
    assert!(backend.prepend_mean(&backend.tensor(0, 2, Vec::new()).unwrap(), 1).is_err());
}

#[test]
fn layers_that_do_not_fit_are_refused() {
    let backend = Dfdx::<Cpu>::inference(1).unwrap();
    let case = large(Kind::Convolution(4), 8, 3);
    type Layers = Vec<Layer<Dfdx<Cpu>>>;
    let message = |change: &dyn Fn(&mut Layers), size: Size| {
        let x = backend.tensor(3 * 64, 3, case.pictures()).unwrap();
        let mut layers = case.layers(&backend);
        change(&mut layers);
        backend.convolutions(&x, size, &layers).err().unwrap().to_string()
    };
    let (same, size) = (|_: &mut Vec<_>| (), case.size);
    assert_eq!(message(&same, Size { channels: 4, ..size }), "convolution: channels of the pictures is 3, expected 4");
    assert_eq!(
        message(&same, Size { height: 7, ..size }),
        "convolution: remainder of rows by pixels of a picture is 24, expected 0"
    );
    assert!(message(&same, Size { height: 0, ..size }).contains("remainder of rows"));
    let ahead = message(&|layers| layers[0].input = 1, size);
    assert_eq!(ahead, "convolution: index 1 is out of range, there are 1 rows");
    let wide = message(&|layers| layers[0].window = Window::new(5, 1, 0), size);
    assert_eq!(wide, "convolution: inputs of a weight is 27, expected 75");
    let pool = |window| {
        message(&move |layers| *layers = vec![Layer { input: 0, window, operation: Operation::MaxPool }], size)
    };
    assert_eq!(pool(Window::new(9, 1, 0)), "convolution: side of a picture with its padding is 8, expected 9");
    assert!(pool(Window::new(2, 0, 0)).contains("side of a picture"));
}

#[test]
fn recording_it_is_an_error_and_so_is_a_device_without_it() {
    let case = large(Kind::Convolution(4), 8, 3);
    let session = Session::<Cpu>::new(1).unwrap();
    let x = session.tensor(3 * 64, 3, case.pictures()).unwrap();
    let error = session.convolutions(&x, case.size, &case.layers(&session)).err().unwrap();
    assert_eq!(error, Error::NoGradient { operation: "convolution" });
    assert!(matches!(session.prepend_mean(&x, 3), Err(Error::NoGradient { .. })));
    let stock = Dfdx::<Stock<dfdx::prelude::Cpu>>::inference(1).unwrap();
    let x = stock.tensor(3 * 64, 3, case.pictures()).unwrap();
    let error = stock.convolutions(&x, case.size, &case.layers(&stock)).err().unwrap();
    assert_eq!(error.to_string(), "convolution: not available on this device");
}

#[test]
fn no_pictures_give_no_result() {
    for kind in [Kind::Convolution(4), Kind::Depthwise, Kind::MeanPool] {
        let case = Case { images: 0, ..large(kind, 8, 3) };
        assert!(case.run(&Dfdx::<Cpu>::inference(2).unwrap()).is_empty());
    }
}
