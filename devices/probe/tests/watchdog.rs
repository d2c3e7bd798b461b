//! What ends a probe and the programs that it has started, whatever it is doing.
#![cfg(all(feature = "ort", target_os = "linux"))]
#![allow(clippy::unwrap_used)]

mod onnx;
mod runtimes;
mod talk;

use nas_probe::{MeasurePlan, ModelRef, Rail, Reply, Request, Runtime, Sensors, sha256};
use runtimes::ort_library;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use talk::{Probe, error};
use tempfile::TempDir;

const PLAN: MeasurePlan =
    MeasurePlan { warmup_ns: 1_000_000, min_sample_ns: 100_000, samples: 8, limit_ns: 100_000_000 };

/// A folder for models, of which one never ends, and the arguments of a probe that can run it.
struct Rig {
    folder: TempDir,
    library: PathBuf,
}

impl Rig {
    /// Returns `None`, with a message, if this machine has no ONNX Runtime.
    fn new() -> Option<Rig> {
        let Some(library) = ort_library() else {
            println!("SKIPPED: no ORT_DYLIB_PATH and no .deps/onnxruntime/libonnxruntime.so");
            return None;
        };
        Some(Rig { folder: tempfile::tempdir().unwrap(), library })
    }

    fn args(&self) -> [PathBuf; 4] {
        ["--models".into(), self.folder.path().into(), "--ort".into(), self.library.clone()]
    }

    fn probe(&self) -> Probe {
        Probe::spawn(Command::new(env!("CARGO_BIN_EXE_nas-probe")).args(self.args()))
    }

    /// Stores a model.
    fn put(&self, probe: &mut Probe, bytes: Vec<u8>) -> ModelRef {
        let model = sha256(&bytes);
        assert_eq!(probe.ask(&Request::Put { id: 9, model: model.clone(), bytes }), Reply::Stored { id: 9 });
        ModelRef { model, runtime: Runtime::Ort, threads: 1 }
    }
}

macro_rules! rig {
    () => {
        match Rig::new() {
            Some(rig) => rig,
            None => return,
        }
    };
}

/// Waits until no process has this text among its arguments.
fn assert_none_is_left(argument: &Path) {
    let start = Instant::now();
    while is_running(argument) {
        assert!(start.elapsed() < Duration::from_secs(5), "a process is left");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is_running(argument: &Path) -> bool {
    let argument = argument.to_str().unwrap();
    let mine = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        // A zombie has no arguments.
        fs::read(path.join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(argument))
    };
    fs::read_dir("/proc").unwrap().any(mine)
}

/// Waits for the child that measures memory.
fn wait_for_child(of: &Probe) {
    let start = Instant::now();
    let children = format!("/proc/{0}/task/{0}/children", of.child.id());
    while fs::read_to_string(&children).unwrap().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(20), "there is no child");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_probe_ends_with_its_host_also_while_a_model_runs() {
    let rig = rig!();
    for measures in [true, false] {
        let mut probe = rig.probe();
        let model = rig.put(&mut probe, onnx::endless());
        match measures {
            true => probe.send(&Request::Measure { id: 1, model, plan: PLAN }),
            false => {
                probe.send(&Request::Memory { id: 1, model });
                wait_for_child(&probe);
            }
        }
        std::thread::sleep(Duration::from_millis(300));
        // The end of the requests alone ends nothing.
        probe.stdin = None;
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(probe.child.try_wait().unwrap(), None);
        drop(std::mem::replace(&mut probe.stdout, talk::nothing()));
        assert_eq!(probe.ended().code(), Some(1));
        assert_none_is_left(rig.folder.path());
    }
}

#[test]
fn a_probe_ends_with_its_parent() {
    let rig = rig!();
    let model = rig.put(&mut rig.probe(), onnx::endless());
    let requests = rig.folder.path().join("requests");
    fs::write(&requests, serde_json::to_string(&Request::Measure { id: 1, model, plan: PLAN }).unwrap()).unwrap();
    // Nothing is closed; only the parent is gone.
    let script = r#"in=$1; shift; "$0" "$@" <"$in" >"$in.out" & wait"#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_nas-probe")]).arg(&requests).args(rig.args()).stdin(Stdio::null());
    let mut shell = shell.spawn().unwrap();
    let hello = rig.folder.path().join("requests.out");
    while fs::metadata(&hello).map_or(0, |out| out.len()) == 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    shell.kill().unwrap();
    shell.wait().unwrap();
    assert_none_is_left(rig.folder.path());
}

#[test]
fn a_model_that_never_returns_fails_with_its_deadline_and_the_probe_ends() {
    let rig = rig!();
    let mut probe = rig.probe();
    let model = rig.put(&mut probe, onnx::endless());
    probe.limit(Duration::from_secs(1), false);
    let reply = probe.ask(&Request::Measure { id: 3, model, plan: PLAN });
    assert_eq!(reply.id(), Some(3));
    let late = "the first inference took longer than 1 s; if it is only slow, raise the limit with --timeout";
    assert!(error(&reply).contains(late), "{reply:?}");
    assert_eq!(probe.ended().code(), Some(1));
}

#[test]
fn the_process_that_measures_memory_has_a_deadline_and_a_limit_of_memory() {
    let rig = rig!();
    let mut probe = rig.probe();
    let endless = rig.put(&mut probe, onnx::endless());
    let large = rig.put(&mut probe, onnx::pads(1 << 37));
    probe.limit(Duration::from_secs(1), false);
    let late = probe.ask(&Request::Memory { id: 4, model: endless });
    assert!(error(&late).contains("the first inference took longer than 1 s"), "{late:?}");
    probe.limit(Duration::from_secs(60), false);
    for runtime in [Runtime::Ort, Runtime::Tract] {
        let reply = probe.ask(&Request::Memory { id: 5, model: ModelRef { runtime, ..large.clone() } });
        let error = error(&reply);
        assert!(error.contains(": it needs more than ") && error.contains(" MB of memory"), "{error}");
    }
    assert!(!is_running(Path::new("--peak")));
    let small = rig.put(&mut probe, onnx::pads(1 << 20));
    let reply = probe.ask(&Request::Memory { id: 6, model: small });
    assert!(matches!(reply, Reply::Memory { id: 6, peak_bytes: 1.. }), "{reply:?}");
}

#[test]
fn the_command_of_a_power_rail_has_a_limit_and_ends_with_the_probe() {
    let rig = rig!();
    let mut probe = rig.probe();
    let mark = rig.folder.path().join("mark");
    let script = format!(": {}; sleep 1000 & sleep 1000", mark.display());
    let rail = Rail { command: Some(["sh", "-c", &script].map(Into::into).into()), ..Rail::default() };
    let sensors = Sensors { power: vec![rail], ..Sensors::default() };
    let start = Instant::now();
    let reply = probe.set_up(sensors.clone(), &[], None);
    assert!(matches!(&reply, Reply::Ready { conditions, .. } if conditions.power_mw.is_none()), "{reply:?}");
    assert!((1.9..6.0).contains(&start.elapsed().as_secs_f64()));
    assert_none_is_left(&mark);
    let setup =
        Request::Setup { id: 2, sensors, pin: vec![], governor: None, timeout_ns: 60_000_000_000, alone: false };
    probe.send(&setup);
    wait_for_child(&probe);
    probe.signal("TERM");
    probe.ended();
    assert_none_is_left(&mark);
}

#[test]
fn one_probe_measures_at_a_time_and_the_other_is_told_which() {
    let rig = rig!();
    let (mut first, mut second) = (rig.probe(), rig.probe());
    let alone = |probe: &mut Probe| probe.limit(Duration::from_secs(60), true);
    assert!(matches!(alone(&mut first), Reply::Ready { .. }));
    let refused = alone(&mut second);
    assert!(error(&refused).contains(&format!("process {}", first.child.id())), "{refused:?}");
    // A setup that measures nothing is not refused.
    assert!(matches!(second.limit(Duration::from_secs(60), false), Reply::Ready { .. }));
    // The setup waits for a probe that is about to end.
    let delayed = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(1));
        first.signal("KILL");
        first.ended();
    });
    assert!(matches!(alone(&mut second), Reply::Ready { .. }));
    delayed.join().unwrap();
}
