use super::{
    Difference, Disturbance, LatencyTable, Method, Row, Summary, TableError, fleet, micro_model, model_digest,
};
use crate::device::{DeviceError, Model, Session, Ticket};
use crate::progress;
use crate::space::Layer;
use nas_probe::{MeasurePlan, Runtime, Samples};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Weights(#[from] nas_exporters::WeightsError),
    #[error("{failed} of {all} layers could not be measured, and the table has no rows of them: {reasons}")]
    Failed { failed: usize, all: usize, reasons: String },
    #[error("no board is left to measure on")]
    NoBoard,
    #[error("{board} is of another kind than {first}, {difference}: only boards of one kind share a table")]
    Mixed { board: String, first: String, difference: Difference },
}

/// A layer that is measured again when it was disturbed is measured so often.
const TRIES: usize = 2;
/// Requests that a board has at a time, so that it never waits for the link.
const AHEAD: usize = 2;

/// What [`profile`] did.
#[derive(Clone, Debug, Default)]
pub struct Profiled {
    pub measured: usize,
    /// Rows that were disturbed each time they were measured.
    pub disturbed: usize,
}

/// A layer to be measured.
struct Job {
    layer: Layer,
    /// Its model on each board.
    models: Vec<Model>,
    tries: usize,
}

/// What a board says of a job.
enum Word {
    Row(Box<Row>),
    Rejected(DeviceError),
    /// The board is lost; its jobs are for others.
    Lost(DeviceError),
}

/// Measures those of `layers` that the table has no row of, each as a model of its own, and adds the
/// rows one by one. Several boards share the work, after an anchor layer has shown that they are alike;
/// a board that is lost leaves its part to the others.
///
/// # Errors
/// Where every board is lost; and, after all others were measured, where a layer could not be.
pub fn profile(
    sessions: &mut Vec<Session>,
    table: &mut LatencyTable,
    layers: &[Layer],
    plan: MeasurePlan,
) -> Result<Profiled, ProfileError> {
    let (runtime, threads) = (table.header.runtime, table.header.threads);
    let missing = table.missing(layers);
    if missing.is_empty() {
        return Ok(Profiled::default());
    }
    fleet::keep_alike(sessions, &missing[0], runtime, threads, plan)?;
    let queue = Mutex::new(place(sessions, &missing)?);
    let bar = progress::bar("profile", runtime.name(), missing.len());
    let (mut profiled, mut rejected) = (Profiled::default(), vec![]);
    while !lock(&queue).is_empty() {
        let mut lost = None;
        let mut kept = vec![true; sessions.len()];
        std::thread::scope(|scope| {
            let (say, words) = channel();
            for (board, session) in sessions.iter_mut().enumerate() {
                let (say, queue) = (say.clone(), &queue);
                scope.spawn(move || work(board, session, queue, runtime, threads, plan, &say));
            }
            drop(say);
            for (board, word) in words {
                match word {
                    Word::Row(row) => {
                        profiled.measured += 1;
                        profiled.disturbed += usize::from(!row.disturbed.is_empty());
                        table.append(*row)?;
                        bar.inc(1);
                    }
                    Word::Rejected(why) => rejected.push(why.to_string()),
                    Word::Lost(why) => {
                        kept[board] = false;
                        lost = Some(why);
                    }
                }
            }
            Ok::<(), ProfileError>(())
        })?;
        if let Some(why) = lost {
            if !kept.contains(&true) {
                return Err(why.into());
            }
            bar.suspend(|| eprintln!("warning: going on without one board: {why}"));
            fleet::keep(sessions, kept);
            *lock(&queue) = place(sessions, &table.missing(layers))?;
            rejected.clear();
        }
    }
    bar.finish();
    if !rejected.is_empty() {
        let (failed, all) = (rejected.len(), missing.len());
        return Err(ProfileError::Failed { failed, all, reasons: rejected.join("; ") });
    }
    Ok(profiled)
}

/// Lays the layers' models on every board, before any is measured: a board that receives is disturbed.
fn place(sessions: &mut Vec<Session>, layers: &[Layer]) -> Result<VecDeque<Job>, ProfileError> {
    let model = |layer: &Layer| Ok((layer.to_string(), micro_model(&layer.graph())?));
    let models: Vec<(String, Vec<u8>)> = layers.iter().map(model).collect::<Result<_, ProfileError>>()?;
    let placed = fleet::each(sessions, |session| session.put(&models))?;
    let job = |(i, &layer): (usize, &Layer)| {
        let models = placed.iter().map(|board| board[i].clone()).collect();
        Job { layer, models, tries: 0 }
    };
    Ok(layers.iter().enumerate().map(job).collect())
}

/// Measures jobs of the queue on one board until there are none.
fn work(
    board: usize,
    session: &mut Session,
    queue: &Mutex<VecDeque<Job>>,
    runtime: Runtime,
    threads: usize,
    plan: MeasurePlan,
    say: &Sender<(usize, Word)>,
) {
    let mut begun: VecDeque<(Job, Ticket)> = VecDeque::new();
    let mut next = || -> Result<Option<(Job, Word)>, DeviceError> {
        while begun.len() < AHEAD
            && let Some(job) = lock(queue).pop_front()
        {
            let ticket = session.begin(&job.models[board], runtime, threads, plan)?;
            begun.push_back((job, ticket));
        }
        let Some((job, ticket)) = begun.pop_front() else { return Ok(None) };
        match session.finish(ticket).and_then(|m| row(&job, m, runtime, threads, session.cores())) {
            Ok(row) => Ok(Some((job, Word::Row(Box::new(row))))),
            Err(why @ DeviceError::Failed { .. }) => Ok(Some((job, Word::Rejected(why)))),
            Err(fatal) => Err(fatal),
        }
    };
    loop {
        let word = match next() {
            Ok(Some((mut job, Word::Row(row)))) if !row.disturbed.is_empty() && job.tries + 1 < TRIES => {
                job.tries += 1;
                lock(queue).push_back(job);
                continue;
            }
            Ok(Some((_, word))) => word,
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

fn row(
    job: &Job,
    samples: Samples,
    runtime: Runtime,
    threads: usize,
    cores: usize,
) -> Result<Row, DeviceError> {
    let layer = job.layer;
    let median_ns = Summary::measured(&samples.ns, &layer.to_string(), runtime)?.median;
    let disturbed = Disturbance::of(&samples, threads, cores);
    let Samples { ns, batch, before, during, after, others } = samples;
    Ok(Row {
        layer,
        method: Method::Isolated,
        model: model_digest(&layer),
        median_ns,
        samples_ns: ns,
        batch,
        measured_at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        before,
        during,
        after,
        others,
        disturbed,
    })
}

/// A thread that panicked left nothing half done in the queue.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
