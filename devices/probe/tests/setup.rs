//! What a session sets up on the device, and what it restores.
#![cfg(all(feature = "tract", target_os = "linux"))]
#![allow(clippy::unwrap_used)]

mod onnx;
mod talk;

use nas_probe::{MeasurePlan, ModelRef, Reply, Request, Runtime, Samples, Sensors};
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::Write,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use talk::{Probe, error};
use tempfile::TempDir;

/// A device whose scaling governors are files in a temporary folder.
struct Board {
    root: TempDir,
}

impl Board {
    fn new() -> Board {
        let board = Board { root: tempfile::tempdir().unwrap() };
        for policy in ["policy0", "policy4"] {
            fs::write(board.root.path().join(policy), "ondemand\n").unwrap();
        }
        board
    }

    fn models(&self) -> PathBuf {
        self.root.path().join("models")
    }

    fn sensors(&self) -> Sensors {
        let governor = vec![self.root.path().join("policy*").display().to_string()];
        Sensors { governor, ..Sensors::default() }
    }

    fn governors(&self) -> [String; 2] {
        ["policy0", "policy4"].map(|p| fs::read_to_string(self.root.path().join(p)).unwrap().trim().to_owned())
    }

    /// A probe that has set the governor to `performance`.
    fn performing(&self) -> Probe {
        let mut probe = Probe::start(&self.models());
        let reply = probe.set_up(self.sensors(), &[], Some("performance"));
        let Reply::Ready { id: 1, conditions, pinned, governor_was, notes: _ } = reply else { panic!("{reply:?}") };
        assert_eq!(conditions.governor.as_deref(), Some("performance"));
        assert_eq!(governor_was.as_deref(), Some("ondemand"));
        assert!(pinned.is_empty());
        assert_eq!(self.governors(), ["performance"; 2]);
        probe
    }
}

/// Stores a model and returns a request for a measurement of it that takes minutes.
fn long_measurement(probe: &mut Probe) -> Request {
    let bytes = onnx::model(&onnx::fixed(), 1.0, &[("Add", &["x", "c"], "y")]);
    let model = format!("{:x}", Sha256::digest(&bytes));
    assert_eq!(probe.ask(&Request::Put { id: 2, model: model.clone(), bytes }), Reply::Stored { id: 2 });
    let plan = MeasurePlan { warmup_ns: 0, min_sample_ns: 1_000_000, samples: 1_000_000, limit_ns: 300_000_000_000 };
    Request::Measure { id: 3, model: ModelRef { model, runtime: Runtime::Tract, threads: 1 }, plan }
}

#[test]
fn the_governor_is_restored_when_the_host_disconnects() {
    let board = Board::new();
    let mut probe = board.performing();
    probe.stdin.take();
    assert!(probe.ended().success());
    assert_eq!(board.governors(), ["ondemand"; 2]);
    assert_eq!(fs::read_dir(board.models()).unwrap().count(), 0, "a note was left");

    // The host's end of stdout is closed.
    let mut probe = board.performing();
    drop(std::mem::replace(&mut probe.stdout, talk::nothing()));
    // A process that another test is starting has a copy of that end until its exec, so the first writes may
    // succeed.
    let line = serde_json::to_string(&Request::Have { id: 2, models: vec![] }).unwrap();
    for _ in 0..20 {
        let _ = probe.stdin.as_mut().map(|stdin| writeln!(stdin, "{line}"));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(probe.ended().code(), Some(1));
    assert_eq!(board.governors(), ["ondemand"; 2]);
}

#[test]
fn the_governor_is_restored_on_signals_even_while_measuring() {
    for (signal, number) in [("TERM", 15), ("HUP", 1), ("INT", 2)] {
        let board = Board::new();
        let mut probe = board.performing();
        let request = long_measurement(&mut probe);
        probe.send(&request);
        std::thread::sleep(Duration::from_millis(50));
        probe.signal(signal);
        assert_eq!(probe.ended().signal(), Some(number));
        assert_eq!(board.governors(), ["ondemand"; 2], "{signal}");
    }
}

#[test]
fn the_next_probe_restores_the_governor_of_a_killed_one() {
    let board = Board::new();
    let probe = board.performing();
    probe.signal("KILL");
    assert_eq!(probe.ended().signal(), Some(9));
    assert_eq!(board.governors(), ["performance"; 2]);
    // Only a setup names the files that may be restored.
    let mut next = Probe::start(&board.models());
    assert_eq!(board.governors(), ["performance"; 2]);
    assert!(matches!(next.set_up(board.sensors(), &[], None), Reply::Ready { .. }));
    assert_eq!(board.governors(), ["ondemand"; 2]);
    assert_eq!(fs::read_dir(board.models()).unwrap().count(), 0);
}

#[test]
fn a_second_probe_does_not_change_the_governor_of_the_first() {
    let board = Board::new();
    let first = board.performing();
    let mut second = Probe::start(&board.models());
    assert_eq!(board.governors(), ["performance"; 2]);
    let reply = second.set_up(board.sensors(), &[], Some("powersave"));
    assert!(error(&reply).contains("another probe"), "{reply:?}");
    assert_eq!(board.governors(), ["performance"; 2]);
    drop(first);
}

#[test]
fn a_setup_replaces_the_one_before_and_a_failed_setup_undoes_it() {
    let board = Board::new();
    let mut probe = board.performing();
    let reply = probe.set_up(board.sensors(), &[], None);
    assert!(matches!(&reply, Reply::Ready { governor_was: None, .. }), "{reply:?}");
    assert_eq!(board.governors(), ["ondemand"; 2]);

    probe.set_up(board.sensors(), &[], Some("performance"));
    let reply = probe.set_up(board.sensors(), &[100_000], Some("performance"));
    assert!(error(&reply).contains("no core 100000"), "{reply:?}");
    assert_eq!(board.governors(), ["ondemand"; 2]);

    let nowhere = Sensors { governor: vec!["/nowhere/policy*".to_owned()], ..Sensors::default() };
    let reply = probe.set_up(nowhere, &[], Some("performance"));
    assert!(error(&reply).contains("no scaling governor"), "{reply:?}");
    let broken = Sensors { power: vec![nas_probe::Rail::default()], ..Sensors::default() };
    assert!(error(&probe.set_up(broken, &[], None)).contains("power rail"));
}

#[test]
fn pinning_applies_to_every_thread_and_can_be_undone() {
    let cores_of = |status: &Path| {
        let status = fs::read_to_string(status).unwrap();
        status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned()
    };
    let all = cores_of(Path::new("/proc/self/status"));
    let first: usize = all.split([',', '-']).next().unwrap().parse().unwrap();
    let board = Board::new();
    let mut probe = Probe::start(&board.models());
    let tasks = PathBuf::from(format!("/proc/{}/task", probe.child.id()));
    let all_on = |cores: &str| {
        let tasks: Vec<_> = fs::read_dir(&tasks).unwrap().map(|task| task.unwrap().path()).collect();
        assert!(tasks.len() > 1, "there is also a thread that waits for signals");
        assert!(tasks.iter().all(|task| cores_of(&task.join("status")) == cores), "not all on {cores}");
    };
    let reply = probe.set_up(Sensors::default(), &[first, first], None);
    assert!(matches!(&reply, Reply::Ready { pinned, .. } if *pinned == [first]), "{reply:?}");
    all_on(&first.to_string());
    let reply = probe.set_up(Sensors::default(), &[], None);
    assert!(matches!(&reply, Reply::Ready { pinned, .. } if pinned.is_empty()), "{reply:?}");
    all_on(&all);
}

#[test]
fn hello_counts_only_the_cores_that_the_process_may_use() {
    let models = tempfile::tempdir().unwrap();
    let probe = Probe::spawn(
        Command::new("taskset").args(["-c", "0", env!("CARGO_BIN_EXE_nas-probe"), "--models"]).arg(models.path()),
    );
    assert_eq!(probe.hello.cores, 1);
}

#[test]
fn a_measurement_reports_its_conditions_and_the_load_of_others() {
    let board = Board::new();
    let mut probe = board.performing();
    let mut request = long_measurement(&mut probe);
    if let Request::Measure { plan, .. } = &mut request {
        (plan.samples, plan.limit_ns) = (200, 20_000_000_000);
    }
    let reply = probe.ask(&request);
    let Reply::Samples { id: 3, samples: Samples { ns, before, during, after, others, .. } } = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(ns.len(), 200);
    for conditions in [before, during, after] {
        assert_eq!(conditions.governor.as_deref(), Some("performance"));
        assert!(conditions.load1.is_some() && conditions.free_bytes.is_some_and(|free| free > 0));
    }
    assert!(others.is_some_and(|others| others >= 0.0), "{others:?}");
}

#[test]
fn stored_models_are_available_to_the_next_session() {
    let board = Board::new();
    let bytes = b"a model".to_vec();
    let model = format!("{:x}", Sha256::digest(&bytes));
    let absent = "0".repeat(64);
    let mut probe = Probe::start(&board.models());
    let have = Request::Have { id: 4, models: vec![model.clone(), absent.clone()] };
    assert_eq!(probe.ask(&have), Reply::Missing { id: 4, models: vec![model.clone(), absent.clone()] });
    let wrong = probe.ask(&Request::Put { id: 5, model: absent.clone(), bytes: bytes.clone() });
    assert!(error(&wrong).contains("000000000000") && error(&wrong).contains(&model), "{wrong:?}");
    assert_eq!(probe.ask(&Request::Put { id: 6, model, bytes }), Reply::Stored { id: 6 });
    drop(probe);
    let missing = Reply::Missing { id: 4, models: vec![absent] };
    assert_eq!(Probe::start(&board.models()).ask(&have), missing);
}

#[test]
fn a_model_that_does_not_fit_fails_with_the_system_error_and_leaves_nothing() {
    let models = tempfile::tempdir().unwrap();
    // Files cannot grow beyond a few KiB, which is similar to a full disk.
    let limited = r#"trap '' XFSZ; ulimit -f 4; exec "$0" --models "$1""#;
    let probe = ["-c", limited, env!("CARGO_BIN_EXE_nas-probe")];
    let mut probe = Probe::spawn(Command::new("sh").args(probe).arg(models.path()));
    let mut put =
        |bytes: Vec<u8>| probe.ask(&Request::Put { id: 1, model: format!("{:x}", Sha256::digest(&bytes)), bytes });
    let reply = put(vec![7; 100_000]);
    assert!(error(&reply).contains(&models.path().display().to_string()), "{reply:?}");
    assert!(error(&reply).contains("File too large"), "{reply:?}");
    assert_eq!(fs::read_dir(models.path()).unwrap().count(), 0);
    assert_eq!(put(vec![7; 100]), Reply::Stored { id: 1 });
}

#[test]
fn requests_that_need_the_folder_of_models_fail_without_it() {
    let mut probe = Probe::spawn(&mut Command::new(env!("CARGO_BIN_EXE_nas-probe")));
    for request in [
        Request::Have { id: 1, models: vec!["0".repeat(64)] },
        Request::Put { id: 1, model: "0".repeat(64), bytes: vec![] },
        Request::Infer {
            id: 1,
            model: ModelRef { model: "0".repeat(64), runtime: Runtime::Tract, threads: 1 },
            inputs: vec![],
        },
    ] {
        assert!(error(&probe.ask(&request)).contains("--models DIR"));
    }
}
