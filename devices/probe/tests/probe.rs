//! The probe as a host sees it: lines in, lines out.
#![cfg(all(feature = "tract", feature = "ort"))]
#![allow(clippy::unwrap_used)]

use assert_cmd::Command;
use nas_probe::{Hello, MeasurePlan, ModelRef, PROTOCOL, Reply, Request, Runtime, TensorData};
use onnx_protobuf::{
    GraphProto, Message, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, tensor_proto::DataType, tensor_shape_proto, type_proto,
};
use protobuf::MessageField;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const SHAPE: [usize; 4] = [1, 2, 4, 4];
const PLAN: MeasurePlan =
    MeasurePlan { warmup_ns: 1_000_000, min_sample_ns: 100_000, samples: 8, limit_ns: 2_000_000_000 };

/// ONNX Runtime's library, where the machine has one.
fn ort_library() -> Option<PathBuf> {
    let set_up = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.deps/onnxruntime/libonnxruntime.so");
    let library = std::env::var_os("ORT_DYLIB_PATH").map_or(set_up, PathBuf::from);
    library.exists().then_some(library)
}

/// The runtimes that can be tested on this machine, each with the arguments that it wants.
fn runtimes() -> Vec<(Runtime, Vec<PathBuf>)> {
    let mut runtimes = vec![(Runtime::Tract, vec![])];
    match ort_library() {
        Some(library) => runtimes.push((Runtime::Ort, vec!["--ort".into(), library])),
        None => println!("SKIPPED for ort: no ORT_DYLIB_PATH and no .deps/onnxruntime/libonnxruntime.so"),
    }
    runtimes
}

/// Starts a probe, sends it the lines and returns its hello and its other replies.
fn talk(args: &[PathBuf], lines: &[String]) -> (Hello, Vec<Reply>) {
    let mut probe = Command::new(env!("CARGO_BIN_EXE_nas-probe"));
    let output = probe.args(args).write_stdin(lines.concat()).assert().success().get_output().clone();
    let mut replies = output.stdout.split_inclusive(|b| *b == b'\n').map(|line| {
        assert_eq!(line.last(), Some(&b'\n'));
        serde_json::from_slice(line).unwrap()
    });
    let Some(Reply::Hello(hello)) = replies.next() else { panic!("the first line is no hello") };
    (hello, replies.collect())
}

fn line(request: &Request) -> String {
    serde_json::to_string(request).unwrap() + "\n"
}

fn measure(id: u64, path: &Path, runtime: Runtime, threads: usize) -> String {
    let model = ModelRef { path: path.display().to_string(), runtime, threads };
    line(&Request::Measure { id, model, plan: PLAN })
}

fn infer(id: u64, path: &Path, runtime: Runtime, inputs: Vec<TensorData>) -> String {
    let model = ModelRef { path: path.display().to_string(), runtime, threads: 1 };
    line(&Request::Infer { id, model, inputs })
}

/// The values -16, -15, …, 15 as the input.
fn ramp() -> TensorData {
    TensorData { shape: SHAPE.to_vec(), values: (-16..16).map(|v| v as f32).collect() }
}

fn failed(reply: &Reply) -> (u64, &str) {
    match reply {
        Reply::Failed { id, error } => (*id, error),
        other => panic!("not a failure: {other:?}"),
    }
}

fn value_info(name: &str, shape: &[Option<usize>]) -> ValueInfoProto {
    let mut tensor = type_proto::Tensor::new();
    tensor.elem_type = DataType::FLOAT as i32;
    let mut dims = TensorShapeProto::new();
    for size in shape {
        let mut dim = tensor_shape_proto::Dimension::new();
        match size {
            Some(size) => dim.set_dim_value(*size as i64),
            None => dim.set_dim_param("N".to_owned()),
        }
        dims.dim.push(dim);
    }
    tensor.shape = MessageField::some(dims);
    let mut ty = TypeProto::new();
    ty.set_tensor_type(tensor);
    let mut info = ValueInfoProto::new();
    info.name = name.to_owned();
    info.type_ = MessageField::some(ty);
    info
}

/// Writes a model of input x, output y, a constant c (as large as x, every value `c`) and nodes of
/// (op, inputs, output).
fn write_model(
    folder: &TempDir,
    shape: &[Option<usize>],
    c: f32,
    nodes: &[(&str, &[&str], &str)],
) -> PathBuf {
    let mut constant = TensorProto::new();
    constant.name = "c".to_owned();
    constant.dims = SHAPE.map(|d| d as i64).to_vec();
    constant.data_type = DataType::FLOAT as i32;
    constant.float_data = vec![c; SHAPE.iter().product()];
    let mut graph = GraphProto::new();
    graph.name = "test".to_owned();
    graph.input = vec![value_info("x", shape)];
    graph.output = vec![value_info("y", shape)];
    graph.initializer = vec![constant];
    for (op, inputs, output) in nodes {
        let mut node = NodeProto::new();
        node.op_type = (*op).to_owned();
        node.input = inputs.iter().map(|i| (*i).to_owned()).collect();
        node.output = vec![(*output).to_owned()];
        graph.node.push(node);
    }
    let mut opset = OperatorSetIdProto::new();
    opset.version = 17;
    let mut model = ModelProto::new();
    model.ir_version = 8;
    model.opset_import = vec![opset];
    model.graph = MessageField::some(graph);
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, model.write_to_bytes().unwrap()).unwrap();
    path
}

fn fixed() -> Vec<Option<usize>> {
    SHAPE.map(Some).to_vec()
}

#[test]
fn hello_comes_first_and_tells_protocol_and_runtimes() {
    for (runtime, args) in runtimes() {
        let (hello, replies) = talk(&args, &[]);
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
fn an_ort_library_that_is_none_is_told_and_its_requests_fail() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("libonnxruntime.so");
    std::fs::write(&text, "no library").unwrap();
    let model = write_model(&folder, &fixed(), 1.0, &[("Add", &["x", "c"], "y")]);
    for library in [text, folder.path().join("nowhere.so")] {
        let (hello, replies) =
            talk(&["--ort".into(), library.clone()], &[measure(3, &model, Runtime::Ort, 1)]);
        assert!(hello.runtimes.iter().all(|r| r.runtime != Runtime::Ort));
        assert!(hello.unavailable[0].contains(&library.display().to_string()), "{:?}", hello.unavailable);
        let (id, error) = failed(&replies[0]);
        assert_eq!(id, 3);
        assert!(error.contains(&library.display().to_string()), "{error}");
    }
}

#[test]
fn garbage_fails_and_the_probe_goes_on() {
    let missing = Path::new("/nowhere/model.onnx");
    let lines = [
        "garbage\n".to_owned(),
        "\n".to_owned(),
        "{\"type\":\"reboot\",\"id\":4}\n".to_owned(),
        measure(9, missing, Runtime::Tract, 1),
    ];
    let (_, replies) = talk(&[], &lines);
    assert_eq!(replies.iter().map(|r| failed(r).0).collect::<Vec<_>>(), [0, 0, 0, 9]);
}

#[test]
fn models_that_are_missing_or_broken_fail_by_name_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.onnx");
    let broken = folder.path().join("broken.onnx");
    std::fs::write(&broken, "not a model").unwrap();
    for (runtime, args) in runtimes() {
        for path in [&missing, &broken] {
            let (_, replies) = talk(&args, &[measure(5, path, runtime, 1)]);
            let (id, error) = failed(&replies[0]);
            assert_eq!(id, 5);
            assert!(error.contains(&path.display().to_string()) && !error.contains('\n'), "{error}");
        }
    }
}

#[test]
fn a_model_is_measured_and_infers_the_right_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let model = write_model(&folder, &fixed(), 2.5, &[("Add", &["x", "c"], "sum"), ("Relu", &["sum"], "y")]);
    for (runtime, args) in runtimes() {
        let lines = [measure(1, &model, runtime, 1), infer(2, &model, runtime, vec![ramp()])];
        let (_, replies) = talk(&args, &lines);
        let Reply::Samples { id: 1, batch, ns, .. } = &replies[0] else {
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
fn a_constant_output_is_measured_and_inferred_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    for (runtime, args) in runtimes() {
        // The input unused; the input multiplied by zero; the input straight to the output.
        let ignores: &[(&str, &[&str], &str)] = &[("Relu", &["c"], "y")];
        let zeroes: &[(&str, &[&str], &str)] = &[("Mul", &["x", "c"], "zero"), ("Relu", &["zero"], "y")];
        let passes: &[(&str, &[&str], &str)] = &[("Identity", &["x"], "y")];
        for (c, nodes, values) in
            [(3.0, ignores, vec![3.0; 32]), (0.0, zeroes, vec![0.0; 32]), (0.0, passes, ramp().values)]
        {
            let model = write_model(&folder, &fixed(), c, nodes);
            let ask = |id| infer(id, &model, runtime, vec![ramp()]);
            let (_, replies) = talk(&args, &[ask(1), measure(2, &model, runtime, 1), ask(3)]);
            let outputs = vec![TensorData { shape: SHAPE.to_vec(), values }];
            assert_eq!(replies[0], Reply::Outputs { id: 1, outputs: outputs.clone() }, "{runtime} {nodes:?}");
            assert!(matches!(&replies[1], Reply::Samples { id: 2, ns, .. } if ns.len() == PLAN.samples));
            assert_eq!(replies[2], Reply::Outputs { id: 3, outputs }, "{runtime} {nodes:?}");
        }
    }
}

#[test]
fn wrong_inputs_fail_and_the_model_still_serves() {
    let folder = tempfile::tempdir().unwrap();
    let model = write_model(&folder, &fixed(), 0.0, &[("Add", &["x", "c"], "y")]);
    let short = TensorData { shape: SHAPE.to_vec(), values: vec![0.0; 3] };
    let other = TensorData { shape: vec![1, 3, 4, 4], values: vec![0.0; 48] };
    for (runtime, args) in runtimes() {
        let bad = [vec![], vec![ramp(), ramp()], vec![short.clone()], vec![other.clone()]];
        let mut lines: Vec<_> =
            (1..).zip(bad).map(|(id, inputs)| infer(id, &model, runtime, inputs)).collect();
        lines.push(infer(5, &model, runtime, vec![ramp()]));
        let (_, replies) = talk(&args, &lines);
        assert_eq!(replies[..4].iter().map(|r| failed(r).0).collect::<Vec<_>>(), [1, 2, 3, 4], "{runtime}");
        assert_eq!(replies[4], Reply::Outputs { id: 5, outputs: vec![ramp()] }, "{runtime}");
    }
}

#[test]
fn an_open_dimension_is_not_measured_but_told() {
    let folder = tempfile::tempdir().unwrap();
    let open = [None, Some(2), Some(4), Some(4)];
    let model = write_model(&folder, &open, 0.0, &[("Relu", &["x"], "y")]);
    for (runtime, args) in runtimes() {
        let (_, replies) =
            talk(&args, &[measure(1, &model, runtime, 1), infer(2, &model, runtime, vec![ramp()])]);
        assert!(failed(&replies[0]).1.contains("every dimension fixed"), "{runtime}: {:?}", replies[0]);
        assert!(matches!(&replies[1], Reply::Outputs { id: 2, .. }), "{runtime}: {:?}", replies[1]);
    }
}

#[test]
fn threads_are_what_the_runtime_can_do() {
    let folder = tempfile::tempdir().unwrap();
    let model = write_model(&folder, &fixed(), 0.0, &[("Add", &["x", "c"], "y")]);
    for (runtime, args) in runtimes() {
        let (_, replies) = talk(&args, &[measure(1, &model, runtime, 0), measure(2, &model, runtime, 2)]);
        assert!(failed(&replies[0]).1.contains("0 threads"));
        match runtime {
            Runtime::Tract => assert!(failed(&replies[1]).1.contains("1 thread")),
            Runtime::Ort => assert!(matches!(&replies[1], Reply::Samples { .. }), "{:?}", replies[1]),
        }
    }
}

#[test]
fn arguments_are_told_apart() {
    let probe = || Command::new(env!("CARGO_BIN_EXE_nas-probe"));
    let version = probe().arg("--version").assert().success().get_output().stdout.clone();
    assert_eq!(version, format!("nas-probe {}\n", env!("CARGO_PKG_VERSION")).into_bytes());
    let help = probe().arg("--help").assert().success().get_output().stdout.clone();
    assert!(String::from_utf8(help).unwrap().contains("--ort"));
    for wrong in ["--wrong", "--ort"] {
        probe().arg(wrong).assert().code(2);
    }
}
