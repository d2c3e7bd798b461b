//! The report is made from the files in a run's folder, and from nothing else.
#![allow(clippy::unwrap_used)]

mod run_folder;

use edge_nas::artifact::{self, Digest};
use edge_nas::record::{BenchRow, Prediction, TrainEpoch, TrainedOn};
use edge_nas::report::{ReportError, Run};
use edge_nas::space::Network;
use nas_probe::Runtime;
use run_folder::{
    EPOCHS, OPS, baseline, begin, bench_row, complete_run, folder, genotype, genotype_of, model, page, prediction,
    section, write_model, write_search,
};
use std::io::Write;

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
        "<td>2.52 ms</td><td>–</td><td>+5.0 %</td>",
        "<td>700 k</td><td>28.0 M</td>",
        "measured latency, ms",
        "conv_5x5</td>",
        "8 epochs in 8 min 8 s",
    ] {
        assert!(page.contains(text), "`{text}` is not in the page");
    }
    assert_eq!(page.matches("each layer before skip/2.</p>").count(), 2, "once per runtime");
    assert!(!page.contains("class=\"missing\""), "a section is missing");
    assert!(!page.contains("77.7"), "an old measurement is shown");
    let linked = page.replace("http://www.w3.org/2000/svg", "");
    assert!(!linked.contains("http"), "the page refers to another file");
}

#[test]
fn a_curve_says_which_images_it_is_of() {
    let (_temp, dir) = folder();
    complete_run(&dir);
    let training = |page: &str| section(page, "Training").to_string();
    let tested = training(&page(&dir));
    assert!(tested.contains("test accuracy") && !tested.contains("held-out accuracy"));
    // The found network is trained again, with held-out images.
    let found = dir.found();
    let mut log: Vec<TrainEpoch> = artifact::read_lines(&found.train_log()).unwrap();
    for epoch in &mut log {
        epoch.held_out_accuracy = if epoch.epoch < EPOCHS { epoch.test_accuracy.take() } else { epoch.test_accuracy };
    }
    artifact::write_lines(&found.train_log(), &log).unwrap();
    let on: TrainedOn = artifact::read_json(&found.trained_on(), "nas train").unwrap();
    artifact::write_json(&found.trained_on(), &TrainedOn { log: Digest::of_lines(&log), ..on }).unwrap();
    let both = training(&page(&dir));
    assert!(
        both.contains("held-out accuracy") && both.contains("test accuracy"),
        "the baseline has no held-out images"
    );
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
    leave(&dir.0, dir.search_log(), &format!("search-{}.jsonl", "a".repeat(12)));
    assert_eq!(Run::load(&dir).unwrap().notes, [""; 0]);
    begin(&dir, Some('a'), &[]);
    for file in ["data.json", "genotype.json", "search.json", "search.jsonl"] {
        std::fs::remove_file(dir.0.join(file)).unwrap();
    }
    let run = Run::load(&dir).unwrap();
    assert!(run.notes.iter().any(|note| note == "a search has not ended: 8 epochs so far"), "{:?}", run.notes);
    assert_eq!(run.begun.unwrap().log.len(), EPOCHS);
}
