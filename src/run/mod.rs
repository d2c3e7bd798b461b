//! The verbs as library code that any program can call. Each function reads and writes the files of a run or of
//! `profiles/`.

mod bench;
mod eval;
#[cfg(feature = "torch")]
mod experiment;
#[cfg(feature = "torch")]
mod export;
#[cfg(feature = "torch")]
mod goals;
mod measure;
#[cfg(feature = "torch")]
mod measure_top;
mod models;
mod profile;
#[cfg(feature = "torch")]
mod search;
#[cfg(feature = "torch")]
mod stages;

pub use bench::{Bench, Benched, bench, predict};
pub use eval::{Eval, Evaluated, OnDevice, eval};
#[cfg(feature = "torch")]
pub use experiment::Experiment;
#[cfg(feature = "torch")]
pub use export::{Export, TOLERANCE, export};
#[cfg(feature = "torch")]
pub use goals::{Targets, searched};
pub use measure::{BoardSettings, Images, MeasureSettings, Reach};
#[cfg(feature = "torch")]
pub use measure_top::MeasureTop;
#[cfg(feature = "torch")]
pub use models::{single, taught};
pub use profile::{Profile, Profiled, Validated, profile, validate};
#[cfg(feature = "torch")]
pub use search::{Found, Search, folders, search};

use crate::artifact::ArtifactError;
use crate::device::DeviceError;
use crate::model::ModelError;
use crate::profile::ProfileError;
use crate::search::SearchError;
use crate::space::SpaceError;
use crate::table::TableError;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error(transparent)]
    Data(#[from] crate::data::Error),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Space(#[from] SpaceError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Prediction(#[from] ModelError),
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error(transparent)]
    Search(#[from] SearchError),
    #[error(transparent)]
    Report(#[from] crate::report::ReportError),
    #[cfg(feature = "torch")]
    #[error(transparent)]
    Train(#[from] crate::train::TrainError),
    #[cfg(feature = "torch")]
    #[error("interrupted before the stage `{stage}`; the same command resumes")]
    Interrupted { stage: String },
    #[error(transparent)]
    Encode(#[from] nas_exporters::EncodeError),
    #[error("{device} has no runtime; name one with --runtime")]
    NoRuntime { device: String },
    #[error("{table} is a table for one runtime; name it with --runtime", table = table.display())]
    ManyRuntimes { table: PathBuf },
    #[error("the device file of {device} names no cores; name them, as --pin=3")]
    NoCores { device: String },
    #[error(
        "a benchmark or an evaluation runs on one board; name it with --ssh, or leave only its address in sites.toml"
    )]
    ManyBoards,
    #[error("there is no file {path}", path = .0.display())]
    NoFile(PathBuf),
    #[error("{path} is missing; `nas search` writes it, or name a network with --genotype or --arch", path = .0.display())]
    NothingFound(PathBuf),
    #[error("{run} has networks for several targets; name one with --run: {runs}", run = run.display())]
    ManyTargets { run: PathBuf, runs: String },
    #[error("{run} has no exported network; `nas export --run {run}` writes one", run = .0.display())]
    NothingExported(PathBuf),
    #[error("{run} has no trained network; `nas train --run {run}` trains one", run = .0.display())]
    NothingTrained(PathBuf),
    #[cfg(feature = "torch")]
    #[error("{run} cannot be its own teacher, since its weights are replaced; name another run", run = .0.display())]
    OwnTeacher(PathBuf),
    #[error(
        "{model} in {runtime} differs from libtorch by {difference:e} in logit {logit} of test image {image} (at most {tolerance:e} is allowed); nothing was written; to check only the runtime that you deploy with, pass --runtime"
    )]
    Differs { model: String, runtime: nas_probe::Runtime, image: usize, logit: usize, difference: f32, tolerance: f32 },
    #[error(
        "{model} in {runtime} gave {found} logits for test image {image}, and libtorch {expected}; nothing was written"
    )]
    Logits { model: String, runtime: nas_probe::Runtime, image: usize, expected: usize, found: usize },
    #[error("{reason}; `{command}` trains it again")]
    Mixed { command: String, reason: String },
    #[error("{reason}; `nas export --run {run}` writes it again", run = run.display())]
    Stale { run: PathBuf, reason: String },
    #[error("{model} {what}; give the --data that it was made for")]
    Unfit { model: String, what: String },
    #[error("{model} in {runtime} gives a logit that is not finite for test image {image}; its weights may be damaged")]
    NotFinite { model: String, runtime: String, image: usize },
    #[error(
        "{path} does not say what its classes are and how images are normalised, and neither does {on}; export it with `nas export`, or name its run with --run",
        path = path.display(), on = on.display()
    )]
    NoInterface { path: PathBuf, on: PathBuf },
    #[error("{path} has damaged metadata: {reason}; `nas export` writes it again", path = path.display())]
    Interface { path: PathBuf, reason: String },
    #[error("this program was built without libtorch, and evaluates ONNX files only; name a --runtime")]
    NoLibtorch,
    #[error("not everything was measured: {reasons}")]
    Unmeasured { reasons: String },
    #[error("{path}: {reason}", path = path.display())]
    Model { path: PathBuf, reason: nas_exporters::EncodeError },
    #[error("a search needs a target; give target_latency, or targets")]
    NoTarget,
    #[error(
        "target_latency and targets are both given; a search has one network for all of the first, or one for each of the second"
    )]
    BothTargets,
    #[error("two targets are for {what}; leave one out")]
    TwoTargets { what: String },
    #[error("one latency table is given, and the targets are of several; leave out --table")]
    OneTable,
    #[error("the search proposes no network; raise the limits")]
    NoCandidate,
    #[error("{table} was given with --table, and only the device's own table gets more rows; leave out --measure-top or --table", table = table.display())]
    GivenTable { table: PathBuf },
    #[error(
        "the latency table was measured with {difference}, and gets no rows of this device; leave out --measure-top, or measure into another --profiles folder"
    )]
    ForeignTop { difference: String },
    #[error(
        "none of the {measured} best networks was measured to take at most {target}, and the nearest takes {nearest}; raise --measure-top or the target"
    )]
    NoneMeets { measured: usize, target: crate::latency::Latency, nearest: crate::latency::Latency },
    #[error("{reasons}")]
    Missed { reasons: String },
    #[error("{reasons}; the networks for the other targets are kept: to search for this one again, name another --run")]
    SomeMissed { reasons: String },
    #[error("cannot write the experiment: {0}")]
    Toml(String),
}
