//! The only loop over epochs and steps, for supernets and for training from scratch.

use super::interrupt::{Deferred, interrupted};
use super::{Checkpoint, TrainError};
use crate::artifact;
use crate::bounded::Share;
use crate::data::{Augment, Batch, Batches, ahead};
use crate::progress;
use serde::{Serialize, de::DeserializeOwned};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tch::Tensor;

/// What the loop trains.
pub trait Task {
    /// A line of the log.
    type Row: Serialize + DeserializeOwned;

    /// Returns all tensors that the rest of the training depends on: parameters, and the states of optimizers.
    fn state(&self) -> Vec<(String, Tensor)>;

    /// Trains on a batch, and adds the results to `metrics`.
    fn step(&mut self, at: At, batch: &Batch, metrics: &mut Metrics);

    /// Returns the log line of an epoch whose first step was `at` and which took this many seconds.
    ///
    /// # Errors
    /// Fails if a file cannot be written.
    fn row(&self, at: At, metrics: &Metrics, seconds: f64) -> Result<Self::Row, TrainError>;

    /// Describes an epoch in a few words, for the progress bar.
    fn describe(row: &Self::Row) -> String;

    /// Describes the current state of the task in a few words, for the progress bar.
    fn note(&self) -> String {
        String::new()
    }

    /// Returns whether further epochs would change nothing, given the lines so far.
    fn is_done(&self, log: &[Self::Row]) -> bool {
        let _ = log;
        false
    }
}

/// A step of a training.
#[derive(Clone, Copy, Debug)]
pub struct At {
    /// Counted from 1.
    pub epoch: usize,
    /// Step of the epoch, counted from 0.
    pub step: usize,
    /// Number of steps per epoch.
    pub steps: usize,
}

impl At {
    /// Returns the number of steps before this one.
    pub fn done(self) -> usize {
        (self.epoch - 1) * self.steps + self.step
    }
}

/// Sums over the images of an epoch so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// Sum of the cross-entropies.
    pub loss: f64,
    /// Number of images that were classified correctly.
    pub right: f64,
    pub images: f64,
}

impl Seen {
    pub fn add(&mut self, mean_loss: f64, right: usize, images: usize) {
        self.loss += mean_loss * images as f64;
        self.right += right as f64;
        self.images += images as f64;
    }

    /// Returns the mean cross-entropy, or `None` if no images were seen.
    pub fn mean_loss(&self) -> Option<f64> {
        (self.images > 0.0).then(|| self.loss / self.images)
    }

    /// Returns the share of images that were classified correctly, or `None` if no images were seen.
    pub fn accuracy(&self) -> Option<Share> {
        Share::new(self.right / self.images)
    }
}

/// What an epoch has seen so far, by split.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Metrics {
    pub train: Seen,
    pub held_out: Seen,
}

impl Metrics {
    pub(super) fn values(&self) -> [f64; 6] {
        let Metrics { train: t, held_out: h } = self;
        [t.loss, t.right, t.images, h.loss, h.right, h.images]
    }

    pub(super) fn of(values: &[f64]) -> Option<Metrics> {
        let seen = |values: &[f64]| Seen { loss: values[0], right: values[1], images: values[2] };
        (values.len() == 6).then(|| Metrics { train: seen(&values[..3]), held_out: seen(&values[3..]) })
    }
}

/// The position of a training.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Position {
    /// Finished epochs.
    pub epochs: usize,
    /// Finished steps of the next epoch.
    pub step: usize,
    /// Metrics of these steps.
    pub metrics: Metrics,
    /// Seconds that these steps took.
    pub seconds: f64,
}

/// How a task is trained, and where its files are.
pub struct Epochs<'a> {
    /// Name of the stage, for the progress bar.
    pub stage: &'static str,
    pub name: String,
    pub batches: Batches<'a>,
    pub augment: Augment,
    pub seed: u64,
    pub epochs: usize,
    /// The epoch after which the training pauses. The same key resumes it.
    pub until: usize,
    /// The learning rate, for messages.
    pub learning_rate: f64,
    /// The log, with a line for each epoch.
    pub log: PathBuf,
    pub checkpoint: Checkpoint,
}

/// How often a checkpoint is saved within an epoch. Another one is saved after each epoch.
const SAVE_EVERY: Duration = Duration::from_secs(60);

impl Epochs<'_> {
    /// Trains up to the epoch `until`, from the checkpoint or from the start, and returns the lines of the log.
    ///
    /// # Errors
    /// Fails if the loss is no longer finite, if the checkpoint is damaged, or if a file cannot be written. Also fails
    /// after Ctrl-C or SIGTERM, once a checkpoint has been saved.
    pub fn run<T: Task>(&self, task: &mut T) -> Result<Vec<T::Row>, TrainError> {
        self.run_saving(task, SAVE_EVERY)
    }

    /// Same as [`Epochs::run`], but saves a checkpoint within an epoch whenever `save_every` has passed since the last
    /// one.
    ///
    /// # Errors
    /// Same as [`Epochs::run`].
    pub fn run_saving<T: Task>(&self, task: &mut T, save_every: Duration) -> Result<Vec<T::Row>, TrainError> {
        let _deferred = Deferred::new();
        let state = task.state();
        let mut position = self.checkpoint.restore(&state)?;
        let mut log: Vec<T::Row> = self.checkpoint.log(&position, &self.log)?;
        artifact::write_lines(&self.log, &log)?;
        let steps = self.batches.indices.len().div_ceil(self.batches.size.get());
        let bar = progress::training(self.stage, &self.name, steps * self.until);
        bar.set_position((position.epochs * steps + position.step) as u64);
        bar.reset_eta();
        let mut saved = Instant::now();
        ahead(self.batches_from(position), |mut batches| {
            while position.epochs < self.until && !task.is_done(&log) {
                let epoch = position.epochs + 1;
                for step in position.step..steps {
                    let start = Instant::now();
                    let Some(batch) = batches.next() else { return Ok(()) };
                    task.step(At { epoch, step, steps }, &batch, &mut position.metrics);
                    position.step = step + 1;
                    position.seconds += start.elapsed().as_secs_f64();
                    bar.inc(1);
                    if !bar.is_hidden() {
                        bar.set_message(self.status(&position, &task.note(), log.last().map(T::describe)));
                    }
                    if interrupted() {
                        self.checkpoint.save(&position, &state)?;
                        return Err(TrainError::Interrupted { epoch, step: step + 1, steps });
                    }
                    if saved.elapsed() >= save_every {
                        self.checkpoint.save(&position, &state)?;
                        saved = Instant::now();
                    }
                }
                let loss = position.metrics.train.mean_loss().unwrap_or(f64::NAN);
                if !loss.is_finite() {
                    return Err(TrainError::Diverged { epoch, loss, learning_rate: self.learning_rate });
                }
                let row = task.row(At { epoch, step: 0, steps }, &position.metrics, position.seconds)?;
                artifact::append_line(&self.log, &row)?;
                log.push(row);
                position = Position { epochs: epoch, ..Position::default() };
                self.checkpoint.save(&position, &state)?;
                saved = Instant::now();
            }
            Ok(())
        })?;
        bar.finish_and_clear();
        Ok(log)
    }

    /// Returns all batches that are left from a position on.
    fn batches_from(&self, position: Position) -> impl Iterator<Item = Batch> + Send {
        let (batches, seed, augment) = (self.batches, self.seed, self.augment);
        (position.epochs..self.until).flat_map(move |epochs| {
            let epoch = batches.epoch(seed, epochs as u64 + 1, augment);
            let first = if epochs == position.epochs { position.step } else { 0 };
            (first..epoch.len()).map(move |step| epoch.batch(step))
        })
    }

    /// Returns the message of the progress bar.
    fn status(&self, position: &Position, note: &str, last: Option<String>) -> String {
        let seen = position.metrics.train;
        let mut parts = vec![
            format!("epoch {}/{}: loss {:.3}", position.epochs + 1, self.epochs, seen.mean_loss().unwrap_or_default()),
            note.to_string(),
            format!("{:.0} images/s", seen.images / position.seconds.max(1e-9)),
            last.map(|last| format!("epoch {}: {last}", position.epochs)).unwrap_or_default(),
        ];
        parts.retain(|part| !part.is_empty());
        parts.join(", ")
    }
}
