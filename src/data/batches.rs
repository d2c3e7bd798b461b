//! From images to batches: splitting, shuffling, normalising and augmenting, all reproducible from a seed.

use std::num::NonZeroUsize;

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Dataset, Error};
use crate::named::named;

/// Divides `indices`, which must be distinct, into the rest and a held-out part, and returns them in this order. The
/// held-out part has about `fraction` of each class. Both parts are in ascending order, and the same for the same seed.
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

/// Returns a random number generator. The streams of a seed are independent: there is one for each epoch, and the last
/// two are for [`split`] and [`first_flip`].
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
    /// Computes the statistics of the images `indices`, which should be the images that are trained on.
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

/// What fills the part of an image that a shift uncovers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Border {
    /// The mean colour, which is 0 once normalised.
    #[default]
    Mean,
    /// The mirror image of the pixels beside it.
    Mirrored,
}

named!(Border, "a border": "mean" = Mean, "mirrored" = Mirrored);

/// Random changes to each image that keep its class. By default there are none. For CIFAR-10, a padding of 4 and flips
/// are usual. Digits and letters must not be flipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augment {
    /// Shift each image by up to this many pixels in each direction.
    pub padding: usize,
    pub border: Border,
    /// Mirror each image left to right in every other epoch. Whether an image starts mirrored is random (Jordan 2024,
    /// arXiv 2404.00498, section 3.6).
    pub flip: bool,
    /// Side of a square of the mean colour, which is centred anywhere in the image (DeVries & Taylor 2017, arXiv
    /// 1708.04552); 0 for none.
    pub cutout: usize,
}

/// Normalised images (N·C·H·W values in NCHW order) and their N labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    pub images: Vec<f32>,
    pub labels: Vec<i64>,
    /// The index of each image in its data set.
    pub indices: Vec<usize>,
    /// The view that each image shows, one of [`Augment::views`].
    pub views: Vec<usize>,
}

/// Some images of a data set, and how to make batches of them. The last batch may be smaller than `size`.
#[derive(Clone, Copy)]
pub struct Batches<'a> {
    pub dataset: &'a Dataset,
    pub indices: &'a [usize],
    /// Has one entry per channel of `dataset`.
    pub normalisation: &'a Normalisation,
    pub size: NonZeroUsize,
    /// Whether an epoch has equally many images of each class. Images of rare classes then occur several times, and of
    /// frequent classes only some occur.
    pub balanced: bool,
}

/// The images of an epoch, shuffled and augmented: all of them once, or equally many of each class. A batch depends
/// only on the seed, the epoch and the step, so training can resume exactly at any step.
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

    /// Returns batch `step`, counted from 0.
    pub fn batch(&self, step: usize) -> Batch {
        let mut rng = rng(self.seed, self.epoch);
        // Each step has its own segment of the stream; the first segment is for the order.
        rng.set_word_pos((step as u128 + 1) << 40);
        let shape = self.batches.dataset.shape;
        self.batches.batch(&self.order, step, |image| {
            let flip = self.augment.flip && (first_flip(self.seed, image) ^ (self.epoch % 2 == 1));
            self.augment.draw(shape, flip, &mut rng)
        })
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = Batch> + '_ {
        (0..self.len()).map(|step| self.batch(step))
    }
}

/// The number of batches that are made in advance.
const AHEAD: usize = 2;

/// Makes batches on a separate thread while `train` uses earlier ones, and returns the result of `train`.
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
        let mut rng = rng(seed, epoch);
        let mut order = self.indices.to_vec();
        order.shuffle(&mut rng);
        if self.balanced {
            order = self.evened(order, &mut rng);
        }
        Epoch { batches: self, order, seed, epoch, augment }
    }

    /// Returns as many images as `order` has, with equally many of each class. The images of a class are used in their
    /// order, as often as necessary.
    fn evened(&self, order: Vec<usize>, rng: &mut impl Rng) -> Vec<usize> {
        let mut classes = vec![vec![]; self.dataset.classes.len()];
        order.iter().for_each(|&image| classes[self.dataset.label(image)].push(image));
        classes.retain(|class| !class.is_empty());
        let nth = |i: usize| {
            let class = &classes[i % classes.len()];
            class[i / classes.len() % class.len()]
        };
        let mut evened: Vec<usize> = (0..order.len()).map(nth).collect();
        evened.shuffle(rng);
        evened
    }

    /// Returns all images once, in order and without augmentation, for evaluation.
    pub fn in_order(self) -> impl ExactSizeIterator<Item = Batch> + 'a {
        self.steps().map(move |step| self.batch(self.indices, step, |_| Placement::default()))
    }

    /// Returns all images in order, each in the same view, one of [`Augment::views`].
    pub fn in_view(self, augment: Augment, view: usize) -> impl ExactSizeIterator<Item = Batch> + 'a {
        self.steps().map(move |step| self.batch(self.indices, step, |_| augment.placement(view)))
    }

    fn steps(&self) -> std::ops::Range<usize> {
        0..self.indices.len().div_ceil(self.size.get())
    }

    fn batch(&self, order: &[usize], step: usize, mut placement: impl FnMut(usize) -> Placement) -> Batch {
        let start = step * self.size.get();
        let indices = order[start..order.len().min(start + self.size.get())].to_vec();
        let size = self.dataset.shape.iter().product::<usize>();
        let mut images = vec![0.0; indices.len() * size];
        let mut views = vec![];
        for (&i, out) in indices.iter().zip(images.chunks_exact_mut(size)) {
            let placement = placement(i);
            self.place(self.dataset.image(i), &placement, out);
            views.push(placement.view);
        }
        let labels = indices.iter().map(|&i| self.dataset.label(i) as i64).collect();
        Batch { images, labels, indices, views }
    }

    /// Writes `image`, normalised, to `out`, which must contain zeros.
    fn place(&self, image: &[u8], placement: &Placement, out: &mut [f32]) {
        let [channels, height, width] = self.dataset.shape;
        let rows: Vec<Option<usize>> = (0..height).map(|y| placement.source(y, placement.down, height)).collect();
        let column =
            |x: usize| placement.source(if placement.flip { width - 1 - x } else { x }, placement.right, width);
        let columns: Vec<Option<usize>> = (0..width).map(column).collect();
        let hole = |at: usize, centre: usize| {
            let from = (centre + placement.cutout.div_ceil(2)).saturating_sub(placement.cutout);
            placement.cutout > 0 && (from..centre + placement.cutout.div_ceil(2)).contains(&at)
        };
        for c in 0..channels {
            let (mean, std) = (self.normalisation.mean[c], self.normalisation.std[c]);
            let (scale, shift) = (1.0 / (255.0 * std), -mean / std);
            for (y, row) in rows.iter().enumerate() {
                let Some(row) = row else { continue };
                let source = &image[(c * height + row) * width..][..width];
                let target = &mut out[(c * height + y) * width..][..width];
                let cut = hole(y, placement.hole.0);
                for (x, (value, column)) in target.iter_mut().zip(&columns).enumerate() {
                    if let Some(column) = column.filter(|_| !(cut && hole(x, placement.hole.1))) {
                        *value = f32::from(source[column]) * scale + shift;
                    }
                }
            }
        }
    }
}

/// By how many pixels an image is shifted, whether it is then mirrored, and which part of the result is covered.
#[derive(Clone, Copy, Default)]
struct Placement {
    down: isize,
    right: isize,
    border: Border,
    flip: bool,
    cutout: usize,
    /// Row and column of the centre of the covered square.
    hole: (usize, usize),
    /// One of [`Augment::views`].
    view: usize,
}

impl Placement {
    /// Returns which of `0..length` is shown at position `at` after a shift by `by`, or `None` in a border of the mean
    /// colour.
    fn source(&self, at: usize, by: isize, length: usize) -> Option<usize> {
        let (at, last) = (at as isize - by, length as isize - 1);
        let within = (0..=last).contains(&at);
        match self.border {
            Border::Mean => within.then_some(at as usize),
            // A shift is never larger than the image, so one mirror image is enough.
            Border::Mirrored if at < 0 => Some((-at).min(last) as usize),
            Border::Mirrored => Some(if within { at } else { (2 * last - at).max(0) } as usize),
        }
    }
}

/// Whether an image is mirrored in even epochs.
fn first_flip(seed: u64, image: usize) -> bool {
    let mut rng = rng(seed, u64::MAX - 1);
    rng.set_word_pos(image as u128);
    rng.random()
}

impl Augment {
    /// Checks that the augmentation fits images of a shape, CHW.
    ///
    /// # Errors
    /// [`Error::Padding`] if images would be shifted by more than their size.
    pub fn checked(self, [_, height, width]: [usize; 3]) -> Result<Augment, Error> {
        if self.padding > height.min(width) {
            return Err(Error::Padding { padding: self.padding, height, width });
        }
        Ok(self)
    }

    /// Returns the number of ways in which an image can be shifted and mirrored.
    pub fn views(self) -> usize {
        self.sides() * (2 * self.padding + 1).pow(2)
    }

    /// Returns 2 if an image may be mirrored, else 1.
    fn sides(self) -> usize {
        1 + usize::from(self.flip)
    }

    /// Returns the placement of a view, without a covered square.
    fn placement(self, view: usize) -> Placement {
        let (steps, shift) = (2 * self.padding + 1, view / self.sides());
        let by = |step: usize| step as isize - self.padding as isize;
        let (down, right) = (by(shift / steps), by(shift % steps));
        let flip = view % self.sides() == 1;
        Placement { down, right, border: self.border, flip, view, ..Placement::default() }
    }

    fn draw(self, [_, height, width]: [usize; 3], flip: bool, rng: &mut impl Rng) -> Placement {
        let augment = Augment { padding: self.padding.min(height.min(width)), ..self };
        let steps = 2 * augment.padding + 1;
        let shift = rng.random_range(0..steps) * steps + rng.random_range(0..steps);
        let hole = if self.cutout > 0 { (rng.random_range(0..height), rng.random_range(0..width)) } else { (0, 0) };
        Placement { cutout: self.cutout, hole, ..augment.placement(self.sides() * shift + usize::from(flip)) }
    }
}
