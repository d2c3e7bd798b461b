//! The memory that a network takes on this machine, as a session measures it.
#![allow(clippy::unwrap_used)]

use edge_nas::device::{Board, Device, DeviceError, Session, Source};
use edge_nas::space::baselines::mobilenet_v2;
use nas_exporters::{Precision, Shape, onnx};
use nas_probe::Runtime;

#[test]
fn a_network_takes_at_least_its_weights_and_one_that_does_not_run_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut board = Board::local(Device::load("host").unwrap());
    board.device.folder = Some(folder.path().display().to_string());
    let mut session = Session::open(&board).unwrap();
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
