//! The peak memory of models, as the probe reports it to a host.
#![cfg(all(feature = "tract", feature = "ort", target_os = "linux"))]
#![allow(clippy::unwrap_used)]

mod onnx;
mod runtimes;
mod talk;

use nas_probe::{MeasurePlan, ModelRef, Reply, Request, Runtime, sha256};
use runtimes::runtimes;
use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};
use talk::{Probe, error};
use tempfile::TempDir;

const MB: u64 = 1_000_000;

/// A probe, the runtimes that can be tested on this machine, and the folder of the probe's models.
fn start() -> (Probe, Vec<Runtime>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nas-probe"));
    command.arg("--models").arg(folder.path());
    let (runtimes, args): (_, Vec<_>) = runtimes().into_iter().unzip();
    command.args(args.concat());
    (Probe::spawn(&mut command), runtimes, folder)
}

fn small() -> Vec<u8> {
    onnx::model(&onnx::fixed(), 1.0, &[("Add", &["x", "c"], "y")])
}

/// Stores a model on the probe's side and returns its digest.
fn put(probe: &mut Probe, bytes: Vec<u8>) -> String {
    let model = sha256(&bytes);
    assert_eq!(probe.ask(&Request::Put { id: 1, model: model.clone(), bytes }), Reply::Stored { id: 1 });
    model
}

fn memory(probe: &mut Probe, model: &str, runtime: Runtime) -> u64 {
    let model = ModelRef { model: model.to_owned(), runtime, threads: 1 };
    match probe.ask(&Request::Memory { id: 2, model }) {
        Reply::Memory { id: 2, peak_bytes } => peak_bytes,
        other => panic!("{runtime}: {other:?}"),
    }
}

#[test]
fn peak_memory_includes_the_weights_but_not_the_memory_of_the_probe() {
    let (mut probe, runtimes, _folder) = start();
    let (small, big) = (put(&mut probe, small()), put(&mut probe, onnx::dense(3200)));
    for runtime in runtimes {
        // From here on, the probe itself has the big model loaded.
        let model = ModelRef { model: big.clone(), runtime, threads: 1 };
        let measured = probe.ask(&Request::Measure { id: 3, model, plan: PLAN });
        assert!(matches!(measured, Reply::Samples { .. }), "{measured:?}");
        let of_small = memory(&mut probe, &small, runtime);
        let of_big = memory(&mut probe, &big, runtime);
        assert!(of_small > MB, "{runtime}: {of_small}");
        assert!(of_big > of_small + 40 * MB, "{runtime}: {of_small} {of_big}");
    }
}

#[test]
fn a_model_that_cannot_be_loaded_fails_in_one_line_and_the_probe_continues() {
    let (mut probe, runtimes, folder) = start();
    let (good, broken) = (put(&mut probe, small()), put(&mut probe, b"no model".to_vec()));
    for runtime in runtimes {
        let mut fails = |model: &str, threads, why: &str| {
            let place = ModelRef { model: model.to_owned(), runtime, threads };
            let reply = probe.ask(&Request::Memory { id: 4, model: place });
            let name = format!("model {} with {runtime}: ", &model[..12]);
            let error = error(&reply);
            assert!(error.starts_with(&name) && error.contains(why) && !error.contains('\n'), "{error}");
            assert_eq!(reply.id(), Some(4));
        };
        fails(&sha256(b"never put"), 1, "not on the device");
        fails(&broken, 1, "the model failed to load");
        fails(&good, 0, "0 threads");
        assert!(memory(&mut probe, &good, runtime) > 0);
    }
    // The child reports that a runtime is not available.
    let mut without = Probe::start(folder.path());
    let model = ModelRef { model: good, runtime: Runtime::Ort, threads: 1 };
    assert!(error(&without.ask(&Request::Memory { id: 5, model })).contains("no library was named"));
}

#[test]
fn a_killed_child_is_reported_and_a_killed_probe_leaves_no_child() {
    let (mut probe, _, _folder) = start();
    let model = put(&mut probe, onnx::dense(2000));
    let ask = Request::Memory { id: 6, model: ModelRef { model, runtime: Runtime::Tract, threads: 1 } };
    probe.send(&ask);
    signal("KILL", &stopped_child(probe.child.id()));
    let reply = probe.receive();
    let killed = "the process that measures memory failed, signal: 9 (SIGKILL)";
    assert!(error(&reply).ends_with(killed), "{reply:?}");

    probe.send(&ask);
    let child = stopped_child(probe.child.id());
    probe.signal("KILL");
    probe.ended();
    let start = Instant::now();
    // A child that nobody waits for stays a zombie.
    while state(&child).is_some_and(|(state, _)| state != 'Z') {
        assert!(start.elapsed() < Duration::from_secs(10), "the child is left behind");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for the child that measures memory and stops it, so that it cannot end by itself. Returns its
/// process id.
fn stopped_child(of: u32) -> String {
    let start = Instant::now();
    loop {
        for process in fs::read_dir("/proc").unwrap() {
            let process = process.unwrap().file_name().to_string_lossy().into_owned();
            let is_child = state(&process).is_some_and(|(_, parent)| parent == of);
            let line = || fs::read(Path::new("/proc").join(&process).join("cmdline")).unwrap_or_default();
            // Before its exec, the child has the arguments of the probe.
            if is_child && line().split(|b| *b == 0).any(|arg| arg == b"--peak") {
                signal("STOP", &process);
                return process;
            }
        }
        assert!(start.elapsed() < Duration::from_secs(20), "no child was seen");
    }
}

/// State and parent of a process.
fn state(process: &str) -> Option<(char, u32)> {
    let stat = fs::read_to_string(Path::new("/proc").join(process).join("stat")).ok()?;
    // The name before these fields is in parentheses and may contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn signal(name: &str, process: &str) {
    assert!(Command::new("kill").args(["-s", name, process]).status().unwrap().success());
}

const PLAN: MeasurePlan =
    MeasurePlan { warmup_ns: 1_000_000, min_sample_ns: 100_000, samples: 200, limit_ns: 10_000_000_000 };
