//! Several boards of one kind share the work only if they are alike.

use super::profile::ProfileError;
use super::{Header, Latency, Subject, Summary};
use crate::device::{DeviceError, Model, Session, Ticket};
use crate::progress;
use nas_probe::{MeasurePlan, Runtime, Samples};
use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};

/// Boards that differ by more than this share are not alike.
const ALIKE: f64 = 0.03;

/// Times that the anchor is measured on a board; their median counts.
const TIMES: usize = 3;

/// Requests that a board has at a time, so that it never waits for the link.
const AHEAD: usize = 2;

/// Boards that are alike, with models laid on each.
pub struct Boards<'s> {
    sessions: &'s mut Vec<Session>,
    /// By board.
    models: Vec<BTreeMap<Subject, Model>>,
    runtime: Runtime,
    threads: usize,
    plan: MeasurePlan,
}

/// What a board says of a job.
enum Word {
    Measured(Box<(Subject, Result<Samples, DeviceError>)>),
    /// The board is lost; what it had begun is not measured.
    Lost(DeviceError),
}

impl<'s> Boards<'s> {
    /// Lays the models of `subjects` on every board, before any is measured: a board that receives is
    /// disturbed. Boards on which `anchor` takes another time are left out.
    ///
    /// # Errors
    /// Where no board is left.
    pub fn open(
        sessions: &'s mut Vec<Session>,
        subjects: &[&Subject],
        anchor: &Subject,
        header: &Header,
        plan: MeasurePlan,
    ) -> Result<Self, ProfileError> {
        let model = |subject: &&Subject| Ok((subject.to_string(), subject.model()?));
        let bytes: Vec<(String, Vec<u8>)> =
            subjects.iter().map(model).collect::<Result<_, ProfileError>>()?;
        let placed = each(sessions, |session| session.put(&bytes))?;
        let by_subject = |models: Vec<Model>| subjects.iter().map(|&s| s.clone()).zip(models).collect();
        let models = placed.into_iter().map(by_subject).collect();
        let (runtime, threads) = header.measures()?;
        let mut boards = Boards { sessions, models, runtime, threads, plan };
        boards.keep_alike(anchor)?;
        Ok(boards)
    }

    /// Measures the jobs, each on the board that is next free, and hands on what came of each, with the
    /// number of cores of that board's probe. A board that is lost is left out from then on, and what it
    /// had begun is not handed on.
    ///
    /// # Errors
    /// Where every board is lost, and those of `take`.
    pub fn measure(
        &mut self,
        jobs: VecDeque<Subject>,
        mut take: impl FnMut(&Subject, Result<Samples, DeviceError>, usize) -> Result<(), ProfileError>,
    ) -> Result<(), ProfileError> {
        let queue = Mutex::new(jobs);
        let mut kept = vec![true; self.sessions.len()];
        let cores: Vec<usize> = self.sessions.iter().map(Session::cores).collect();
        let mut lost = None;
        std::thread::scope(|scope| {
            let (say, words) = channel();
            let (runtime, threads, plan) = (self.runtime, self.threads, self.plan);
            for (board, (session, models)) in self.sessions.iter_mut().zip(&self.models).enumerate() {
                let (say, queue) = (say.clone(), &queue);
                let begin = move |session: &mut Session, subject: &Subject| {
                    session.begin(&models[subject], runtime, threads, plan)
                };
                scope.spawn(move || work(board, session, queue, begin, &say));
            }
            drop(say);
            for (board, word) in words {
                match word {
                    Word::Measured(job) => take(&job.0, job.1, cores[board])?,
                    Word::Lost(why) => {
                        kept[board] = false;
                        lost = Some(why);
                    }
                }
            }
            Ok::<(), ProfileError>(())
        })?;
        match lost {
            Some(why) if !kept.contains(&true) => Err(why.into()),
            Some(why) => {
                eprintln!("warning: going on without one board: {why}");
                self.keep(&kept);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Most memory that a process takes which does nothing but run one of `networks`; of the first board.
    /// A network that cannot run has none: its measurement will say why.
    ///
    /// # Errors
    /// Where the board is lost.
    pub fn peaks<'n>(
        &mut self,
        networks: impl Iterator<Item = &'n Subject>,
    ) -> Result<BTreeMap<Subject, u64>, DeviceError> {
        let (Some(session), Some(models)) = (self.sessions.first_mut(), self.models.first()) else {
            return Ok(BTreeMap::new());
        };
        let networks: Vec<&Subject> = networks.collect();
        let bar = progress::bar("memory", self.runtime.name(), networks.len());
        let mut peaks = BTreeMap::new();
        for network in networks {
            match session.memory(&models[network], self.runtime, self.threads) {
                Ok(memory) => drop(peaks.insert(network.clone(), memory.peak_bytes)),
                Err(DeviceError::Failed { .. }) => {}
                Err(fatal) => return Err(fatal),
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(peaks)
    }

    fn keep(&mut self, kept: &[bool]) {
        let mut of_models = kept.iter();
        self.models.retain(|_| of_models.next() == Some(&true));
        keep(self.sessions, kept);
    }

    /// Measures `anchor` on each board and drops those that are not like the others, with a warning that
    /// names them.
    fn keep_alike(&mut self, anchor: &Subject) -> Result<(), ProfileError> {
        if self.sessions.len() < 2 {
            return Ok(());
        }
        let (runtime, threads, plan) = (self.runtime, self.threads, self.plan);
        let time = |session: &mut Session, model: &Model| -> Result<Latency, DeviceError> {
            let samples = session.measure(model, runtime, threads, plan)?;
            Ok(Summary::measured(&samples.ns, &model.name, runtime)?.median)
        };
        let mut anchors: Vec<Result<Latency, DeviceError>> = vec![];
        for (session, models) in self.sessions.iter_mut().zip(&self.models) {
            let times: Result<Vec<Latency>, _> = (0..TIMES).map(|_| time(session, &models[anchor])).collect();
            anchors.push(times.map(|times| middle(&times)));
        }
        let measured: Vec<Latency> =
            anchors.iter().filter_map(|anchor| anchor.as_ref().ok().copied()).collect();
        let mut kept = vec![];
        for (session, latency) in self.sessions.iter().zip(anchors) {
            kept.push(match latency {
                Ok(latency) => is_alike(session.board(), anchor, latency, reference(&measured)),
                Err(why) if measured.is_empty() => return Err(why.into()),
                Err(why) => {
                    eprintln!("warning: going on without {}: {why}", session.board());
                    false
                }
            });
        }
        self.keep(&kept);
        Ok(())
    }
}

/// Whether a board takes as long as the others; says so where it does not.
fn is_alike(board: &str, anchor: &Subject, latency: Latency, reference: Latency) -> bool {
    let difference = latency.ns() / reference.ns() - 1.0;
    if difference.abs() > ALIKE {
        eprintln!(
            "warning: {board} is left out: {anchor} takes {latency} there and {reference} on the others ({:+.1} %)",
            100.0 * difference
        );
    }
    difference.abs() <= ALIKE
}

/// Measures jobs of the queue on one board until there are none.
fn work(
    board: usize,
    session: &mut Session,
    queue: &Mutex<VecDeque<Subject>>,
    begin: impl Fn(&mut Session, &Subject) -> Result<Ticket, DeviceError>,
    say: &Sender<(usize, Word)>,
) {
    let pop = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let mut begun: VecDeque<(Subject, Ticket)> = VecDeque::new();
    let mut next = || -> Result<Option<Word>, DeviceError> {
        while begun.len() < AHEAD
            && let Some(subject) = pop()
        {
            let ticket = begin(session, &subject)?;
            begun.push_back((subject, ticket));
        }
        let Some((subject, ticket)) = begun.pop_front() else { return Ok(None) };
        match session.finish(ticket) {
            Err(fatal) if !matches!(fatal, DeviceError::Failed { .. }) => Err(fatal),
            measured => Ok(Some(Word::Measured(Box::new((subject, measured))))),
        }
    };
    loop {
        let word = match next() {
            Ok(Some(word)) => word,
            Ok(None) => return,
            Err(fatal) => Word::Lost(fatal),
        };
        let lost = matches!(word, Word::Lost(_));
        // Nobody listens where the table cannot be written any more.
        if say.send((board, word)).is_err() || lost {
            return;
        }
    }
}

/// Does something on each board and drops those that are lost over it, with a warning that names them.
///
/// # Errors
/// Why the first was lost, where all are.
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
            Err(why) => eprintln!("warning: going on without {}: {why}", session.board()),
        }
    }
    keep(sessions, &kept);
    Ok(results)
}

/// Keeps the boards that are marked so.
fn keep(sessions: &mut Vec<Session>, kept: &[bool]) {
    let mut kept = kept.iter();
    sessions.retain(|_| kept.next() == Some(&true));
}

/// What the boards are compared with: the median board, of two the first that was named.
fn reference(anchors: &[Latency]) -> Latency {
    if anchors.len() == 2 {
        return anchors[0];
    }
    middle(anchors)
}

/// The median, of an even number the lower one.
fn middle(latencies: &[Latency]) -> Latency {
    let mut sorted = latencies.to_vec();
    sorted.sort_by(|a, b| a.ns().total_cmp(&b.ns()));
    sorted[(sorted.len() - 1) / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_the_median_board_and_of_two_the_first() {
        let of = |ns: &[f64]| reference(&ns.iter().map(|&ns| Latency::from_ns(ns)).collect::<Vec<_>>()).ns();
        assert_eq!(of(&[3.0, 1.0]), 3.0);
        assert_eq!(of(&[9.0, 1.0, 1.01]), 1.01);
        assert_eq!(of(&[1.0, 2.0, 3.0, 4.0]), 2.0);
    }
}
