//! Latency tables as files.
#![allow(clippy::unwrap_used)]

mod table;

use edge_nas::latency::{
    Header, Images, Latency, LatencyModel, LatencyTable, Networks, Row, Subject, TableError,
};
use edge_nas::space::{CandidateOp, Layer, SearchSpace};
use nas_exporters::Shape;
use nas_probe::Runtime;
use std::path::PathBuf;
use table::{COMMAND, filled, header, row};
use tempfile::TempDir;

const INPUT: Shape = Shape { channels: 3, height: 8, width: 8 };
const CLASSES: usize = 4;

fn layer(name: &str, channels: usize, stride: usize) -> Subject {
    Subject::Layer(Layer { op: name.parse().unwrap(), input: INPUT, channels, stride })
}

fn as_layer(subject: &Subject) -> Layer {
    let Subject::Layer(layer) = subject else { panic!("{subject}") };
    *layer
}

/// Those of `subjects` that the table has no row of.
fn missing(table: &LatencyTable, subjects: &[Subject]) -> Vec<Subject> {
    match table.require(subjects) {
        Err(TableError::Missing { missing, .. }) => missing,
        other => other.map(|_| vec![]).unwrap(),
    }
}

fn fastest(table: &LatencyTable, subject: &Subject) -> Latency {
    table.timings()[subject].fastest
}

/// A folder with a table of two rows, and the table's path.
fn two_rows() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chain.ort.jsonl");
    let layers = [layer("conv_3x3", 8, 1), layer("skip", 8, 2)].map(|subject| as_layer(&subject));
    filled(&path, &layers, 2, |l| if l.stride == 1 { 94_123.25 } else { 0.1 + 0.2 });
    (dir, path)
}

/// Where it changes on purpose, the format's number has to rise; where only `model` does, tables that
/// people have measured go stale.
#[test]
fn the_file_format_is_the_golden_one() {
    let golden = include_str!("golden/table.jsonl");
    let (dir, path) = two_rows();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), golden);

    let copy = dir.path().join("copy.jsonl");
    std::fs::write(&copy, golden).unwrap();
    let read = LatencyTable::load(&copy, COMMAND).unwrap();
    assert_eq!(read.header, header());
    let rows = [row(layer("conv_3x3", 8, 1), 94_123.25, 2), row(layer("skip", 8, 2), 0.1 + 0.2, 2)];
    assert_eq!(read.rows(), rows);
}

#[test]
fn a_torn_last_line_is_dropped_and_the_table_grows_on() {
    let (_dir, path) = two_rows();
    let whole = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 20]).unwrap();
    assert_eq!(LatencyTable::load(&path, COMMAND).unwrap().rows().len(), 1);

    let mut again = LatencyTable::open(&path, header(), COMMAND).unwrap();
    assert_eq!(missing(&again, &[layer("conv_3x3", 8, 1), layer("skip", 8, 2)]), [layer("skip", 8, 2)]);
    again.append(row(layer("skip", 8, 2), 0.1 + 0.2, 2)).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
}

#[test]
fn a_table_of_another_header_is_refused() {
    let (_dir, path) = two_rows();
    let before = std::fs::read(&path).unwrap();
    type Change = fn(&mut Header);
    let changes: [(&str, Change); 8] = [
        ("device", |h| h.device = "other".into()),
        ("CPU", |h| h.cpu = "other".into()),
        ("architecture", |h| h.arch = "other".into()),
        ("libc", |h| h.libc = "other".into()),
        ("runtime", |h| h.runtime = Runtime::Tract.to_string()),
        ("runtime version", |h| h.runtime_version = "other".into()),
        ("threads", |h| h.threads = Some(2)),
        ("precision", |h| h.precision = "int8".into()),
    ];
    for (what, change) in changes {
        let mut ours = header();
        change(&mut ours);
        let error = LatencyTable::open(&path, ours, COMMAND).unwrap_err();
        assert!(
            matches!(&error, TableError::Foreign { difference, .. } if difference.what == what),
            "{what}: {error}"
        );
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert!(LatencyTable::open(&path, header(), COMMAND).is_ok());
}

#[test]
fn damaged_tables_are_told_with_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let golden = include_str!("golden/table.jsonl");
    let lines: Vec<&str> = golden.lines().collect();
    for (text, words) in [
        (String::new(), "empty"),
        (golden.replacen("\"latency_table\":2", "\"latency_table\":1", 1), "format 1"),
        (format!("{}\n", lines[1]), "no latency table"),
        (format!("{}\n{}\nnot json\n", lines[0], lines[1]), "line 3"),
        (format!("{}\n{}\n", lines[0], lines[1].replace("conv_3x3", "conv_9x9")), "line 2"),
    ] {
        let path = dir.path().join("bad.jsonl");
        std::fs::write(&path, text).unwrap();
        let error = LatencyTable::load(&path, COMMAND).unwrap_err().to_string();
        assert!(error.contains("bad.jsonl") && error.contains(words), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let error = LatencyTable::load(&dir.path().join("none.jsonl"), COMMAND).unwrap_err().to_string();
    assert!(error.contains("none.jsonl") && error.contains(COMMAND), "{error}");
}

#[test]
fn the_row_of_an_op_that_has_changed_is_measured_anew() {
    let (_dir, path) = two_rows();
    let conv = layer("conv_3x3", 8, 1);
    let mut stale = row(conv.clone(), 5.0, 1);
    stale.model = "0123456789abcdef".into();
    let text = std::fs::read_to_string(&path).unwrap();
    let digest = row(conv.clone(), 5.0, 1).model;
    std::fs::write(&path, text.replacen(&digest, &stale.model, 1)).unwrap();

    let mut table = LatencyTable::open(&path, header(), COMMAND).unwrap();
    assert_eq!(missing(&table, std::slice::from_ref(&conv)), std::slice::from_ref(&conv));
    table.append(row(conv.clone(), 7.0, 1)).unwrap();
    let read = LatencyTable::load(&path, COMMAND).unwrap();
    assert_eq!(fastest(&read, &conv), Latency::from_ns(7.0));
    assert_eq!(read.rows().len(), 2);
}

#[test]
fn all_missing_layers_are_listed_with_the_command_that_measures_them() {
    let space = SearchSpace::load("chain").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let layers = space.distinct_layers(INPUT, CLASSES);
    let table = filled(&dir.path().join("t.jsonl"), &layers[..5], 1, |_| 1.0);
    let networks = Networks { space: &space, images: Images { shape: INPUT, classes: CLASSES } };
    let error = LatencyModel::new(&table, &networks).unwrap_err();
    let message = error.to_string();
    let TableError::Missing { missing, .. } = error else { panic!("{message}") };
    let live = layers[5..].iter().filter(|layer| layer.op != CandidateOp::ZERO);
    let expected: Vec<Subject> = live.copied().map(Subject::Layer).collect();
    assert_eq!(missing, expected);
    assert!(expected.iter().all(|layer| message.contains(&layer.to_string())), "{message}");
    assert!(message.contains(COMMAND), "{message}");
}

/// An eighth of the rows are from moments in which the device is faster than it usually is.
#[test]
fn one_fast_moment_in_eight_does_not_count() {
    let (_dir, path) = two_rows();
    let mut table = LatencyTable::open(&path, header(), COMMAND).unwrap();
    let conv = layer("conv_5x5", 8, 1);
    let mut of = |ns: &[f64]| {
        ns.iter().for_each(|&ns| table.append(row(conv.clone(), ns, 20)).unwrap());
        let timing = table.timings()[&conv];
        (timing.fastest.ns(), timing.gap.map(Latency::ns))
    };
    assert_eq!(of(&[1000.0]), (1000.0, None));
    assert_eq!(of(&[970.0, 1001.0, 1005.0, 1200.0, 1001.0, 1003.0]), (970.0, Some(30.0)));
    assert_eq!(of(&[1002.0]), (1000.0, Some(1.0)));
    assert_eq!(of(&[970.0, 1001.0, 1001.0, 1001.0, 1001.0, 1001.0, 1001.0, 1001.0]), (1000.0, Some(1.0)));
}

#[test]
fn where_the_anchor_shows_a_drift_rows_are_corrected_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = LatencyTable::open(&dir.path().join("t.jsonl"), header(), COMMAND).unwrap();
    let undisturbed = |channels: usize| 1e5 + 1e3 * channels as f64;
    // From half on the device is 10 % slower; one layer is measured only then.
    let late = 7;
    for round in 0..12 {
        let slowness = if round < 6 { 1.0 } else { 1.1 };
        for channels in (1..=20).filter(|&channels| channels != late || round >= 6) {
            let ns = slowness * undisturbed(channels);
            let anchor = channels % 10 == 0;
            let subject = layer("conv_3x3", if anchor { 10 } else { channels }, 1);
            let ns = if anchor { slowness * undisturbed(10) } else { ns };
            table.append(Row { anchor, ..row(subject, ns, 1) }).unwrap();
        }
    }
    for channels in [1, late, 10, 19] {
        let timing = fastest(&table, &layer("conv_3x3", channels, 1));
        let off = timing.ns() / undisturbed(channels) - 1.0;
        assert!(off.abs() < 0.005, "{channels}: {off}");
    }
}
