//! A result belongs to one network, and no command that fails loses one.
#![allow(clippy::unwrap_used)]

mod common;

use common::{NAS, Workspace};
use nas_exporters::{Graph, Op, Precision, Shape, onnx};
use predicates::prelude::*;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

const TRAIN: &str = "train --data folder:images --batch-size 16 --arithmetic fp32 --run r";
const SEARCH: &str = "search --data folder:images --space tiny.toml --batch-size 16 --arithmetic fp32 \
                      --algorithm mixture --components none --run r --target-latency 60%";
const EXPORT: &str = "export --data folder:images --run r --images 2";
const BENCH: &str = "bench --run r --runtime tract --rounds 1";

/// A run with a trained and exported network.
fn exported() -> Workspace {
    let ws = Workspace::profiled();
    ws.nas(&format!("{TRAIN} --epochs 1 --space tiny.toml --genotype conv_3x3,skip,conv_3x3")).assert().success();
    ws.nas(EXPORT).assert().success();
    ws
}

#[test]
fn a_report_does_not_mix_networks() {
    let ws = exported();
    ws.nas(BENCH).assert().success();
    let rows = |ws: &Workspace| ws.json("report --run r")[0].clone();
    let before = rows(&ws);
    assert!(before["test_accuracy"].is_number() && before["latencies"][0]["measured_ns"].is_number(), "{before}");

    ws.nas(&format!("{SEARCH} --epochs 2 --seed 3")).assert().success();
    let after = rows(&ws);
    if after["genotype"] != before["genotype"] {
        assert!(after["test_accuracy"].is_null() && after["latencies"].as_array().unwrap().is_empty(), "{after}");
        let note = predicate::str::contains("is not the one that was found");
        ws.nas("report --run r").assert().success().stderr(note);
    }

    // After another training, the model that was measured is no longer the run's.
    ws.nas(&format!("{TRAIN} --epochs 2")).assert().success();
    let after = rows(&ws);
    assert!(after["test_accuracy"].is_number() && after["latencies"].as_array().unwrap().is_empty(), "{after}");
    let error = ws.error(BENCH);
    assert!(error.contains("r/model.onnx is not of the weights beside it; `nas export --run r`"), "{error}");
    ws.nas(EXPORT).assert().success();
    ws.nas(BENCH).assert().success();
    assert!(rows(&ws)["latencies"][0]["measured_ns"].is_number());
    assert_eq!(ws.lines("r/bench.jsonl").len(), 2, "the measurement of the earlier model stays in the file");
}

#[test]
fn a_training_that_fails_or_is_interrupted_keeps_the_results_before() {
    let ws = exported();
    ws.nas(&format!("{SEARCH} --epochs 2")).assert().success();
    let results = |ws: &Workspace| {
        let mut files = ws.files("r");
        files.retain(|path, _| !path.starts_with("r/checkpoint"));
        files
    };
    let before = results(&ws);
    let train = TRAIN.replace("--run r", "--run r --space tiny.toml --genotype skip,skip,conv_3x3");
    for command in
        [format!("{train} --epochs 3 --learning-rate 1e30"), format!("{SEARCH} --epochs 3 --learning-rate 1e30")]
    {
        ws.error(&command);
        assert!(results(&ws) == before, "nas {command} has changed results");
    }
    // Unfinished trainings have their own files, so that one with other settings does not replace them.
    let unfinished = ws.files("r/checkpoint").into_keys().map(|path| path.display().to_string());
    let logs = unfinished.filter(|path| path.ends_with(".jsonl") && !path.contains("/candidates-"));
    assert_eq!(logs.count(), 4);
}

#[test]
fn a_stage_is_done_only_if_its_outputs_are_those_that_it_left() {
    let ws = Workspace::profiled();
    ws.write(
        "experiment.toml",
        "name = \"tiny\"\ndata = \"folder:images\"\nspace = \"tiny.toml\"\ntarget_latency = \"60%\"\n\
         [measure]\nruntimes = [\"tract\"]\n[profile]\nnetworks = 24\n[search]\nepochs = 2\nbatch_size = 16\n\
         [train]\nepochs = 2\nbatch_size = 16\n[baseline]\nwidth = 0.1\n[bench]\nrounds = 1\n",
    );
    ws.nas("run experiment.toml").assert().success();
    let weights = |ws: &Workspace| fs::read(ws.path("runs/tiny/weights.safetensors")).unwrap();
    let before = weights(&ws);
    let other = TRAIN.replace("--run r", "--run runs/tiny");
    ws.nas(&format!("{other} --epochs 1 --seed 9")).assert().success();
    assert!(weights(&ws) != before);
    let done =
        predicate::str::contains("train: done before").not().and(predicate::str::contains("search: done before"));
    ws.nas("run experiment.toml").assert().success().stderr(done);
    assert!(weights(&ws) == before, "the weights are not those of the experiment");
}

#[test]
fn models_are_identified_by_what_they_hold() {
    let ws = exported();
    let tiny = |channels: usize| {
        let mut graph = Graph::new(Shape::new(channels, 8, 8));
        graph.add("relu", Op::Relu, &[graph.input()]);
        onnx::untrained(&graph, Precision::Fp32).unwrap()
    };
    for (name, channels) in [("a/model.onnx", 2), ("b/model.onnx", 3), ("genotype.onnx", 4)] {
        fs::create_dir_all(ws.path(name).parent().unwrap()).unwrap();
        fs::write(ws.path(name), tiny(channels)).unwrap();
    }
    fs::copy(ws.path("r/model.onnx"), ws.path("copy.onnx")).unwrap();
    let same = predicate::str::contains("copy.onnx is the same model as genotype");
    ws.nas(&format!("{BENCH} a/model.onnx b/model.onnx genotype.onnx copy.onnx")).assert().success().stderr(same);
    let rows = ws.lines("r/bench.jsonl");
    let names: Vec<(&str, bool)> =
        rows.iter().map(|row| (row["model"].as_str().unwrap(), row["prediction"].is_object())).collect();
    assert_eq!(names, [("genotype", true), ("a/model", false), ("b/model", false), ("genotype.onnx", false)]);
}

#[test]
fn a_model_that_cannot_be_measured_does_not_keep_others_from_it() {
    let ws = exported();
    ws.write("text.onnx", "no model");
    let mut graph = Graph::new(Shape::new(2, 8, 8));
    graph.add("relu", Op::Relu, &[graph.input()]);
    let good = onnx::untrained(&graph, Precision::Fp32).unwrap();
    // The runtimes do not know this op, which only loading shows.
    let bad = String::from_utf8_lossy(&good).contains("Relu").then(|| {
        let at = good.windows(4).position(|bytes| bytes == b"Relu").unwrap();
        let mut bad = good.clone();
        bad[at..at + 4].copy_from_slice(b"Rexx");
        bad
    });
    fs::write(ws.path("bad.onnx"), bad.unwrap()).unwrap();
    fs::write(ws.path("good.onnx"), good).unwrap();
    let output = ws.nas(&format!("{BENCH} text.onnx bad.onnx good.onnx --json")).assert().code(1).get_output().clone();
    let error = String::from_utf8(output.stderr).unwrap();
    for said in ["not everything was measured", "text.onnx: it is not an ONNX model", "bad failed with tract"] {
        assert!(error.contains(said), "{error}");
    }
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let measured: Vec<&str> = rows.as_array().unwrap().iter().map(|row| row["model"].as_str().unwrap()).collect();
    assert_eq!(measured, ["genotype", "good"]);
    assert_eq!(ws.lines("r/bench.jsonl").len(), 2);
    // A table that cannot be used is reported before anything is measured.
    ws.write("profiles/host/tiny.3x8x8.tract.fp32.jsonl", "no table\n");
    let before = ws.read("r/bench.jsonl");
    assert!(ws.error(&format!("{BENCH} good.onnx")).contains("tiny.3x8x8.tract.fp32.jsonl is not a latency table"));
    assert_eq!(ws.read("r/bench.jsonl"), before);
}

#[test]
fn one_process_at_a_time_changes_a_run() {
    let ws = Workspace::new();
    let long = format!("{TRAIN} --epochs 5000 --space tiny.toml --genotype conv_3x3,skip,conv_3x3");
    let mut first = Command::new(NAS)
        .args(long.split_whitespace())
        .current_dir(ws.dir())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let held = || fs::read_to_string(ws.path("r/.lock")).is_ok_and(|text| text.ends_with('\n'));
    while !held() {
        assert_eq!(first.try_wait().unwrap(), None);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let holder = first.id();
    for command in [long.as_str(), EXPORT, BENCH] {
        let error = ws.error(command);
        assert!(error.contains(&format!("r is in use by process {holder}")), "{error}");
    }
    first.kill().unwrap();
    first.wait().unwrap();
    ws.nas(&format!("{TRAIN} --epochs 1 --space tiny.toml --genotype skip,skip,conv_3x3")).assert().success();
    assert!(!ws.path("r/.lock").exists());
}

#[test]
fn outputs_replace_neither_inputs_nor_other_files() {
    let ws = Workspace::profiled();
    const TABLE: &str = "profiles/host/tiny.3x8x8.tract.fp32.jsonl";
    let before = ws.read(TABLE);
    symlink(ws.path(TABLE), ws.path("link.jsonl")).unwrap();
    ws.write("notes.txt", "mine");
    for (out, said) in
        [(TABLE, "read by the same command"), ("link.jsonl", "read by the same command"), ("notes.txt", "--force")]
    {
        let error = ws.error(&format!("profile export {TABLE} --csv {out}"));
        assert!(error.contains(said), "{error}");
    }
    assert_eq!((ws.read(TABLE), ws.read("notes.txt")), (before, "mine".into()));
    ws.nas(&format!("profile export {TABLE} --csv t.csv")).assert().success();
    ws.nas(&format!("profile export {TABLE} --csv t.csv")).assert().success();
    let header = ws.read(TABLE).lines().next().unwrap().to_string();
    ws.write("empty.jsonl", &format!("{header}\n"));
    let error = ws.error("profile export empty.jsonl --csv notes.txt");
    assert!(error.contains("empty.jsonl has no rows; measure them with `"), "{error}");
    ws.nas(&format!("profile export {TABLE} --csv notes.txt --force")).assert().success();
    assert_eq!(ws.read("notes.txt"), ws.read("t.csv"));
    // A device file remains one.
    let csv = predicate::str::starts_with("kind,subject,latency_ns");
    ws.nas(&format!("profile export {TABLE} --csv /dev/stdout")).assert().success().stdout(csv);
    assert!(fs::symlink_metadata("/dev/stdout").unwrap().is_symlink());

    ws.nas(&format!("{TRAIN} --epochs 1 --space tiny.toml --genotype skip,skip,skip")).assert().success();
    ws.write("r/report.html", "<p>mine</p>");
    assert!(ws.error("report --run r").contains("r/report.html exists already"));
    assert_eq!(ws.read("r/report.html"), "<p>mine</p>");
    ws.nas("report --run r --force").assert().success();
    ws.nas("report --run r").assert().success();
}

/// With these variables, waiting threads do not spin.
#[test]
fn an_export_starts_with_the_variables_that_make_libtorch_fast() {
    let ws = exported();
    let mut export = Command::new(NAS)
        .args(EXPORT.split_whitespace())
        .current_dir(ws.dir())
        .env("XDG_CACHE_HOME", ws.path("cache"))
        .env_remove("OMP_WAIT_POLICY")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let environment = format!("/proc/{}/environ", export.id());
    let mut passive = false;
    while export.try_wait().unwrap().is_none() {
        let variables = fs::read(&environment).unwrap_or_default();
        passive |= variables.split(|byte| *byte == 0).any(|variable| variable == b"OMP_WAIT_POLICY=passive");
    }
    assert!(passive);
}

#[test]
fn text_of_others_cannot_control_a_terminal() {
    let ws = Workspace::profiled();
    const TABLE: &str = "profiles/host/tiny.3x8x8.tract.fp32.jsonl";
    let text = ws.read(TABLE);
    let cpu = text.split("\"cpu\":\"").nth(1).unwrap().split('"').next().unwrap().to_string();
    ws.write(TABLE, &text.replacen(&cpu, "\\u001b[2Jabacus", 1));
    let escaped = predicate::str::contains("\\u{1b}[2Jabacus").and(predicate::str::contains("\u{1b}").not());
    ws.nas(&format!("profile show {TABLE}")).assert().success().stdout(escaped);
    assert!(ws.error(&format!("{SEARCH} --epochs 2")).contains("CPU \\u{1b}[2Jabacus"));
    // The same holds for the message of a parser.
    ws.write(TABLE, &text.replacen("\"conv_3x3\"", "\"\\u001b[31mconv\"", 1));
    assert!(ws.error(&format!("profile show {TABLE}")).contains("\\u{1b}[31mconv"));
}

/// This resembles a full disk: the limit is below the size of the weights.
#[test]
fn a_file_that_cannot_be_written_leaves_the_old_one_and_no_part() {
    let ws = exported();
    let before = fs::read(ws.path("r/weights.safetensors")).unwrap();
    let train = format!("{TRAIN} --epochs 1 --seed 5 --space tiny.toml --genotype conv_5x5,conv_5x5,conv_5x5");
    let limited = format!("ulimit -f 4; exec {NAS} {train}");
    let output = Command::new("bash").args(["-c", &limited]).current_dir(ws.dir()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("error: cannot write"), "{:?}: {said}", output.status);
    assert!(fs::read(ws.path("r/weights.safetensors")).unwrap() == before);
    let parts = ws.files("r").into_keys().filter(|path| path.extension().is_some_and(|e| e == "part")).count();
    assert_eq!(parts, 0);
}
