//! What every backend checks before it computes: that operands fit each other.

use crate::{
    Attention, Backend, Block, Epilogue, Error, Layer, LayerNorm, Operation, Patches, Size, backend::Shaped,
    error::check,
};

/// See [`Backend::linear`].
pub(crate) fn linear<B: Backend>(
    (rows, inputs): (usize, usize),
    weight: &B::Weight,
    epilogue: &Epilogue<'_, B>,
    backend: &B,
) -> Result<(), Error> {
    let outputs = weight.shape().0;
    check("linear", "width of the input", inputs, weight.shape().1)?;
    if let Some(bias) = epilogue.bias {
        row("linear", bias, outputs)?;
    }
    if let Some(residual) = epilogue.residual {
        let residual = backend.shape(residual);
        check("linear", "rows of the residual", residual.0, rows)?;
        check("linear", "width of the residual", residual.1, outputs)?;
    }
    Ok(())
}

/// See [`Backend::layer_norm`].
pub(crate) fn layer_norm<B: Backend>(operation: &'static str, width: usize, norm: &LayerNorm<B>) -> Result<(), Error> {
    row(operation, &norm.gain, width)?;
    row(operation, &norm.bias, width)
}

/// Every index must be below `rows`.
pub(crate) fn indices(operation: &'static str, indices: &[u32], rows: usize) -> Result<(), Error> {
    match indices.iter().find(|index| **index as usize >= rows) {
        Some(index) => Err(Error::Index { operation, index: *index as usize, rows }),
        None => Ok(()),
    }
}

/// See [`Backend::patch_embed`].
pub(crate) fn patch_embed<B: Backend>(
    pixels: &[f32],
    patches: Patches,
    weight: &B::Weight,
    bias: Option<&B::Param>,
) -> Result<(), Error> {
    let remainder = |side: usize| side.checked_rem(patches.size).unwrap_or(1);
    check("patch embedding", "remainder of the height by the patch size", remainder(patches.height), 0)?;
    check("patch embedding", "remainder of the width by the patch size", remainder(patches.width), 0)?;
    check("patch embedding", "inputs of the weight", weight.shape().1, patches.patch_len())?;
    let remainder = pixels.len().checked_rem(patches.image_len()).unwrap_or(1);
    check("patch embedding", "remainder of the pixels by the image size", remainder, 0)?;
    bias.map_or(Ok(()), |bias| row("patch embedding", bias, weight.shape().0))
}

/// See [`Backend::add_positions`].
pub(crate) fn add_positions<P: Shaped>(
    (rows, width): (usize, usize),
    sequences: usize,
    class: Option<&P>,
    positions: &P,
) -> Result<(), Error> {
    check("positions", "remainder of rows by sequences", rows.checked_rem(sequences).unwrap_or(rows), 0)?;
    check("positions", "width of the positions", positions.shape().1, width)?;
    if let Some(class) = class {
        row("positions", class, width)?;
    }
    let tokens = rows.checked_div(sequences).unwrap_or(0) + usize::from(class.is_some());
    if tokens > positions.shape().0 {
        return Err(Error::Index { operation: "positions", index: tokens - 1, rows: positions.shape().0 });
    }
    Ok(())
}

/// See [`Backend::attention`].
pub(crate) fn attention((rows, width): (usize, usize), attention: Attention) -> Result<(), Error> {
    check("attention", "remainder of the width by 3", width % 3, 0)?;
    attention.head_width(rows, width / 3).map(drop)
}

/// Sequences of these lengths must make up all rows, and each have one.
pub(crate) fn sequences(rows: usize, lengths: &[usize]) -> Result<(), Error> {
    check("sequences", "number of rows", rows, lengths.iter().sum())?;
    check("sequences", "number of empty ones", lengths.iter().filter(|length| **length == 0).count(), 0)
}

/// See [`Backend::contrastive_loss`].
pub(crate) fn contrastive_loss<P: Shaped>(
    (n, width): (usize, usize),
    text: (usize, usize),
    log_scale: &P,
    true_pairs: Option<&[bool]>,
) -> Result<(), Error> {
    check("contrastive loss", "rows of the text embeddings", text.0, n)?;
    check("contrastive loss", "width of the text embeddings", text.1, width)?;
    check("contrastive loss", "number of pairs", true_pairs.map_or(n * n, <[bool]>::len), n * n)?;
    row("contrastive loss", log_scale, 1)
}

/// See [`Backend::convolutions`]: gives the sizes of the pictures and of each layer's result, whose parameters must fit.
pub(crate) fn convolutions<B: Backend>(
    (rows, width): (usize, usize),
    size: Size,
    layers: &[Layer<B>],
) -> Result<Vec<Size>, Error> {
    check("convolution", "channels of the pictures", width, size.channels)?;
    let remainder = rows.checked_rem(size.pixels()).unwrap_or(1);
    check("convolution", "remainder of rows by pixels of a picture", remainder, 0)?;
    let mut sizes = vec![size];
    for layer in layers {
        let known = |result: usize| {
            let unknown = Error::Index { operation: "convolution", index: result, rows: sizes.len() };
            sizes.get(result).copied().ok_or(unknown)
        };
        let (from, window) = (known(layer.input)?, layer.window);
        let area = window.size * window.size;
        let after = match &layer.operation {
            Operation::Convolution { weight, bias, residual, .. } => {
                let (outputs, inputs) = weight.shape();
                check("convolution", "inputs of a weight", inputs, area * from.channels)?;
                row("convolution", bias, outputs)?;
                let after = from.after(window, outputs)?;
                if let Some(residual) = residual {
                    known(*residual)?.check("size of a residual", after)?;
                }
                after
            }
            Operation::Depthwise { weight, bias, .. } => {
                check("convolution", "rows of a depthwise weight", weight.shape().0, area)?;
                check("convolution", "width of a depthwise weight", weight.shape().1, from.channels)?;
                row("convolution", bias, from.channels)?;
                from.after(window, from.channels)?
            }
            Operation::Transposed { weight, bias, .. } => {
                let ((spread, inputs), outputs) = (weight.shape(), bias.shape().1);
                check("convolution", "inputs of a weight", inputs, from.channels)?;
                check("convolution", "outputs of a transposed weight", spread, area * outputs)?;
                row("convolution", bias, outputs)?;
                from.enlarged(window, outputs)?
            }
            Operation::Upsample => {
                check("convolution", "stride of a window that enlarges", window.stride, window.size)?;
                check("convolution", "padding of a window that enlarges", window.before + window.after, 0)?;
                from.enlarged(window, from.channels)?
            }
            Operation::GroupNorm { gain, bias, groups, .. } => {
                one_pixel(layer)?;
                let remainder = from.channels.checked_rem(*groups).unwrap_or(1);
                check("convolution", "remainder of channels by groups", remainder, 0)?;
                row("convolution", gain, from.channels)?;
                row("convolution", bias, from.channels)?;
                from
            }
            Operation::Activate(_) => {
                one_pixel(layer)?;
                from
            }
            Operation::MaxPool | Operation::MeanPool => from.after(window, from.channels)?,
        };
        sizes.push(after);
    }
    Ok(sizes)
}

/// Fails unless the layer's window is one pixel.
fn one_pixel<B: Backend>(layer: &Layer<B>) -> Result<(), Error> {
    check("convolution", "larger window than one pixel, where one is needed,", usize::from(!layer.window.is_pixel()), 0)
}

/// See [`Backend::cross_entropy`].
pub(crate) fn cross_entropy(
    (rows, classes): (usize, usize),
    targets: &[u32],
    weights: Option<&[f32]>,
) -> Result<(), Error> {
    check("cross-entropy", "number of targets", targets.len(), rows)?;
    check("cross-entropy", "number of weights", weights.map_or(rows, <[f32]>::len), rows)?;
    indices("cross-entropy", targets, classes)
}

/// See [`Backend::sum`].
pub(crate) fn sum(terms: &[(usize, usize)]) -> Result<(), Error> {
    check("sum", "number of terms", terms.len(), terms.len().max(1))?;
    for pair in terms.windows(2) {
        check("sum", "rows of a term", pair[1].0, pair[0].0)?;
        check("sum", "width of a term", pair[1].1, pair[0].1)?;
    }
    Ok(())
}

/// See [`Backend::prepend_mean`].
pub(crate) fn prepend_mean(rows: usize, sequences: usize) -> Result<(), Error> {
    check("mean of sequences", "remainder of rows by sequences", rows.checked_rem(sequences).unwrap_or(rows), 0)?;
    check("mean of sequences", "sequences without rows", if rows == 0 { sequences } else { 0 }, 0)
}

/// See [`Backend::transformer`].
pub(crate) fn transformer<B: Backend>(
    (rows, width): (usize, usize),
    blocks: &[Block<B>],
    attention: Attention,
) -> Result<(), Error> {
    attention.head_width(rows, width)?;
    let hidden = blocks.first().map_or(0, |block| block.up.weight.shape().0);
    for block in blocks {
        layer_norm("transformer", width, &block.norm1)?;
        layer_norm("transformer", width, &block.norm2)?;
        let maps = [
            (&block.qkv, 3 * width, width),
            (&block.out, width, width),
            (&block.up, hidden, width),
            (&block.down, width, hidden),
        ];
        for (map, outputs, inputs) in maps {
            check("transformer", "outputs of a weight", map.weight.shape().0, outputs)?;
            check("transformer", "inputs of a weight", map.weight.shape().1, inputs)?;
            if let Some(bias) = &map.bias {
                row("transformer", bias, outputs)?;
            }
        }
    }
    Ok(())
}

/// Fails unless the parameter is one row of `width`.
fn row(operation: &'static str, parameter: &impl Shaped, width: usize) -> Result<(), Error> {
    check(operation, "rows of a parameter", parameter.shape().0, 1)?;
    check(operation, "width of a parameter", parameter.shape().1, width)
}
