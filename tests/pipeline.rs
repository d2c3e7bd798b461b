//! All stages with the real programs, on a tiny data set and a tiny space.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Files, Workspace};
use edge_nas::record::BenchRow;
use edge_nas::space::Genotype;
use std::path::Path;

const EXPERIMENT: &str = r#"
name = "tiny"
data = "folder:images"
space = "tiny.toml"
profile = { networks = 24 }
target_latency = "29%"

[measure]
runtimes = ["ort", "tract"]

[search]
algorithm = "oneshot"
epochs = 3
candidates = 20
trial_epochs = 2
batch_size = 16

[train]
epochs = 6
batch_size = 16
padding = 1

[baseline]
width = 0.1
train = { epochs = 1, batch_size = 19, learning_rate = 0.001 } # the last batch has one image

[export]
images = 4

[bench]
rounds = 1
"#;

const TRAIN: &str = "train --data folder:images --space tiny.toml --batch-size 16 --epochs 3 --arithmetic fp32";
const SEARCH: &str = "search --algorithm oneshot --data folder:images --space tiny.toml --batch-size 16 --epochs 3 \
                      --arithmetic fp32 --candidates 20 --trial-epochs 2 --target-latency 40%";

#[test]
fn run_executes_all_stages_and_repeats_only_what_has_changed() {
    let ws = Workspace::new();
    ws.write("tiny.toml", common::SPACE);
    ws.write("experiment.toml", EXPERIMENT);
    let result = ws.nas("--json run experiment.toml").assert().success().get_output().clone();
    serde_json::from_slice::<serde_json::Value>(&result.stdout).unwrap();

    let genotype: Genotype = serde_json::from_str(&ws.read("runs/tiny/genotype.json")).unwrap();
    assert_eq!(genotype.names().len(), 3);
    assert_eq!(ws.lines("runs/tiny/search.jsonl").len(), 3);
    let epochs = ws.lines("runs/tiny/train.jsonl");
    assert_eq!(epochs.len(), 6);
    let accuracy = epochs[5]["test_accuracy"].as_f64().unwrap();
    assert!(accuracy > 0.8, "a colour distinguishes the three classes: {accuracy}");
    for name in ["weights.safetensors", "model.onnx", "baseline/weights.safetensors", "baseline/model.onnx"] {
        assert!(ws.path(&format!("runs/tiny/{name}")).metadata().unwrap().len() > 1000, "{name}");
    }
    assert!(ws.read("runs/tiny/report.html").contains("<svg"));

    let rows = ws.lines("runs/tiny/bench.jsonl");
    let names: Vec<_> = rows.iter().map(|r| (r["model"].as_str(), r["runtime"].as_str())).collect();
    let of = |runtime| [(Some("genotype"), Some(runtime)), (Some("mobilenet_v2_x0.1"), Some(runtime))];
    assert_eq!(names, [of("ort"), of("tract")].concat());
    for row in rows {
        let ns = |field: &str| row[field].as_f64().unwrap();
        let ordered = [0.0, ns("p5_ns"), ns("median_ns"), ns("p95_ns")];
        assert!(ordered.is_sorted() && 0.0 < ns("latency_ns") && ns("latency_ns") <= ns("median_ns"), "{row}");
        assert_eq!((&row["device"], &row["precision"]), (&"host".into(), &"fp32".into()));
        assert!(row["threads"] == 1 && row["samples"].as_u64() > Some(0), "{row}");
        let row: BenchRow = serde_json::from_value(row).unwrap();
        let predicted = row.prediction.as_ref().is_some_and(|p| p.latency_ns.ns() > 0.0);
        assert_eq!(predicted, row.model == "genotype", "{row:?}");
    }

    // The experiment with all defaults filled in is the same one, so no stage runs.
    let before = ws.files("runs/tiny");
    ws.nas("run runs/tiny/experiment.toml").assert().success();
    let after = ws.files("runs/tiny");
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (path, (written, bytes)) in &before {
        assert!(after[path].1 == *bytes, "{} has changed", path.display());
        let always = ["experiment.toml", "report.html"].iter().any(|name| path.ends_with(name));
        assert!(always || after[path].0 == *written, "{} was written again", path.display());
    }

    // Another number of epochs changes only the training of the found network, and what follows it.
    ws.write("experiment.toml", &EXPERIMENT.replace("epochs = 6", "epochs = 5"));
    ws.nas("run experiment.toml").assert().success();
    assert_eq!(ws.lines("runs/tiny/train.jsonl").len(), 5);
    let redone = ws.files("runs/tiny");
    let weights = |files: &Files| files[Path::new("runs/tiny/weights.safetensors")].1.clone();
    let same = |name: &str| {
        let path = Path::new("runs/tiny").join(name);
        redone[&path] == before[&path]
    };
    for name in ["search.jsonl", "genotype.json", "baseline/train.jsonl", "baseline/weights.safetensors"] {
        assert!(same(name), "{name} does not depend on how the found network is trained");
    }
    for name in ["weights.safetensors", "model.onnx", "bench.jsonl"] {
        assert!(!same(name), "{name} must be written again");
    }

    // A stage that failed is not finished, even if it was finished earlier with the same inputs.
    ws.write("experiment.toml", &EXPERIMENT.replace("padding = 1", "learning_rate = 1e30"));
    let diverged = predicates::str::contains("training diverged; lower --learning-rate");
    ws.nas("run experiment.toml").assert().code(1).stderr(diverged);
    ws.write("experiment.toml", &EXPERIMENT.replace("epochs = 6", "epochs = 5"));
    ws.nas("run experiment.toml").assert().success();
    assert_eq!(ws.lines("runs/tiny/train.jsonl").len(), 5);
    assert!(weights(&ws.files("runs/tiny")) == weights(&redone), "the weights differ for the same settings");

    // A search that adds rows to its own latency table does not start again because of them.
    let target = "target_latency = \"29%\"";
    let measured =
        EXPERIMENT.replace(target, &format!("{target}\nmeasure_top = 2")).replace("epochs = 6", "epochs = 5");
    ws.write("experiment.toml", &measured);
    ws.nas("run experiment.toml").assert().success();
    let genotype = || ws.files("runs/tiny").remove(Path::new("runs/tiny/genotype.json")).unwrap();
    let certified: serde_json::Value = serde_json::from_str(&ws.read("runs/tiny/genotype.json")).unwrap();
    assert!(certified["certificate"]["measured_ns"].is_number(), "{certified}");
    let before = (genotype(), ws.read("runs/tiny/bench.jsonl"));
    ws.nas("run experiment.toml").assert().success();
    assert!((genotype(), ws.read("runs/tiny/bench.jsonl")) == before);

    // A teacher changes both trainings, and nothing before them.
    ws.nas(&format!("{TRAIN} --genotype sep_conv_3x3,conv_3x3,conv_3x3 --run teacher")).assert().success();
    let with = |teacher: &str| {
        let keys = format!("space = \"tiny.toml\"\nteacher = \"{teacher}\"");
        ws.write("experiment.toml", &measured.replace("space = \"tiny.toml\"", &keys));
    };
    for (teacher, said) in
        [("runs/tiny", "cannot be its own teacher"), ("none", "none has no trained network; `nas train --run none`")]
    {
        with(teacher);
        assert!(ws.error("run experiment.toml").contains(said), "{teacher}");
    }
    let before = ws.files("runs/tiny");
    with("teacher");
    ws.nas("run experiment.toml").assert().success();
    let taught = ws.files("runs/tiny");
    for (name, changes) in [("genotype.json", false), ("weights.safetensors", true), ("baseline/train.jsonl", true)] {
        let path = Path::new("runs/tiny").join(name);
        assert_eq!(taught[&path].1 != before[&path].1, changes, "{name}");
    }
    ws.nas("run experiment.toml").assert().success();
    assert!(ws.files("runs/tiny")[Path::new("runs/tiny/train.jsonl")] == taught[Path::new("runs/tiny/train.jsonl")]);
}

#[test]
fn the_same_seed_gives_the_same_network_and_bit_equal_losses() {
    let ws = Workspace::profiled();
    let search = |run: &str, flags: &str| {
        ws.nas(&format!("{SEARCH} --run {run} {flags}")).assert().success();
        (ws.lines(&format!("{run}/search.jsonl")), ws.read(&format!("{run}/genotype.json")))
    };
    assert_eq!(search("a", ""), search("b", ""));
    assert_ne!(ws.lines("a/search.jsonl"), search("c", "--seed 1").0);

    let train = |run: &str, flags: &str| {
        ws.nas(&format!("{TRAIN} --run {run} --genotype conv_3x3,skip,conv_5x5 {flags}")).assert().success();
        (ws.lines(&format!("{run}/train.jsonl")), std::fs::read(ws.path(run).join("weights.safetensors")).unwrap())
    };
    let two_threads = "--torch-threads 2";
    assert_eq!(train("a", two_threads), train("b", two_threads));
    assert_ne!(ws.lines("a/train.jsonl"), train("c", "--torch-threads 2 --seed 1").0);
}

#[test]
fn a_genotype_that_is_given_by_its_ops_can_be_trained_exported_and_measured() {
    for ops in ["conv_3x3,skip,sep_conv_5x5", "conv_3x3,zero,max_pool_3x3", "skip,avg_pool_3x3,zero"] {
        let ws = Workspace::profiled();
        ws.nas(&format!("{TRAIN} --run r --genotype {ops}")).assert().success();
        let exported = ws.json("export --run r --data folder:images --images 4");
        assert_eq!(exported[0]["differences"].as_array().unwrap().len(), 2, "{exported}");
        let model = std::fs::read(ws.path("r/model.onnx")).unwrap();
        let metadata = nas_exporters::onnx::inspect(&model).unwrap().metadata;
        assert!(metadata["edge-nas.interface"].contains(r#"["blue","green","red"]"#), "{metadata:?}");
        for row in ws.json("bench --run r --rounds 1").as_array().unwrap() {
            assert!(
                row["latency_ns"].as_f64() > Some(0.0) && row["prediction"]["latency_ns"].as_f64() > Some(0.0),
                "{row}"
            );
            assert!(row["prediction"]["slowness"].as_f64() > Some(0.1), "the anchor was not measured: {row}");
        }
        ws.nas("report --run r").assert().success();
    }
}

#[test]
fn a_target_of_0_percent_finds_the_fastest_network() {
    let ws = Workspace::profiled();
    let found = ws.json(&SEARCH.replace("40%", "0%"));
    assert_eq!(found["predicted_ns"], found["target_ns"]);
    let found = ws.json(&SEARCH.replace("40%", "100%"));
    assert!(found["predicted_ns"].as_f64() <= found["target_ns"].as_f64());
}

#[test]
fn the_model_of_an_earlier_training_is_not_measured() {
    let ws = Workspace::new();
    ws.nas(&format!("{TRAIN} --run r --genotype conv_3x3,skip,skip")).assert().success();
    ws.nas("export --run r --data folder:images --images 1").assert().success();
    ws.nas(&format!("{TRAIN} --run r --genotype skip,skip,skip")).assert().success();
    assert!(
        ws.error("bench --run r")
            .contains("r/model.onnx is not of the weights beside it; `nas export --run r` writes it again")
    );
}
