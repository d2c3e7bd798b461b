//! The input is lines of the protocol. Each is read as a request and as a reply, and all of them together are what a
//! probe answers to the host.
#![no_main]

use edge_nas::device::{Board, Device, Model, Session, Source};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use nas_exporters::{Graph, Precision, Shape, onnx};
use nas_fuzz::Folder;
use nas_probe::{MeasurePlan, Reply, Request, Runtime, TensorData};
use serde::{Serialize, de::DeserializeOwned};
use std::os::unix::fs::PermissionsExt;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

static FOLDER: LazyLock<Folder> = LazyLock::new(Folder::new);
static BOARD: LazyLock<Board> = LazyLock::new(|| match Device::load("host") {
    Ok(device) => Board::local(device),
    Err(error) => panic!("{error}"),
});
/// A session must end within this time, whatever the probe answers.
const DEADLINE: Duration = Duration::from_secs(5);

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    nas_fuzz::mutate_json_lines(data, size, max_size, seed)
});

fuzz_target!(init: start(), |input: &[u8]| {
    let mut lines = input.split(|byte| *byte == b'\n');
    let opens = lines.next().is_some_and(|line| matches!(serde_json::from_slice(line), Ok(Reply::Hello(_))));
    for line in input.split(|byte| *byte == b'\n') {
        if let Ok(request) = serde_json::from_slice::<Request>(line) {
            read_again(&request);
            if let Request::Graphs { graphs, .. } = request {
                // The probe makes these files from the graphs.
                graphs.iter().for_each(|graph| drop(onnx::untrained(&graph.graph, graph.precision)));
            }
        }
        if let Ok(reply) = serde_json::from_slice::<Reply>(line) {
            read_again(&reply);
        }
    }
    if opens {
        let start = Instant::now();
        FOLDER.write("replies", input);
        talk();
        assert!(start.elapsed() < DEADLINE, "the session took {:?}", start.elapsed());
    }
});

/// Provides a probe that writes the replies, whatever it is asked, and ends.
fn start() {
    let probe = FOLDER.write("probe", format!("#!/bin/sh\nexec cat {}\n", FOLDER.path("replies").display()).as_bytes());
    if let Err(error) = std::fs::set_permissions(&probe, std::fs::Permissions::from_mode(0o755)) {
        panic!("{error}");
    }
    // Safety: there are no other threads yet.
    unsafe { std::env::set_var("NAS_PROBE", probe) };
}

fn read_again<T: Serialize + DeserializeOwned>(value: &T) {
    // A value may contain a NaN, which equals nothing, so the lines are compared.
    let line = serde_json::to_string(value).unwrap_or_else(|e| panic!("{e}"));
    let again: T = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
    assert_eq!(line, serde_json::to_string(&again).unwrap_or_default());
}

/// Does what the host does with a probe, as far as the replies allow.
fn talk() {
    let Ok(mut session) = Session::open(&BOARD) else { return };
    let _ = (session.cores(), session.require(Runtime::Tract).map(|info| info.version.clone()));
    let source = Source::Graph { graph: Graph::new(Shape::new(1, 2, 2)), precision: Precision::Fp32 };
    let Ok(models) = session.place(&[("call".into(), source)]) else { return };
    models.iter().for_each(|model| run(&mut session, model));
    let file = Source::File(b"a file".to_vec());
    let _ = session.place(&[("file".into(), file)]);
}

fn run(session: &mut Session, model: &Model) {
    let plan = MeasurePlan { warmup_ns: 1, min_sample_ns: 1, samples: 1, limit_ns: 1 };
    let _ = session.measure(model, Runtime::Tract, 1, plan);
    let _ = session.memory(model, Runtime::Tract, 1);
    let image = TensorData { shape: vec![1, 1, 2, 2], values: vec![0.0; 4] };
    let _ = session.infer(model, Runtime::Tract, vec![image]);
}
