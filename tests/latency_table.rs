//! Latency tables as files.
#![allow(clippy::unwrap_used)]

mod table;

use edge_nas::latency::Latency;
use edge_nas::model::{LatencyModel, ModelError, isolated_subjects};
use edge_nas::space::{Layer, Networks, SearchSpace};
use edge_nas::table::{Drawn, Header, LatencyTable, Planned, Row, Subject, TableError};
use nas_exporters::{Precision, Shape};
use nas_probe::Runtime;
use std::path::PathBuf;
use table::{COMMAND, header, header_of, row};
use tempfile::TempDir;

const INPUT: Shape = Shape { channels: 3, height: 8, width: 8 };

fn layer(name: &str, channels: usize, stride: usize) -> Subject {
    Subject::Layer(Layer { op: name.parse().unwrap(), input: INPUT, channels, stride })
}

/// Returns those of `subjects` of which the table has no row.
fn missing(table: &LatencyTable, subjects: &[Subject]) -> Vec<Subject> {
    match table.require(subjects) {
        Err(TableError::Missing { missing, .. }) => missing,
        other => other.map(|_| vec![]).unwrap(),
    }
}

fn latency(table: &LatencyTable, subject: &Subject) -> Latency {
    table.estimates()[subject].latency
}

fn rows() -> [Row; 2] {
    [row(layer("conv_3x3", 8, 1), 94_123.25, 2), row(layer("skip", 8, 2), 0.1 + 0.2, 2)]
}

/// Returns a folder with a table of two rows, and the path of the table.
fn two_rows() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("table.jsonl");
    let mut table = LatencyTable::open(&path, header(), COMMAND).unwrap();
    rows().into_iter().for_each(|row| table.append(row).unwrap());
    (dir, path)
}

/// If the format changes on purpose, its number must rise. If only `key` changes, the rows that people have measured
/// become stale.
#[test]
fn the_file_format_is_the_golden_one() {
    let golden = include_str!("golden/table.jsonl");
    let (dir, path) = two_rows();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), golden);

    let copy = dir.path().join("copy.jsonl");
    std::fs::write(&copy, golden).unwrap();
    let read = LatencyTable::load(&copy, COMMAND).unwrap();
    assert_eq!(read.header, header());
    assert_eq!(read.rows(), rows());
    assert_eq!(read.stale(), 0);
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
    let changes: [(&str, Change); 12] = [
        ("device", |h| h.device = "other".into()),
        ("CPU", |h| h.cpu = "other".into()),
        ("architecture", |h| h.arch = "other".into()),
        ("libc", |h| h.libc = "other".into()),
        ("runtime", |h| h.runtime = Runtime::Tract.to_string()),
        ("runtime version", |h| h.runtime_version = "other".into()),
        ("threads", |h| h.threads = Some(2)),
        ("precision", |h| h.precision = Precision::Int8),
        ("pinned cores", |h| h.pinned = vec![1]),
        ("space", |h| h.space = SearchSpace::load("chain").unwrap()),
        ("images", |h| h.input = Shape::new(3, 8, 9)),
        ("layers", |h| h.space.layers[2].stride = 2),
    ];
    for (what, change) in changes {
        let mut ours = header();
        change(&mut ours);
        let error = LatencyTable::open(&path, ours, COMMAND).unwrap_err();
        // Latencies of other settings are another quantity, which no flag allows.
        let is_setting = ["runtime", "threads", "precision", "space", "images", "layers"].contains(&what);
        let difference = match &error {
            TableError::Settings { difference, .. } if is_setting => difference,
            TableError::Pinned { difference, .. } if what == "pinned cores" => difference,
            TableError::Foreign { difference, .. } if !is_setting => difference,
            _ => panic!("{what}: {error}"),
        };
        assert_eq!(difference.what, what, "{error}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert!(LatencyTable::open(&path, header(), COMMAND).is_ok());
}

#[test]
fn the_command_pins_the_probe_to_the_cores_of_the_table() {
    let dir = tempfile::tempdir().unwrap();
    let pinned = Header { pinned: vec![1, 3], ..header() };
    let path = dir.path().join("t.jsonl");
    assert_eq!(LatencyTable::open(&path, pinned, COMMAND).unwrap().command(), format!("{COMMAND} --pin=1,3"));
    assert_eq!(LatencyTable::load(&path, COMMAND).unwrap().command(), format!("{COMMAND} --pin=1,3"));
}

#[test]
fn damaged_tables_are_named_with_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let golden = include_str!("golden/table.jsonl");
    let lines: Vec<&str> = golden.lines().collect();
    for (text, words) in [
        (String::new(), "empty"),
        (golden.replacen("\"latency_table\":3", "\"latency_table\":2", 1), "format 2"),
        (format!("{}\n", lines[1]), "no format number"),
        (format!("not json\n{}\n", lines[1]), "line 1"),
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

/// Each of these lines is left out, and the others remain usable.
#[test]
fn a_damaged_row_is_left_out_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.jsonl");
    let golden = include_str!("golden/table.jsonl");
    let lines: Vec<&str> = golden.lines().collect();
    for (from, to) in [
        ("{\"layer\"", "not json"),
        ("conv_3x3", "conv_8x8"),
        ("\"channels\":8", "\"channels\":0"),
        ("\"channels\":8", "\"channels\":100000000"),
        ("\"stride\":1", "\"stride\":1000"),
        ("[3,8,8]", "[3,8000000,8000000]"),
        ("\"samples_ns\":[94123.25,94123.25]", "\"samples_ns\":[0,0]"),
        ("\"samples_ns\":[94123.25,94123.25]", "\"samples_ns\":[94123.25,-1]"),
        ("\"samples_ns\":[94123.25,94123.25]", "\"samples_ns\":[]"),
        ("\"median_ns\":94123.25", "\"median_ns\":1e300"),
        ("\"batch\":4", "\"batch\":0"),
    ] {
        assert!(lines[1].contains(from), "{from}");
        let text = format!("{}\n{}\n{}\n", lines[0], lines[1].replace(from, to), lines[2]);
        std::fs::write(&path, text).unwrap();
        let table = LatencyTable::load(&path, COMMAND).unwrap();
        assert_eq!((table.rows().len(), table.damaged()), (1, 1), "{to}");
    }
    let planned = |networks: &str| {
        let planned = format!("{{\"planned\":{{\"networks\":{networks},\"classes\":3}}}}");
        std::fs::write(&path, format!("{}\n{planned}\n{}\n", lines[0], lines[1])).unwrap();
        LatencyTable::load(&path, COMMAND).unwrap()
    };
    assert_eq!(planned("20").planned(3), 20);
    for wrong in ["0", "1.8e19", "18000000000000000000", "-1"] {
        let table = planned(wrong);
        assert_eq!((table.planned(3), table.damaged(), table.rows().len()), (0, 1, 1), "{wrong}");
    }
}

#[test]
fn what_could_not_be_read_back_is_not_written() {
    let (_dir, path) = two_rows();
    let before = std::fs::read(&path).unwrap();
    let mut table = LatencyTable::open(&path, header(), COMMAND).unwrap();
    let sound = table.rows()[0].clone();
    for row in [Row { samples_ns: vec![-5.0], ..sound.clone() }, Row { batch: 0, ..sound }] {
        assert!(matches!(table.append(row), Err(TableError::Unsound { .. })));
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn two_processes_do_not_add_rows_to_one_table() {
    let (_dir, path) = two_rows();
    let held = LatencyTable::open(&path, header(), COMMAND).unwrap();
    let error = LatencyTable::open(&path, header(), COMMAND).unwrap_err().to_string();
    assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
    assert!(LatencyTable::load(&path, COMMAND).is_ok(), "it can be read meanwhile");
    drop(held);
    assert!(LatencyTable::open(&path, header(), COMMAND).is_ok());
}

#[test]
fn the_row_of_an_op_that_has_changed_is_counted_and_measured_again() {
    let (_dir, path) = two_rows();
    let conv = layer("conv_3x3", 8, 1);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen(&conv.key(), "0123456789abcdef", 1)).unwrap();

    let mut table = LatencyTable::open(&path, header(), COMMAND).unwrap();
    assert_eq!((table.rows().len(), table.stale()), (1, 1));
    assert_eq!(missing(&table, std::slice::from_ref(&conv)), std::slice::from_ref(&conv));
    table.append(row(conv.clone(), 7.0, 1)).unwrap();
    let read = LatencyTable::load(&path, COMMAND).unwrap();
    assert_eq!(latency(&read, &conv), Latency::from_ns(7.0));
    assert_eq!(read.rows().len(), 2);
}

#[test]
fn the_header_stays_as_it_was_written() {
    let (_dir, path) = two_rows();
    let first = |text: &str| text.lines().next().unwrap().to_string();
    let before = first(&std::fs::read_to_string(&path).unwrap());
    let mut table = LatencyTable::open(&path, header(), COMMAND).unwrap();
    for (networks, classes) in [(100, 10), (60, 10), (12, 20), (161, 10)] {
        table.plan(Planned { networks, classes }).unwrap();
    }
    for table in [&table, &LatencyTable::load(&path, COMMAND).unwrap()] {
        assert_eq!((table.planned(10), table.planned(20), table.planned(3)), (161, 12, 0));
        assert_eq!(table.classes(), [10, 20]);
    }
    assert_eq!(first(&std::fs::read_to_string(&path).unwrap()), before);
}

#[test]
fn what_is_missing_is_counted_with_three_examples_and_the_command_that_measures_it() {
    let networks = Networks::new(SearchSpace::load("chain").unwrap(), INPUT, [4]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut table = LatencyTable::open(&dir.path().join("t.jsonl"), header_of(&networks), COMMAND).unwrap();
    let subjects = isolated_subjects(&networks);
    subjects[..5].iter().for_each(|subject| table.append(row(subject.clone(), 1.0, 1)).unwrap());
    let error = LatencyModel::new(&table, &networks).unwrap_err();
    let message = error.to_string();
    let ModelError::Table(TableError::Missing { missing, .. }) = error else { panic!("{message}") };
    assert_eq!(missing, subjects[5..]);
    assert!(message.contains(&format!("lacks {} models", missing.len())), "{message}");
    for (i, subject) in missing.iter().enumerate() {
        assert_eq!(message.contains(&subject.to_string()), i < 3, "{subject} in {message}");
    }
    assert!(message.contains(COMMAND), "{message}");
}

#[test]
fn a_table_of_another_space_has_no_model() {
    let (_dir, path) = two_rows();
    let table = LatencyTable::load(&path, COMMAND).unwrap();
    for (space, input) in [("chain", INPUT), ("chain_small", Shape::new(3, 9, 8))] {
        let networks = Networks::new(SearchSpace::load(space).unwrap(), input, [4]).unwrap();
        let error = LatencyModel::new(&table, &networks).unwrap_err().to_string();
        assert!(
            error.contains("`chain_small` on 3x8x8") && error.contains(&format!("`{space}` on {input}")),
            "{error}"
        );
    }
}

/// An eighth of the rows come from moments in which the device is faster than usual.
#[test]
fn one_fast_moment_in_eight_is_discarded() {
    let (_dir, path) = two_rows();
    let mut table = LatencyTable::open(&path, header(), COMMAND).unwrap();
    let conv = layer("conv_5x5", 8, 1);
    let mut of = |ns: &[f64]| {
        ns.iter().for_each(|&ns| table.append(row(conv.clone(), ns, 20)).unwrap());
        let estimate = table.estimates()[&conv];
        (estimate.latency.ns(), estimate.gap.map(Latency::ns))
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
    // From the middle on, the device is 10 % slower. One layer is measured only then.
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
        let found = latency(&table, &layer("conv_3x3", channels, 1));
        let off = found.ns() / undisturbed(channels) - 1.0;
        assert!(off.abs() < 0.005, "{channels}: {off}");
    }
}

/// More rows of the same distribution do not change what a benchmark or a table reports.
#[test]
fn the_number_of_rows_does_not_bias_an_estimate() {
    use edge_nas::table::{Estimate, Timing};
    use rand::{Rng, SeedableRng};
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
    let mut mean = |rows: usize| {
        let mut one = || {
            let timing = |fastest| Timing { fastest, slowness: 1.0, at_speed: true, median: fastest, disturbed: false };
            let rows = (0..rows).map(|_| timing(1000.0 + 100.0 * rng.random::<f64>()));
            Estimate::of(rows.collect::<Vec<_>>()).unwrap().latency.ns()
        };
        (0..2000).map(|_| one()).sum::<f64>() / 2000.0
    };
    let (few, many) = (mean(8), mean(64));
    assert!((few - many).abs() < 11.0, "{few} {many}");
}

#[test]
fn unseen_networks_are_kept_with_how_they_were_drawn() {
    let (_dir, path) = two_rows();
    let mut table = LatencyTable::open(&path, header(), COMMAND).unwrap();
    for drawn in [Drawn::Random, Drawn::Derived] {
        table.append(Row { unseen: Some(drawn), ..row(layer("conv_5x5", 8, 1), 5.0, 1) }).unwrap();
    }
    let read = LatencyTable::load(&path, COMMAND).unwrap();
    let drawn: Vec<Option<Drawn>> = read.rows().iter().map(|row| row.unseen).collect();
    assert_eq!(drawn, [None, None, Some(Drawn::Random), Some(Drawn::Derived)]);
}
