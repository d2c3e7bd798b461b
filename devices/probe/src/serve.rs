//! From a line that was asked to the reply to it.

use crate::{
    device, measure,
    runtime::{self, Error, Model, Opened},
};
use nas_probe::{Hello, ModelRef, PROTOCOL, Reply, Request, Runtime, RuntimeInfo};
use std::{
    any::Any,
    collections::{HashMap, hash_map::Entry},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

/// Models kept loaded; one more drops them all, so that a long profile can't fill the memory.
const MOST_LOADED: usize = 128;

pub struct Probe {
    runtimes: Vec<(Runtime, Result<Opened, String>)>,
    loaded: HashMap<ModelRef, Box<dyn Model>>,
}

impl Probe {
    pub fn start(ort_library: Option<&Path>) -> Probe {
        let open = |runtime| {
            let opened = catch_unwind(|| runtime::open(runtime, ort_library));
            (runtime, opened.unwrap_or_else(|panic| Err(words(panic))))
        };
        Probe { runtimes: Runtime::ALL.map(open).into(), loaded: HashMap::new() }
    }

    pub fn hello(&self) -> Hello {
        let mut runtimes = Vec::new();
        let mut unavailable = Vec::new();
        for (runtime, opened) in &self.runtimes {
            match opened {
                Ok(Opened { version, .. }) => {
                    runtimes.push(RuntimeInfo { runtime: *runtime, version: version.clone() })
                }
                Err(why) => unavailable.push(one_line(&format!("{runtime}: {why}"))),
            }
        }
        Hello {
            protocol: PROTOCOL,
            probe: env!("CARGO_PKG_VERSION").to_owned(),
            runtimes,
            unavailable,
            arch: std::env::consts::ARCH.to_owned(),
            os: std::env::consts::OS.to_owned(),
            libc: device::libc(),
            cpu: device::cpu(),
            cores: device::cores(),
            conditions: device::conditions(),
        }
    }

    /// The reply to one line, whatever the line holds and whatever the runtime does with it.
    pub fn answer(&mut self, line: &[u8]) -> Reply {
        let request: Request = match serde_json::from_slice(line) {
            Ok(request) => request,
            Err(e) => {
                let error = format!("not a request of protocol {PROTOCOL}: {e}");
                return Reply::Failed { id: 0, error };
            }
        };
        let (Request::Measure { id, model, .. } | Request::Infer { id, model, .. }) = &request;
        let (id, model) = (*id, model.clone());
        catch_unwind(AssertUnwindSafe(|| self.serve(request)))
            .unwrap_or_else(|panic| Err(Error::Panic(words(panic))))
            .unwrap_or_else(|error| {
                // A failure may leave a model in any state: the next request loads it anew.
                self.loaded.remove(&model);
                Reply::Failed {
                    id,
                    error: one_line(&format!("{} with {}: {error}", model.path, model.runtime)),
                }
            })
    }

    fn serve(&mut self, request: Request) -> Result<Reply, Error> {
        match request {
            Request::Measure { id, model, plan } => {
                let (batch, ns, before, after) = measure::measure(self.model(model)?, &plan)?;
                Ok(Reply::Samples { id, batch, ns, before, after })
            }
            Request::Infer { id, model, inputs } => {
                let model = self.model(model)?;
                model.set_inputs(inputs)?;
                Ok(Reply::Outputs { id, outputs: model.infer()? })
            }
        }
    }

    fn model(&mut self, model: ModelRef) -> Result<&mut dyn Model, Error> {
        if self.loaded.len() >= MOST_LOADED && !self.loaded.contains_key(&model) {
            self.loaded.clear();
        }
        match self.loaded.entry(model) {
            Entry::Occupied(loaded) => Ok(loaded.into_mut().as_mut()),
            Entry::Vacant(place) => {
                let fresh = load(&self.runtimes, place.key())?;
                Ok(place.insert(fresh).as_mut())
            }
        }
    }
}

fn load(runtimes: &[(Runtime, Result<Opened, String>)], model: &ModelRef) -> Result<Box<dyn Model>, Error> {
    if model.threads == 0 {
        return Err(Error::NoThreads);
    }
    match runtimes.iter().find(|(runtime, _)| *runtime == model.runtime) {
        Some((_, Ok(opened))) => (opened.load)(model),
        Some((_, Err(why))) => Err(Error::NotHere(why.clone())),
        None => Err(Error::NotHere("it is unknown to this probe".to_owned())),
    }
}

/// What a panic said.
fn words(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => panic.downcast_ref::<&str>().map_or("without a message", |m| m).to_owned(),
    }
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use nas_probe::TensorData;

    /// Breaks where it is told to.
    struct Breaks;

    impl Model for Breaks {
        fn input_shapes(&self) -> Result<Vec<Vec<usize>>, Error> {
            Ok(vec![])
        }
        fn set_inputs(&mut self, _: Vec<TensorData>) -> Result<(), Error> {
            Ok(())
        }
        fn run(&mut self) -> Result<(), Error> {
            Ok(())
        }
        fn infer(&mut self) -> Result<Vec<TensorData>, Error> {
            panic!("the kernel\nbroke")
        }
    }

    fn infer(id: u64, path: &str) -> Vec<u8> {
        let model = ModelRef { path: path.to_owned(), runtime: Runtime::Tract, threads: 1 };
        serde_json::to_vec(&Request::Infer { id, model, inputs: vec![] }).unwrap()
    }

    #[test]
    fn a_panic_fails_its_request_only_and_unloads_the_model() {
        let load = |_: &ModelRef| -> Result<Box<dyn Model>, Error> { Ok(Box::new(Breaks)) };
        let opened = Opened { version: "0".to_owned(), load: Box::new(load) };
        let mut probe = Probe { runtimes: vec![(Runtime::Tract, Ok(opened))], loaded: HashMap::new() };
        for id in [7, 8] {
            let Reply::Failed { id: answered, error } = probe.answer(&infer(id, "m.onnx")) else {
                panic!("a panic was taken for an answer");
            };
            assert_eq!(answered, id);
            assert_eq!(error, "m.onnx with tract: the runtime panicked: the kernel broke");
            assert!(probe.loaded.is_empty());
        }
    }
}
