//! From images to batches: splitting, shuffling, normalising and augmenting, all reproducible by a seed.

use std::num::NonZeroUsize;

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Dataset, Error};

/// Divides `indices`, which must be distinct, into the rest and a held-out part, and returns them in this order. The
/// held-out part has about `fraction` of each class. Both are ascending, and the same for the same seed.
///
/// # Errors
/// [`Error::Split`] if either part would be empty.
pub fn split(
    dataset: &Dataset,
    indices: &[usize],
    fraction: f64,
    seed: u64,
) -> Result<(Vec<usize>, Vec<usize>), Error> {
    let mut rng = rng(seed, u64::MAX);
    let mut classes = vec![Vec::new(); dataset.classes.len()];
    for &i in indices {
        classes[dataset.label(i)].push(i);
    }
    let (mut rest, mut held_out) = (Vec::new(), Vec::new());
    for mut class in classes {
        class.sort_unstable();
        class.shuffle(&mut rng);
        let held = ((class.len() as f64 * fraction).round() as usize).min(class.len());
        held_out.extend(class.drain(..held));
        rest.append(&mut class);
    }
    if rest.is_empty() || held_out.is_empty() {
        return Err(Error::Split { fraction, images: indices.len() });
    }
    rest.sort_unstable();
    held_out.sort_unstable();
    Ok((rest, held_out))
}

/// Random numbers. The streams of a seed are independent: there is one for each epoch, and the last is for [`split`].
fn rng(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}

/// Mean and standard deviation of each channel, for pixel values from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalisation {
    pub mean: Vec<f32>,
    pub std: Vec<f32>,
}

impl Normalisation {
    /// The statistics of the images `indices`, which should be those that are trained on.
    ///
    /// # Errors
    /// [`Error::Flat`] if a channel has the same value everywhere.
    pub fn of(dataset: &Dataset, indices: &[usize]) -> Result<Self, Error> {
        let [channels, height, width] = dataset.shape;
        let mut sums = vec![(0_u64, 0_u64); channels];
        for &i in indices {
            for (plane, (sum, squares)) in dataset.image(i).chunks_exact(height * width).zip(&mut sums) {
                *sum += plane.iter().map(|&v| u64::from(v)).sum::<u64>();
                *squares += plane.iter().map(|&v| u64::from(v) * u64::from(v)).sum::<u64>();
            }
        }
        let count = (indices.len() * height * width) as u64;
        let (mut mean, mut std) = (Vec::new(), Vec::new());
        for (channel, (sum, squares)) in sums.into_iter().enumerate() {
            // The variance, times count².
            let spread = u128::from(count) * u128::from(squares) - u128::from(sum).pow(2);
            if spread == 0 {
                return Err(Error::Flat { channel, images: indices.len() });
            }
            let full = 255.0 * count as f64;
            mean.push((sum as f64 / full) as f32);
            std.push(((spread as f64).sqrt() / full) as f32);
        }
        Ok(Self { mean, std })
    }
}

/// Random changes to each image that keep its class. The default is none; for CIFAR-10 a padding of 4 and flips are
/// usual. Digits and letters must not be flipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augment {
    /// Shift by up to this many pixels in each direction; the uncovered part gets the mean colour (0 once normalised).
    pub padding: usize,
    /// Mirror the image left to right with a probability of one half.
    pub flip: bool,
}

/// Normalised images (N·C·H·W values in NCHW order) and their N labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    pub images: Vec<f32>,
    pub labels: Vec<i64>,
}

/// Some images of a data set, and how to make batches of them. The last batch may be smaller than `size`.
#[derive(Clone, Copy)]
pub struct Batches<'a> {
    pub dataset: &'a Dataset,
    pub indices: &'a [usize],
    /// Has one entry per channel of `dataset`.
    pub normalisation: &'a Normalisation,
    pub size: NonZeroUsize,
}

/// All images once, shuffled and augmented. A batch depends only on the seed, the epoch and the step, so that training
/// can resume exactly at any step.
pub struct Epoch<'a> {
    batches: Batches<'a>,
    order: Vec<usize>,
    seed: u64,
    epoch: u64,
    augment: Augment,
}

impl Epoch<'_> {
    /// Number of batches; never 0.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.batches.steps().len()
    }

    /// Batch `step`, from 0.
    pub fn batch(&self, step: usize) -> Batch {
        let mut rng = rng(self.seed, self.epoch);
        // Each step has its own segment of the stream; the first segment is for the order.
        rng.set_word_pos((step as u128 + 1) << 40);
        self.batches.batch(&self.order, step, || self.augment.draw(self.batches.dataset.shape, &mut rng))
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = Batch> + '_ {
        (0..self.len()).map(|step| self.batch(step))
    }
}

/// Batches that are made before they are asked for.
const AHEAD: usize = 2;

/// Makes batches on a thread of their own while `train` uses earlier ones, and gives what it gives.
pub fn ahead<T: Send, R>(
    batches: impl Iterator<Item = T> + Send,
    train: impl FnOnce(std::sync::mpsc::IntoIter<T>) -> R,
) -> R {
    let (sender, receiver) = std::sync::mpsc::sync_channel(AHEAD);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for batch in batches {
                if sender.send(batch).is_err() {
                    break;
                }
            }
        });
        train(receiver.into_iter())
    })
}

impl<'a> Batches<'a> {
    pub fn epoch(self, seed: u64, epoch: u64, augment: Augment) -> Epoch<'a> {
        let mut order = self.indices.to_vec();
        order.shuffle(&mut rng(seed, epoch));
        Epoch { batches: self, order, seed, epoch, augment }
    }

    /// All images once, in order and without augmentation, for evaluation.
    pub fn in_order(self) -> impl ExactSizeIterator<Item = Batch> + 'a {
        self.steps().map(move |step| self.batch(self.indices, step, Placement::default))
    }

    fn steps(&self) -> std::ops::Range<usize> {
        0..self.indices.len().div_ceil(self.size.get())
    }

    fn batch(&self, order: &[usize], step: usize, mut placement: impl FnMut() -> Placement) -> Batch {
        let start = step * self.size.get();
        let chosen = &order[start..order.len().min(start + self.size.get())];
        let size = self.dataset.shape.iter().product::<usize>();
        let mut images = vec![0.0; chosen.len() * size];
        for (&i, out) in chosen.iter().zip(images.chunks_exact_mut(size)) {
            self.place(self.dataset.image(i), placement(), out);
        }
        Batch { images, labels: chosen.iter().map(|&i| self.dataset.label(i) as i64).collect() }
    }

    /// Writes `image`, normalised, to `out`, which must contain zeros.
    fn place(&self, image: &[u8], Placement { down, right, flip }: Placement, out: &mut [f32]) {
        let [channels, height, width] = self.dataset.shape;
        let (rows, columns) = (overlap(height, down), overlap(width, right));
        for c in 0..channels {
            let (mean, std) = (self.normalisation.mean[c], self.normalisation.std[c]);
            let (scale, shift) = (1.0 / (255.0 * std), -mean / std);
            for y in rows.clone() {
                let from = (c * height + y) * width;
                let source = &image[from + columns.start..from + columns.end];
                let to = (c * height + y.wrapping_add_signed(down)) * width;
                let start = columns.start.wrapping_add_signed(right);
                if flip {
                    let target = &mut out[to + width - start - source.len()..to + width - start];
                    for (out, &value) in target.iter_mut().zip(source.iter().rev()) {
                        *out = f32::from(value) * scale + shift;
                    }
                } else {
                    let target = &mut out[to + start..to + start + source.len()];
                    for (out, &value) in target.iter_mut().zip(source) {
                        *out = f32::from(value) * scale + shift;
                    }
                }
            }
        }
    }
}

/// By how many pixels an image is shifted, and whether it is mirrored afterwards.
#[derive(Clone, Copy, Default)]
struct Placement {
    down: isize,
    right: isize,
    flip: bool,
}

impl Augment {
    /// For images of a shape, CHW.
    ///
    /// # Errors
    /// [`Error::Padding`] where images would be shifted by more than their size.
    pub fn new(padding: usize, flip: bool, [_, height, width]: [usize; 3]) -> Result<Augment, Error> {
        if padding > height.min(width) {
            return Err(Error::Padding { padding, height, width });
        }
        Ok(Augment { padding, flip })
    }

    fn draw(self, [_, height, width]: [usize; 3], rng: &mut impl Rng) -> Placement {
        let mut shift = |length: usize| {
            let limit = self.padding.min(length) as i64;
            rng.random_range(-limit..=limit) as isize
        };
        Placement { down: shift(height), right: shift(width), flip: self.flip && rng.random() }
    }
}

/// The part of `0..length` that stays within it when shifted by `by`, which must not be larger than `length`.
fn overlap(length: usize, by: isize) -> std::ops::Range<usize> {
    let hidden = by.unsigned_abs();
    if by < 0 { hidden..length } else { 0..length - hidden }
}
