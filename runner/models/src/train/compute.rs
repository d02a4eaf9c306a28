//! Where a training step is computed: the network and its tape, on the processor or on a GPU.

use runner_nn::{Backend, Cpu, Operations, Session, Step, gpu};

use crate::{
    ClipConfig, ModelError,
    clip::{Network, Parameter, Values},
};

/// A network with its tape.
pub(super) trait Compute {
    /// The loss of a batch and the gradient of every parameter, in order. Pixels as in `TrainBatch`; `true_pairs` is `[n, n]`.
    fn gradients(&self, pixels: &[f32], texts: &[&[u32]], true_pairs: &[bool]) -> Result<Step, ModelError>;

    /// Changes the parameters in place: `change` gets the values of all. On the processor it runs on the step's threads.
    fn update(&self, change: &mut (dyn FnMut(&mut [&mut [f32]]) + Send));

    /// Takes gradients back whose memory the next step may use.
    fn recycle(&self, gradients: Vec<Vec<f32>>);

    /// The values of all parameters.
    fn read(&self) -> Vec<Vec<f32>>;
}

/// Puts a network on a GPU where one is named, else on the processor.
pub(super) fn place(
    config: ClipConfig,
    threads: usize,
    gpu: Option<u32>,
    values: &mut Values<'_>,
) -> Result<(Box<dyn Compute>, Vec<Parameter>), ModelError> {
    match gpu {
        Some(index) => on(Session::over(gpu::operations(index)?), config, values),
        None => on(Session::<Cpu>::new(threads)?, config, values),
    }
}

/// Puts a network where a session computes.
pub(super) fn on<O: Operations>(
    session: Session<O>,
    config: ClipConfig,
    values: &mut Values<'_>,
) -> Result<(Box<dyn Compute>, Vec<Parameter>), ModelError> {
    let (network, parameters) = Network::new(&session, config, values)?;
    Ok((Box::new(Trainee { session, network }), parameters))
}

struct Trainee<O: Operations> {
    session: Session<O>,
    network: Network<Session<O>>,
}

impl<O: Operations> Compute for Trainee<O> {
    fn gradients(&self, pixels: &[f32], texts: &[&[u32]], true_pairs: &[bool]) -> Result<Step, ModelError> {
        let Self { session, network } = self;
        let images = session.l2_normalize(&network.images(session, pixels)?)?;
        let texts = session.l2_normalize(&network.texts(session, &network.config().text.join(texts)?)?)?;
        let loss = session.contrastive_loss(&images, &texts, network.log_scale(), Some(true_pairs))?;
        drop((images, texts));
        Ok(session.backward(loss)?)
    }

    fn update(&self, change: &mut (dyn FnMut(&mut [&mut [f32]]) + Send)) {
        self.session.update(|_, values| change(values));
    }

    fn recycle(&self, gradients: Vec<Vec<f32>>) {
        self.session.recycle(gradients);
    }

    fn read(&self) -> Vec<Vec<f32>> {
        self.session.read()
    }
}
