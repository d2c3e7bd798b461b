//! Serves requests: parses a line, carries out the request, and makes the reply.

use crate::{
    affinity, device,
    device_lock::DeviceLock,
    governor::{self, Governor},
    loaded::Loaded,
    measure::{FIRST, measure},
    memory::{Limits, peak},
    messages::{name, one_line, panic_message, short},
    options::Options,
    runtime::{self, Error, LOADING, Model, Opened},
    sensors::Watch,
    store::Store,
    watchdog::Watchdog,
};
use nas_probe::{Hello, MOST_REQUEST_BYTES, ModelRef, PROTOCOL, Reply, Request, Runtime, RuntimeInfo, Sensors};
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

pub struct Probe {
    options: Options,
    runtimes: BTreeMap<Runtime, Result<Opened, String>>,
    loaded: Loaded,
    store: Store,
    watch: Watch,
    governor: Arc<Governor>,
    watchdog: Arc<Watchdog>,
    lock: Option<DeviceLock>,
    /// The cores that the process was allowed to use when it started.
    all: Vec<usize>,
    /// The cores that it is pinned to; empty if it is not pinned.
    pinned: Vec<usize>,
}

impl Probe {
    /// Starts the probe.
    ///
    /// # Errors
    /// Fails if the standard files of Linux cannot be looked up.
    pub fn start(options: Options, governor: Arc<Governor>, watchdog: Arc<Watchdog>) -> Result<Probe, String> {
        let mut watch = generic()?;
        if let Some(folder) = &options.models {
            governor::restore_left_behind(folder, watch.governors());
        }
        let open = |runtime| {
            let library = options.ort_library.as_deref();
            let opened = catch_unwind(|| runtime::open(runtime, library, &options.providers));
            (runtime, opened.unwrap_or_else(|panic| Err(panic_message(panic))))
        };
        let store = Store::new(options.models.clone());
        store.remove_left_behind();
        Ok(Probe {
            runtimes: Runtime::ALL.map(open).into(),
            loaded: Loaded::new(watch.read().free_bytes),
            store,
            options,
            watch,
            governor,
            watchdog,
            lock: None,
            all: affinity::allowed().unwrap_or_default(),
            pinned: Vec::new(),
        })
    }

    pub fn hello(&mut self) -> Hello {
        let mut runtimes = Vec::new();
        let mut unavailable = Vec::new();
        for (runtime, opened) in &self.runtimes {
            match opened {
                Ok(Opened { version, providers, refused, .. }) => {
                    runtimes.push(RuntimeInfo {
                        runtime: *runtime,
                        version: version.clone(),
                        providers: providers.clone(),
                    });
                    unavailable.extend(refused.iter().map(|why| one_line(why)));
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
            conditions: self.watch.read(),
        }
    }

    /// Returns the reply to one line. `None` stands for a line that was too long to be kept. Invalid lines and panics
    /// are answered by [`Reply::Failed`].
    pub fn answer(&mut self, line: Option<&[u8]>) -> Reply {
        let failed = |id, error: String| Reply::Failed { id, error: one_line(&error) };
        let Some(line) = line else {
            return failed(0, format!("a request has at most {MOST_REQUEST_BYTES} bytes; send a smaller model"));
        };
        let request: Request = match serde_json::from_slice(line) {
            Ok(request) => request,
            Err(e) => {
                let id = serde_json::from_slice(line).map_or(0, |Numbered { id }| id);
                return failed(id, format!("not a request of protocol {PROTOCOL}: {e}"));
            }
        };
        let id = request.id();
        self.watchdog.begin(id);
        let served = catch_unwind(AssertUnwindSafe(|| self.serve(request)));
        // After this, no deadline can end the process before the reply is sent.
        self.watchdog.done();
        served
            .unwrap_or_else(|panic| Err(format!("the probe panicked: {}", panic_message(panic))))
            .unwrap_or_else(|error| failed(id, error))
    }

    fn serve(&mut self, request: Request) -> Result<Reply, String> {
        match request {
            Request::Setup { id, sensors, pin, governor, timeout_ns, alone } => {
                self.watchdog.set_timeout(Duration::from_nanos(timeout_ns));
                let governor_was = self.set_up(&sensors, &pin, governor.as_deref(), alone)?;
                let (conditions, pinned) = (self.watch.read(), self.pinned.clone());
                let notes = self.watch.notes().to_vec();
                Ok(Reply::Ready { id, conditions, pinned, governor_was, notes })
            }
            Request::Graphs { id, graphs } => {
                self.store.keep(graphs).map_err(|e| e.to_string())?;
                Ok(Reply::Known { id, room_bytes: self.loaded.room })
            }
            Request::Have { id, models } => {
                let models = self.store.missing(models).map_err(|e| e.to_string())?;
                Ok(Reply::Missing { id, models })
            }
            Request::Put { id, model, bytes } => match self.store.put(&model, &bytes) {
                Ok(()) => Ok(Reply::Stored { id }),
                Err(error) => Err(format!("{}: {error}", short(&model))),
            },
            Request::Measure { id, model, plan } => {
                let watchdog = Arc::clone(&self.watchdog);
                let cores = self.cores().to_vec();
                let samples = self.run(model, |model, watch| measure(model, &plan, watch, &cores, &watchdog))?;
                Ok(Reply::Samples { id, samples })
            }
            Request::Infer { id, model, inputs } => {
                let watchdog = Arc::clone(&self.watchdog);
                let outputs = self.run(model, |model, _| {
                    model.set_inputs(inputs)?;
                    let first = watchdog.part(FIRST, Duration::ZERO);
                    let outputs = model.infer()?;
                    first.check(Instant::now())?;
                    Ok(outputs)
                })?;
                Ok(Reply::Outputs { id, outputs })
            }
            Request::Memory { id, model } => {
                let name = name(&model);
                let peak_bytes = self.memory(model).map_err(|error| format!("{name}: {error}"))?;
                Ok(Reply::Memory { id, peak_bytes })
            }
        }
    }

    /// Replaces an earlier setup. After an error, no setup is in effect. Returns the previous governor if
    /// `governor` is given.
    fn set_up(
        &mut self,
        sensors: &Sensors,
        pin: &[usize],
        governor: Option<&str>,
        alone: bool,
    ) -> Result<Option<String>, String> {
        self.release()?;
        let mut set = || {
            if alone {
                let folder = self.store.folder().map_err(|e| e.to_string())?;
                self.lock = Some(DeviceLock::acquire(folder).map_err(|e| e.to_string())?);
            }
            if !pin.is_empty() {
                self.pinned = affinity::pin(pin, &self.all)?;
            }
            self.watch = Watch::new(Path::new("/"), sensors, &self.pinned)?;
            if let Ok(folder) = self.store.folder() {
                governor::restore_left_behind(folder, self.watch.governors());
            }
            let Some(governor) = governor else { return Ok(None) };
            let folder = self.store.folder().map_err(|e| e.to_string())?;
            self.governor.set(self.watch.governors(), governor, folder).map(Some).map_err(|e| e.to_string())
        };
        match set() {
            Err(error) => {
                self.release()?;
                Err(error)
            }
            was => was,
        }
    }

    fn release(&mut self) -> Result<(), String> {
        self.governor.restore();
        self.lock = None;
        self.watch = generic()?;
        if !std::mem::take(&mut self.pinned).is_empty() {
            affinity::allow(&self.all).map_err(|e| format!("can't undo the pinning: {e}"))?;
        }
        Ok(())
    }

    /// The cores that the process may use; empty if it may use all.
    fn cores(&self) -> &[usize] {
        if self.pinned.is_empty() && self.all.len() < device::online() { &self.all } else { &self.pinned }
    }

    /// Calls `act` with a loaded model. Errors name the model and its runtime.
    fn run<T>(
        &mut self,
        model: ModelRef,
        act: impl FnOnce(&mut dyn Model, &mut Watch) -> Result<T, Error>,
    ) -> Result<T, String> {
        let done = catch_unwind(AssertUnwindSafe(|| {
            let runtime = self.runtimes.get(&model.runtime).ok_or("this probe has no such runtime")?;
            let file = || self.store.file(&model.model).map_err(|e| e.to_string());
            let load = |path: &Path| {
                let loading = self.watchdog.part(LOADING, Duration::ZERO);
                let loaded = runtime::load(runtime, path, model.threads).map_err(|e| e.to_string())?;
                loading.check(Instant::now()).map_err(|e| e.to_string())?;
                Ok(loaded)
            };
            let loaded = self.loaded.get(&model, file, load)?;
            act(loaded, &mut self.watch).map_err(|e| e.to_string())
        }));
        done.unwrap_or_else(|panic| Err(format!("the runtime panicked: {}", panic_message(panic)))).map_err(|error| {
            // A failure may leave the model in any state, so the next request loads it again.
            self.loaded.drop(&model);
            format!("{}: {error}", name(&model))
        })
    }

    fn memory(&mut self, model: ModelRef) -> Result<u64, String> {
        let ModelRef { model, runtime, threads } = model;
        let file = self.store.file(&model).map_err(|e| e.to_string())?;
        let limits = Limits::new(self.watchdog.timeout(), self.watch.free_bytes());
        self.watchdog.part("measuring the memory", limits.longest());
        peak(&self.options, runtime, threads, &file.path, limits)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.governor.restore();
    }
}

/// What is known about a line that is not a request.
#[derive(serde::Deserialize)]
struct Numbered {
    id: u64,
}

fn generic() -> Result<Watch, String> {
    Watch::new(Path::new("/"), &Sensors::default(), &[])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use nas_probe::TensorData;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A model that panics when it infers.
    struct Panics;

    impl Model for Panics {
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

    const DIGEST: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_panic_fails_only_its_request_and_unloads_the_model() {
        let folder = tempfile::tempdir().unwrap();
        let loads = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&loads);
        let load = move |_: &Path, _: usize| -> Result<Box<dyn Model>, Error> {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(Box::new(Panics))
        };
        let opened = Opened { version: "0".to_owned(), providers: vec![], refused: vec![], load: Box::new(load) };
        let options = Options { models: Some(folder.path().to_owned()), ..Options::default() };
        let mut probe = Probe::start(options, Arc::default(), Arc::default()).unwrap();
        probe.runtimes = [(Runtime::Tract, Ok(opened))].into();
        probe.store.put(DIGEST, b"abc").unwrap();
        let model = ModelRef { model: DIGEST.to_owned(), runtime: Runtime::Tract, threads: 1 };
        for id in [1, 2] {
            let line = serde_json::to_vec(&Request::Infer { id, model: model.clone(), inputs: vec![] }).unwrap();
            let Reply::Failed { id: answered, error } = probe.answer(Some(&line)) else {
                panic!("a panic did not fail the request");
            };
            assert_eq!(answered, id);
            assert_eq!(error, "model ba7816bf8f01 with tract: the runtime panicked: the kernel broke");
            assert_eq!(loads.load(Ordering::Relaxed), id);
        }
    }
}
