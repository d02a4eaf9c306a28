//! Training: a backend that owns the tape and the parameters. Models do not see either.

use std::cell::RefCell;

use dfdx::prelude::OwnedTape;

use super::{Dfdx, Operations, Parameter, Record};
use crate::{Error, Shaped, error::check};

/// A backend that records what models compute, so that it can compute gradients.
///
/// Parameters are known by the order in which they were made.
pub type Session<O> = Dfdx<O, Recorded<O>>;

/// The tape of one step and the parameters of all.
pub struct Recorded<O: Operations> {
    tape: RefCell<OwnedTape<f32, O::Device>>,
    parameters: RefCell<Vec<(ParameterInfo, Parameter<O>)>>,
}

/// A parameter that a session trains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterInfo {
    /// Its name in the checkpoint.
    pub name: String,
    /// Rows of its matrix; 1 for vectors.
    pub rows: usize,
    /// Columns of its matrix.
    pub width: usize,
}

/// What one step of training computed.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The value of the loss.
    pub loss: f32,
    /// Its gradient by each parameter, in the order in which they were made.
    pub gradients: Vec<Vec<f32>>,
}

impl<O: Operations> Record<O> for Recorded<O> {
    type Tape = OwnedTape<f32, O::Device>;

    fn with<T>(&self, operation: impl FnOnce(&mut Self::Tape) -> T) -> T {
        operation(&mut self.tape.borrow_mut())
    }

    fn learn(&self, name: &str, parameter: &Parameter<O>) {
        let (rows, width) = parameter.shape();
        let info = ParameterInfo { name: name.to_owned(), rows, width };
        self.parameters.borrow_mut().push((info, parameter.clone()));
    }
}

impl<O: Operations> Session<O> {
    /// A session without parameters, with at most `threads` threads.
    pub fn new(threads: usize) -> Result<Self, Error> {
        Ok(Self::over(O::new(threads)?))
    }

    /// A session over operations that were made otherwise.
    pub fn over(operations: O) -> Self {
        Self { operations, record: Recorded { tape: RefCell::default(), parameters: RefCell::default() } }
    }

    /// The gradients of a `[1, 1]` loss by all parameters. The record ends: a second step starts with a new forward.
    pub fn backward(&self, loss: O::Tensor) -> Result<Step, Error> {
        let (rows, width) = self.operations.shape(&loss);
        check("backward", "number of values of the loss", rows * width, 1)?;
        let value = self.operations.values(&loss).into_iter().sum();
        let mut gradients = self.operations.backward(self.record.tape.take(), &loss)?;
        drop(loss);
        let parameters = self.record.parameters.borrow();
        let take = |(_, parameter): &(_, Parameter<O>)| self.operations.take_gradient(parameter, &mut gradients);
        let gradients = parameters.iter().map(take).collect::<Result<_, _>>()?;
        Ok(Step { loss: value, gradients })
    }

    /// Gives gradients back whose memory the next step may use: fresh memory costs a few hundredths of a step.
    pub fn recycle(&self, gradients: Vec<Vec<f32>>) {
        self.operations.recycle(gradients);
    }

    /// Forgets what was recorded since the last [`Session::backward`], for computations that need no gradient.
    pub fn forget(&self) {
        self.record.tape.take();
    }

    /// All parameters, in the order in which they were made.
    pub fn parameters(&self) -> Vec<ParameterInfo> {
        self.record.parameters.borrow().iter().map(|(info, _)| info.clone()).collect()
    }

    /// The values of all parameters.
    pub fn read(&self) -> Vec<Vec<f32>> {
        self.record.parameters.borrow().iter().map(|(_, parameter)| self.operations.read(parameter)).collect()
    }

    /// Changes the parameters in place: `change` gets the descriptions and the values of all. On the CPU it runs on the
    /// session's threads.
    pub fn update(&self, change: impl FnOnce(&[ParameterInfo], &mut [&mut [f32]]) + Send) {
        let parameters = self.record.parameters.borrow();
        let (infos, parameters): (Vec<_>, Vec<_>) =
            parameters.iter().map(|(info, parameter)| (info.clone(), parameter)).unzip();
        let mut change = Some(change);
        self.operations.update(&parameters, &mut |values| {
            if let Some(change) = change.take() {
                change(&infos, values);
            }
        });
    }
}
