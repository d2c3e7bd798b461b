//! The memory that a network takes on this machine, as a session measures it.
#![allow(clippy::unwrap_used)]

use edge_nas::device::{Board, Device, DeviceError, Fleet, Session, Source};
use edge_nas::profile::ROW;
use edge_nas::space::baselines::mobilenet_v2;
use nas_exporters::{Precision, Shape, onnx};
use nas_probe::Runtime;
use std::path::PathBuf;
use std::process::Command;

/// Starts a probe on this machine, with its own folder.
fn open(folder: &tempfile::TempDir) -> Session {
    let mut board = Board::local(Device::load("host").unwrap());
    board.device.folder = Some(folder.path().display().to_string());
    Session::open(&board).unwrap()
}

/// Kills the probe of a folder.
fn kill_probe(folder: &tempfile::TempDir) {
    let folder = folder.path().to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().map(|process| process.unwrap().path());
    let is_probe = |process: &PathBuf| {
        let command = std::fs::read_to_string(process.join("cmdline")).unwrap_or_default();
        command.split('\0').next().unwrap().ends_with("nas-probe") && command.contains(folder)
    };
    let probe = processes.filter(|process| is_probe(process)).last().unwrap();
    let killed = Command::new("kill").arg("-KILL").arg(probe.file_name().unwrap()).status().unwrap();
    assert!(killed.success());
}

#[test]
fn a_board_that_is_lost_while_memory_is_measured_is_left_out() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let mut sessions: Vec<Session> = folders.iter().map(open).collect();
    let (graph, precision) = (mobilenet_v2(0.25, Shape::new(3, 32, 32), 10), Precision::Fp32);
    let models = [("mobilenet_v2".to_string(), Source::Graph { graph, precision })];
    let mut fleet = Fleet::open(&mut sessions, &models, 0, Runtime::Tract, 1, ROW).unwrap();
    kill_probe(&folders[0]);
    let peaks = fleet.peaks(&[0]);
    // On a busy machine, the second board may seem to differ in speed, and was left out before.
    assert!(peaks.is_err() || peaks.unwrap()[&0] > 0);
    assert_eq!(sessions.len(), 1);
}

#[test]
fn a_network_takes_at_least_its_weights_and_one_that_does_not_run_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut session = open(&folder);
    let graph = mobilenet_v2(1.0, Shape::new(3, 32, 32), 10);
    let precision = Precision::Fp32;
    let bytes = onnx::untrained(&graph, precision).unwrap();
    let weights = bytes.len() as u64;
    assert!(weights > 8_000_000, "{weights}");
    let model = session.place(&[("mobilenet_v2".to_string(), Source::Graph { graph, precision })]).unwrap().remove(0);
    for runtime in Runtime::ALL {
        let peak = session.memory(&model, runtime, 1).unwrap();
        assert!(peak > weights, "{runtime}: {peak}");
    }
    let DeviceError::Failed { model, reason, .. } = session.memory(&model, Runtime::Tract, 2).unwrap_err() else {
        panic!("tract ran on 2 threads")
    };
    assert!(model == "mobilenet_v2" && reason.contains("1 thread"), "{model}: {reason}");
}
