//! The input is an ONNX model. Its precision is read, and a probe stores it, loads it in a separate process, and
//! measures it. The probe must answer in time, and neither it nor that process may take more than 1 GiB.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use nas_exporters::onnx;
use nas_fuzz::{Folder, Probe};
use nas_probe::{MeasurePlan, ModelRef, Request, sha256};
use std::sync::{LazyLock, Mutex};

static FOLDER: LazyLock<Folder> = LazyLock::new(Folder::new);
static PROBE: Mutex<Option<Probe>> = Mutex::new(None);

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    nas_fuzz::mutate_onnx(data, size, max_size, seed)
});

fuzz_target!(|input: &[u8]| {
    if onnx::inspect(input).is_err() {
        return;
    }
    let Ok(mut running) = PROBE.lock() else { return };
    let probe = running.get_or_insert_with(|| Probe::start(&FOLDER));
    let model = sha256(input);
    probe.ask(&Request::Put { id: 1, model: model.clone(), bytes: input.to_vec() });
    for runtime in probe.runtimes() {
        let model = ModelRef { model: model.clone(), runtime, threads: 1 };
        let plan = MeasurePlan { warmup_ns: 1_000_000, min_sample_ns: 1_000, samples: 5, limit_ns: 1_000_000 };
        if probe.goes_on() && probe.ask(&Request::Memory { id: 2, model: model.clone() }) {
            probe.ask(&Request::Measure { id: 3, model, plan });
        }
    }
    if !probe.goes_on() {
        *running = None;
    }
    let _ = std::fs::remove_file(FOLDER.path(&format!("models/{model}.onnx")));
});
