//! The report is made from the files in a run's folder, and from nothing else.
#![allow(clippy::unwrap_used)]

use edge_nas::artifact::{self, Digest};
use edge_nas::bounded::{Share, Width};
use edge_nas::data::Normalisation;
use edge_nas::latency::Latency;
use edge_nas::record::{
    BenchRow, CandidateRow, Certificate, Certified, Confusion, Evaluation, Expected, Held, LayerLatency, Metrics,
    ModelDir, NearestBelow, OfClass, Prediction, RunDir, SearchEpoch, SearchedOn, TrainEpoch, TrainedOn, Unconstrained,
    WEIGHTS,
};
use edge_nas::report::{ReportError, Run};
use edge_nas::search::Unit;
use edge_nas::space::{Baseline, Genotype, Layer, Network, Networks, SearchSpace, names_of};
use nas_exporters::{Precision, Shape, onnx};
use nas_probe::Runtime;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const OPS: &str = "conv_3x3,skip,conv_5x5,sep_conv_3x3,max_pool_3x3,conv_3x3";
const EPOCHS: usize = 8;

fn genotype_of(ops: &str) -> Genotype {
    let space = SearchSpace::load("chain_small").unwrap();
    Genotype::parse(Networks::new(space, Shape::new(3, 32, 32), [10]).unwrap(), ops).unwrap()
}

fn genotype() -> Genotype {
    genotype_of(OPS)
}

fn write_search(dir: &RunDir) {
    let genotype = genotype();
    for epoch in 1..=EPOCHS {
        let progress = epoch as f64 / EPOCHS as f64;
        let networks = &genotype.networks;
        let chosen = |layer: usize, i: usize| if genotype.choices[layer] == i { 1.0 } else { 0.1 };
        let alpha =
            |layer: usize| (0..networks.choices()[layer].len()).map(|i| 2.0 * progress * chosen(layer, i)).collect();
        let line = SearchEpoch {
            epoch,
            learning_rate: 0.025,
            train_loss: 2.0 - progress,
            validation_loss: (epoch > 2).then_some(2.1 - progress),
            validation_accuracy: (epoch > 2).then_some(share(0.5 * progress)),
            constraints: vec![Expected {
                cost: "latency on host with ort".into(),
                unit: Unit::Nanoseconds,
                expected: 2.0e6 - 0.7e6 * progress,
                limit: 1.25e6,
            }],
            multipliers: vec![],
            entropies: vec![],
            alpha: networks.searched().map(alpha).collect(),
            choices: networks.searched().map(|layer| names_of(&networks.choices()[layer])).collect(),
            seconds: 61.0,
        };
        artifact::append_line(&dir.search_log(), &line).unwrap();
    }
    artifact::write_json(&dir.genotype(), &genotype).unwrap();
    let lines: Vec<SearchEpoch> = artifact::read_lines(&dir.search_log()).unwrap();
    let on = SearchedOn {
        data: "test".into(),
        data_digest: String::new(),
        tables: vec![Digest::of_bytes(b"table")],
        genotype: Digest::of(&genotype),
        log: Digest::of_lines(&lines),
        foreign_table: None,
        made: None,
    };
    artifact::write_json(&dir.searched_on(), &on).unwrap();
}

fn share(value: f64) -> Share {
    Share::of(value)
}

/// Returns the ONNX file of a network, as if its weights were its name.
fn model(network: &Network) -> Vec<u8> {
    let weights = Digest::of_bytes(network.name().as_bytes());
    let model = onnx::untrained(&network.graph(), Precision::Fp32).unwrap();
    onnx::with_metadata(&model, WEIGHTS, weights.as_str()).unwrap()
}

fn write_model(dir: &ModelDir, network: &Network, last_accuracy: f64) {
    let _ = std::fs::remove_file(dir.train_log());
    artifact::write_json(&dir.network(), network).unwrap();
    for epoch in 1..=EPOCHS {
        let progress = epoch as f64 / EPOCHS as f64;
        let line = TrainEpoch {
            epoch,
            learning_rate: 0.05 * (1.0 - progress),
            train_loss: 1.9 - 1.5 * progress.sqrt(),
            train_accuracy: share(progress.sqrt() * last_accuracy),
            test_accuracy: Some(share(progress.sqrt() * last_accuracy)),
            held_out_accuracy: None,
            seconds: 30.5,
        };
        artifact::append_line(&dir.train_log(), &line).unwrap();
    }
    artifact::write(&dir.weights(), network.name().as_bytes()).unwrap();
    artifact::write(&dir.onnx(), &model(network)).unwrap();
    let lines: Vec<TrainEpoch> = artifact::read_lines(&dir.train_log()).unwrap();
    let on = TrainedOn {
        data: "test".into(),
        data_digest: String::new(),
        network: Digest::of(network),
        log: Digest::of_lines(&lines),
        weights: Digest::of_bytes(network.name().as_bytes()),
        classes: vec![],
        normalisation: Normalisation { mean: vec![], std: vec![] },
        arithmetic: Default::default(),
        made: None,
    };
    artifact::write_json(&dir.trained_on(), &on).unwrap();
}

fn bench_row(network: &Network, runtime: Runtime, ns: f64) -> BenchRow {
    BenchRow {
        model: network.name(),
        digest: Digest::of_bytes(&model(network)),
        network: Some(Digest::of(network)),
        images: 1,
        device: "test board <&>".into(),
        runtime,
        runtime_version: "0.0.1".into(),
        providers: vec![],
        threads: 1,
        precision: Precision::Fp32,
        latency_ns: Latency::from_ns(ns),
        median_ns: Latency::from_ns(1.02 * ns),
        p5_ns: Latency::from_ns(0.97 * ns),
        p95_ns: Latency::from_ns(1.06 * ns),
        samples: 211,
        disturbed_rounds: 0,
        peak_bytes: 23_456_789,
        prediction: None,
    }
}

fn by_layer(layer: Layer, ns: Latency) -> LayerLatency {
    LayerLatency { layer, adds_ns: Some(ns), isolated_ns: Some(2.0 * ns) }
}

/// Returns a prediction in which each layer takes `ns`, and the whole network takes 5 % more than `latency`.
fn prediction(genotype: &Genotype, latency: f64, ns: f64) -> Prediction {
    let layers = genotype.live_layers().into_iter().map(|layer| by_layer(layer, Latency::from_ns(ns)));
    Prediction {
        latency_ns: Latency::from_ns(1.05 * latency),
        table: Digest::of_bytes(b"table"),
        isolated_ns: None,
        layers: layers.collect(),
        interactions: vec!["each row before skip/2".into()],
        slowness: None,
        foreign_table: None,
    }
}

fn baseline() -> Network {
    Network::MobilenetV2(Baseline { width: Width::of(0.5), input: Shape::new(3, 32, 32), classes: 10 })
}

fn write_bench(dir: &RunDir) {
    let (found, genotype) = (Network::Genotype(genotype()), genotype());
    for (runtime, found_ns, baseline_ns) in [(Runtime::Tract, 2.4e6, 3.3e6), (Runtime::Ort, 1.2e6, 0.65e6)] {
        let share = found_ns / genotype.live_layers().len() as f64;
        let prediction = Some(prediction(&genotype, found_ns, share));
        let row = BenchRow { prediction, ..bench_row(&found, runtime, found_ns) };
        // An older measurement, which the next line replaces.
        artifact::append_line(&dir.bench(), &bench_row(&found, runtime, 77.7e6)).unwrap();
        artifact::append_line(&dir.bench(), &row).unwrap();
        artifact::append_line(&dir.bench(), &bench_row(&baseline(), runtime, baseline_ns)).unwrap();
    }
}

fn complete_run(dir: &RunDir) {
    write_search(dir);
    write_model(&dir.found(), &Network::Genotype(genotype()), 0.9125);
    write_model(&dir.baseline(), &baseline(), 0.9035);
    write_bench(dir);
}

fn folder() -> (tempfile::TempDir, RunDir) {
    let temp = tempfile::tempdir().unwrap();
    let dir = RunDir(temp.path().join("run"));
    artifact::create_dir(&dir.0).unwrap();
    (temp, dir)
}

fn page(dir: &RunDir) -> String {
    let path = Run::load(dir).unwrap().write(dir).unwrap();
    assert_eq!(path, dir.report());
    let page = std::fs::read_to_string(path).unwrap();
    assert_well_formed(&page);
    page
}

/// Checks that tags are closed in order, and that all text is escaped.
fn assert_well_formed(page: &str) {
    let (mut open, mut rest) = (vec![], page.strip_prefix("<!DOCTYPE html>").unwrap());
    while let Some((text, after)) = rest.split_once('<') {
        assert!(!text.contains('>') || open.last() == Some(&"style"), "a bare > in `{text}`");
        let (tag, after) = after.split_once('>').unwrap();
        rest = after;
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "the closed tag is not open"),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split_whitespace().next().unwrap()),
        }
    }
    assert_eq!(open, Vec::<&str>::new(), "left open");
}

#[test]
fn the_report_of_a_complete_run_has_all_figures_and_numbers() {
    let (_temp, dir) = folder();
    complete_run(&dir);
    let page = page(&dir);
    for figure in [
        "Loss of the search",
        "Expected costs against their limits",
        "Probability of each choice",
        "Training from scratch",
        "Latency by layer",
        "Accuracy against latency",
    ] {
        assert!(page.contains(&format!("<h3>{figure}</h3>")), "no figure `{figure}`");
    }
    let alpha_panels = page.matches("Probability of each choice layer").count();
    assert_eq!(alpha_panels, genotype().names().len());
    for text in [
        "The found network classifies 91.25 % of the test images correctly and takes 2.40 ms (tract) and 1.20 ms (ort).",
        "mobilenet_v2_x0.5 classifies 90.35 % of the test images correctly and takes 3.30 ms (tract) and 650 µs (ort).",
        "The search was limited to 1.25 ms of latency on host with ort.",
        "test board &lt;&amp;&gt;",
        "<td>2.52 ms</td><td>+5.0 %</td>",
        "<td>0.700 M</td><td>27.97 M</td>",
        "measured latency, ms",
        "conv_5x5</td>",
        "8 epochs in 8 min 8 s",
    ] {
        assert!(page.contains(text), "`{text}` is not in the page");
    }
    assert_eq!(page.matches("each row before skip/2.</p>").count(), 2, "once per runtime");
    assert!(!page.contains("class=\"missing\""), "a section is missing");
    assert!(!page.contains("77.7"), "an old measurement is shown");
    let linked = page.replace("http://www.w3.org/2000/svg", "");
    assert!(!linked.contains("http"), "the page refers to another file");
}

#[test]
fn the_summary_has_the_measured_values() {
    let (_temp, dir) = folder();
    complete_run(&dir);
    let run = Run::load(&dir).unwrap();
    let rows = serde_json::to_value(run.rows()).unwrap();
    assert_eq!(rows[0]["genotype"], OPS);
    assert_eq!(rows[0]["test_accuracy"], 0.9125);
    assert_eq!(rows[0]["latencies"][1]["runtime"], "ort");
    assert_eq!(rows[0]["latencies"][1]["predicted_ns"], 1.05 * 1.2e6);
    assert_eq!(rows[1]["name"], "mobilenet_v2_x0.5");
    assert_eq!(rows[1]["genotype"], serde_json::Value::Null);
    assert_eq!(rows[1]["latencies"][0]["predicted_ns"], serde_json::Value::Null);
    assert_eq!(rows[1]["latencies"][0]["measured_ns"], 3.3e6);
    let table = run.table();
    for text in [OPS, "91.25 %", "2.52 ms", "2.40 ms", "650 µs", "measured"] {
        assert!(table.contains(text), "`{text}` is not in\n{table}");
    }
}

#[test]
fn labels_name_only_the_settings_that_differ() {
    let (_temp, dir) = folder();
    complete_run(&dir);
    let row = BenchRow { threads: 4, ..bench_row(&Network::Genotype(genotype()), Runtime::Ort, 0.5e6) };
    artifact::append_line(&dir.bench(), &row).unwrap();
    let page = page(&dir);
    for label in ["ort, 1 thread", "ort, 4 threads"] {
        assert!(page.contains(&format!("<th>{label}\nmeasured</th>")), "{label}");
    }
}

#[test]
fn a_missing_part_names_the_command_that_writes_it() {
    let (_temp, dir) = folder();
    write_search(&dir);
    let page = page(&dir);
    for command in ["nas train", "nas bench"] {
        assert!(page.contains(&format!("<code>{command}</code> writes it")), "{command}");
    }
    assert!(page.contains("Loss of the search") && !page.contains("Training from scratch"));
    let rows = Run::load(&dir).unwrap().rows();
    assert_eq!((rows.len(), rows[0].test_accuracy, rows[0].latencies.len()), (1, None, 0));
    assert!(rows[0].params > 0, "the cost follows from the genotype");

    let (_temp, dir) = folder();
    write_model(&dir.found(), &baseline(), 0.9);
    assert!(self::page(&dir).contains("<code>nas search</code> writes it"));
}

#[test]
fn layers_before_a_zero_have_no_prediction() {
    let (_temp, dir) = folder();
    let genotype = genotype_of("conv_3x3,zero,skip,skip,skip,skip");
    let network = Network::Genotype(genotype.clone());
    write_model(&dir.found(), &network, 0.9);
    let prediction = Some(prediction(&genotype, 4e4, 5e3));
    let row = BenchRow { prediction, ..bench_row(&network, Runtime::Ort, 4e4) };
    artifact::append_line(&dir.bench(), &row).unwrap();
    let page = page(&dir);
    assert_eq!(page.matches("no prediction").count(), 3, "stem, layer 1 and the zero");
    assert_eq!(page.matches("<td>5.00 µs</td>").count(), 5);
}

#[test]
fn an_incomplete_last_line_is_ignored() {
    let (_temp, dir) = folder();
    complete_run(&dir);
    let before = page(&dir);
    for log in [dir.search_log(), dir.found().train_log(), dir.bench()] {
        let mut file = std::fs::OpenOptions::new().append(true).open(log).unwrap();
        file.write_all(b"{\"epoch\":9,\"train_lo").unwrap();
    }
    assert_eq!(page(&dir), before);
}

#[test]
fn a_damaged_or_empty_folder_is_an_error() {
    let (_temp, dir) = folder();
    let error = Run::load(&dir).unwrap_err();
    assert!(matches!(error, ReportError::Empty(_)));
    assert!(error.to_string().contains("nas run"), "{error}");
    assert!(!dir.report().exists());

    std::fs::write(dir.bench(), "{}\n").unwrap();
    let error = Run::load(&dir).unwrap_err().to_string();
    assert!(error.contains("bench.jsonl, line 1") && !error.contains('\n'), "{error}");
}

#[test]
fn the_error_of_a_prediction_is_corrected_for_the_speed_of_the_device() {
    let prediction = prediction(&genotype(), 1e6, 1e4);
    let error = |slowness, measured| {
        let prediction = Some(Prediction { slowness, ..prediction.clone() });
        BenchRow { prediction, ..bench_row(&Network::Genotype(genotype()), Runtime::Ort, measured) }.error().unwrap()
    };
    assert!((error(None, 1e6) - 0.05).abs() < 1e-9);
    assert!((error(Some(1.12), 1.12e6) - 0.05).abs() < 1e-9);
    assert!(error(Some(1.0), 1.05e6).abs() < 1e-9);
}

#[test]
fn results_of_another_network_are_not_shown_as_its_own() {
    let (_temp, dir) = folder();
    complete_run(&dir);
    // A later search found another network.
    let other = genotype_of("skip,skip,skip,skip,skip,conv_3x3");
    artifact::write_json(&dir.genotype(), &other).unwrap();
    let run = Run::load(&dir).unwrap();
    let found = &serde_json::to_value(run.rows()).unwrap()[0];
    assert_eq!((&found["genotype"], &found["test_accuracy"]), (&other.to_string().into(), &serde_json::Value::Null));
    assert!(found["latencies"].as_array().unwrap().iter().all(|l| l["measured_ns"].is_null()), "{found}");
    for note in ["is not the one that was found", "of different searches", "2 rows of bench.jsonl are of models"] {
        assert!(run.notes.iter().any(|found| found.contains(note)), "{note}: {:?}", run.notes);
    }
    let page = page(&dir);
    assert!(page.contains("Note: the network that was trained") && !page.contains("91.25 %"));
    // The baseline has nothing to do with it.
    assert!(page.contains("90.35 %"));
}

#[test]
fn weights_and_models_of_another_training_are_not_shown() {
    for (file, said) in [("weights.safetensors", "weights.safetensors in"), ("model.onnx", "model.onnx is not of the")]
    {
        let (_temp, dir) = folder();
        complete_run(&dir);
        let content = if file == "model.onnx" { model(&baseline()) } else { b"other".to_vec() };
        std::fs::write(dir.0.join(file), content).unwrap();
        let run = Run::load(&dir).unwrap();
        assert!(run.notes.iter().any(|note| note.contains(said)), "{:?}", run.notes);
        assert_eq!(run.models[0].test_accuracy().is_some(), file == "model.onnx");
        let rows = serde_json::to_value(run.rows()).unwrap();
        assert!(rows[0]["latencies"][0]["measured_ns"].is_null() && rows[1]["latencies"][0]["measured_ns"].is_number());
    }
}

#[test]
fn numbers_that_cannot_be_are_an_error_and_losses_beyond_an_axis_do_not_hang() {
    let (_temp, dir) = folder();
    complete_run(&dir);
    let text = std::fs::read_to_string(dir.found().train_log()).unwrap();
    let accuracy = "\"test_accuracy\":0.9125";
    assert!(text.contains(accuracy));
    std::fs::write(dir.found().train_log(), text.replace(accuracy, "\"test_accuracy\":-1e308")).unwrap();
    let error = Run::load(&dir).unwrap_err().to_string();
    assert!(error.contains("train.jsonl, line 8") && error.contains("not a share from 0 to 1"), "{error}");

    complete_run(&dir);
    let text = std::fs::read_to_string(dir.search_log()).unwrap();
    std::fs::write(dir.search_log(), text.replace("\"train_loss\":1.0", "\"train_loss\":-1e308")).unwrap();
    page(&dir);
}

#[test]
fn what_has_not_ended_is_mentioned_where_nothing_has() {
    let (_temp, dir) = folder();
    complete_run(&dir);
    let leave = |folder: &std::path::Path, from: std::path::PathBuf, name: &str| {
        artifact::write(&folder.join("checkpoint").join(name), &std::fs::read(from).unwrap()).unwrap();
    };
    leave(&dir.0, dir.found().train_log(), "train-0123456789ab.jsonl");
    leave(&dir.0, dir.search_log(), "search-0123456789ab.jsonl");
    assert_eq!(Run::load(&dir).unwrap().notes, [""; 0]);
    for file in ["data.json", "genotype.json", "search.json", "search.jsonl"] {
        std::fs::remove_file(dir.0.join(file)).unwrap();
    }
    let run = Run::load(&dir).unwrap();
    assert!(run.notes.iter().any(|note| note == "a search has not ended: 8 epochs so far"), "{:?}", run.notes);
    assert_eq!(run.begun.unwrap().log.len(), EPOCHS);
}

/// Runs `nas report`, and returns its standard output and error.
fn report(dir: &RunDir) -> (String, String) {
    let mut nas = assert_cmd::Command::new(env!("CARGO_BIN_EXE_nas"));
    let output = nas.args(["report", "--run"]).arg(&dir.0).assert().success().get_output().clone();
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// Returns the page that `nas report` writes, and its warnings.
fn reported(dir: &RunDir) -> (String, String) {
    let (_, warnings) = report(dir);
    let page = page(dir);
    (page, warnings)
}

/// Returns the section of a page below a heading.
fn section<'p>(page: &'p str, title: &str) -> &'p str {
    let (_, after) = page.split_once(&format!("<h2>{title}</h2>")).unwrap_or_else(|| panic!("no section `{title}`"));
    after.split_once("</section>").unwrap().0
}

/// Makes a file look as if it was written this many minutes after the start of a search.
fn written(path: &Path, minute: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + 60 * minute);
    std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

fn unfinished(dir: &RunDir, name: &str) -> PathBuf {
    dir.0.join("checkpoint").join(name)
}

/// Returns an epoch of a supernet that is trained without alpha.
fn oneshot_epoch(epoch: usize) -> SearchEpoch {
    SearchEpoch { epoch, learning_rate: 0.05, train_loss: 2.0 / epoch as f64, seconds: 60.0, ..Default::default() }
}

fn candidate(ops: &str, epochs: usize, loss: f64) -> CandidateRow {
    let ops = ops.split(',').map(String::from).collect();
    CandidateRow { ops, epochs, loss, accuracy: Some(share(0.75)), seconds: 2.0 }
}

/// Returns candidates as `oneshot` compares them: all are scored with the weights of the supernet, and the best are
/// trained.
fn candidates() -> Vec<CandidateRow> {
    let others = ["skip,skip,conv_5x5,skip,skip,conv_3x3", "conv_3x3,skip,skip,skip,skip,conv_3x3"];
    let scored = [(OPS, 0.91), (others[0], 0.95), (others[1], 1.31)].map(|(ops, loss)| candidate(ops, 0, loss));
    let trained = [(OPS, 1, 1.62), (others[0], 1, 1.55), (OPS, 2, 1.31), (others[0], 2, 1.33)];
    scored.into_iter().chain(trained.map(|(ops, epochs, loss)| candidate(ops, epochs, loss))).collect()
}

#[test]
fn a_search_that_runs_shows_what_there_is() {
    let (_temp, dir) = folder();
    let log = unfinished(&dir, "search-0123456789ab.jsonl");
    artifact::write_lines::<SearchEpoch>(&log, &[]).unwrap();
    let (page, warnings) = reported(&dir);
    assert!(warnings.contains("a search has not ended: nothing is done so far\n"), "{warnings}");
    assert!(
        page.contains("There is nothing to show before its first epoch or network is done")
            && !page.contains("<h2>Result")
    );

    artifact::write_lines(&log, &[oneshot_epoch(1)]).unwrap();
    written(&log, 1);
    assert!(report(&dir).1.contains("a search has not ended: 1 epoch so far\n"));
    let rows = candidates();
    let compared = |name: &str, rows: &[CandidateRow], minute: u64| {
        let path = unfinished(&dir, name);
        artifact::write_lines(&path, rows).unwrap();
        written(&path, minute);
        path
    };
    // These candidates are from an earlier search with another supernet.
    compared("candidates-aaaaaaaaaaaa.jsonl", &rows[..2], 0);
    let (page, _) = reported(&dir);
    let begun = section(&page, "The search that has not ended");
    assert!(begun.contains("Loss of the search") && !begun.contains("Candidates"), "{begun}");

    compared("candidates-bbbbbbbbbbbb.jsonl", &rows[..1], 2);
    let (page, warnings) = reported(&dir);
    assert!(warnings.contains("a search has not ended: 1 epoch, 1 network so far\n"), "{warnings}");
    assert!(section(&page, "The search that has not ended").contains("The search compared 1 network with the weights"));

    // The search goes on with the next target.
    compared("candidates-cccccccccccc.jsonl", &rows, 3);
    let (page, warnings) = reported(&dir);
    let said = "a search has not ended: 1 epoch, 1 target, 3 networks for the next one so far\n";
    assert!(warnings.contains(said), "{warnings}");
    for figure in ["Loss of the search", "First comparison against the next one"] {
        assert!(page.contains(&format!("<h3>{figure}</h3>")), "{figure}");
    }
    for figure in ["Expected costs", "Multipliers", "Indecision", "Probability"] {
        assert!(!page.contains(figure), "{figure}");
    }
    let (best, second) = (page.find(&OPS.replace(',', ", ")), page.find("skip, skip, conv_5x5, skip"));
    assert!(best.unwrap() < second.unwrap(), "the best by the longest training comes first");
    assert!(page.contains("loss with the supernet's weights</th>"));
}

#[test]
fn an_algorithm_without_a_supernet_has_no_curve_of_another_one() {
    let (_temp, dir) = folder();
    let rows: Vec<CandidateRow> = candidates().into_iter().filter(|row| row.epochs > 0).collect();
    let path = unfinished(&dir, "candidates-bbbbbbbbbbbb.jsonl");
    artifact::write_lines(&path, &rows).unwrap();
    written(&path, 2);
    let alone = report(&dir).1;
    assert!(alone.contains("a search has not ended: 2 networks so far\n"), "{alone}");
    let log = unfinished(&dir, "search-0123456789ab.jsonl");
    artifact::write_lines(&log, &[oneshot_epoch(1)]).unwrap();
    written(&log, 1);
    let (page, warnings) = reported(&dir);
    assert_eq!(warnings, alone);
    assert!(!page.contains("Loss of the search"));
}

#[test]
fn results_are_not_shown_as_those_of_a_search_that_runs() {
    let (_temp, dir) = folder();
    complete_run(&dir);
    // This is what the search left, with the times as copying changed them.
    let left = unfinished(&dir, "search-aaaaaaaaaaaa.jsonl");
    std::fs::create_dir_all(left.parent().unwrap()).unwrap();
    std::fs::copy(dir.search_log(), &left).unwrap();
    written(&dir.search_log(), 5);
    written(&dir.genotype(), 5);
    for minute in [4, 6] {
        written(&left, minute);
        assert_eq!(Run::load(&dir).unwrap().notes, [""; 0]);
    }
    let log = unfinished(&dir, "search-bbbbbbbbbbbb.jsonl");
    artifact::write_lines(&log, &[oneshot_epoch(1), oneshot_epoch(2)]).unwrap();
    written(&log, 4);
    assert_eq!(Run::load(&dir).unwrap().notes, [""; 0], "one that was interrupted before");
    written(&log, 7);
    let (page, warnings) = reported(&dir);
    let said = "a later search has not ended: 2 epochs so far; the results are those of the search before";
    assert!(warnings.contains(said) && page.contains(said), "{warnings}");
    let begun = section(&page, "The search that has not ended");
    assert!(begun.contains("Loss of the search") && !begun.contains("Probability of each choice"));
    assert!(section(&page, "Search").contains("Probability of each choice"));
    assert!(page.find("The search that has not ended").unwrap() < page.find("<h2>Result").unwrap());
}

/// Returns the evaluation of a network that classifies all images correctly, except for one of the first class.
fn evaluation(digest: Digest, classes: usize) -> Evaluation {
    let mut confusion = Confusion::new(classes);
    (0..classes).for_each(|class| (0..20).for_each(|_| confusion.add(class, class)));
    confusion.add(0, classes - 1);
    let name = |class| if class == 0 { "<&> of a very long name".into() } else { format!("class {class}") };
    let of = |class| OfClass {
        class: name(class),
        images: confusion.images(class) as usize,
        accuracy: Share::new(20.0 / confusion.images(class) as f64),
    };
    Evaluation {
        model: "found".into(),
        digest,
        device: "test board <&>".into(),
        runtime: "ort".into(),
        runtime_version: Some("0.0.1".into()),
        providers: vec!["cpu".into()],
        data: "test".into(),
        data_digest: String::new(),
        images: 20 * classes + 1,
        test_images: 10_000,
        metrics: Metrics {
            top1: share(0.5),
            top5: Some(share(0.875)),
            cross_entropy: 1.25,
            calibration_error: share(0.03125),
            classes: (0..classes).map(of).collect(),
            confusion,
        },
    }
}

#[test]
fn evaluations_are_shown_with_the_network_that_they_are_of() {
    let (_temp, dir) = folder();
    complete_run(&dir);
    assert!(!page(&dir).contains("<h2>Evaluation"));
    let (found, other) = (Network::Genotype(genotype()), Digest::of_bytes(b"other"));
    // Either the weights or the exported model were evaluated.
    let weights = Digest::of_bytes(found.name().as_bytes());
    for digest in [weights.clone(), Digest::of_bytes(&model(&found))] {
        artifact::write_json(&dir.found().eval(), &evaluation(digest, 10)).unwrap();
        let page = page(&dir);
        let section = section(&page, "Evaluation");
        for text in [
            "<td class=\"text\">ort 0.0.1 on test board &lt;&amp;&gt;</td><td class=\"text\">the first 201 of 10000</td>",
            "<td>50.00 %</td><td>87.50 %</td>",
            "95.24 %</td><td>1.2500</td><td>3.12 %</td>",
            "&lt;&amp;&gt; of a very lon… 0",
        ] {
            assert!(section.contains(text), "`{text}` is not in {section}");
        }
        // Ten shares on the diagonal and one beside it, which are also numbers.
        assert_eq!((section.matches("opacity=\"0.7\"").count(), section.matches("\n100\n").count()), (9, 9));
        assert!(section.contains("\n95\n") && section.contains("\n5\n"), "{section}");
        assert!(page.contains("the first 201 of 10000 test images of test, in ort 0.0.1 on test board &lt;&amp;&gt;"));
    }
    // This many classes have neither numbers nor names.
    artifact::write_json(&dir.found().eval(), &evaluation(weights, 300)).unwrap();
    assert!(!section(&page(&dir), "Evaluation").contains("class 7 7"));

    artifact::write_json(&dir.found().eval(), &evaluation(other, 10)).unwrap();
    let run = Run::load(&dir).unwrap();
    assert!(run.notes.iter().any(|note| note.contains("eval.json is of neither the weights nor")), "{:?}", run.notes);
    assert!(!page(&dir).contains("<h2>Evaluation"));
    let text = std::fs::read_to_string(dir.found().eval()).unwrap();
    let torn = text.replacen("          0,\n", "", 1).replacen("        0,\n", "", 1);
    assert_ne!(text, torn);
    std::fs::write(dir.found().eval(), torn).unwrap();
    let error = Run::load(&dir).unwrap_err().to_string();
    assert!(error.contains("eval.json") && error.contains("a row and a column for each class"), "{error}");
}

fn held(cost: &str, unit: Unit, target: f64, limit: f64, value: f64) -> Held {
    Held { cost: cost.into(), unit, target, limit, value }
}

fn certificate(target: f64) -> Certificate {
    let latency = held("latency on test board <&> with ort", Unit::Nanoseconds, target, 0.98 * target, 0.96 * target);
    Certificate {
        algorithm: "oneshot: minus the cross-entropy".into(),
        constraints: vec![latency, held("activations beyond 64 KiB", Unit::Bytes, 0.0, 0.0, 0.0)],
        score: -0.91,
        unconstrained: Some(Unconstrained {
            ops: vec!["conv_5x5".into(); 6],
            score: -0.8,
            score_cost_of_limit: 0.11,
            costs: vec![3.0 * target, 4096.0],
        }),
        nearest_below: NearestBelow { ops: vec!["skip".into(); 6], value: 0.975 * target, resolution: 0.0 },
        measured_ns: Some(Latency::from_ns(0.97 * target)),
    }
}

fn write_certificate(dir: &RunDir, genotype: &Genotype, certificate: Certificate) {
    artifact::write_json(&dir.genotype(), &Certified { genotype: genotype.clone(), certificate }).unwrap();
}

#[test]
fn a_certificate_and_candidates_are_shown() {
    let (_temp, dir) = folder();
    complete_run(&dir);
    write_certificate(&dir, &genotype(), certificate(1.25e6));
    artifact::write_lines(&dir.candidates(), &candidates()).unwrap();
    let page = page(&dir);
    let search = section(&page, "Search");
    for text in [
        "<td>1.25 ms</td><td>2.0 %</td><td>1.23 ms</td><td>1.20 ms</td><td>3.75 ms</td>",
        "<td>0 KiB</td><td>–</td><td>0 KiB</td><td>0 KiB</td><td>4 KiB</td>",
        "with a score of -0.8000: the limits cost 0.1100.",
        "skip, skip, skip, skip, skip, skip, with 1.22 ms, 2.5 % below what was asked for; no other is nearer.",
        "Before it was chosen, the network was measured to take 1.21 ms.",
        "3 networks with the weights of the supernet, 2 networks by a training of 1 epoch, 2 networks by a training of 2 epochs",
        "First comparison against the next one",
        "<td>0.9100</td><td>1.6200</td><td>1.3100</td><td>75.00 %</td>",
    ] {
        assert!(search.contains(text), "`{text}` is not in {search}");
    }
    assert!(
        page.contains("The search was limited to 1.25 ms of latency on test board &lt;&amp;&gt; with ort and 0 KiB of")
    );
    assert!(page.contains("3 networks in 14.0 s"));
    assert!(section(&page, "Accuracy and latency").contains("target</li>"), "the target is a mark");

    artifact::write_lines(&dir.candidates(), &candidates()[1..3]).unwrap();
    let run = Run::load(&dir).unwrap();
    assert!(run.notes.iter().any(|note| note.contains("candidates.jsonl is of another search")), "{:?}", run.notes);
}

#[test]
fn many_choices_a_layer_stay_readable() {
    let (_temp, dir) = folder();
    let space = SearchSpace::load("chain").unwrap();
    let networks = Networks::new(space, Shape::new(3, 32, 32), [10]).unwrap();
    let epoch = |epoch: usize| {
        let rows = networks.searched().map(|layer| names_of(&networks.choices()[layer])).collect::<Vec<_>>();
        let alpha = |names: &Vec<String>| (0..names.len()).map(|i| 0.01 * (epoch * (i % 7)) as f64).collect();
        SearchEpoch {
            alpha: rows.iter().map(alpha).collect(),
            entropies: rows.iter().map(|names| (names.len() as f64).ln() / epoch as f64).collect(),
            choices: rows,
            constraints: vec![Expected {
                cost: "latency on host with ort".into(),
                unit: Unit::Nanoseconds,
                expected: 1e6 / epoch as f64,
                limit: 4e5,
            }],
            multipliers: vec![0.1 * epoch as f64],
            ..oneshot_epoch(epoch)
        }
    };
    let log = unfinished(&dir, "search-0123456789ab.jsonl");
    artifact::write_lines(&log, &[epoch(1), epoch(2), epoch(3)]).unwrap();
    let (page, _) = reported(&dir);
    let begun = section(&page, "The search that has not ended");
    for figure in [
        "Loss of the search",
        "Expected costs against their limits",
        "Multipliers of the limits",
        "Indecision of each layer",
        "Probability of each op",
        "Probability of each width",
    ] {
        assert!(begun.contains(&format!("<h3>{figure}</h3>")), "{figure}");
    }
    assert!(!begun.contains("Probability of each choice"));
    assert_eq!(begun.matches("aria-label=\"Probability of each op layer").count(), 6);
    assert_eq!(begun.matches("aria-label=\"Probability of each width layer").count(), 3);
    let panels = begun.split("aria-label=\"Probability").skip(1);
    for lines in panels.map(|panel| panel.split_once("</svg>").unwrap().0.matches("<circle").count() / 3) {
        assert!(lines <= 8, "{lines} lines in a panel");
    }
}

/// Writes a run for three targets. The networks for the first two are trained and measured.
fn run_of_targets(dir: &RunDir) {
    let log = [oneshot_epoch(1), oneshot_epoch(2)];
    let networks = ["skip,skip,skip,skip,skip,conv_3x3", OPS, "conv_5x5,skip,conv_5x5,skip,conv_5x5,conv_5x5"];
    for (i, (target, ops)) in [0.6e6, 1.25e6, 1.0e7].into_iter().zip(networks).enumerate() {
        let of_target = dir.target(&format!("{}ms", target / 1e6));
        let genotype = genotype_of(ops);
        artifact::write_lines(&of_target.candidates(), &[candidate(ops, 0, 0.9)]).unwrap();
        write_certificate(&of_target, &genotype, certificate(target));
        let on = SearchedOn {
            data: "test".into(),
            data_digest: String::new(),
            tables: vec![],
            genotype: Digest::of(&genotype),
            log: Digest::of_lines(&log),
            foreign_table: None,
            made: None,
        };
        artifact::write_json(&of_target.searched_on(), &on).unwrap();
        if i < 2 {
            let network = Network::Genotype(genotype);
            write_model(&of_target.found(), &network, 0.8 + 0.06 * i as f64);
            artifact::append_line(&of_target.bench(), &bench_row(&network, Runtime::Ort, 0.97 * target)).unwrap();
        }
    }
    artifact::write_lines(&dir.search_log(), &log).unwrap();
}

#[test]
fn several_targets_are_a_front() {
    let (_temp, dir) = folder();
    run_of_targets(&dir);
    let with_baseline = dir.target("1.25ms");
    write_model(&with_baseline.baseline(), &baseline(), 0.83);
    artifact::append_line(&with_baseline.bench(), &bench_row(&baseline(), Runtime::Ort, 0.65e6)).unwrap();

    let (out, warnings) = report(&dir);
    assert_eq!(warnings, "");
    for text in [&format!("1.25ms {OPS}"), "1.25ms: mobilenet_v2_x0.5", "86.00 %"] {
        assert!(out.contains(text), "`{text}` is not in\n{out}");
    }
    assert!(out.find("0.6ms skip").unwrap() < out.find("10ms conv_5x5").unwrap(), "by rising target");
    for name in ["0.6ms", "1.25ms", "10ms"] {
        let page = std::fs::read_to_string(dir.target(name).report()).unwrap();
        assert!(page.contains("Why this network") && page.contains("Loss of the search"), "{name}");
    }
    let page = page(&dir);
    assert!(page.contains("<h1>Networks for 3 targets</h1>"));
    let targets = section(&page, "Targets");
    for text in [
        "<td class=\"text\">1.25ms</td>",
        "<td>1.25 ms</td><td>1.20 ms</td><td>1.21 ms</td><td>86.00 %</td>",
        "<td>10.0 ms</td><td>9.60 ms</td><td>–</td><td>–</td>",
        "<a href=\"targets/0.6ms/report.html\">0.6ms</a>",
    ] {
        assert!(targets.contains(text), "`{text}` is not in {targets}");
    }
    let accuracy = section(&page, "Accuracy and latency");
    for text in ["0.6ms", "1.25ms", "mobilenet_v2_x0.5", "target</li>"] {
        assert!(accuracy.contains(text), "{text}");
    }
    assert!(section(&page, "Search").contains("Loss of the search"));
    let rows = serde_json::to_value(Run::load(&dir).unwrap().rows()).unwrap();
    assert_eq!((&rows[0]["target"], &rows[0]["test_accuracy"]), (&"0.6ms".into(), &0.8.into()));

    // Another search is running, to which the pages of targets are outdated as well.
    let log = unfinished(&dir, "search-0123456789ab.jsonl");
    artifact::write_lines(&log, &[oneshot_epoch(1)]).unwrap();
    written(&log, 1_000_000);
    for dir in [&dir, &dir.target("0.6ms")] {
        let (page, warnings) = reported(dir);
        assert!(warnings.contains("a later search has not ended: 1 epoch so far"), "{warnings}");
        assert!(page.contains("a later search has not ended") && page.contains("Accuracy and latency"));
    }
    std::fs::remove_file(&log).unwrap();

    // The search has ended, and left out a target.
    artifact::write_lines(&dir.search_log(), &[oneshot_epoch(1)]).unwrap();
    let run = Run::load(&dir).unwrap();
    assert!(run.targets.is_empty());
    assert_eq!(run.notes.iter().filter(|note| note.contains("was found by an earlier search")).count(), 3);
}
