//! The JSON schema of latency tables, compared with tables.
#![allow(clippy::unwrap_used)]

mod common;
mod table;

use common::{NAS_PROFILE, Workspace};
use edge_nas::space::Layer;
use edge_nas::table::{Disturbance, Drawn, LatencyTable, Planned, Row, Subject};
use jsonschema::Validator;
use nas_exporters::Shape;
use serde_json::{Value, json};
use std::path::Path;
use table::{COMMAND, header, op, row};

const SCHEMA: &str = include_str!("../docs/latency-table.schema.json");
const GOLDEN: &str = include_str!("golden/table_all.jsonl");
const IMAGE: Shape = Shape { channels: 3, height: 8, width: 8 };

/// Two layers of the space `proxylessnas`, as its authors publish them.
const PUBLISHED: &str = "\
expanded_conv-input:14x14x80-output:14x14x80-expand:3-kernel:7-stride:1-idskip:1:
  count: 120
  mean: 1.25
  var: 0.0625
Logits-input:7x7x1280-output:1000:
  count: 80
  mean: 0.5
  var: 0.0
";

fn schema() -> Validator {
    jsonschema::draft202012::new(&serde_json::from_str(SCHEMA).unwrap()).unwrap()
}

fn values(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Checks that the first line is a header and no other line is, and that all of them fit the schema.
fn check(text: &str) {
    let schema = schema();
    for (i, line) in values(text).iter().enumerate() {
        let errors: Vec<String> = schema.iter_errors(line).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "line {}: {errors:?}", i + 1);
        assert_eq!(line.get("latency_table").is_some(), i == 0, "line {}", i + 1);
    }
}

/// Returns a network with one op between stem and head.
fn network(middle: &str) -> Vec<Layer> {
    let layer = |name: &str, input, channels| Layer { op: op(name), input, channels, stride: 1 };
    let inner = Shape { channels: 4, ..IMAGE };
    vec![layer("conv_3x3", IMAGE, 4), layer(middle, inner, 4), layer("head", inner, 3)]
}

/// Writes a table with all kinds of measured lines, and all their fields.
fn write(path: &Path) {
    let mut table = LatencyTable::open(path, header(), COMMAND).unwrap();
    table.plan(Planned { networks: 20, classes: 3 }).unwrap();
    let timed = |subject| row(subject, 94_123.25, 2);
    let mut layer = timed(Subject::Layer(network("skip")[0]));
    layer.disturbed = vec![Disturbance::Throttled, Disturbance::Load];
    layer.during.power_mw = Some(2500.5);
    let random = timed(Subject::Network(network("skip")));
    let random = Row { unseen: Some(Drawn::Random), peak_bytes: Some(10 << 20), ..random };
    let derived = Row { unseen: Some(Drawn::Derived), ..timed(Subject::Network(network("conv_3x3"))) };
    let call = Row { anchor: true, others: None, ..timed(Subject::Call(IMAGE)) };
    for row in [layer, random, derived, call] {
        table.append(row).unwrap();
    }
}

/// Returns a table that was made from a published one.
fn imported() -> String {
    let ws = Workspace::new();
    ws.write("published.yaml", PUBLISHED);
    let import = "import published.yaml --device pixel-1 --runtime tflite";
    ws.command(NAS_PROFILE, import).assert().success();
    ws.read("profiles/pixel-1/proxylessnas.3x224x224.tflite.fp32.jsonl")
}

#[test]
fn what_is_written_is_the_golden_file_and_fits_the_schema() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("table.jsonl");
    write(&path);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), GOLDEN);
    let imported = imported();
    check(GOLDEN);
    check(include_str!("golden/table.jsonl"));
    check(&imported);

    // Every field of the schema is written.
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let (golden, imported) = (values(GOLDEN), values(&imported));
    assert_eq!(imported.len(), 3, "a header and two rows");
    for (of, lines) in [
        ("header", &golden[..1]),
        ("planned", &golden[1..2]),
        ("row", &golden[2..]),
        ("header", &imported[..1]),
        ("published", &imported[1..]),
    ] {
        for field in schema["$defs"][of]["properties"].as_object().unwrap().keys() {
            assert!(lines.iter().any(|line| line.get(field).is_some()), "{of}: {field}");
        }
    }
}

#[test]
fn a_table_that_was_measured_fits_the_schema() {
    let ws = Workspace::new();
    let layers = "candidates = [\"conv_3x3\"]\nlayers = [{ channels = 4 }]\n";
    ws.write("one.toml", &format!("name = \"one\"\n{layers}"));
    ws.nas("profile --space one.toml --input 3x8x8 --classes 3 --isolated").assert().success();
    for runtime in ["tract", "ort"] {
        let text = ws.read(&format!("profiles/host/one.3x8x8.{runtime}.fp32.jsonl"));
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
    let measured = values(GOLDEN);
    let imported = values(&imported());
    let change = |line: &Value, change: &dyn Fn(&mut Value)| {
        let mut line = line.clone();
        change(&mut line);
        line
    };
    let without =
        |line: &Value, field: &str| change(line, &|l| drop(l.as_object_mut().unwrap().remove(field).unwrap()));
    let with = |line: &Value, at: &str, value: Value| change(line, &|l| *l.pointer_mut(at).unwrap() = value.clone());
    let renamed = |line: &Value, from: &str, to: &str| {
        change(line, &|l| {
            let fields = l.as_object_mut().unwrap();
            let value = fields.remove(from).unwrap();
            fields.insert(to.into(), value);
        })
    };
    let added = |line: &Value, field: &str, value: Value| change(line, &|l| l[field] = value.clone());
    let [header, planned, layer, network, _, call] = measured.as_slice() else { panic!("{}", measured.len()) };
    let published = &imported[1];

    let mut damaged: Vec<(String, Value)> = vec![];
    for field in header.as_object().unwrap().keys() {
        damaged.push((format!("header without {field}"), without(header, field)));
    }
    for field in ["layer", "key", "median_ns", "samples_ns", "batch", "measured_at", "before", "during", "after"] {
        damaged.push((format!("row without {field}"), without(layer, field)));
    }
    for field in ["layer", "key", "published"] {
        damaged.push((format!("published row without {field}"), without(published, field)));
    }
    for line in [header, planned, layer, network, call, published] {
        damaged.push(("an unknown field".into(), added(line, "method", json!("isolated"))));
    }
    damaged.extend([
        ("another format".into(), with(header, "/latency_table", json!(2))),
        ("text for a number".into(), with(header, "/threads", json!("1"))),
        ("another runtime".into(), with(header, "/runtime", json!("tensorflow"))),
        ("another precision".into(), with(header, "/precision", json!("fp64"))),
        ("a space without layers".into(), with(header, "/space/layers", json!([]))),
        ("a space with an unknown op".into(), with(header, "/space/layers/0/ops/0", json!("conv_2x2"))),
        ("a space with a classifier".into(), with(header, "/space/layers/0/ops/0", json!("head"))),
        ("one number of channels for a list".into(), with(header, "/space/layers/0/channels", json!(8))),
        ("another word for channels".into(), with(header, "/space/layers/0/channels", json!("sane"))),
        ("plan without networks".into(), with(planned, "/planned", json!({ "classes": 3 }))),
        ("plan without classes".into(), with(planned, "/planned", json!({ "networks": 20 }))),
        ("a plan of nothing".into(), with(planned, "/planned/networks", json!(0))),
        ("text for a latency".into(), with(layer, "/median_ns", json!("94 us"))),
        ("a latency of nothing".into(), with(layer, "/samples_ns/0", json!(0.0))),
        ("no samples".into(), with(layer, "/samples_ns", json!([]))),
        ("a shape of two".into(), with(layer, "/layer/input", json!([8, 8]))),
        ("an unknown op".into(), with(layer, "/layer/op", json!("conv_3x5"))),
        ("a size of 0".into(), with(network, "/network/0/channels", json!(0))),
        ("no digest".into(), with(layer, "/key", json!("a conv"))),
        ("text for a temperature".into(), with(layer, "/before/millicelsius", json!("51.5"))),
        ("another disturbance".into(), with(layer, "/disturbed/0", json!("rain"))),
        ("drawn in another way".into(), with(network, "/unseen", json!(true))),
        ("a lone layer that no fit sees".into(), added(layer, "unseen", json!("random"))),
        ("milliseconds".into(), renamed(layer, "median_ns", "median_ms")),
        ("two subjects".into(), added(layer, "call", json!([3, 8, 8]))),
        ("published milliseconds".into(), with(published, "/published", json!({ "mean_ms": 1.25, "count": 3 }))),
        ("published of nothing".into(), with(published, "/published/count", json!(0))),
        ("both measured and published".into(), added(layer, "published", published["published"].clone())),
    ]);
    for (what, line) in damaged {
        assert!(!schema.is_valid(&line), "{what}: {line}");
    }
}
