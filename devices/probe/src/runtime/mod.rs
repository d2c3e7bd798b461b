//! The inference runtimes, behind one trait.

#[cfg(feature = "ort")]
mod ort;
#[cfg(feature = "tract")]
mod tract;

use crate::deadline::Late;
use nas_probe::{Runtime, TensorData};
use std::path::Path;

/// How a deadline names the loading of a model.
pub const LOADING: &str = "loading the model";
/// Maximum number of threads that a model runs on.
const MOST_THREADS: usize = 1024;

/// A model that one runtime has loaded and optimised.
pub trait Model {
    /// Shape of each input, with the batch dimension.
    ///
    /// # Errors
    /// [`Error::Input`] if an input is not f32 or has a dynamic dimension.
    fn input_shapes(&self) -> Result<Vec<Vec<usize>>, Error>;

    /// Sets the inputs of all later runs, and converts them to the form that the runtime needs.
    fn set_inputs(&mut self, inputs: Vec<TensorData>) -> Result<(), Error>;

    /// Runs one inference and drops its outputs. This is what is timed.
    fn run(&mut self) -> Result<(), Error>;

    /// Runs one inference and returns its outputs.
    fn infer(&mut self) -> Result<Vec<TensorData>, Error>;
}

/// A runtime that works on this device.
pub struct Opened {
    pub version: String,
    /// Same as [`nas_probe::RuntimeInfo::providers`].
    pub providers: Vec<String>,
    /// Why each other requested provider is not used: one line per provider, which names it.
    pub refused: Vec<String>,
    pub load: Box<Load>,
}

/// Loads and optimises the model of a file, to be run on this number of threads.
pub type Load = dyn Fn(&Path, usize) -> Result<Box<dyn Model>, Error>;

/// Opens a runtime. For ONNX Runtime, `library` is its shared library, if one was named, and `providers` are
/// the execution providers in order of preference.
///
/// # Errors
/// The reason why the runtime cannot be used on this device.
#[cfg_attr(not(feature = "ort"), allow(unused_variables))]
pub fn open(runtime: Runtime, library: Option<&Path>, providers: &[String]) -> Result<Opened, String> {
    match runtime {
        #[cfg(feature = "tract")]
        Runtime::Tract => Ok(tract::open()),
        #[cfg(feature = "ort")]
        Runtime::Ort => ort::open(library, providers),
        #[allow(unreachable_patterns)]
        absent => Err(format!("this probe was built without it (cargo feature `{absent}`)")),
    }
}

/// Loads a model with a runtime, given the result of opening it.
///
/// # Errors
/// The errors of the runtime; [`Error::Unavailable`], [`Error::NoThreads`], [`Error::TooManyThreads`].
pub fn load(opened: &Result<Opened, String>, model: &Path, threads: usize) -> Result<Box<dyn Model>, Error> {
    match opened {
        _ if threads == 0 => Err(Error::NoThreads),
        _ if threads > MOST_THREADS => Err(Error::TooManyThreads(threads)),
        Ok(opened) => (opened.load)(model, threads),
        Err(why) => Err(Error::Unavailable(why.clone())),
    }
}

/// Why a request cannot be served. The reply puts the names of the model and its runtime before it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the runtime is not available here: {0}")]
    Unavailable(String),
    #[error("0 threads can't run a model; ask for 1 or more")]
    NoThreads,
    #[error("{0} threads are too many; ask for {MOST_THREADS} at most")]
    TooManyThreads(usize),
    #[cfg(feature = "tract")]
    #[error("tract runs on 1 thread in this build, not on {0}; use 1 thread, or ort")]
    OneThread(usize),
    #[error("the model failed to load: {0}")]
    Load(String),
    #[error("input {index} of the model {what}")]
    Input { index: usize, what: String },
    #[error("the model takes {takes} inputs, but the request has {found}")]
    InputCount { takes: usize, found: usize },
    #[error("input {index} of the request has shape {shape:?} and {values} values; send one value per element")]
    Values { index: usize, shape: Vec<usize>, values: usize },
    #[error("the model failed to run: {0}")]
    Run(String),
    #[error("the plan asks for 0 samples; ask for 1 or more")]
    NoSamples,
    #[error(transparent)]
    Late(#[from] Late),
}

impl Error {
    fn open_shape(index: usize) -> Error {
        let what = "has a dynamic dimension; export it with every dimension fixed".to_owned();
        Error::Input { index, what }
    }

    pub fn too_large(index: usize) -> Error {
        Error::Input { index, what: "is too large to be filled with numbers; export it with a smaller shape".into() }
    }

    fn not_f32(index: usize, found: impl std::fmt::Display) -> Error {
        Error::Input { index, what: format!("is {found}, but the probe supports only f32; export it with f32 inputs") }
    }
}

/// Checks the number of inputs, and that each has one value per element of its shape.
fn check(inputs: &[TensorData], takes: usize) -> Result<(), Error> {
    if inputs.len() != takes {
        return Err(Error::InputCount { takes, found: inputs.len() });
    }
    for (index, TensorData { shape, values }) in inputs.iter().enumerate() {
        let elements = shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d));
        if elements != Some(values.len()) {
            return Err(Error::Values { index, shape: shape.clone(), values: values.len() });
        }
    }
    Ok(())
}
