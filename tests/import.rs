//! `nas-profile import`: latency tables out of published ones.
#![allow(clippy::unwrap_used)]

mod common;

use assert_cmd::Command;
use common::{NAS_PROFILE, Workspace};
use edge_nas::latency::{Latency, LatencyTable, Mean, Published, Subject, Timing};
use edge_nas::space::Layer;
use nas_exporters::Shape;
use serde_json::{Value, json};

const PROXYLESSNAS: &str = include_str!("published/proxylessnas.yaml");
const ONCE_FOR_ALL: &str = include_str!("published/once_for_all.yaml");

/// A key that fits.
const KEY: &str = "expanded_conv-input:8x8x4-output:8x8x4-expand:3-kernel:3-stride:1-idskip:1";

fn import(ws: &Workspace, args: &str) -> Command {
    ws.command(NAS_PROFILE, &format!("import {args}"))
}

/// What it prints as JSON, and the keys that it lists as left out.
fn imported(ws: &Workspace, args: &str) -> (Value, Vec<String>) {
    let output = import(ws, args).arg("--json").assert().success().get_output().clone();
    let listed = String::from_utf8(output.stderr).unwrap().lines().map(String::from).collect();
    (serde_json::from_slice(&output.stdout).unwrap(), listed)
}

fn load(ws: &Workspace, name: &str) -> LatencyTable {
    LatencyTable::load(&ws.path(name), "nas-profile import").unwrap()
}

fn published(
    op: &str,
    input: Shape,
    channels: usize,
    stride: usize,
    (mean, std, count): (f64, f64, u64),
) -> Published {
    let subject = Subject::Layer(Layer { op: op.parse().unwrap(), input, channels, stride });
    let [mean_ns, std_ns] = [mean, std].map(Latency::from_ns);
    Published { model: subject.digest(), subject, published: Mean { mean_ns, std_ns, count } }
}

#[test]
fn a_table_of_proxylessnas_becomes_a_latency_table() {
    let ws = Workspace::new();
    ws.write("mobile.yaml", PROXYLESSNAS);
    let (result, listed) = imported(&ws, "mobile.yaml --device pixel-1 --runtime tflite");
    let path = "profiles/pixel-1/mobile.tflite.jsonl";
    let no_block = "it is no inverted residual (expanded_conv)";
    let expected = json!({ "table": path, "keys": 4, "rows": 2, "unfit": { no_block: 2 } });
    assert_eq!(result, expected);
    assert_eq!(
        listed,
        [
            format!("left out: Conv-input:32x32x3-output:16x16x8: {no_block}"),
            format!("left out: Logits-input:8x8x16-output:10: {no_block}"),
        ]
    );

    let table = load(&ws, path);
    let header = serde_json::to_value(&table.header).unwrap();
    let expected = json!({
        "latency_table": 2, "device": "pixel-1", "cpu": "unknown", "arch": "unknown", "libc": "unknown",
        "runtime": "tflite", "runtime_version": "unknown", "threads": null, "precision": "unknown",
        "providers": [], "pinned": [], "networks": 0,
    });
    assert_eq!(header, expected);
    let rows = [
        published("mb_5x5_e3", Shape::new(8, 16, 16), 8, 1, (1.25e6, 0.25e6, 120)),
        published("mb_7x7_e6", Shape::new(8, 16, 16), 16, 2, (2.5e6, 0.5e6, 80)),
    ];
    assert_eq!(table.published(), rows);
    assert!(table.rows().is_empty(), "nothing was measured");
    let of_first =
        Timing { fastest: Latency::from_ns(1.25e6), gap: None, median: None, rows: 1, disturbed: false };
    assert_eq!(table.timings()[&rows[0].subject], of_first);
}

#[test]
fn of_once_for_all_only_what_our_ops_compute_is_taken() {
    let ws = Workspace::new();
    ws.write("note10.yaml", ONCE_FOR_ALL);
    let (result, listed) = imported(&ws, "note10.yaml --device note10 --runtime tflite --out own.jsonl");
    assert_eq!(
        (&result["keys"], &result["rows"], &result["table"]),
        (&json!(5), &json!(1), &json!("own.jsonl"))
    );
    let reasons: Vec<&str> = listed.iter().map(|line| line.rsplit(": ").next().unwrap()).collect();
    let [pool, swish, excite, fourfold] = reasons[..] else { panic!("{listed:?}") };
    assert!(pool.contains("no inverted residual") && swish.contains("h-swish"), "{listed:?}");
    assert!(excite.contains("squeeze-and-excite") && fourfold.contains("expansion"), "{listed:?}");
    let row = published("mb_3x3_e6", Shape::new(24, 10, 10), 24, 1, (0.75e6, 0.0625e6, 90));
    assert_eq!(load(&ws, "own.jsonl").published(), [row]);
    assert!(!ws.path("profiles").exists());
}

#[test]
fn the_result_for_people_counts_what_was_left_out() {
    let ws = Workspace::new();
    ws.write("note10.yaml", ONCE_FOR_ALL);
    let output = import(&ws, "note10.yaml --device note10 --runtime tflite").assert().success();
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    assert!(text.contains("rows of profiles/note10/note10.tflite.jsonl"), "{text}");
    assert_eq!(text.matches("left out: ").count(), 4, "{text}");
}

#[test]
fn damaged_tables_are_refused_in_one_line_and_nothing_is_written() {
    let ws = Workspace::new();
    let two = format!("{KEY}:\n  count: 3\n  mean: 1.0\n  std: 0.1\n");
    for (text, words) in [
        (format!("{KEY}: [1, 2"), "line 1"),
        ("just words".into(), "no published table"),
        (format!("{KEY}:\n  count: 3\n  mean: -1.5\n  std: 0.1\n"), "its mean is -1.5"),
        (format!("{KEY}:\n  count: 3\n  mean: .inf\n  std: 0.1\n"), "its mean is inf"),
        (format!("{KEY}:\n  count: 3\n  mean: 1.0\n  var: -0.1\n"), "no deviation"),
        (format!("{KEY}:\n  count: 0\n  mean: 1.0\n  std: 0.1\n"), "its count is 0"),
        (format!("{KEY}:\n  count: 3\n  mean: 1.0\n"), "either std or var"),
        (format!("{KEY}:\n  count: 3\n  mean: 1.0\n  std: 0.1\n  var: 0.01\n"), "either std or var"),
        (format!("{KEY}:\n  count: 3\n  std: 0.1\n"), "`mean`"),
        (format!("{KEY}:\n  mean: 1.0\n  std: 0.1\n"), "`count`"),
        (format!("{KEY}:\n  count: 3\n  mean: fast\n  std: 0.1\n"), "line 3"),
        (format!("{KEY}:\n  count: 3\n  mean: 1.0\n  std: 0.1\n  unit: s\n"), "unit"),
        (format!("{two}{two}"), "duplicate"),
        (two.replace("expanded_conv", "Conv"), "none of the 1 keys"),
        (String::new(), "it has no keys"),
    ] {
        ws.write("bad.yaml", &text);
        let error = ws.error("profile import bad.yaml --device board --runtime tflite");
        assert!(error.contains("bad.yaml") && error.contains(words), "{text}: {error}");
    }
    let error = ws.error("profile import absent.yaml --device board --runtime tflite");
    assert!(error.contains("absent.yaml"), "{error}");
    assert!(!ws.path("profiles").exists());
}

#[test]
fn a_layer_that_two_keys_name_is_taken_once() {
    let ws = Workspace::new();
    let entry = |key: &str, mean: f64| format!("{key}:\n  count: 3\n  mean: {mean}\n  std: 0.1\n");
    ws.write("two.yaml", &[entry(KEY, 1.5), entry(&format!("{KEY}-se:0-hs:0"), 2.5)].concat());
    let (result, listed) = imported(&ws, "two.yaml --device board --runtime tflite --out two.jsonl");
    assert_eq!(result["rows"], json!(1));
    assert!(listed.len() == 1 && listed[0].contains("another key"), "{listed:?}");
    assert_eq!(load(&ws, "two.jsonl").published()[0].published.mean_ns, Latency::from_ns(1.5e6));
}

#[test]
fn a_file_that_is_there_is_written_over_by_force_only() {
    let ws = Workspace::new();
    ws.write("mobile.yaml", PROXYLESSNAS);
    ws.write("own.jsonl", "mine\n");
    let args = "profile import mobile.yaml --device pixel-1 --runtime tflite --out own.jsonl";
    let error = ws.error(args);
    assert!(error.contains("own.jsonl") && error.contains("--force"), "{error}");
    assert_eq!(ws.read("own.jsonl"), "mine\n");
    ws.json(&format!("{args} --force"));
    assert_eq!(load(&ws, "own.jsonl").published().len(), 2);
}

/// Names become parts of a path.
#[test]
fn names_that_are_no_file_names_are_wrong_usage() {
    let ws = Workspace::new();
    ws.write("mobile.yaml", PROXYLESSNAS);
    for names in [
        "--device ../up --runtime tflite",
        "--device pixel-1 --runtime tf/lite",
        "--device .. --runtime tflite",
    ] {
        import(&ws, &format!("mobile.yaml {names}")).assert().code(2);
    }
    import(&ws, "mobile.yaml --runtime tflite").assert().code(2);
    assert!(!ws.path("profiles").exists());
}

#[test]
fn nothing_is_measured_into_a_published_table() {
    let ws = Workspace::new();
    ws.write("mobile.yaml", PROXYLESSNAS);
    let path = "profiles/host/tiny.tract.jsonl";
    imported(&ws, &format!("mobile.yaml --device host --runtime tract --out {path}"));
    let before = ws.read(path);
    let error = ws.error("profile --space tiny.toml --data folder:images --runtime tract");
    assert!(error.contains(path) && error.contains("CPU unknown"), "{error}");
    assert_eq!(ws.read(path), before);
}
