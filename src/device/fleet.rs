//! Shares work among several boards of one kind that are equally fast.

use super::{DeviceError, Model, Session, Source, Ticket};
use crate::progress;
use nas_probe::{MeasurePlan, Runtime, Samples};
use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};

/// The largest relative difference in the anchor's time between boards that share the work.
const ALIKE: f64 = 0.03;

/// How often the anchor is measured on each board; the median is used.
const TIMES: usize = 3;

/// The number of outstanding requests per board, so that a board never waits for the link.
const AHEAD: usize = 2;

/// Boards that are equally fast, and the models that were sent to each.
pub struct Fleet<'s> {
    sessions: &'s mut Vec<Session>,
    /// By board, then in the order in which they were passed to [`Fleet::open`].
    models: Vec<Vec<Model>>,
    runtime: Runtime,
    threads: usize,
    plan: MeasurePlan,
}

/// The result of a job: the index of its model and its samples, or why the board was lost.
enum Outcome {
    Measured(usize, Box<Result<Samples, DeviceError>>),
    /// The requests that were outstanding on the board have no result.
    Lost(DeviceError),
}

impl<'s> Fleet<'s> {
    /// Sends the models to every board before any of them is measured, since receiving data disturbs a measurement.
    /// Boards on which the model `anchor` takes more or less time than on the others are left out, with a warning.
    ///
    /// # Errors
    /// Fails if no board is left.
    pub fn open(
        sessions: &'s mut Vec<Session>,
        models: &[(String, Source)],
        anchor: usize,
        runtime: Runtime,
        threads: usize,
        plan: MeasurePlan,
    ) -> Result<Self, DeviceError> {
        let models = each(sessions, |session| session.place(models))?;
        let mut fleet = Fleet { sessions, models, runtime, threads, plan };
        fleet.keep_alike(anchor)?;
        Ok(fleet)
    }

    /// Measures models, each on the next free board, and passes each result to `take`, with the number of cores of that
    /// board's probe. A board that is lost is left out from then on, and `take` gets no result for the models that were
    /// outstanding on it.
    ///
    /// # Errors
    /// Fails if every board is lost. Also returns the errors of `take`.
    pub fn measure<E: From<DeviceError>>(
        &mut self,
        jobs: VecDeque<usize>,
        mut take: impl FnMut(usize, Result<Samples, DeviceError>, usize) -> Result<(), E>,
    ) -> Result<(), E> {
        let queue = Mutex::new(jobs);
        let mut kept = vec![true; self.sessions.len()];
        let cores: Vec<usize> = self.sessions.iter().map(Session::cores).collect();
        let names: Vec<String> = self.sessions.iter().map(|session| session.board().to_string()).collect();
        std::thread::scope(|scope| {
            let (send, outcomes) = channel();
            let (runtime, threads, plan) = (self.runtime, self.threads, self.plan);
            for (board, (session, models)) in self.sessions.iter_mut().zip(&self.models).enumerate() {
                let (send, queue) = (send.clone(), &queue);
                let begin =
                    move |session: &mut Session, model: usize| session.begin(&models[model], runtime, threads, plan);
                scope.spawn(move || work(board, session, queue, begin, &send));
            }
            drop(send);
            for (board, outcome) in outcomes {
                match outcome {
                    Outcome::Measured(model, samples) => take(model, *samples, cores[board])?,
                    Outcome::Lost(why) => {
                        kept[board] = false;
                        if !kept.contains(&true) {
                            return Err(why.into());
                        }
                        log::warn!("{} is left out from now on: {why}", names[board]);
                    }
                }
            }
            Ok::<(), E>(())
        })?;
        self.keep(&kept);
        Ok(())
    }

    /// Returns the peak memory, in bytes, of processes that each run only one of these models, measured on the first
    /// board. If this board is lost, it is left out, and the next one is used. A model that cannot run has no entry; its
    /// measurement reports why.
    ///
    /// # Errors
    /// Fails if every board is lost.
    pub fn peaks(&mut self, models: &[usize]) -> Result<BTreeMap<usize, u64>, DeviceError> {
        let bar = progress::bar("memory", self.runtime.name(), models.len());
        let mut peaks = BTreeMap::new();
        for &model in models {
            if let Some(bytes) = self.peak(model)? {
                peaks.insert(model, bytes);
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(peaks)
    }

    fn peak(&mut self, model: usize) -> Result<Option<u64>, DeviceError> {
        while let (Some(session), Some(placed)) = (self.sessions.first_mut(), self.models.first()) {
            match session.memory(&placed[model], self.runtime, self.threads) {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(DeviceError::Failed { .. }) => return Ok(None),
                Err(why) if self.sessions.len() == 1 => return Err(why),
                Err(why) => {
                    log::warn!("{} is left out from now on: {why}", self.sessions[0].board());
                    let kept: Vec<bool> = (0..self.sessions.len()).map(|board| board > 0).collect();
                    self.keep(&kept);
                }
            }
        }
        Ok(None)
    }

    fn keep(&mut self, kept: &[bool]) {
        let mut of_models = kept.iter();
        self.models.retain(|_| of_models.next() == Some(&true));
        keep(self.sessions, kept);
    }

    /// Measures `anchor` on each board and drops those that are not as fast as the others, with a warning.
    fn keep_alike(&mut self, anchor: usize) -> Result<(), DeviceError> {
        if self.sessions.len() < 2 {
            return Ok(());
        }
        let (runtime, threads, plan) = (self.runtime, self.threads, self.plan);
        let time = |session: &mut Session, model: &Model| -> Result<f64, DeviceError> {
            let samples = session.measure(model, runtime, threads, plan)?;
            Ok(samples.ns.into_iter().fold(f64::INFINITY, f64::min))
        };
        let mut anchors: Vec<Result<f64, DeviceError>> = vec![];
        for (session, models) in self.sessions.iter_mut().zip(&self.models) {
            let times: Result<Vec<f64>, _> = (0..TIMES).map(|_| time(session, &models[anchor])).collect();
            anchors.push(times.map(|times| middle(&times)));
        }
        if anchors.iter().all(|anchor| matches!(anchor, Err(DeviceError::Failed { .. }))) {
            // The runtime rejects the anchor on every board, which the measurement of the anchor reports.
            return Ok(());
        }
        let measured: Vec<f64> = anchors.iter().filter_map(|anchor| anchor.as_ref().ok().copied()).collect();
        let mut kept = vec![];
        for (session, time) in self.sessions.iter().zip(anchors) {
            kept.push(match time {
                Ok(ns) => is_alike(session.board(), ns, reference(&measured)),
                Err(why) if measured.is_empty() => return Err(why),
                Err(why) => {
                    log::warn!("{} is left out: {why}", session.board());
                    false
                }
            });
        }
        self.keep(&kept);
        Ok(())
    }
}

/// Returns whether the anchor takes as long on a board as on the others, and warns if it does not.
fn is_alike(board: &str, ns: f64, reference: f64) -> bool {
    let difference = ns / reference - 1.0;
    if difference.abs() > ALIKE {
        log::warn!(
            "{board} is left out: the anchor takes {:.0} µs there and {:.0} µs on the others ({:+.1} %)",
            ns / 1e3,
            reference / 1e3,
            100.0 * difference
        );
    }
    difference.abs() <= ALIKE
}

/// Measures models of the queue on one board until the queue is empty.
fn work(
    board: usize,
    session: &mut Session,
    queue: &Mutex<VecDeque<usize>>,
    begin: impl Fn(&mut Session, usize) -> Result<Ticket, DeviceError>,
    send: &Sender<(usize, Outcome)>,
) {
    let pop = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let mut begun: VecDeque<(usize, Ticket)> = VecDeque::new();
    let mut next = || -> Result<Option<Outcome>, DeviceError> {
        while begun.len() < AHEAD
            && let Some(model) = pop()
        {
            let ticket = begin(session, model)?;
            begun.push_back((model, ticket));
        }
        let Some((model, ticket)) = begun.pop_front() else { return Ok(None) };
        match session.finish(ticket) {
            Err(fatal) if !matches!(fatal, DeviceError::Failed { .. }) => Err(fatal),
            measured => Ok(Some(Outcome::Measured(model, Box::new(measured)))),
        }
    };
    loop {
        let outcome = match next() {
            Ok(Some(outcome)) => outcome,
            Ok(None) => return,
            Err(fatal) => Outcome::Lost(fatal),
        };
        let lost = matches!(outcome, Outcome::Lost(_));
        // The receiver is gone if the table can no longer be written.
        if send.send((board, outcome)).is_err() || lost {
            return;
        }
    }
}

/// Calls `work` for each board and drops those for which it fails, with a warning that names them.
///
/// # Errors
/// The first failure, if it fails for all boards.
fn each<T>(
    sessions: &mut Vec<Session>,
    mut work: impl FnMut(&mut Session) -> Result<T, DeviceError>,
) -> Result<Vec<T>, DeviceError> {
    let done: Vec<Result<T, DeviceError>> = sessions.iter_mut().map(&mut work).collect();
    let kept: Vec<bool> = done.iter().map(Result::is_ok).collect();
    let others = kept.contains(&true);
    let mut results = vec![];
    for (session, done) in sessions.iter().zip(done) {
        match done {
            Ok(result) => results.push(result),
            Err(why) if !others => return Err(why),
            Err(why) => log::warn!("{} is left out: {why}", session.board()),
        }
    }
    keep(sessions, &kept);
    Ok(results)
}

/// Keeps the boards whose entry in `kept` is true.
fn keep(sessions: &mut Vec<Session>, kept: &[bool]) {
    let mut kept = kept.iter();
    sessions.retain(|_| kept.next() == Some(&true));
}

/// Returns the time with which boards are compared: that of the median board, or of the first of two.
fn reference(anchors: &[f64]) -> f64 {
    if anchors.len() == 2 {
        return anchors[0];
    }
    middle(anchors)
}

/// Returns the median, or the lower of the two middle values.
fn middle(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() - 1) / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_the_median_board_or_the_first_of_two() {
        assert_eq!(reference(&[3.0, 1.0]), 3.0);
        assert_eq!(reference(&[9.0, 1.0, 1.01]), 1.01);
        assert_eq!(reference(&[1.0, 2.0, 3.0, 4.0]), 2.0);
    }
}
