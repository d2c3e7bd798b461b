//! The inference runtimes, behind one trait.

#[cfg(feature = "ort")]
mod ort;
#[cfg(feature = "tract")]
mod tract;

use nas_probe::{Runtime, TensorData};
use std::path::Path;

/// A model that one runtime has loaded and optimised.
pub trait Model {
    /// Shape of each input, with the batch dimension.
    ///
    /// # Errors
    /// [`Error::Input`] where an input isn't f32, or where a dimension is left open.
    fn input_shapes(&self) -> Result<Vec<Vec<usize>>, Error>;

    /// Lays down the inputs that every later run takes, in the form that the runtime wants.
    fn set_inputs(&mut self, inputs: Vec<TensorData>) -> Result<(), Error>;

    /// One inference, its outputs dropped unread: this is what is timed.
    fn run(&mut self) -> Result<(), Error>;

    /// One inference, its outputs read.
    fn infer(&mut self) -> Result<Vec<TensorData>, Error>;
}

/// A runtime that works on this device.
pub struct Opened {
    pub version: String,
    /// As [`nas_probe::RuntimeInfo::providers`].
    pub providers: Vec<String>,
    /// Why each other provider that was asked for is not used, a line each that names it.
    pub refused: Vec<String>,
    pub load: Box<Load>,
}

/// Reads, optimises and makes ready the model of a file, to run on so many threads.
pub type Load = dyn Fn(&Path, usize) -> Result<Box<dyn Model>, Error>;

/// Opens a runtime. For ONNX Runtime, `library` is its file, if one was named, and `providers` are
/// the execution providers to use, in order.
///
/// # Errors
/// Why the runtime can't be used here.
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

/// Loads a model with a runtime that was opened, or was to be.
///
/// # Errors
/// Those of the runtime; [`Error::NotHere`], [`Error::NoThreads`].
pub fn load(opened: &Result<Opened, String>, model: &Path, threads: usize) -> Result<Box<dyn Model>, Error> {
    match opened {
        _ if threads == 0 => Err(Error::NoThreads),
        Ok(opened) => (opened.load)(model, threads),
        Err(why) => Err(Error::NotHere(why.clone())),
    }
}

/// Why a request can't be served; the reply puts the model and its runtime in front.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the runtime is not to be had here: {0}")]
    NotHere(String),
    #[error("0 threads can't run a model; ask for 1 or more")]
    NoThreads,
    #[cfg(feature = "tract")]
    #[error("tract runs on 1 thread in this build, not on {0}; ask for 1 thread, or for ort")]
    OneThread(usize),
    #[error("the model does not load: {0}")]
    Load(String),
    #[error("input {index} of the model {what}")]
    Input { index: usize, what: String },
    #[error("the model takes {takes} inputs and the request brings {brings}")]
    InputCount { takes: usize, brings: usize },
    #[error(
        "input {index} of the request has shape {shape:?} and {values} values; send one value an element"
    )]
    Values { index: usize, shape: Vec<usize>, values: usize },
    #[error("the model does not run: {0}")]
    Run(String),
    #[error("the plan asks for 0 samples; ask for 1 or more")]
    NoSamples,
}

impl Error {
    fn open_shape(index: usize) -> Error {
        let what = "leaves a dimension open; export it with every dimension fixed".to_owned();
        Error::Input { index, what }
    }

    fn not_f32(index: usize, found: impl std::fmt::Display) -> Error {
        Error::Input {
            index,
            what: format!("holds {found}, and the probe feeds f32 alone; export it with f32 inputs"),
        }
    }
}

/// Refuses inputs that can't be the model's, whatever their runtime.
fn check(inputs: &[TensorData], takes: usize) -> Result<(), Error> {
    if inputs.len() != takes {
        return Err(Error::InputCount { takes, brings: inputs.len() });
    }
    for (index, TensorData { shape, values }) in inputs.iter().enumerate() {
        let elements = shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d));
        if elements != Some(values.len()) {
            return Err(Error::Values { index, shape: shape.clone(), values: values.len() });
        }
    }
    Ok(())
}
