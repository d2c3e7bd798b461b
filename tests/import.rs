//! `nas-profile import`: latency tables from published ones.
#![allow(clippy::unwrap_used)]

mod common;

use assert_cmd::Command;
use common::{NAS_PROFILE, Workspace};
use edge_nas::latency::{Latency, Target};
use edge_nas::model::LatencyModel;
use edge_nas::search::{Constraint, Cost, best_within, latency_range, scores_of};
use edge_nas::space::{CandidateOp, Genotype, Layer, Networks, SearchSpace};
use edge_nas::table::{Estimate, LatencyTable, Mean, Published, Subject};
use nas_exporters::Shape;
use serde_json::{Value, json};
use std::fmt::Write;

const PROXYLESSNAS: &str = include_str!("published/proxylessnas.yaml");

/// A key that fits.
const KEY: &str = "expanded_conv-input:14x14x80-output:14x14x80-expand:3-kernel:3-stride:1-idskip:1";
const TABLE: &str = "profiles/pixel-1/proxylessnas.3x224x224.tflite.fp32.jsonl";

fn import(ws: &Workspace, args: &str) -> Command {
    ws.command(NAS_PROFILE, &format!("import {args}"))
}

/// Returns what the command prints as JSON, and the keys that it lists as left out.
fn imported(ws: &Workspace, args: &str) -> (Value, Vec<String>) {
    let output = import(ws, args).arg("--json").assert().success().get_output().clone();
    let listed = String::from_utf8(output.stderr).unwrap().lines().map(String::from).collect();
    (serde_json::from_slice(&output.stdout).unwrap(), listed)
}

fn load(ws: &Workspace, name: &str) -> LatencyTable {
    LatencyTable::load(&ws.path(name), "nas-profile import").unwrap()
}

fn published(op: &str, input: Shape, channels: usize, stride: usize, (mean, std, count): (f64, f64, u64)) -> Published {
    let subject = Subject::Layer(Layer { op: op.parse().unwrap(), input, channels, stride });
    let [mean_ns, std_ns] = [mean, std].map(Latency::from_ns);
    Published { key: subject.key(), subject, published: Mean { mean_ns, std_ns, count } }
}

#[test]
fn a_table_of_proxylessnas_becomes_a_latency_table() {
    let ws = Workspace::new();
    ws.write("mobile.yaml", PROXYLESSNAS);
    let (result, listed) = imported(&ws, "mobile.yaml --device pixel-1 --runtime tflite");
    let (another, unknown) = (
        "the space has no such layer",
        "it is neither an inverted residual (expanded_conv) nor a layer of stem and head",
    );
    let expected = json!({ "table": TABLE, "keys": 5, "rows": 3, "unfit": { another: 1, unknown: 1 } });
    assert_eq!(result, expected);
    assert_eq!(
        listed,
        [
            format!("left out: AvgPool2D-input:7x7x1280-output:1x1x1280: {unknown}"),
            format!(
                "left out: expanded_conv-input:14x14x80-output:14x14x80-expand:4-kernel:3-stride:1-idskip:1: {another}"
            ),
        ]
    );

    let table = load(&ws, TABLE);
    let mut header = serde_json::to_value(&table.header).unwrap();
    let space = header.as_object_mut().unwrap().remove("space").unwrap();
    assert_eq!(space, serde_json::to_value(SearchSpace::load("proxylessnas").unwrap()).unwrap());
    let expected = json!({
        "latency_table": 3, "device": "pixel-1", "cpu": "unknown", "arch": "unknown", "libc": "unknown",
        "runtime": "tflite", "runtime_version": "unknown", "threads": null, "precision": "fp32",
        "providers": [], "pinned": [], "input": [3, 224, 224],
    });
    assert_eq!(header, expected);
    let rows = [
        published("conv_3x3", Shape::new(3, 224, 224), 32, 2, (0.5e6, 0.1e6, 50)),
        published("mb_5x5_e3", Shape::new(80, 14, 14), 80, 1, (1.25e6, 0.25e6, 120)),
        published("mb_7x7_e6", Shape::new(80, 14, 14), 96, 1, (2.5e6, 0.5e6, 80)),
    ];
    assert_eq!(table.published(), rows);
    assert!(table.rows().is_empty(), "nothing was measured");
    let of_first = Estimate { latency: Latency::from_ns(1.25e6), gap: None, median: None, rows: 1, disturbed: false };
    assert_eq!(table.estimates()[&rows[1].subject], of_first);
}

/// Returns the YAML of all layers of the space, each with its own mean: the `n`th takes `n` + 1/8 ms.
fn whole_table(networks: &Networks) -> String {
    let mut yaml = String::new();
    for (n, layer) in networks.distinct_layers().iter().filter(|layer| !layer.is_identity()).enumerate() {
        let shape = |s: Shape| format!("{}x{}x{}", s.height, s.width, s.channels);
        let (input, output) = (shape(layer.input), shape(layer.output()));
        let key = match layer.op {
            CandidateOp::InvertedResidual { kernel, expansion, .. } => format!(
                "expanded_conv-input:{input}-output:{output}-expand:{}-kernel:{}-stride:{}-idskip:{}",
                expansion.get(),
                kernel.get(),
                layer.stride,
                u8::from(layer.input == layer.output())
            ),
            CandidateOp::Head => format!("Logits-input:{input}-output:{}", layer.channels),
            _ if layer.stride == 2 => format!("Conv-input:{input}-output:{output}"),
            _ => format!("Conv_1-input:{input}-output:{output}"),
        };
        writeln!(yaml, "{key}:\n  count: 9\n  mean: {}\n  var: 0.01", n as f64 + 0.125).unwrap();
    }
    yaml
}

/// Returns the genotype of a network of the space, given the kernel and the expansion of each convolution. A dash
/// stands for a layer that is left out.
fn genotype(networks: &Networks, blocks: &str) -> Genotype {
    let name = |block: &str| match block {
        "-" => "skip".to_string(),
        block => format!("mb_{0}x{0}_e{1}", &block[..1], &block[1..]),
    };
    let names: Vec<String> = blocks.split_whitespace().map(name).collect();
    Genotype::parse(networks.clone(), &names.join(",")).unwrap()
}

/// ProxylessNAS (mobile), by kernel and expansion (Cai et al. 2019, arXiv 1812.00332, figure 5).
const PROXYLESS_MOBILE: &str = "31  53 33 - -  73 33 53 53  76 53 53 53  56 53 53 53  76 76 73 73  76";

fn of_the_space() -> Networks {
    Networks::new(SearchSpace::load("proxylessnas").unwrap(), Shape::new(3, 224, 224), [1000]).unwrap()
}

/// A published table predicts by its plain sum, and a search based on it derives networks within a target.
#[test]
fn a_whole_published_table_predicts_and_is_searched() {
    let (ws, networks) = (Workspace::new(), of_the_space());
    ws.write("mobile.yaml", &whole_table(&networks));
    let (result, listed) = imported(&ws, "mobile.yaml --device pixel-1 --runtime tflite");
    assert_eq!((&result["keys"], &result["rows"]), (&json!(72), &json!(72)));
    assert_eq!(listed, Vec::<String>::new());

    let table = load(&ws, TABLE);
    let model = LatencyModel::new(&table, &networks).unwrap();
    let genotype = genotype(&networks, PROXYLESS_MOBILE);
    let mean = |layer: &Layer| table.estimates().get(&Subject::Layer(*layer)).map_or(0.0, |e| e.latency.ns());
    let sum: f64 = genotype.layers().iter().map(mean).sum();
    assert_eq!(model.predict(&genotype.choices).ns(), sum);

    let limit = Target::Percent(30.0).resolve(latency_range(&model));
    let scores = scores_of(&networks, |layer, choice| ((layer * 7 + choice) as f64 * 0.73).sin());
    let found = best_within(&scores, &[Constraint::new(Cost::latency(&model), limit.ns())]).unwrap();
    assert!(model.predict(&found) <= limit);
    // The prediction is close to the limit, since there are 10^15 networks.
    assert!(model.predict(&found).ns() > 0.95 * limit.ns());
}

/// This uses the table that its authors published, which is not part of this repository since it has no licence.
#[test]
fn proxylessnas_is_predicted_from_the_published_table() {
    let Some(yaml) = std::env::var_os("PROXYLESSNAS_YAML") else {
        eprintln!("skipped: PROXYLESSNAS_YAML does not name the published mobile_trim.yaml");
        return;
    };
    let (ws, networks) = (Workspace::new(), of_the_space());
    ws.write("mobile.yaml", &std::fs::read_to_string(yaml).unwrap());
    let (result, _) = imported(&ws, "mobile.yaml --device pixel-1 --runtime tflite");
    assert_eq!((&result["keys"], &result["rows"]), (&json!(72), &json!(72)));
    let model = LatencyModel::new(&load(&ws, TABLE), &networks).unwrap();
    let predicted = model.predict(&genotype(&networks, PROXYLESS_MOBILE).choices);
    eprintln!("ProxylessNAS (mobile): {:.6} ms", predicted.ms());
    assert!((predicted.ms() / 78.0 - 1.0).abs() < 0.1, "{predicted}, where the paper measured 78 ms");
}

#[test]
fn damaged_tables_are_refused_in_one_line_and_nothing_is_written() {
    let ws = Workspace::new();
    let two = format!("{KEY}:\n  count: 3\n  mean: 1.0\n  std: 0.1\n");
    for (text, words) in [
        (format!("{KEY}: [1, 2"), "line 1"),
        ("just words".into(), "is not a published table"),
        (format!("{KEY}:\n  count: 3\n  mean: -1.5\n  std: 0.1\n"), "its mean is -1.5"),
        (format!("{KEY}:\n  count: 3\n  mean: .inf\n  std: 0.1\n"), "its mean is inf"),
        (format!("{KEY}:\n  count: 3\n  mean: 1e34\n  std: 0.1\n"), "its mean is 1"),
        (format!("{KEY}:\n  count: 3\n  mean: 1.0\n  var: -0.1\n"), "not a deviation"),
        (format!("{KEY}:\n  count: 0\n  mean: 1.0\n  std: 0.1\n"), "its count is 0"),
        (format!("{KEY}:\n  count: 3\n  mean: 1.0\n"), "either std or var"),
        (format!("{KEY}:\n  count: 3\n  mean: 1.0\n  std: 0.1\n  var: 0.01\n"), "either std or var"),
        (format!("{KEY}:\n  count: 3\n  std: 0.1\n"), "`mean`"),
        (format!("{KEY}:\n  mean: 1.0\n  std: 0.1\n"), "`count`"),
        (format!("{KEY}:\n  count: 3\n  mean: fast\n  std: 0.1\n"), "line 3"),
        (format!("{KEY}:\n  count: 3\n  mean: 1.0\n  std: 0.1\n  unit: s\n"), "unit"),
        (format!("{two}{two}"), "duplicate"),
        (two.replace("expanded_conv", "AvgPool2D"), "none of the 1 keys"),
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
    let (head, tail) = KEY.split_once("-expand:3").unwrap();
    let again = format!("{head}{tail}-expand:3");
    ws.write("two.yaml", &[entry(KEY, 1.5), entry(&again, 2.5)].concat());
    let (result, listed) = imported(&ws, "two.yaml --device board --runtime tflite --out two.jsonl");
    assert_eq!(result["rows"], json!(1));
    assert!(listed.len() == 1 && listed[0].contains("another key"), "{listed:?}");
    assert_eq!(load(&ws, "two.jsonl").published()[0].published.mean_ns, Latency::from_ns(1.5e6));
}

#[test]
fn an_existing_file_is_replaced_with_force_only() {
    let ws = Workspace::new();
    ws.write("mobile.yaml", PROXYLESSNAS);
    ws.write("own.jsonl", "mine\n");
    let args = "profile import mobile.yaml --device pixel-1 --runtime tflite --out own.jsonl";
    let error = ws.error(args);
    assert!(error.contains("own.jsonl") && error.contains("--force"), "{error}");
    assert_eq!(ws.read("own.jsonl"), "mine\n");
    ws.json(&format!("{args} --force"));
    assert_eq!(load(&ws, "own.jsonl").published().len(), 3);
}

/// These names become parts of a path.
#[test]
fn names_that_are_no_file_names_are_wrong_usage() {
    let ws = Workspace::new();
    ws.write("mobile.yaml", PROXYLESSNAS);
    for names in
        ["--device ../up --runtime tflite", "--device pixel-1 --runtime tf/lite", "--device .. --runtime tflite"]
    {
        import(&ws, &format!("mobile.yaml {names}")).assert().code(2);
    }
    import(&ws, "mobile.yaml --runtime tflite").assert().code(2);
    assert!(!ws.path("profiles").exists());
}

#[test]
fn nothing_is_measured_into_a_published_table() {
    let ws = Workspace::new();
    ws.write("mobile.yaml", PROXYLESSNAS);
    let path = "profiles/host/tiny.3x8x8.tract.fp32.jsonl";
    imported(&ws, &format!("mobile.yaml --device host --runtime tract --out {path}"));
    let before = ws.read(path);
    let error = ws.error("profile --space tiny.toml --data folder:images --runtime tract");
    assert!(error.contains(path) && error.contains("space proxylessnas, not tiny"), "{error}");
    assert_eq!(ws.read(path), before);
}
