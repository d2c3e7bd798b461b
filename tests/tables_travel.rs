//! Latency tables are shown, compared, merged and exported by the program.
#![allow(clippy::unwrap_used)]

mod common;
mod table;

use common::Workspace;
use edge_nas::latency::Latency;
use edge_nas::model::{LatencyModel, Validation, Validations, isolated_subjects};
use edge_nas::profile::first_to_fit;
use edge_nas::space::{CandidateOp, Layer, Networks, SearchSpace};
use edge_nas::table::{Disturbance, Header, LatencyTable, Planned, Row, Subject};
use nas_exporters::Shape;
use serde_json::Value;
use table::{COMMAND, header_of, row};

const INPUT: Shape = Shape { channels: 3, height: 8, width: 8 };
const CLASSES: usize = 3;
/// Networks that the model is fitted to.
const MEASURED: usize = 40;
/// What every network has in common, in nanoseconds.
const BASE: f64 = 100_000.0;
/// How many times more a layer takes alone than it adds to a network.
const ALONE: f64 = 1.5;

fn networks() -> Networks {
    Networks::new(SearchSpace::load("chain_small").unwrap(), INPUT, [CLASSES]).unwrap()
}

fn header() -> Header {
    header_of(&networks())
}

/// Returns what a layer adds, in nanoseconds.
fn adds(layer: &Layer) -> f64 {
    let ops = ["conv_3x3", "conv_5x5", "sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3"];
    let op = ops.iter().position(|op| *op == layer.op.to_string());
    op.map_or(0.0, |op| 1000.0 * (op + 1) as f64 * layer.channels as f64 / 16.0)
}

/// Returns all rows for the space `chain_small` on these images: each layer alone, networks to fit a model to, and a
/// call. The board is slower by this factor.
fn rows(slower: f64) -> Vec<Row> {
    let networks = networks();
    let alone = isolated_subjects(&networks).into_iter().map(|subject| {
        let Subject::Layer(layer) = subject else { panic!("{subject}") };
        (Subject::Layer(layer), 2000.0 + ALONE * adds(&layer))
    });
    let dir = tempfile::tempdir().unwrap();
    let empty = LatencyTable::open(&dir.path().join("t.jsonl"), header_of(&networks), COMMAND).unwrap();
    let first = first_to_fit(&empty, &networks, 2 * MEASURED).into_iter().take(MEASURED);
    let whole = first.enumerate().map(|(i, subject)| {
        let Subject::Network(layers) = &subject else { panic!("{subject}") };
        let live = layers.iter().rposition(|layer| layer.op == CandidateOp::Zero).unwrap_or(0);
        let noise = 1.0 + 1e-4 * ((i * 7 % 5) as f64 - 2.0);
        let sum: f64 = layers[live.max(1)..layers.len() - 1].iter().map(adds).sum();
        (subject.clone(), (BASE + sum) * noise)
    });
    let call = (Subject::Call(INPUT), 1500.0);
    let all = alone.chain(whole).chain([call]).enumerate();
    all.map(|(i, (subject, ns))| Row { measured_at: 1_795_000_000 + i as u64, ..row(subject, slower * ns, 2) })
        .collect()
}

/// Writes a table of these rows, with a plan for a model that is fitted to `planned` networks.
fn write(ws: &Workspace, name: &str, header: Header, planned: usize, rows: &[Row]) {
    let mut table = LatencyTable::open(&ws.path(name), header, COMMAND).unwrap();
    table.plan(Planned { networks: planned, classes: CLASSES }).unwrap();
    rows.iter().for_each(|row| table.append(row.clone()).unwrap());
}

fn text(ws: &Workspace, args: &str) -> String {
    let output = ws.nas(args).assert().success().get_output().clone();
    String::from_utf8(output.stdout).unwrap()
}

fn ns(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn layer(value: &Value) -> Layer {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn show_tells_what_layers_add_and_take_alone() {
    let ws = Workspace::new();
    let mut rows = rows(1.0);
    let (power, peak) = (rows.len() - 3, rows.len() - 2);
    for (conditions, mw) in [(0, 2000.0), (1, 4000.0)] {
        let row = &mut rows[power];
        let conditions = if conditions == 0 { &mut row.before } else { &mut row.after };
        conditions.power_mw = Some(mw);
    }
    rows[peak].peak_bytes = Some(3 << 20);
    let fastest = rows[power].fastest_ns();
    rows[power].samples_ns = vec![fastest, 1.2 * fastest];
    let drawn = 1.1 * fastest * 3000.0 / 1e6;
    write(&ws, "chain.ort.jsonl", header(), MEASURED, &rows);

    let shown = ws.json("profile show chain.ort.jsonl");
    assert_eq!((&shown["header"]["space"]["name"], &shown["note"]), (&"chain_small".into(), &Value::Null));
    assert_eq!(shown["networks"], MEASURED);
    assert_eq!(ns(&shown["call_ns"]), 1500.0);
    assert_eq!(shown["peak_bytes"], serde_json::json!([3 << 20, 3 << 20]));
    assert!((ns(&shown["energy_uj"][0]) / drawn - 1.0).abs() < 1e-9, "{}", shown["energy_uj"]);
    assert!(shown["leave_one_out_error"].as_f64().unwrap() < 0.01, "{}", shown["leave_one_out_error"]);

    let layers = shown["layers"].as_array().unwrap();
    let by_adds: Vec<f64> = layers.iter().filter_map(|l| l["adds_ns"].as_f64()).collect();
    assert!(by_adds.is_sorted_by(|a, b| a >= b), "{by_adds:?}");
    let find = |op: &str, like: &Layer| {
        let found = layers.iter().find(|l| layer(&l["layer"]) == Layer { op: op.parse().unwrap(), ..*like });
        found.unwrap_or_else(|| panic!("no {op}"))
    };
    // Stem and head come last, since what they add is part of the base.
    let behind = layers.iter().rev().take_while(|l| l["adds_ns"].is_null()).count();
    assert_eq!(by_adds.len() + behind, layers.len());
    for shown in layers.iter().filter(|l| l["adds_ns"].is_number()) {
        let this = layer(&shown["layer"]);
        let other = find("conv_3x3", &this);
        let apart = ns(&shown["adds_ns"]) - ns(&other["adds_ns"]);
        let truth = adds(&this) - adds(&layer(&other["layer"]));
        let error = 2.0 * (ns(&shown["adds_error_ns"]) + ns(&other["adds_error_ns"])) + 50.0;
        assert!((apart - truth).abs() < error, "{this}: {apart} for {truth} ± {error}");
        assert!(shown["networks"].as_u64().unwrap() > 0, "{this}: {shown}");
        let alone = (!this.is_identity()).then(|| 2000.0 + ALONE * adds(&this));
        assert_eq!(shown["latency_ns"].as_f64(), alone, "{this}");
    }

    let text = text(&ws, "profile show chain.ort.jsonl");
    for said in [
        "board: 0x41/0xd08, aarch64, glibc 2.27",
        "ort 1.28.0 on cpu, threads: 1, fp32",
        "2026-11-18T",
        "a call of the runtime by itself: 1.50 µs",
        "base, in every network",
        "peak memory of networks: 3.0 to 3.0 MiB",
        " ± ",
    ] {
        assert!(text.contains(said), "no {said:?} in {text}");
    }
}

#[test]
fn without_a_model_lone_layers_are_shown() {
    let ws = Workspace::new();
    let rows = rows(1.0);
    write(&ws, "isolated.jsonl", header(), 0, &rows);
    let shown = ws.json("profile show isolated.jsonl");
    assert!(shown["note"].as_str().unwrap().contains("no whole networks"), "{}", shown["note"]);
    assert!(shown["layers"].as_array().unwrap().iter().all(|l| l["adds_ns"].is_null()));
    assert!(shown["energy_uj"].is_null() && shown["peak_bytes"].is_null(), "energy is estimated");
    assert!(text(&ws, "profile show isolated.jsonl").contains("note: the table has no whole networks"), "no note");

    write(&ws, "few.jsonl", header(), MEASURED + 7, &rows);
    let note = ws.json("profile show few.jsonl")["note"].as_str().unwrap().to_string();
    assert!(note.contains("40 of 47 networks") && note.contains("nas-profile"), "{note}");
}

#[test]
fn diff_tells_how_far_two_tables_agree() {
    let ws = Workspace::new();
    let (a, mut b) = (rows(1.0), rows(1.02));
    let gone = b.remove(3);
    write(&ws, "chain.old.jsonl", header(), MEASURED, &a);
    let other = Header { device: "other".into(), threads: Some(2), ..header() };
    write(&ws, "chain.new.jsonl", other, MEASURED, &b);
    let diff = ws.json("profile diff chain.old.jsonl chain.new.jsonl");
    let facts: Vec<&str> =
        diff["facts"].as_array().unwrap().iter().map(|fact| fact["what"].as_str().unwrap()).collect();
    assert_eq!(facts, ["device", "threads"]);
    let Subject::Layer(lost) = gone.subject else { panic!("{}", gone.subject) };
    assert_eq!(diff["only_a"].as_array().unwrap().iter().map(layer).collect::<Vec<_>>(), [lost]);
    assert_eq!(diff["only_b"], serde_json::json!([]));
    assert_eq!(diff["networks"].as_array().unwrap().len(), MEASURED);
    for (what, compared) in [("isolated", a.len() - MEASURED - 2), ("networks", MEASURED)] {
        let agreement = &diff["agreement"][what];
        assert_eq!(agreement["compared"], compared, "{what}");
        assert!((ns(&agreement["median_difference"]) - 0.02).abs() < 1e-9, "{what}: {agreement}");
        assert!((ns(&agreement["median_ratio"]) - 1.02).abs() < 1e-9, "{what}: {agreement}");
        assert!(ns(&agreement["spearman"]) > 0.9999, "{what}: {agreement}");
    }
    let note = diff["notes"][0].as_str().unwrap();
    assert!(note.contains("chain.new.jsonl lacks 1 model that is needed"), "{note}");
    assert_eq!(diff["agreement"]["in_situ"], Value::Null);
    write(&ws, "chain.whole.jsonl", header(), MEASURED, &rows(1.02));
    let in_situ = &ws.json("profile diff chain.old.jsonl chain.whole.jsonl")["agreement"]["in_situ"];
    assert!(in_situ["compared"].as_u64().unwrap() > 10, "{in_situ}");

    let text = text(&ws, "profile diff chain.old.jsonl chain.new.jsonl");
    for said in ["what differs", "1.0200", "2.00 %", "only in A (1)", &lost.to_string()] {
        assert!(text.contains(said), "no {said:?} in {text}");
    }
}

#[test]
fn merge_puts_rows_together_in_the_order_of_their_time() {
    let ws = Workspace::new();
    let all = rows(1.0);
    let half = all.len() / 2;
    write(&ws, "a.jsonl", header(), MEASURED, &all[half - 5..]);
    write(&ws, "b.jsonl", header(), 5, &all[..half]);
    let merge = "profile merge a.jsonl b.jsonl --out out/chain.ort.jsonl";
    let merged = ws.json(merge);
    assert_eq!((merged["rows"].as_u64(), merged["equal"].as_u64()), (Some(all.len() as u64), Some(5)));
    let table = LatencyTable::load(&ws.path("out/chain.ort.jsonl"), COMMAND).unwrap();
    assert_eq!((&table.header, table.planned(CLASSES)), (&header(), MEASURED));
    assert_eq!(table.rows(), all);

    // A file that exists is kept, unless --force is given.
    let error = ws.error(merge);
    assert!(error.contains("out/chain.ort.jsonl exists already") && error.contains("--force"), "{error}");
    write(&ws, "c.jsonl", header(), MEASURED, &all[..3]);
    let error = ws.error("profile merge a.jsonl c.jsonl --out c.jsonl --force");
    assert!(error.contains("c.jsonl is read by the same command"), "{error}");
    std::fs::copy(ws.path("a.jsonl"), ws.path("d.jsonl")).unwrap();
    ws.nas("profile merge a.jsonl c.jsonl --out d.jsonl --force").assert().success();
    assert_eq!(LatencyTable::load(&ws.path("d.jsonl"), COMMAND).unwrap().rows().len(), all.len() - half + 8);

    write(&ws, "foreign.jsonl", Header { cpu: "an abacus".into(), ..header() }, 0, &all[..3]);
    let error = ws.error("profile merge a.jsonl b.jsonl foreign.jsonl --out e.jsonl");
    for said in ["foreign.jsonl was measured with CPU an abacus, not 0x41/0xd08", "a.jsonl"] {
        assert!(error.contains(said), "no {said:?} in {error}");
    }
    assert!(!ws.path("e.jsonl").exists());
    ws.nas("profile merge a.jsonl --out e.jsonl").assert().code(2);
}

/// A validation belongs to the model whose predictions it compared.
#[test]
fn a_validation_counts_as_long_as_the_model_is_the_same() {
    let ws = Workspace::new();
    let all = rows(1.0);
    write(&ws, "t.jsonl", header(), MEASURED, &all);
    let load = |name: &str| LatencyTable::load(&ws.path(name), COMMAND).unwrap();
    let mut table = load("t.jsonl");
    let model = |table: &LatencyTable| LatencyModel::new(table, &networks()).unwrap();
    let random = edge_nas::model::Accuracy::of(&[(Latency::from_ns(1.0), Latency::from_ns(2.0))]).unwrap();
    let digest = model(&table).digest();
    let validation =
        Validation { classes: CLASSES, model: digest, random, derived: None, plain_sum: None, macs: None, noise: None };
    Validations::default().save(&table, validation.clone()).unwrap();
    let stored = Validations::load(&table).unwrap();
    assert_eq!(stored.of(&model(&table)), Some(&validation));
    assert_eq!(ws.json("profile show t.jsonl")["validations"][0]["random"]["mape"], 0.5);
    let faster = all.iter().rev().find(|row| matches!(row.subject, Subject::Network(_))).unwrap();
    table.append(Row { samples_ns: vec![1000.0], ..faster.clone() }).unwrap();
    assert_eq!(stored.of(&model(&load("t.jsonl"))), None);
    let shown = ws.json("profile show t.jsonl");
    assert_eq!(shown["validations"], serde_json::json!([]));
    assert!(shown["note"].as_str().is_some_and(|note| note.contains("validate it again")), "{shown}");
}

#[test]
fn export_writes_a_line_for_each_subject() {
    let ws = Workspace::new();
    let rows = rows(1.0);
    write(&ws, "chain.ort.jsonl", header(), MEASURED, &rows);
    let stdout = text(&ws, "profile export chain.ort.jsonl");
    ws.nas("profile export chain.ort.jsonl --csv out/table.csv").assert().success();
    assert_eq!(ws.read("out/table.csv"), stdout);

    let mut reader = csv::Reader::from_reader(stdout.as_bytes());
    let columns =
        ["kind", "subject", "latency_ns", "gap_ns", "median_ns", "rows", "adds_ns", "adds_error_ns", "macs", "params"];
    assert_eq!(reader.headers().unwrap(), columns.as_slice());
    let lines: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    // A skip that passes its input on is not a model of its own, and yet it is a layer that adds something, namely
    // nothing.
    let identities = networks().distinct_layers().iter().filter(|layer| layer.is_identity()).count();
    assert_eq!((lines.len(), identities), (rows.len() + 3, 3));
    for row in &rows {
        let (kind, name) = match &row.subject {
            Subject::Layer(layer) => ("layer", layer.to_string()),
            Subject::Network(layers) => {
                let ops = layers[1..layers.len() - 1].iter().map(|layer| layer.op.to_string());
                ("network", ops.collect::<Vec<_>>().join(","))
            }
            Subject::Call(shape) => ("call", shape.to_string()),
        };
        let line = lines.iter().find(|line| &line[0] == kind && line[1] == name).unwrap();
        assert_eq!(line[2].parse::<f64>().unwrap(), row.fastest_ns(), "{name}");
        assert_eq!(line[8].parse::<u64>().unwrap(), row.subject.graph().cost().macs, "{name}");
        assert_eq!(line[9].parse::<u64>().unwrap(), row.subject.graph().cost().params, "{name}");
        assert!(kind == "layer" || line[6].is_empty(), "{name}");
    }
    assert!(lines.iter().filter(|line| !line[6].is_empty() && !line[7].is_empty()).count() > 10);
}

#[test]
fn wrong_files_are_told_in_one_line() {
    let ws = Workspace::new();
    ws.write("text.jsonl", "no table\n");
    ws.write("empty.jsonl", "");
    ws.write("other.jsonl", "{\"epoch\":1}\n");
    ws.write(
        "old.jsonl",
        &include_str!("golden/table_all.jsonl").replacen("\"latency_table\":3", "\"latency_table\":2", 1),
    );
    write(&ws, "good.jsonl", header(), 0, &[row(Subject::Call(INPUT), 1.0, 1)]);
    for (file, said) in [
        ("text.jsonl", "text.jsonl is not a latency table of format 3: line 1"),
        ("empty.jsonl", "it is empty"),
        ("other.jsonl", "is not a latency table of format 3"),
        ("old.jsonl", "it has format 2"),
        ("absent.jsonl", "there is no latency table absent.jsonl"),
    ] {
        for args in [
            format!("profile show {file}"),
            format!("profile diff good.jsonl {file}"),
            format!("profile merge good.jsonl {file} --out merged.jsonl"),
            format!("profile export {file} --csv table.csv"),
        ] {
            let error = ws.error(&args);
            assert!(error.contains(said), "nas {args}: no {said:?} in {error}");
        }
    }
    assert!(!ws.path("merged.jsonl").exists() && !ws.path("table.csv").exists());
}

#[test]
fn latencies_are_those_of_the_fastest_samples() {
    let ws = Workspace::new();
    let subject = Subject::Call(INPUT);
    let slow = Row { median_ns: Latency::from_ns(900.0), ..row(subject.clone(), 1000.0, 3) };
    let disturbed = Row { disturbed: vec![Disturbance::Load], ..row(subject.clone(), 100.0, 3) };
    write(&ws, "t.jsonl", header(), 0, &[slow, row(subject, 700.0, 3), disturbed]);
    let csv = text(&ws, "profile export t.jsonl");
    assert_eq!(csv.lines().nth(1).unwrap(), "call,3x8x8,700.0,300.0,700.0,2,,,0,0");
}

#[test]
fn a_runtime_that_rejects_all_models_does_not_prevent_the_others() {
    let ws = Workspace::new();
    let error = ws.error("profile --isolated --threads 2 --space tiny.toml --data folder:images");
    assert!(error.matches("models could not be measured").count() == 1 && error.contains("tract"), "{error}");
    let table = LatencyTable::load(&ws.path("profiles/host/tiny.3x8x8.ort.fp32.2threads.jsonl"), "").unwrap();
    assert!(!table.rows().is_empty());
}
