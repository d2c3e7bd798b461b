//! The one loop over epochs and steps, for the supernet and for training from scratch.

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

/// What is trained.
pub trait Task {
    /// A line of the log.
    type Row: Serialize + DeserializeOwned;

    /// All tensors that the rest of the training depends on: parameters, and the state of optimizers.
    fn state(&self) -> Vec<(String, Tensor)>;

    /// Trains on a batch, and adds what it saw to `metrics`.
    fn step(&mut self, at: At, batch: &Batch, metrics: &mut Metrics);

    /// The line of an epoch whose first step was `at`, and which took so many seconds.
    ///
    /// # Errors
    /// Fails if a file cannot be written.
    fn row(&self, at: At, metrics: &Metrics, seconds: f64) -> Result<Self::Row, TrainError>;

    /// A few words about an epoch, for the progress bar.
    fn describe(row: &Self::Row) -> String;

    /// A few words about where the task is now, for the progress bar.
    fn note(&self) -> String {
        String::new()
    }

    /// Whether further epochs would change nothing, by the lines so far.
    fn is_done(&self, log: &[Self::Row]) -> bool {
        let _ = log;
        false
    }
}

/// Which step of a training.
#[derive(Clone, Copy, Debug)]
pub struct At {
    /// From 1.
    pub epoch: usize,
    /// Of the epoch, from 0.
    pub step: usize,
    /// In an epoch.
    pub steps: usize,
}

impl At {
    /// Steps before this one.
    pub fn done(self) -> usize {
        (self.epoch - 1) * self.steps + self.step
    }
}

/// Sums over the images of an epoch, so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// Of the cross-entropy.
    pub loss: f64,
    /// Images that were classified right.
    pub right: f64,
    pub images: f64,
}

impl Seen {
    pub fn add(&mut self, mean_loss: f64, right: usize, images: usize) {
        self.loss += mean_loss * images as f64;
        self.right += right as f64;
        self.images += images as f64;
    }

    /// None where no images were seen, as of the others.
    pub fn mean_loss(&self) -> Option<f64> {
        (self.images > 0.0).then(|| self.loss / self.images)
    }

    pub fn accuracy(&self) -> Option<Share> {
        Share::new(self.right / self.images)
    }
}

/// What an epoch saw so far, by split.
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

/// Where a training is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Position {
    /// That are finished.
    pub epochs: usize,
    /// Of the next epoch, that are finished.
    pub step: usize,
    /// Of these steps.
    pub metrics: Metrics,
    /// That these steps took.
    pub seconds: f64,
}

/// How a task is trained, and where its files are.
pub struct Epochs<'a> {
    /// For the progress bar.
    pub stage: &'static str,
    pub name: String,
    pub batches: Batches<'a>,
    pub augment: Augment,
    pub seed: u64,
    pub epochs: usize,
    /// The epoch after which it pauses; the same key resumes.
    pub until: usize,
    /// For messages.
    pub learning_rate: f64,
    /// A line for each epoch.
    pub log: PathBuf,
    pub checkpoint: Checkpoint,
}

/// A checkpoint is saved after each epoch, and in between this often.
const SAVE_EVERY: Duration = Duration::from_secs(60);

impl Epochs<'_> {
    /// Trains from the checkpoint, or from the start, to the last epoch, and gives the lines of the log.
    ///
    /// # Errors
    /// Fails if the loss is no longer finite, the checkpoint is damaged, or a file cannot be written; and after Ctrl-C or
    /// SIGTERM, once a checkpoint is saved.
    pub fn run<T: Task>(&self, task: &mut T) -> Result<Vec<T::Row>, TrainError> {
        self.run_saving(task, SAVE_EVERY)
    }

    /// As [`Epochs::run`], with a checkpoint in mid-epoch whenever `save_every` has passed since the last one.
    ///
    /// # Errors
    /// As [`Epochs::run`].
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

    /// All batches that are left at a position.
    fn batches_from(&self, position: Position) -> impl Iterator<Item = Batch> + Send {
        let (batches, seed, augment) = (self.batches, self.seed, self.augment);
        (position.epochs..self.until).flat_map(move |epochs| {
            let epoch = batches.epoch(seed, epochs as u64 + 1, augment);
            let first = if epochs == position.epochs { position.step } else { 0 };
            (first..epoch.len()).map(move |step| epoch.batch(step))
        })
    }

    /// For the progress bar.
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
