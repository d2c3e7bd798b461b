//! Evaluations with the real programs: of weights, of exports in both runtimes, and of other ONNX files.
#![allow(clippy::unwrap_used)]

mod common;

use common::Workspace;
use nas_exporters::onnx;
use onnx_protobuf::{Message, ModelProto};
use serde_json::{Value, json};

/// Trains a network on the embedded images in seconds.
const EMBEDDED: &str = "train --run r --space tiny.toml --genotype conv_3x3,max_pool_3x3,conv_3x3 --epochs 1 \
                        --arithmetic fp32";
/// Trains a network on the images of a workspace.
const IMAGES: &str = "train --run r --data folder:images --epochs 2 --batch-size 16 --arithmetic fp32";
const OPS: &str = "--space tiny.toml --genotype conv_3x3,skip,skip";

/// Returns the evaluations of a command.
fn evaluated(ws: &Workspace, args: &str) -> Vec<Value> {
    ws.json(&format!("eval {args}")).as_array().unwrap().clone()
}

fn counts(evaluation: &Value) -> Vec<u64> {
    let rows = evaluation["metrics"]["confusion"].as_array().unwrap();
    rows.iter().flat_map(|row| row.as_array().unwrap().iter().map(|count| count.as_u64().unwrap())).collect()
}

/// Returns an upper bound on the number of images about which two evaluations disagree, if they disagree in one
/// direction.
fn moved(a: &Value, b: &Value) -> u64 {
    counts(a).iter().zip(counts(b)).map(|(a, b)| a.abs_diff(b)).sum()
}

#[test]
fn weights_and_exports_agree_in_both_runtimes() {
    let ws = Workspace::new();
    ws.nas(EMBEDDED).assert().success();
    let weights = evaluated(&ws, "--run r").remove(0);
    let on = serde_json::from_str::<Value>(&ws.read("r/data.json")).unwrap();
    assert_eq!((&weights["digest"], &weights["data_digest"]), (&on["weights"], &on["data_digest"]));
    assert_eq!(
        (&weights["runtime"], &weights["images"], &weights["test_images"]),
        (&"libtorch".into(), &2000.into(), &2000.into())
    );
    let metrics = &weights["metrics"];
    let number = |name: &str| metrics[name].as_f64().unwrap();
    let trained = ws.lines("r/train.jsonl")[0]["test_accuracy"].as_f64().unwrap();
    assert!((number("top1") - trained).abs() < 0.002, "{trained} while it was trained: {metrics}");
    assert!(number("top5") > number("top1") && number("top1") > 0.2, "{metrics}");
    assert!((0.3..2.3).contains(&number("cross_entropy")) && number("calibration_error") < 0.5, "{metrics}");
    for (of, row) in metrics["classes"].as_array().unwrap().iter().zip(counts(&weights).chunks(10)) {
        assert_eq!((of["images"].as_u64(), row.iter().sum::<u64>()), (Some(200), 200), "{of}");
    }
    assert_eq!(weights, serde_json::from_str::<Value>(&ws.read("r/eval.json")).unwrap());
    let figure = ws.read("r/confusion.svg");
    assert!(figure.starts_with("<svg") && figure.contains("T-shirt/top 0") && figure.contains("taken for"));

    ws.nas("export --run r").assert().success();
    for runtime in ["tract", "ort"] {
        let exported = evaluated(&ws, &format!("--run r --runtime {runtime}")).remove(0);
        assert_eq!((&exported["runtime"], &exported["device"]), (&runtime.into(), &"host".into()));
        assert_ne!(exported["digest"], weights["digest"]);
        assert!(moved(&weights, &exported) <= 4, "{runtime}: {exported} differs from {weights}");
        for name in ["cross_entropy", "calibration_error"] {
            let difference = (exported["metrics"][name].as_f64().unwrap() - number(name)).abs();
            assert!(difference < 1e-3, "{runtime} differs by {difference} in {name}");
        }
    }

    // The file alone says what its input and output mean, and the result is written beside it.
    std::fs::rename(ws.path("r/model.onnx"), ws.path("moved.onnx")).unwrap();
    let file = evaluated(&ws, "--onnx moved.onnx --runtime tract --run nowhere --images 150").remove(0);
    assert_eq!((&file["model"], &file["images"], &file["test_images"]), (&"moved".into(), &150.into(), &2000.into()));
    assert_eq!(counts(&file).iter().sum::<u64>(), 150);
    assert!(ws.path("moved.eval.json").is_file() && ws.path("moved.confusion.svg").is_file());
    let stdout = ws.nas("eval --run r --images 150").assert().success().get_output().stdout.clone();
    let stdout = String::from_utf8(stdout).unwrap();
    assert!(stdout.starts_with("150 of 2000 test images of Fashion-MNIST"), "{stdout}");
}

#[test]
fn the_report_shows_evaluations_of_the_present_networks_only() {
    let ws = Workspace::new();
    ws.nas(&format!("{IMAGES} {OPS}")).assert().success();
    ws.nas(&format!("{IMAGES} --arch mobilenet_v2 --width 0.1")).assert().success();
    let both = evaluated(&ws, "--run r --data folder:images");
    let names: Vec<&Value> = both.iter().map(|evaluation| &evaluation["model"]).collect();
    assert_eq!(names, ["genotype", "mobilenet_v2_x0.1"]);
    assert_eq!(both[0]["metrics"]["top5"], Value::Null, "there are three classes");
    assert!(ws.path("r/baseline/eval.json").is_file() && ws.path("r/baseline/confusion.svg").is_file());
    ws.nas("report --run r").assert().success();
    let page = ws.read("r/report.html");
    assert_eq!(page.matches("aria-label=\"Confusion matrix").count(), 2);
    let accuracy = format!("<td>{:.2} %</td>", 100.0 * both[0]["metrics"]["top1"].as_f64().unwrap());
    assert!(page.contains("<h2>Evaluation</h2>") && page.contains(&accuracy), "{accuracy}");
    assert!(page.contains("all 48 test images of images, in libtorch on host"));

    ws.nas(&format!("{IMAGES} {OPS} --seed 1")).assert().success();
    let note = predicates::str::contains("r/eval.json is of neither the weights nor the model beside it");
    ws.nas("report --run r").assert().success().stderr(note);
    let page = ws.read("r/report.html");
    assert_eq!(page.matches("aria-label=\"Confusion matrix").count(), 1, "only the baseline was evaluated");
}

/// Writes the ONNX file with a change.
fn changed(ws: &Workspace, name: &str, change: impl FnOnce(&mut ModelProto)) {
    let mut model = ModelProto::parse_from_bytes(&std::fs::read(ws.path("r/model.onnx")).unwrap()).unwrap();
    change(&mut model);
    std::fs::write(ws.path(name), model.write_to_bytes().unwrap()).unwrap();
}

#[test]
fn files_of_other_programs_need_a_run_and_may_take_several_images_at_once() {
    let ws = Workspace::new();
    ws.nas(&format!("{IMAGES} {OPS}")).assert().success();
    ws.nas("export --run r --data folder:images --images 1").assert().success();
    let own = evaluated(&ws, "--run r --data folder:images --runtime ort").remove(0);
    // 48 images are nine batches of five, and three more.
    changed(&ws, "batch.onnx", |model| {
        model.metadata_props.clear();
        let graph = model.graph.as_mut().unwrap();
        for value in graph.input.iter_mut().chain(&mut graph.output) {
            let shape = value.type_.as_mut().unwrap().mut_tensor_type().shape.as_mut().unwrap();
            shape.dim[0].set_dim_value(5);
        }
    });
    let error = ws.error("eval --onnx batch.onnx --data folder:images --run none");
    assert!(error.contains("batch.onnx does not say") && error.contains("none/data.json"), "{error}");
    for runtime in ["tract", "ort"] {
        let args = format!("--onnx batch.onnx --data folder:images --run r --runtime {runtime}");
        let batch = evaluated(&ws, &args).remove(0);
        assert_eq!(batch["metrics"]["confusion"], own["metrics"]["confusion"], "{runtime}");
    }

    changed(&ws, "nan.onnx", |model| {
        let initializers = &mut model.graph.as_mut().unwrap().initializer;
        let bias = initializers.iter_mut().find(|tensor| tensor.name == "head.linear.bias").unwrap();
        bias.raw_data = [1f32, f32::NAN, 1.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    });
    let error = ws.error("eval --onnx nan.onnx --data folder:images");
    assert!(error.contains("nan in tract gives a logit that is not finite for test image 0"), "{error}");
    assert!(!ws.path("nan.eval.json").exists());
    let tagged =
        onnx::with_metadata(&std::fs::read(ws.path("batch.onnx")).unwrap(), "edge-nas.interface", "{}").unwrap();
    std::fs::write(ws.path("damaged.onnx"), tagged).unwrap();
    let error = ws.error("eval --onnx damaged.onnx --data folder:images");
    assert!(error.contains("damaged.onnx has damaged metadata: missing field `classes`"), "{error}");
}

#[test]
fn a_network_that_does_not_fit_the_data_is_refused() {
    let ws = Workspace::new();
    assert!(ws.error("eval --run r").contains("no trained network; `nas train --run r`"));
    ws.nas(&format!("{IMAGES} {OPS}")).assert().success();
    assert!(ws.error("eval --run r --data folder:images --runtime ort").contains("`nas export` writes it"));
    ws.nas("export --run r --data folder:images --images 1").assert().success();
    let refused = |said: &str| {
        for args in ["--run r", "--run r --runtime tract", "--onnx r/model.onnx"] {
            let error = ws.error(&format!("eval {args} --data other"));
            assert!(error.contains(said) && error.contains("give the --data that it was made for"), "{error}");
        }
    };
    let error = ws.error("eval --run r");
    assert!(error.contains("genotype takes images of 3x8x8, and the data have images of 1x28x28"), "{error}");
    let copy = |from: &str, to: &str| {
        for part in ["train", "test"] {
            for (path, (_, bytes)) in ws.files(&format!("images/{part}/{from}")) {
                let to = ws.path(&format!("other/{part}/{to}"));
                std::fs::create_dir_all(&to).unwrap();
                std::fs::write(to.join(path.file_name().unwrap()), bytes).unwrap();
            }
        }
    };
    copy("blue", "blue");
    copy("red", "red");
    refused("has 3 classes, and the data have 2");
    copy("green", "greenish");
    refused("calls class 1 `green`, and the data call it `greenish`");
    for written in ["r/eval.json", "r/confusion.svg", "r/model.eval.json"] {
        assert!(!ws.path(written).exists(), "{written}");
    }

    let mut on: Value = serde_json::from_str(&ws.read("r/data.json")).unwrap();
    on["normalisation"]["mean"] = json!([0.5]);
    ws.write("r/data.json", &on.to_string());
    let error = ws.error("eval --run r --data folder:images");
    assert!(error.contains("has no mean and deviation for each of 3 channels"), "{error}");
}
