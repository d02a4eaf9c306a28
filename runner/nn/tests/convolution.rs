//! Convolutional networks against plain loops in f64, on every instruction set of this machine, over sizes and windows that
//! fit nothing; the same bits for any number of threads; and what is refused.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod numbers;

use proptest::prelude::*;
use runner_nn::{Activation, Backend, Cpu, Dfdx, Fused, Isa, Layer, Operation, Session, Size, Stock, Window, Workers};

use numbers::numbers;

/// What a layer does, with the number of channels that come out where it chooses.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Convolution(usize),
    Depthwise,
    Transposed(usize),
    /// By the window's size.
    Upsample,
    /// Into as many groups.
    GroupNorm(usize),
    Activate,
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
        match self.kind {
            Kind::Convolution(outputs) | Kind::Transposed(outputs) => outputs,
            _ => self.size.channels,
        }
    }

    fn window(&self) -> Window {
        match self.kind {
            Kind::Upsample => Window::new(self.window.size, self.window.size, 0),
            Kind::GroupNorm(_) | Kind::Activate => Window::PIXEL,
            _ => self.window,
        }
    }

    fn places(&self) -> (usize, usize) {
        let places = |side| match self.kind {
            Kind::Transposed(_) | Kind::Upsample => self.window().side(side).unwrap(),
            _ => self.window().places(side).unwrap(),
        };
        (places(self.size.height), places(self.size.width))
    }

    fn pictures(&self) -> Vec<f32> {
        numbers(0, self.images * self.size.pixels() * self.size.channels)
    }

    /// Whether a second convolution comes first, whose result is added.
    fn adds(&self) -> bool {
        self.residual && matches!(self.kind, Kind::Convolution(_))
    }

    /// The weight and bias of each layer that has them, in the layout of [`Operation`].
    fn parameters(&self) -> Vec<Vec<f32>> {
        let (area, channels) = (self.window.size * self.window.size, self.size.channels);
        let (weight, bias) = match self.kind {
            Kind::Convolution(outputs) => (outputs * area * channels, outputs),
            Kind::Transposed(outputs) => (area * outputs * channels, outputs),
            Kind::Depthwise => (area * channels, channels),
            Kind::GroupNorm(_) => (channels, channels),
            Kind::Upsample | Kind::Activate | Kind::MaxPool | Kind::MeanPool => return Vec::new(),
        };
        let pairs = if self.adds() { 2 } else { 1 };
        (0..pairs).flat_map(|i| [numbers(1 + 2 * i, weight), numbers(2 + 2 * i, bias)]).collect()
    }

    /// The layer, and before it one whose result it adds.
    fn layers<B: Backend>(&self, backend: &B) -> Vec<Layer<B>> {
        let (area, channels, activation) = (self.window.size * self.window.size, self.size.channels, self.activation);
        let layer = |operation| Layer { input: 0, window: self.window(), operation };
        let mut parameters = self.parameters().into_iter();
        let mut next = || parameters.next().unwrap();
        let mut param = |rows: usize| {
            let values = next();
            backend.param("param", rows, values.len() / rows, values).unwrap()
        };
        match self.kind {
            Kind::Convolution(outputs) => {
                let mut made = Vec::new();
                for residual in if self.adds() { vec![None, Some(1)] } else { vec![None] } {
                    let weight = backend.kernel("weight", self.window(), outputs, channels, next()).unwrap();
                    let bias = backend.param("bias", 1, outputs, next()).unwrap();
                    let activation = if self.adds() && residual.is_none() { Activation::None } else { self.activation };
                    made.push(layer(Operation::Convolution { weight, bias, residual, activation }));
                }
                made
            }
            Kind::Transposed(outputs) => {
                let weight = backend.weight("weight", area * outputs, channels, next()).unwrap();
                let bias = backend.param("bias", 1, outputs, next()).unwrap();
                vec![layer(Operation::Transposed { weight, bias, activation })]
            }
            Kind::Depthwise => {
                let (weight, bias) = (param(area), param(1));
                vec![layer(Operation::Depthwise { weight, bias, activation })]
            }
            Kind::GroupNorm(groups) => {
                let (gain, bias) = (param(1), param(1));
                vec![layer(Operation::GroupNorm { gain, bias, groups, eps: 1e-3, activation })]
            }
            Kind::Upsample => vec![layer(Operation::Upsample)],
            Kind::Activate => vec![layer(Operation::Activate(activation))],
            Kind::MaxPool => vec![layer(Operation::MaxPool)],
            Kind::MeanPool => vec![layer(Operation::MeanPool)],
        }
    }

    fn tensor<B: Backend>(&self, backend: &B) -> B::Tensor {
        backend.tensor(self.images * self.size.pixels(), self.size.channels, self.pictures()).unwrap()
    }

    fn run<B: Backend>(&self, backend: &B) -> Vec<f32> {
        let y = backend.convolutions(&self.tensor(backend), self.size, &self.layers(backend)).unwrap();
        let (height, width) = self.places();
        assert_eq!(backend.shape(&y), (self.images * height * width, self.outputs()));
        backend.values(&y).unwrap()
    }

    /// The gradients of all parameters, last those of the pictures, for the mean squared error to `target`.
    fn gradients(&self, workers: Workers, target: &[f32]) -> Vec<Vec<f32>> {
        let session = Session::over(Cpu::over(workers));
        let layers = self.layers(&session);
        // Pictures that something depends on: rows of a table.
        let rows = self.images * self.size.pixels();
        let table = session.param("pictures", rows, self.size.channels, self.pictures()).unwrap();
        let x = session.embed(&table, &(0..rows as u32).collect::<Vec<_>>()).unwrap();
        let y = session.convolutions(&x, self.size, &layers).unwrap();
        session.backward(session.mean_squared_error(&y, target).unwrap()).unwrap().gradients
    }

    /// The result by its definition.
    fn expected(&self, pictures: &[f64], parameters: &[Vec<f64>]) -> Vec<f64> {
        let none = [Vec::new(), Vec::new()];
        let mut pairs = parameters.chunks_exact(2);
        let mut sums = self.sums(pictures, pairs.next().unwrap_or(&none));
        if let Some(pair) = pairs.next() {
            let first = std::mem::replace(&mut sums, self.sums(pictures, pair));
            sums.iter_mut().zip(first).for_each(|(sum, first)| *sum += first);
        }
        let curved = !matches!(self.kind, Kind::MaxPool | Kind::MeanPool | Kind::Upsample);
        let curve = |x: f64| match self.activation {
            Activation::Relu if curved => x.max(0.0),
            Activation::Relu6 if curved => x.clamp(0.0, 6.0),
            Activation::QuickGelu if curved => x / (1.0 + (-1.702 * x).exp()),
            Activation::Silu if curved => x / (1.0 + (-x).exp()),
            _ => x,
        };
        sums.into_iter().map(curve).collect()
    }

    /// What goes into the activation.
    fn sums(&self, pictures: &[f64], pair: &[Vec<f64>]) -> Vec<f64> {
        let [weight, bias] = pair else { return Vec::new() };
        let Size { height, width, channels } = self.size;
        let Window { size, stride, before, .. } = self.window();
        let ((down, across), outputs) = (self.places(), self.outputs());
        let mut out = vec![0.0; self.images * down * across * outputs];
        // Calls `f` with the tap, the row of the pixel that the window covers there and the place of the window, for pictures of
        // the first size under windows at places of the second.
        let covered = |(height, width): (usize, usize),
                       (down, across): (usize, usize),
                       f: &mut dyn FnMut(usize, usize, usize)| {
            for place in 0..self.images * down * across {
                let (image, y, x) = (place / (down * across), place / across % down, place % across);
                for tap in 0..size * size {
                    let at = |place: usize, offset: usize, side: usize| {
                        (place * stride + offset).checked_sub(before).filter(|at| *at < side)
                    };
                    if let Some((y, x)) = at(y, tap / size, height).zip(at(x, tap % size, width)) {
                        f(tap, (image * height + y) * width + x, place);
                    }
                }
            }
        };
        let (small, large) = ((height, width), (down, across));
        match self.kind {
            Kind::Convolution(_) => covered(small, large, &mut |tap, row, place| {
                for (output, out) in out[place * outputs..][..outputs].iter_mut().enumerate() {
                    let weight = &weight[(output * size * size + tap) * channels..][..channels];
                    *out += weight.iter().zip(&pictures[row * channels..]).map(|(w, x)| w * x).sum::<f64>();
                }
            }),
            Kind::Transposed(_) => covered(large, small, &mut |tap, row, place| {
                for (output, out) in out[row * outputs..][..outputs].iter_mut().enumerate() {
                    let weight = &weight[(tap * outputs + output) * channels..][..channels];
                    *out += weight.iter().zip(&pictures[place * channels..]).map(|(w, x)| w * x).sum::<f64>();
                }
            }),
            Kind::Depthwise => covered(small, large, &mut |tap, row, place| {
                for channel in 0..channels {
                    out[place * channels + channel] +=
                        weight[tap * channels + channel] * pictures[row * channels + channel];
                }
            }),
            Kind::Upsample => covered(large, small, &mut |_, row, place| {
                out[row * channels..][..channels].copy_from_slice(&pictures[place * channels..][..channels]);
            }),
            Kind::MaxPool => {
                out.fill(f64::NEG_INFINITY);
                covered(small, large, &mut |_, row, place| {
                    for channel in 0..channels {
                        let out = &mut out[place * channels + channel];
                        *out = out.max(pictures[row * channels + channel]);
                    }
                });
            }
            Kind::MeanPool => covered(small, large, &mut |_, row, place| {
                for channel in 0..channels {
                    out[place * channels + channel] += pictures[row * channels + channel] / (size * size) as f64;
                }
            }),
            Kind::Activate => out.copy_from_slice(pictures),
            Kind::GroupNorm(groups) => {
                let each = channels / groups;
                for (image, group) in (0..self.images).flat_map(|image| (0..groups).map(move |group| (image, group))) {
                    let pixels = image * height * width..(image + 1) * height * width;
                    let places: Vec<usize> =
                        pixels.flat_map(|pixel| (0..each).map(move |i| pixel * channels + group * each + i)).collect();
                    let mean = places.iter().map(|i| pictures[*i]).sum::<f64>() / places.len() as f64;
                    let variance = places.iter().map(|i| (pictures[*i] - mean).powi(2)).sum::<f64>();
                    let scale = 1.0 / (variance / places.len() as f64 + 1e-3).sqrt();
                    for i in places {
                        out[i] = (pictures[i] - mean) * scale * weight[i % channels] + bias[i % channels];
                    }
                }
                return out;
            }
        }
        if !bias.is_empty() {
            out.iter_mut().enumerate().for_each(|(i, out)| *out += bias[i % outputs]);
        }
        out
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

fn case(sides: std::ops::Range<usize>, most: usize) -> impl Strategy<Value = Case> {
    let activation = prop_oneof![
        Just(Activation::None),
        Just(Activation::Relu),
        Just(Activation::Relu6),
        Just(Activation::QuickGelu),
        Just(Activation::Silu)
    ];
    // Half of them what most networks have. Padding is smaller than the window, so that it never covers padding alone.
    let window = prop_oneof![Just((3usize, 1usize)), (1usize..6, 1usize..4)]
        .prop_flat_map(|(size, stride)| (Just((size, stride)), 0..size, 0..size))
        .prop_map(|((size, stride), before, after)| Window { size, stride, before, after });
    let size = (sides.clone(), sides, 1usize..most);
    let kind = (0usize..10, 1usize..40);
    (1usize..4, size, kind, window, activation, any::<bool>()).prop_map(
        move |(images, (height, width, channels), (kind, outputs), window, activation, residual)| {
            let outputs = outputs.min(most);
            let kind = match kind {
                0..3 => Kind::Convolution(outputs),
                3 => Kind::Depthwise,
                4 => Kind::Transposed(outputs),
                5 => Kind::Upsample,
                6 => Kind::GroupNorm(1 + outputs % 3),
                7 => Kind::Activate,
                8 => Kind::MaxPool,
                _ => Kind::MeanPool,
            };
            // Groups of the same size; enlarged pictures larger than their padding.
            let channels = if let Kind::GroupNorm(groups) = kind { channels * groups } else { channels };
            let size = Size { height, width, channels };
            Case { images, size, kind, window, activation, residual }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn layers_compute_what_their_definition_says(case in case(5..14, 70)) {
        let parameters: Vec<Vec<f64>> = case.parameters().iter().map(|values| wide(values)).collect();
        let expected = case.expected(&wide(&case.pictures()), &parameters);
        let scale = expected.iter().fold(1.0f64, |scale, x| scale.max(x.abs()));
        for isa in Isa::supported() {
            let workers = Workers::with_isa(2, isa).unwrap();
            let inferred = case.run(&Dfdx::inference_over(Cpu::over(workers.clone())));
            let fused = case.run(&Fused::over(workers.clone()));
            for found in [inferred, fused, case.run(&Session::over(Cpu::over(workers)))] {
                prop_assert_eq!(found.len(), expected.len());
                for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    let error = (f64::from(*found) - expected).abs();
                    prop_assert!(error < 1e-5 * scale, "{i}: {found}, expected {expected}");
                }
            }
        }
    }

    #[test]
    fn gradients_of_small_layers_are_slopes(case in case(5..9, 12), seed: u64) {
        gradients_are_slopes(&case, seed);
    }
}

/// Compares gradients with differences, by a step so short that none crosses the kink of a rectifier.
fn gradients_are_slopes(case: &Case, seed: u64) {
    let mut parameters: Vec<Vec<f64>> = case.parameters().iter().map(|values| wide(values)).collect();
    parameters.push(wide(&case.pictures()));
    let count = case.images * case.places().0 * case.places().1 * case.outputs();
    let target = numbers(77, count);
    let loss = |parameters: &[Vec<f64>]| {
        let (pictures, parameters) = parameters.split_last().unwrap();
        let y = case.expected(pictures, parameters);
        y.iter().zip(&target).map(|(y, target)| (y - f64::from(*target)).powi(2)).sum::<f64>() / count as f64
    };
    for isa in Isa::supported() {
        let gradients = case.gradients(Workers::with_isa(2, isa).unwrap(), &target);
        let size = gradients.iter().flatten().fold(1e-3f32, |size, x| size.max(x.abs()));
        assert_eq!(gradients.len(), parameters.len());
        for (place, gradient) in gradients.iter().enumerate() {
            assert_eq!(gradient.len(), parameters[place].len());
            for pick in 0..4u64 {
                let i = (seed.rotate_left(16 * pick as u32) % gradient.len() as u64) as usize;
                let (here, step) = (parameters[place][i], 1e-6);
                parameters[place][i] = here + step;
                let above = loss(&parameters);
                parameters[place][i] = here - step;
                let slope = (above - loss(&parameters)) / (2.0 * step);
                parameters[place][i] = here;
                let error = (f64::from(gradient[i]) - slope).abs() / f64::from(size);
                assert!(error < 1e-4, "{place}[{i}] by {}: {}, expected {slope}", isa.name(), gradient[i]);
            }
        }
    }
}

/// Layers with channels enough for products tap by tap, and for Winograd's tiles where the window is of 3 × 3 pixels.
#[test]
fn gradients_of_wide_layers_are_slopes() {
    let window = |size, stride, before, after| Window { size, stride, before, after };
    let cases = [
        (Kind::Convolution(20), window(3, 1, 1, 1)),
        (Kind::Convolution(33), window(3, 1, 0, 2)),
        (Kind::Convolution(17), window(3, 1, 2, 0)),
        (Kind::Convolution(20), window(3, 2, 1, 1)),
        (Kind::Convolution(36), window(4, 2, 1, 1)),
        (Kind::Convolution(19), window(5, 1, 4, 3)),
        (Kind::Convolution(35), Window::PIXEL),
        (Kind::Transposed(18), window(4, 2, 1, 1)),
        (Kind::Transposed(3), window(3, 2, 1, 0)),
    ];
    for (seed, (kind, window)) in cases.into_iter().enumerate() {
        let size = Size { height: 6, width: 7, channels: 18 };
        let case = Case { images: 3, size, kind, window, activation: Activation::Relu, residual: seed % 2 == 0 };
        gradients_are_slopes(&case, 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed as u64 + 1));
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
        large(Kind::Convolution(24), 60, 12),
        large(Kind::Convolution(24), 60, 16),
        large(Kind::Convolution(300), 7, 40),
        large(Kind::Depthwise, 60, 24),
        large(Kind::MaxPool, 60, 24),
        large(Kind::Transposed(24), 30, 16),
        large(Kind::GroupNorm(4), 60, 24),
    ];
    for case in cases {
        let one = case.run(&Dfdx::<Cpu>::inference(1).unwrap());
        let fused = case.run(&Fused::new(1).unwrap());
        for threads in 2..4 {
            assert_eq!(one, case.run(&Dfdx::<Cpu>::inference(threads).unwrap()), "{case:?}");
            assert_eq!(fused, case.run(&Fused::new(threads).unwrap()), "{case:?}");
        }
        let target = vec![0.0; one.len()];
        let gradients = |threads| case.gradients(Workers::new(threads).unwrap(), &target);
        assert!(gradients(1) == gradients(2), "{case:?}");
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
    let other = |window, operation: fn() -> Operation<Dfdx<Cpu>>| {
        message(&move |layers| *layers = vec![Layer { input: 0, window, operation: operation() }], size)
    };
    assert!(
        other(Window::new(3, 1, 1), || Operation::Activate(Activation::Relu)).contains("larger window than one pixel")
    );
    assert!(other(Window::new(3, 2, 0), || Operation::Upsample).contains("stride of a window that enlarges"));
    assert!(other(Window::new(2, 2, 1), || Operation::Upsample).contains("padding of a window that enlarges"));
    assert!(other(Window::new(0, 0, 0), || Operation::Upsample).contains("places of a window that enlarges"));
    assert_eq!(pool(Window::new(9, 1, 0)), "convolution: side of a picture with its padding is 8, expected 9");
    assert!(pool(Window::new(2, 0, 0)).contains("side of a picture"));
}

#[test]
fn a_device_without_it_says_so() {
    let case = large(Kind::Convolution(4), 8, 3);
    let stock = Dfdx::<Stock<dfdx::prelude::Cpu>>::inference(1).unwrap();
    let error = stock.convolutions(&case.tensor(&stock), case.size, &case.layers(&stock)).err().unwrap();
    assert_eq!(error.to_string(), "convolution: not available on this device");
}

#[test]
fn the_mean_of_sequences_has_a_gradient() {
    let session = Session::<Cpu>::new(1).unwrap();
    let table = session.param("x", 4, 1, vec![1.0, 2.0, 3.0, 5.0]).unwrap();
    let x = session.embed(&table, &[0, 1, 2, 3]).unwrap();
    let y = session.prepend_mean(&x, 2).unwrap();
    let step = session.backward(session.mean_squared_error(&y, &[0.0; 6]).unwrap()).unwrap();
    // 2/6 of each value and half of its mean.
    let expected = [1.0 + 0.75, 2.0 + 0.75, 3.0 + 2.0, 5.0 + 2.0].map(|x| x / 3.0);
    for (found, expected) in step.gradients[0].iter().zip(expected) {
        assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
    }
}

#[test]
fn no_pictures_give_no_result() {
    for kind in [Kind::Convolution(4), Kind::Depthwise, Kind::MeanPool, Kind::Transposed(2), Kind::GroupNorm(1)] {
        let case = Case { images: 0, ..large(kind, 8, 3) };
        assert!(case.run(&Dfdx::<Cpu>::inference(2).unwrap()).is_empty());
        assert!(case.run(&Session::<Cpu>::new(2).unwrap()).is_empty());
    }
}
