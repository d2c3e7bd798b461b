//! The JSON schema of latency tables, held against tables.
#![allow(clippy::unwrap_used)]

mod common;
mod table;

use common::Workspace;
use edge_nas::latency::fit::Accuracy;
use edge_nas::latency::{Disturbance, Latency, LatencyTable, Row, Subject, Validation};
use edge_nas::space::Layer;
use jsonschema::Validator;
use nas_exporters::Shape;
use serde_json::{Value, json};
use table::{COMMAND, header, row};

const GOLDEN: &str = include_str!("golden/table_all.jsonl");
const IMAGE: Shape = Shape { channels: 3, height: 8, width: 8 };

fn schema() -> Validator {
    let schema = serde_json::from_str(include_str!("../docs/latency-table.schema.json")).unwrap();
    jsonschema::draft202012::new(&schema).unwrap()
}

fn values(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The first line as a header, and all others as rows.
fn check(text: &str) {
    let schema = schema();
    for (i, line) in values(text).iter().enumerate() {
        let errors: Vec<String> = schema.iter_errors(line).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "line {}: {errors:?}", i + 1);
        assert_eq!(line.get("latency_table").is_some(), i == 0, "line {}", i + 1);
    }
}

fn network() -> Vec<Layer> {
    let layer = |op: &str, input, channels| Layer { op: op.parse().unwrap(), input, channels, stride: 1 };
    let inner = Shape { channels: 4, ..IMAGE };
    vec![layer("conv_3x3", IMAGE, 4), layer("skip", inner, 4), layer("head", inner, 3)]
}

/// A table with rows of all kinds, and all fields.
fn write(path: &std::path::Path) {
    let accuracy = |networks| Accuracy {
        networks,
        mape: 0.0125,
        within_5: 1.0,
        within_10: 1.0,
        rmse_ns: Latency::from_ns(1250.5),
        spearman: Some(0.9975),
        kendall: None,
    };
    let validation = Validation {
        input: IMAGE,
        classes: 3,
        model: "0123456789abcdef".repeat(4),
        accuracy: accuracy(60),
        plain_sum: Some(accuracy(60)),
        macs: Some(accuracy(60)),
        noise: Some(0.004),
    };
    let mut header = header();
    (header.networks, header.validations) = (20, vec![validation]);
    let mut table = LatencyTable::open(path, header, COMMAND).unwrap();
    let subjects = [Subject::Layer(network()[0]), Subject::Network(network()), Subject::Call(IMAGE)];
    let [layer, network, call] = subjects.map(|subject| row(subject, 94_123.25, 2));
    let mut layer = Row { disturbed: vec![Disturbance::Throttled, Disturbance::Load], ..layer };
    layer.during.power_mw = Some(2500.5);
    let network = Row { unseen: true, peak_bytes: Some(10 << 20), ..network };
    let call = Row { anchor: true, others: None, ..call };
    for row in [layer, network, call] {
        table.append(row).unwrap();
    }
}

#[test]
fn what_is_written_is_the_golden_file_and_fits_the_schema() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("table.jsonl");
    write(&path);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), GOLDEN);
    check(GOLDEN);
    check(include_str!("golden/table.jsonl"));
    // Every field that the schema knows of is in the golden file.
    let schema: Value = serde_json::from_str(include_str!("../docs/latency-table.schema.json")).unwrap();
    for (of, lines) in [("header", &values(GOLDEN)[..1]), ("row", &values(GOLDEN)[1..])] {
        for field in schema["$defs"][of]["properties"].as_object().unwrap().keys() {
            assert!(lines.iter().any(|line| line.get(field).is_some()), "{of}: {field}");
        }
    }
}

#[test]
fn a_table_that_was_measured_fits_the_schema() {
    let ws = Workspace::new();
    ws.write(
        "one.toml",
        r#"
name = "one"
candidates = ["conv_3x3"]
stem = { op = "conv_3x3", channels = 4 }
layers = [{ channels = 4 }]
"#,
    );
    ws.nas("profile --space one.toml --input 3x8x8 --classes 3 --isolated").assert().success();
    for runtime in ["tract", "ort"] {
        let text = ws.read(&format!("profiles/host/one.{runtime}.jsonl"));
        let lines = values(&text);
        check(&text);
        for subject in ["layer", "call"] {
            assert!(lines.iter().any(|line| line.get(subject).is_some()), "{runtime}: no {subject}");
        }
    }
}

#[test]
fn what_is_damaged_does_not_fit() {
    let schema = schema();
    let lines = values(GOLDEN);
    let change = |line: usize, change: &dyn Fn(&mut Value)| {
        let mut line = lines[line].clone();
        change(&mut line);
        line
    };
    let without =
        |line: usize, field: &str| change(line, &|l| drop(l.as_object_mut().unwrap().remove(field)));
    let with =
        |line: usize, at: &str, value: Value| change(line, &|l| *l.pointer_mut(at).unwrap() = value.clone());
    let mut damaged: Vec<(String, Value)> = vec![];
    for field in ["latency_table", "device", "cpu", "runtime", "threads", "precision", "pinned"] {
        damaged.push((format!("header without {field}"), without(0, field)));
    }
    for field in ["layer", "model", "median_ns", "samples_ns", "batch", "measured_at", "before", "after"] {
        damaged.push((format!("row without {field}"), without(1, field)));
    }
    damaged.extend([
        ("another format".into(), with(0, "/latency_table", json!(1))),
        ("text for a number".into(), with(0, "/threads", json!("1"))),
        ("another runtime".into(), with(0, "/runtime", json!("tensorflow"))),
        ("a share above 1".into(), with(0, "/validations/0/accuracy/within_5", json!(100.0))),
        ("text for a latency".into(), with(1, "/median_ns", json!("94 us"))),
        ("a latency of nothing".into(), with(1, "/samples_ns/0", json!(0.0))),
        ("no samples".into(), with(1, "/samples_ns", json!([]))),
        ("a shape of two".into(), with(1, "/layer/input", json!([8, 8]))),
        ("a size of 0".into(), with(2, "/network/0/channels", json!(0))),
        ("no digest".into(), with(1, "/model", json!("a conv"))),
        ("text for a temperature".into(), with(1, "/before/millicelsius", json!("51.5"))),
        ("another disturbance".into(), with(1, "/disturbed/0", json!("rain"))),
        (
            "milliseconds".into(),
            change(1, &|l| {
                let fields = l.as_object_mut().unwrap();
                fields.remove("median_ns");
                fields.insert("median_ms".into(), json!(0.094));
            }),
        ),
        ("two subjects".into(), change(1, &|l| l["call"] = json!([3, 8, 8]))),
        ("an unknown field".into(), change(1, &|l| l["method"] = json!("isolated"))),
    ]);
    for (what, line) in damaged {
        assert!(!schema.is_valid(&line), "{what}: {line}");
    }
}
