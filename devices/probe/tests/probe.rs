//! The requests and replies of the probe, as a host sees them.
#![cfg(all(feature = "tract", feature = "ort"))]
#![allow(clippy::unwrap_used)]

mod onnx;
mod runtimes;

use assert_cmd::Command;
use nas_exporters::{Graph, Op, Precision, Shape};
use nas_probe::{DeployedGraph, Hello, MeasurePlan, ModelRef, PROTOCOL, Reply, Request, Runtime, Samples, TensorData};
use onnx::{SHAPE, fixed, model};
use runtimes::{ort_library, runtimes};
use sha2::{Digest, Sha256};
use std::path::PathBuf;

const PLAN: MeasurePlan =
    MeasurePlan { warmup_ns: 1_000_000, min_sample_ns: 100_000, samples: 8, limit_ns: 2_000_000_000 };

/// Starts a probe with an empty folder, stores `models` there, and sends `lines`. Returns the hello and the
/// replies to the lines.
fn talk(args: &[PathBuf], models: &[&[u8]], lines: &[String]) -> (Hello, Vec<Reply>) {
    let folder = tempfile::tempdir().unwrap();
    let put = |bytes: &&[u8]| line(&Request::Put { id: 99, model: digest(bytes), bytes: bytes.to_vec() });
    let input = models.iter().map(put).collect::<String>() + &lines.concat();
    let mut probe = Command::new(env!("CARGO_BIN_EXE_nas-probe"));
    let probe = probe.arg("--models").arg(folder.path()).args(args).write_stdin(input);
    let output = probe.assert().success().get_output().clone();
    let mut replies = output.stdout.split_inclusive(|b| *b == b'\n').map(|line| {
        assert_eq!(line.last(), Some(&b'\n'));
        serde_json::from_slice(line).unwrap()
    });
    let Some(Reply::Hello(hello)) = replies.next() else { panic!("the first line is not a hello") };
    for _ in models {
        assert_eq!(replies.next(), Some(Reply::Stored { id: 99 }));
    }
    (hello, replies.collect())
}

fn digest(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

fn line(request: &Request) -> String {
    serde_json::to_string(request).unwrap() + "\n"
}

fn measure(id: u64, model: &[u8], runtime: Runtime, threads: usize) -> String {
    let model = ModelRef { model: digest(model), runtime, threads };
    line(&Request::Measure { id, model, plan: PLAN })
}

fn infer(id: u64, model: &[u8], runtime: Runtime, inputs: Vec<TensorData>) -> String {
    let model = ModelRef { model: digest(model), runtime, threads: 1 };
    line(&Request::Infer { id, model, inputs })
}

/// An input with the values -16, -15, …, 15.
fn ramp() -> TensorData {
    TensorData { shape: SHAPE.to_vec(), values: (-16..16).map(|v| v as f32).collect() }
}

fn failed(reply: &Reply) -> (u64, &str) {
    match reply {
        Reply::Failed { id, error } => (*id, error),
        other => panic!("not a failure: {other:?}"),
    }
}

#[test]
fn hello_comes_first_with_protocol_and_runtimes() {
    for (runtime, args) in runtimes() {
        let (hello, replies) = talk(&args, &[], &[]);
        assert!(replies.is_empty());
        assert_eq!(hello.protocol, PROTOCOL);
        assert_eq!(hello.probe, env!("CARGO_PKG_VERSION"));
        let info = hello.runtimes.iter().find(|r| r.runtime == runtime).unwrap();
        assert!(info.version.split('.').count() == 3, "{info:?}");
        assert_eq!(hello.runtimes.len() + hello.unavailable.len(), Runtime::ALL.len());
        assert!(hello.cores >= 1);
        assert!(!hello.cpu.is_empty() && !hello.libc.is_empty());
    }
}

#[test]
fn an_invalid_ort_library_is_reported_and_its_requests_fail() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("libonnxruntime.so");
    std::fs::write(&text, "no library").unwrap();
    let model = model(&fixed(), 1.0, &[("Add", &["x", "c"], "y")]);
    for library in [text, folder.path().join("nowhere.so")] {
        let (hello, replies) =
            talk(&["--ort".into(), library.clone()], &[&model], &[measure(3, &model, Runtime::Ort, 1)]);
        assert!(hello.runtimes.iter().all(|r| r.runtime != Runtime::Ort));
        assert!(hello.unavailable[0].contains(&library.display().to_string()), "{:?}", hello.unavailable);
        let (id, error) = failed(&replies[0]);
        assert_eq!(id, 3);
        assert!(error.contains(&library.display().to_string()), "{error}");
    }
}

#[test]
fn invalid_requests_fail_and_the_probe_continues() {
    let lines = [
        "garbage\n".to_owned(),
        "\n".to_owned(),
        "\u{0}\u{1}\n".to_owned(),
        "{\"type\":\"reboot\",\"id\":4}\n".to_owned(),
        measure(9, b"never put", Runtime::Tract, 1),
    ];
    let (_, replies) = talk(&[], &[], &lines);
    assert_eq!(replies.iter().map(|r| failed(r).0).collect::<Vec<_>>(), [0, 0, 0, 4, 9]);
}

#[test]
fn missing_and_broken_models_fail_in_one_line_that_names_them() {
    let (missing, broken): (&[u8], &[u8]) = (b"missing", b"not a model");
    for (runtime, args) in runtimes() {
        for model in [missing, broken] {
            let (_, replies) = talk(&args, &[broken], &[measure(5, model, runtime, 1)]);
            let (id, error) = failed(&replies[0]);
            assert_eq!(id, 5);
            let name = format!("model {} with {runtime}: ", &digest(model)[..12]);
            assert!(error.starts_with(&name) && !error.contains('\n'), "{error}");
        }
    }
}

#[test]
fn requested_execution_providers_are_used_in_order_or_reported() {
    let Some(library) = ort_library() else {
        return println!("SKIPPED: no ORT_DYLIB_PATH and no .deps/onnxruntime/libonnxruntime.so");
    };
    let model = model(&fixed(), 2.5, &[("Add", &["x", "c"], "y")]);
    let args = |list: &str| ["--ort".into(), library.clone(), "--providers".into(), list.into()];
    let of = |hello: &Hello| hello.runtimes.iter().find(|r| r.runtime == Runtime::Ort).cloned();
    // Libraries differ in their providers, but each requested one is in one of the two lists, and cpu always
    // works.
    let asked = ["tensorrt", "cuda", "xnnpack", "typo", "cpu"];
    let ask = infer(1, &model, Runtime::Ort, vec![ramp()]);
    let (hello, replies) = talk(&args(&asked.join(",")), &[&model], &[ask]);
    let used = of(&hello).unwrap().providers;
    let refused: Vec<_> = asked.into_iter().filter(|name| !used.iter().any(|u| u == name)).collect();
    assert_eq!(used.last().map(String::as_str), Some("cpu"));
    assert!(refused.contains(&"typo"), "{used:?}");
    assert_eq!(hello.unavailable.len(), refused.len(), "{:?}", hello.unavailable);
    for (name, why) in refused.iter().zip(&hello.unavailable) {
        assert!(why.starts_with(&format!("ort provider {name}: ")) && !why.contains('\n'), "{why}");
    }
    assert!(matches!(&replies[0], Reply::Outputs { .. }), "{:?}", replies[0]);
    // If no requested provider can be used, ort is unavailable; it does not fall back to another provider.
    let (hello, _) = talk(&args("typo"), &[], &[]);
    assert_eq!(of(&hello), None);
    assert!(hello.unavailable[0].contains("typo"), "{:?}", hello.unavailable);
    let (hello, _) = talk(&args("cpu")[..2], &[], &[]);
    assert_eq!(of(&hello).unwrap().providers, ["cpu"]);
}

#[test]
fn a_model_is_measured_and_infers_the_right_values() {
    let model = model(&fixed(), 2.5, &[("Add", &["x", "c"], "sum"), ("Relu", &["sum"], "y")]);
    for (runtime, args) in runtimes() {
        let lines = [measure(1, &model, runtime, 1), infer(2, &model, runtime, vec![ramp()])];
        let (_, replies) = talk(&args, &[&model], &lines);
        let Reply::Samples { id: 1, samples: Samples { batch, ns, .. } } = &replies[0] else {
            panic!("{runtime}: {:?}", replies[0])
        };
        assert_eq!(ns.len(), PLAN.samples);
        assert!(*batch > 1, "{runtime}: a sum of 32 numbers lasts {ns:?} ns");
        assert!(ns.iter().all(|ns| *ns > 0.0 && ns.is_finite()), "{runtime}: {ns:?}");
        let values = ramp().values.iter().map(|v| (v + 2.5).max(0.0)).collect();
        let outputs = vec![TensorData { shape: SHAPE.to_vec(), values }];
        assert_eq!(replies[1], Reply::Outputs { id: 2, outputs }, "{runtime}");
    }
}

#[test]
fn models_with_constant_or_copied_outputs_are_measured_and_inferred() {
    for (runtime, args) in runtimes() {
        // The input is unused, multiplied by zero, or copied to the output.
        let ignores: &[(&str, &[&str], &str)] = &[("Relu", &["c"], "y")];
        let zeroes: &[(&str, &[&str], &str)] = &[("Mul", &["x", "c"], "zero"), ("Relu", &["zero"], "y")];
        let passes: &[(&str, &[&str], &str)] = &[("Identity", &["x"], "y")];
        for (c, nodes, values) in
            [(3.0, ignores, vec![3.0; 32]), (0.0, zeroes, vec![0.0; 32]), (0.0, passes, ramp().values)]
        {
            let model = model(&fixed(), c, nodes);
            let ask = |id| infer(id, &model, runtime, vec![ramp()]);
            let (_, replies) = talk(&args, &[&model], &[ask(1), measure(2, &model, runtime, 1), ask(3)]);
            let outputs = vec![TensorData { shape: SHAPE.to_vec(), values }];
            assert_eq!(replies[0], Reply::Outputs { id: 1, outputs: outputs.clone() }, "{runtime} {nodes:?}");
            assert!(matches!(&replies[1], Reply::Samples { id: 2, samples } if samples.ns.len() == PLAN.samples));
            assert_eq!(replies[2], Reply::Outputs { id: 3, outputs }, "{runtime} {nodes:?}");
        }
    }
}

#[test]
fn wrong_inputs_fail_and_the_model_stays_usable() {
    let model = model(&fixed(), 0.0, &[("Add", &["x", "c"], "y")]);
    let short = TensorData { shape: SHAPE.to_vec(), values: vec![0.0; 3] };
    let other = TensorData { shape: vec![1, 3, 4, 4], values: vec![0.0; 48] };
    for (runtime, args) in runtimes() {
        let bad = [vec![], vec![ramp(), ramp()], vec![short.clone()], vec![other.clone()]];
        let mut lines: Vec<_> = (1..).zip(bad).map(|(id, inputs)| infer(id, &model, runtime, inputs)).collect();
        lines.push(infer(5, &model, runtime, vec![ramp()]));
        let (_, replies) = talk(&args, &[&model], &lines);
        assert_eq!(replies[..4].iter().map(|r| failed(r).0).collect::<Vec<_>>(), [1, 2, 3, 4], "{runtime}");
        assert_eq!(replies[4], Reply::Outputs { id: 5, outputs: vec![ramp()] }, "{runtime}");
    }
}

#[test]
fn measuring_a_model_with_a_dynamic_dimension_fails() {
    let open = [None, Some(2), Some(4), Some(4)];
    let model = model(&open, 0.0, &[("Relu", &["x"], "y")]);
    for (runtime, args) in runtimes() {
        let (_, replies) =
            talk(&args, &[&model], &[measure(1, &model, runtime, 1), infer(2, &model, runtime, vec![ramp()])]);
        assert!(failed(&replies[0]).1.contains("every dimension fixed"), "{runtime}: {:?}", replies[0]);
        assert!(matches!(&replies[1], Reply::Outputs { id: 2, .. }), "{runtime}: {:?}", replies[1]);
    }
}

#[test]
fn unsupported_numbers_of_threads_fail() {
    let model = model(&fixed(), 0.0, &[("Add", &["x", "c"], "y")]);
    for (runtime, args) in runtimes() {
        let (_, replies) = talk(&args, &[&model], &[measure(1, &model, runtime, 0), measure(2, &model, runtime, 2)]);
        assert!(failed(&replies[0]).1.contains("0 threads"));
        match runtime {
            Runtime::Tract => assert!(failed(&replies[1]).1.contains("1 thread")),
            Runtime::Ort => assert!(matches!(&replies[1], Reply::Samples { .. }), "{:?}", replies[1]),
        }
    }
}

#[test]
fn arguments_are_parsed() {
    let probe = || Command::new(env!("CARGO_BIN_EXE_nas-probe"));
    let version = probe().arg("--version").assert().success().get_output().stdout.clone();
    assert_eq!(version, format!("nas-probe {}\n", env!("CARGO_PKG_VERSION")).into_bytes());
    let help = probe().arg("--help").assert().success().get_output().stdout.clone();
    assert!(String::from_utf8(help).unwrap().contains("--models"));
    for wrong in ["--wrong", "--ort", "--models", "--providers"] {
        probe().arg(wrong).assert().code(2);
    }
}

#[test]
fn a_graph_gives_the_same_outputs_as_its_onnx_file() {
    let mut graph = Graph::new(Shape::new(2, 4, 4));
    let conv = Op::Conv2d { out_channels: 3, kernel: 3, stride: 1, groups: 1, bias: false };
    let x = graph.add("conv", conv, &[graph.input()]);
    graph.add("bn", Op::BatchNorm, &[x]);
    let bytes = nas_exporters::onnx::untrained(&graph, Precision::Fp32).unwrap();
    for (runtime, args) in runtimes() {
        let graphs = |model: String| {
            let graphs = vec![DeployedGraph { model, graph: graph.clone(), precision: Precision::Fp32 }];
            line(&Request::Graphs { id: 8, graphs })
        };
        let asked = [infer(1, &bytes, runtime, vec![ramp()]), measure(2, &bytes, runtime, 1)];
        let (_, by_file) = talk(&args, &[&bytes], &asked);
        let lines = [&[graphs(digest(&bytes))], asked.as_slice()].concat();
        let (_, by_graph) = talk(&args, &[], &lines);
        assert!(matches!(by_graph[0], Reply::Known { id: 8, room_bytes } if room_bytes > 1_000_000));
        assert_eq!(by_graph[1], by_file[0], "{runtime}");
        assert!(matches!(&by_graph[2], Reply::Samples { .. }), "{runtime}: {:?}", by_graph[2]);
        let other = digest(b"another model");
        let place = ModelRef { model: other.clone(), runtime, threads: 1 };
        let ask = line(&Request::Measure { id: 3, model: place, plan: PLAN });
        let (_, replies) = talk(&args, &[], &[graphs(other), ask]);
        assert!(failed(&replies[1]).1.contains("the same version"), "{:?}", replies[1]);
    }
}
