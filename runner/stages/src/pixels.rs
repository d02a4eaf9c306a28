//! Pictures to a model's input: decoded, resized, cropped and normalised straight into the batch, while the model is busy with
//! the one before.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;
use runner_contract::{Batch, Produced, StageError};
use runner_data::{Preprocess, RgbConversion};
use runner_nn::Workers;

/// Preprocessed pictures.
pub(crate) struct Pixels {
    /// `[n, 3, height, width]`
    pub(crate) values: Vec<f32>,
    /// Which rows they are, and those that could not be used.
    pub(crate) output: Produced,
    pub(crate) n: usize,
}

/// Batches that were used and can be filled again. Fresh memory costs more than filling it: the system clears it first.
#[derive(Default)]
pub(crate) struct Buffers(Mutex<Vec<Vec<f32>>>);

impl Buffers {
    /// Makes a model's input of a column's pictures; those that cannot be read are bad rows.
    ///
    /// Works on the threads that the model computes on, when these have nothing to do: threads of its own would take the
    /// processor from them in the middle of a product, for which the others then wait.
    pub(crate) fn fill(
        &self,
        preprocess: &Preprocess,
        rows: &Batch,
        column: &str,
        threads: usize,
    ) -> Result<Pixels, StageError> {
        let (height, width) = preprocess.size();
        let size = 3 * height * width;
        let images = rows.images(column)?;
        // As the engine decodes pictures for everybody else.
        let preprocess = preprocess.clone().with_rgb_conversion(RgbConversion::First);
        let workers = Workers::new(threads).map_err(|error| StageError::new(error.to_string()))?;
        let len = images.len() * size;
        let mut values = self.lock().pop().unwrap_or_else(|| vec![0.0; len]);
        values.resize(len, 0.0);
        let work = values.par_chunks_exact_mut(size).zip(&images);
        let made: Vec<_> = workers.run(|| work.map(|(place, image)| preprocess.apply_into(*image, place)).collect());
        let (mut take, mut output) = (Vec::with_capacity(images.len()), Produced::default());
        for (row, made) in made.into_iter().enumerate() {
            match made {
                Ok(()) => {
                    if take.len() < row {
                        values.copy_within(row * size..(row + 1) * size, take.len() * size);
                    }
                    take.push(row as u32);
                }
                Err(error) => output.bad.push((rows.ids()?.value(row).to_owned(), error.to_string())),
            }
        }
        let n = take.len();
        values.truncate(n * size);
        output.take = (n < images.len()).then_some(take);
        Ok(Pixels { values, output, n })
    }

    /// Takes a batch back that was used.
    pub(crate) fn put_back(&self, values: Vec<f32>) {
        self.lock().push(values);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<f32>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use runner_contract::{ColumnData, ImageForm, ImageRef, ImagesBuilder};

    use super::*;

    fn rows(images: &[(&str, &[u8])]) -> Batch {
        let mut column = ImagesBuilder::new(ImageForm::Encoded);
        images.iter().for_each(|(path, bytes)| column.push(ImageRef::Encoded { bytes, path }).unwrap());
        let ids = images.iter().map(|(path, _)| (*path).to_owned()).collect();
        Batch::new(ids).with("image", ColumnData::Images(column)).unwrap()
    }

    #[test]
    fn pictures_that_cannot_be_read_leave_their_place_to_the_next() {
        let (dark, bright) = (b"P2 1 1 255 0".as_slice(), b"P2 1 1 255 255".as_slice());
        let (preprocess, buffers) = (Preprocess::clip(2), Buffers::default());
        let fill = |images: &[(&str, &[u8])]| buffers.fill(&preprocess, &rows(images), "image", 2).unwrap();
        let whole = fill(&[("a", dark), ("b", bright)]);
        assert_eq!((whole.n, whole.values.len(), whole.output.take), (2, 24, None));

        let mixed = fill(&[("a", b"?"), ("b", dark), ("c", b""), ("d", bright)]);
        assert_eq!((mixed.n, &mixed.values), (2, &whole.values));
        assert_eq!(mixed.output.take, Some(vec![1, 3]));
        assert_eq!(mixed.output.bad[1], ("c".to_owned(), "c: cannot decode the image: the file is empty".to_owned()));

        buffers.put_back(mixed.values);
        let none = fill(&[("a", b"?")]);
        assert_eq!((none.n, none.values.len(), none.output.take), (0, 0, Some(Vec::new())));
        // What was in the buffer before is overwritten.
        assert_eq!(fill(&[("a", dark), ("b", bright)]).values, whole.values);
    }
}
