//! Each algorithm of a search, through the real program, in a space with widths.
#![allow(clippy::unwrap_used)]

mod common;

use common::Workspace;
use edge_nas::artifact;
use edge_nas::model::LatencyModel;
use edge_nas::record::{BegunFiles, CandidateRow, Certificate, RunDir, SearchEpoch};
use edge_nas::space::{Genotype, names_of};
use edge_nas::table::LatencyTable;
use image::{Rgb, RgbImage};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const SEARCH: &str = "search --data folder:images --space wide.toml --runtime tract --batch-size 16 --arithmetic fp32";
/// Flags to which a test may give other values.
const SMALL: [&str; 4] = ["--epochs 2", "--candidates 8", "--finalists 3", "--trial-epochs 2"];
const TARGET: &str = "--target-latency 60% --band 40%";
const ALGORITHMS: [&str; 6] = ["mixture", "gradient", "oneshot", "surrogate", "random", "evolution"];
const TRAINS_ALPHA: [&str; 2] = ["mixture", "gradient"];
const COMPONENTS: [&str; 5] = ["sandwich", "distillation", "recalibration", "sharing", "reranking"];

fn command(flags: &str) -> String {
    let absent = |small: &&&str| !flags.contains(small.split_once(' ').unwrap().0);
    let small: Vec<&str> = SMALL.iter().filter(absent).copied().collect();
    format!("{SEARCH} {} {flags}", small.join(" "))
}

fn search(ws: &Workspace, run: &str, flags: &str) {
    ws.nas(&command(&format!("--run {run} {flags}"))).assert().success();
}

fn genotype(ws: &Workspace, run: &str) -> Genotype {
    artifact::read_json(&ws.path(&format!("{run}/genotype.json")), "nas search").unwrap()
}

fn certificate(ws: &Workspace, run: &str) -> Certificate {
    RunDir(ws.path(run)).certificate().unwrap().unwrap()
}

/// Returns the lines of candidates.jsonl, without times.
fn candidates(ws: &Workspace, run: &str) -> Vec<CandidateRow> {
    let rows: Vec<CandidateRow> = artifact::read_lines(&ws.path(&format!("{run}/candidates.jsonl"))).unwrap();
    rows.into_iter().map(|row| CandidateRow { seconds: 0.0, ..row }).collect()
}

/// Returns everything that a search wrote, without times and without the digest of a log with times.
fn results(ws: &Workspace, run: &str) -> (Vec<Value>, Vec<CandidateRow>, String, Value) {
    let mut on: Value = serde_json::from_str(&ws.read(&format!("{run}/search.json"))).unwrap();
    on.as_object_mut().unwrap().remove("log").unwrap();
    // The command names the run.
    on["made"].as_object_mut().unwrap().remove("command").unwrap();
    let log = ws.lines(&format!("{run}/search.jsonl"));
    (log, candidates(ws, run), ws.read(&format!("{run}/genotype.json")), on)
}

#[test]
fn a_space_with_a_single_network_has_nothing_to_train() {
    let ws = Workspace::new();
    let only = "name = \"only\"\nlayers = [{ ops = [\"conv_3x3\"], channels = 4 }, { ops = [\"conv_3x3\"], channels = 8, stride = 2 }]";
    ws.write("wide.toml", only);
    ws.nas("profile --isolated --space wide.toml --data folder:images --runtime tract").assert().success();
    for algorithm in ALGORITHMS {
        search(&ws, algorithm, &format!("--algorithm {algorithm} --target-latency 100%"));
        assert!(genotype(&ws, algorithm).names().is_empty(), "{algorithm}");
        assert!(ws.lines(&format!("{algorithm}/search.jsonl")).is_empty(), "{algorithm}");
    }
}

#[test]
fn trainings_that_diverge_are_counted_out() {
    let ws = Workspace::wide();
    for algorithm in ["random", "surrogate", "evolution"] {
        let error = ws.error(&command(&format!("--run r --algorithm {algorithm} {TARGET} --learning-rate 1e30")));
        assert!(error.contains("diverged, and no network is left; lower --learning-rate"), "{error}");
        assert!(!ws.path("r/genotype.json").exists());
    }
}

/// The best half of the networks is trained for a second epoch, in which the learning rate may be too high for it.
#[test]
fn networks_that_diverge_late_are_not_chosen() {
    let ws = Workspace::wide();
    let search = command(&format!("--run r --algorithm random {TARGET}"));
    // The result cannot be written, so what was found out stays where the same command resumes.
    let in_the_way = ws.path("r/genotype.json/x");
    std::fs::create_dir_all(&in_the_way).unwrap();
    ws.error(&search);
    std::fs::remove_dir_all(in_the_way.parent().unwrap()).unwrap();
    let run = RunDir(ws.path("r"));
    let begun: BegunFiles = artifact::read_json(&run.begun_files(), "nas search").unwrap();
    let path = run.unfinished().candidates(&begun.candidates[0]);
    let rows: Vec<CandidateRow> = artifact::read_lines(&path).unwrap();
    let diverged = |which: &dyn Fn(&CandidateRow) -> bool| {
        let changed = |row: &CandidateRow| match row.epochs == 2 && which(row) {
            true => CandidateRow { loss: None, ..row.clone() },
            false => row.clone(),
        };
        artifact::write_lines(&path, &rows.iter().map(changed).collect::<Vec<_>>()).unwrap();
    };
    let last: Vec<&CandidateRow> = rows.iter().filter(|row| row.epochs == 2).collect();
    assert!(last.len() > 1, "{rows:?}");

    diverged(&|_| true);
    let error = ws.error(&search);
    assert!(error.contains("diverged, and no network is left; lower --learning-rate"), "{error}");
    let kept = &last[last.len() - 1].ops;
    diverged(&|row| row.ops != *kept);
    ws.nas(&search).assert().success();
    assert_eq!(genotype(&ws, "r").names(), *kept);
}

/// No path of `gradient` contains a `zero`, so a `zero` must not make the limits easier to meet.
#[test]
fn the_expected_latency_of_gradient_is_that_of_its_paths() {
    let ws = Workspace::wide();
    search(&ws, "r", &format!("--algorithm gradient {TARGET}"));
    let networks = genotype(&ws, "r").networks;
    let table = LatencyTable::load(&ws.path("profiles/host/wide.3x8x8.tract.fp32.jsonl"), "").unwrap();
    let cost = LatencyModel::new(&table, &networks).unwrap().polynomial;
    let searched: Vec<usize> = networks.searched().collect();
    for epoch in artifact::read_lines::<SearchEpoch>(&ws.path("r/search.jsonl")).unwrap() {
        let of_layer = |layer: usize| {
            let Some(row) = searched.iter().position(|&other| other == layer) else { return vec![1.0] };
            let names = names_of(&networks.choices()[layer]);
            let live: Vec<String> = names.iter().filter(|name| !name.starts_with("zero")).cloned().collect();
            assert_eq!(epoch.choices[row], live);
            assert!(epoch.entropies[row] <= (live.len() as f64).ln() + 1e-6);
            let sum: f64 = epoch.alpha[row].iter().map(|alpha| alpha.exp()).sum();
            let of = |name: &String| live.iter().position(|other| other == name);
            names.iter().map(|name| of(name).map_or(0.0, |i| epoch.alpha[row][i].exp() / sum)).collect()
        };
        let probabilities: Vec<Vec<f64>> = (0..networks.len()).map(of_layer).collect();
        let (expected, logged) = (cost.expected(&probabilities), epoch.constraints[0].expected);
        assert!((logged / expected - 1.0).abs() < 1e-5, "{logged} ns, not {expected} ns");
    }
}

/// A folder of images is sorted by class. If batch norm were calibrated on one class, others would look different.
#[test]
fn scores_do_not_depend_on_the_order_of_the_images() {
    let ws = Workspace::wide();
    for (class, shade) in [("a", 40u8), ("b", 120), ("c", 200)] {
        for split in ["train", "test"] {
            std::fs::create_dir_all(ws.path(&format!("sorted/{split}/{class}"))).unwrap();
            for i in 0..if split == "train" { 1200u32 } else { 1 } {
                let noise = |x: u32, y: u32| shade.wrapping_add((i.wrapping_mul(31) + 7 * x + 13 * y) as u8 % 37);
                let image = RgbImage::from_fn(8, 8, |x, y| Rgb([noise(x, y), noise(y, x), noise(x + 1, y)]));
                image.save(ws.path(&format!("sorted/{split}/{class}/{i}.png"))).unwrap();
            }
        }
    }
    let flags =
        format!("--run r --algorithm oneshot --components recalibration,sharing --epochs 3 --candidates 4 {TARGET}");
    ws.nas(&command(&flags).replace("folder:images", "folder:sorted")).assert().success();
    let best =
        candidates(&ws, "r").into_iter().filter_map(|row| row.accuracy).map(|share| share.get()).fold(0.0, f64::max);
    assert!(best > 0.9, "{best}");
}

#[test]
fn each_algorithm_finds_a_network_within_the_band_and_repeats_itself() {
    let ws = Workspace::wide();
    for algorithm in ALGORITHMS {
        let flags = format!("--algorithm {algorithm} {TARGET}");
        search(&ws, algorithm, &flags);
        let found = genotype(&ws, algorithm);
        let names = found.names();
        assert!(names.len() == 3 && !names.iter().any(|name| name.starts_with("zero")), "{algorithm}: {names:?}");

        let certificate = certificate(&ws, algorithm);
        assert!(certificate.algorithm.starts_with(algorithm), "{}", certificate.algorithm);
        let held = &certificate.constraints[0];
        assert!(held.value <= held.limit && held.value >= 0.6 * held.target - 1e-6, "{algorithm}: {held:?}");
        assert!(held.value <= certificate.nearest_below.as_ref().unwrap().value, "{algorithm}: {certificate:?}");
        let supernet = TRAINS_ALPHA.contains(&algorithm) || algorithm == "oneshot";
        let scores_all = supernet || algorithm == "surrogate";
        assert_eq!(certificate.unconstrained.is_some(), scores_all, "{algorithm}");
        assert!(certificate.unconstrained.is_none_or(|best| best.score_cost_of_limit >= 0.0), "{algorithm}");
        assert_eq!(certificate.score.is_some(), algorithm != "random", "{algorithm}");

        // The files belong together.
        let log = RunDir(ws.path(algorithm)).searched(&found).unwrap().unwrap().unwrap().log;
        assert_eq!(log.len(), if supernet { 2 } else { 0 }, "{algorithm}");
        assert!(log.iter().all(|epoch| epoch.alpha.is_empty() != TRAINS_ALPHA.contains(&algorithm)), "{algorithm}");
        let multipliers = if algorithm == "gradient" { 1 } else { 0 };
        assert!(log.iter().all(|epoch| epoch.multipliers.len() == multipliers), "{algorithm}");

        // What was compared: no network twice, none with a zero, and the one that was chosen learned fastest.
        let rows = candidates(&ws, algorithm);
        let of = |epochs: usize| rows.iter().filter(|row| row.epochs == epochs).collect::<Vec<_>>();
        let distinct: BTreeSet<(&[String], usize)> = rows.iter().map(|row| (row.ops.as_slice(), row.epochs)).collect();
        assert_eq!(distinct.len(), rows.len(), "{algorithm}");
        assert!(rows.iter().flat_map(|row| &row.ops).all(|name| !name.starts_with("zero")), "{algorithm}");
        // With the weights of the supernet, the best network without limits is scored as well.
        let scored = if algorithm == "oneshot" { 8..=9 } else { 0..=0 };
        assert!(scored.contains(&of(0).len()), "{algorithm}: {}", of(0).len());
        let trained = if supernet { 3 } else { 8 };
        assert_eq!(of(1).len(), trained, "{algorithm}");
        assert_eq!(of(2).len(), if algorithm == "random" { 4 } else { 2 }, "{algorithm}");
        let best = of(2).into_iter().max_by(|a, b| a.score().total_cmp(&b.score())).unwrap();
        assert_eq!(best.ops, names, "{algorithm}");

        search(&ws, "again", &flags);
        assert_eq!(results(&ws, "again"), results(&ws, algorithm), "{algorithm}");
        std::fs::remove_dir_all(ws.path("again")).unwrap();
    }
}

#[test]
fn flags_that_an_algorithm_does_not_use_are_named() {
    let ws = Workspace::wide();
    let said = |flags: &str| {
        let flags = format!("{SEARCH} --run r {TARGET} --candidates 2 --trial-epochs 1 {flags}");
        String::from_utf8(ws.nas(&flags).assert().success().get_output().stderr.clone()).unwrap()
    };
    let unused = said("--algorithm random --epochs 3 --unrolled --finalists 4");
    assert!(unused.contains("warning: --algorithm random does not use --epochs, --unrolled, --finalists"), "{unused}");
    assert!(!said("--algorithm surrogate --finalists 4").contains("does not use"));
    let unused = said("--algorithm surrogate --components sandwich,distillation --finalists 2");
    assert!(unused.contains("does not use --components sandwich, --components distillation"), "{unused}");
    let log = |flags: &str| {
        let unused = said(&format!("--algorithm gradient --epochs 2 --components none {flags}"));
        let lines = ws.lines("r/search.jsonl").into_iter();
        (unused, lines.map(|line| line["alpha"].clone()).collect::<Vec<_>>())
    };
    let (_, plain) = log("");
    let (unused, unrolled) = log("--unrolled");
    assert!(unused.contains("warning: --algorithm gradient does not use --unrolled"), "{unused}");
    assert_eq!(plain, unrolled);
}

#[test]
fn each_component_changes_what_it_says() {
    let ws = Workspace::wide();
    let run = |components: &str| {
        let name = components.replace(',', "-");
        search(&ws, &name, &format!("--algorithm oneshot --components {components} {TARGET}"));
        (ws.lines(&format!("{name}/search.jsonl")), candidates(&ws, &name))
    };
    let (log, rows) = run("none");
    assert!(rows.iter().all(|row| row.epochs == 0), "no short training without reranking");
    assert_eq!(genotype(&ws, "none").names(), {
        let limits = certificate(&ws, "none");
        let best = rows.iter().find(|row| Some(row.score()) == limits.score).unwrap();
        best.ops.clone()
    });
    let each: BTreeMap<&str, _> = COMPONENTS.iter().map(|name| (*name, run(name))).collect();
    for training in ["sandwich", "sharing"] {
        assert_ne!(each[training].0, log, "{training} changes how the supernet is trained");
    }
    // Without a sandwich, there is no other path to learn from.
    for scoring in ["distillation", "recalibration", "reranking"] {
        assert_eq!(each[scoring].0, log, "{scoring} does not change how the supernet is trained");
    }
    assert_eq!(each["distillation"].1, rows);
    assert_ne!(each["recalibration"].1, rows);
    assert_eq!(each["reranking"].1[..rows.len()], rows);
    assert!(each["reranking"].1[rows.len()..].iter().all(|row| row.epochs > 0));
    assert_ne!(run("sandwich,distillation").0, each["sandwich"].0);
}

#[test]
fn a_second_order_gradient_is_another_one() {
    let ws = Workspace::wide();
    let run = |name: &str, flags: &str| {
        search(&ws, name, &format!("--algorithm mixture --components none {TARGET} {flags}"));
        assert!(certificate(&ws, name).constraints[0].value <= certificate(&ws, name).constraints[0].limit);
        ws.lines(&format!("{name}/search.jsonl"))
    };
    let (first, second) = (run("first", ""), run("second", "--unrolled"));
    // The first epoch trains only weights, and a step of alpha leaves them as they are.
    assert_eq!(first[0], second[0]);
    assert_ne!(first[1]["alpha"], second[1]["alpha"]);
    let rows = |log: &[Value]| -> Vec<usize> {
        log[1]["alpha"].as_array().unwrap().iter().map(|row| row.as_array().unwrap().len()).collect()
    };
    assert_eq!(rows(&second), rows(&first));
}

#[test]
fn a_search_ends_early_once_the_best_network_stays_the_same() {
    let ws = Workspace::wide();
    for algorithm in TRAINS_ALPHA {
        let flags = format!("--algorithm {algorithm} --epochs 40 --patience 2 --components none {TARGET}");
        search(&ws, algorithm, &flags);
        let epochs = ws.lines(&format!("{algorithm}/search.jsonl")).len();
        assert!((4..40).contains(&epochs), "{algorithm}: {epochs}");
        let before = results(&ws, algorithm);
        search(&ws, algorithm, &flags);
        assert_eq!(results(&ws, algorithm), before, "{algorithm}");
    }
}

/// A network can be a candidate for several targets.
#[test]
fn what_is_found_out_about_a_network_does_not_depend_on_other_targets() {
    let ws = Workspace::wide();
    let flags = "--algorithm surrogate --candidates 50 --band 90%";
    search(&ws, "both", &format!("{flags} --targets 60%,100%"));
    search(&ws, "alone", &format!("{flags} --target-latency 100%"));
    let of = |run: &str| -> BTreeMap<(Vec<String>, usize), CandidateRow> {
        candidates(&ws, run).into_iter().map(|row| ((row.ops.clone(), row.epochs), row)).collect()
    };
    let [low, high, alone] = ["both/targets/60percent", "both/targets/100percent", "alone"].map(of);
    let shared = high.keys().filter(|(ops, epochs)| *epochs == 1 && low.contains_key(&(ops.clone(), 2))).count();
    assert!(shared > 0, "no finalist of the lower target is a candidate for the higher one");
    low.iter().filter(|(key, _)| high.contains_key(*key)).for_each(|(key, row)| assert_eq!(high[key], *row));
    assert_eq!(high, alone);
}

#[test]
fn a_supernet_is_trained_again_only_for_what_it_depends_on() {
    let ws = Workspace::wide();
    for algorithm in ["oneshot", "gradient"] {
        let flags = format!("--algorithm {algorithm} --epochs 2 {TARGET}");
        // The log has the times of the epochs.
        let log = |more: &str| {
            search(&ws, algorithm, &format!("{flags} {more}"));
            ws.read(&format!("{algorithm}/search.jsonl"))
        };
        let first = log("");
        assert!(log("--finalists 2 --trial-epochs 2 --components sharing") == first, "{algorithm}");
        assert!(log("--learning-rate 0.01") != first, "{algorithm}");
    }
}

#[test]
fn as_few_candidates_as_one_are_enough_and_more_than_there_are_end() {
    let ws = Workspace::wide();
    for algorithm in ["oneshot", "surrogate", "random", "evolution"] {
        for number in [1, 2, 5] {
            let run = format!("{algorithm}{number}");
            search(&ws, &run, &format!("--algorithm {algorithm} --epochs 1 {TARGET} --candidates {number}"));
            let compared: BTreeSet<Vec<String>> = candidates(&ws, &run).into_iter().map(|row| row.ops).collect();
            assert!(compared.len() <= number + 1, "{run}: {compared:?}");
            assert!(!genotype(&ws, &run).names().is_empty());
        }
    }
    search(
        &ws,
        "all",
        "--algorithm oneshot --epochs 1 --target-latency 100% --band 100% --candidates 1000 --trial-epochs 1",
    );
    let scored = candidates(&ws, "all").iter().filter(|row| row.epochs == 0).count();
    assert!((50..=54).contains(&scored), "{scored} of 54 networks");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let ws = Workspace::wide();
    for (flags, said) in [
        ("--algorithm darts", "`darts` is not an algorithm: mixture, gradient, oneshot, surrogate, random, evolution"),
        ("--components sharing,sandwhich", "`sandwhich` is not a component: sandwich, distillation"),
        ("--components none,sharing", "`none` is not a component"),
        ("--components=", "`` is not a component"),
        ("--candidates 0", "`0` is not a number of networks from 1 to 100000"),
        ("--finalists 0", "`0` is not a number of networks from 1 to 100000"),
        ("--trial-epochs 0", "--trial-epochs"),
        ("--skip-dropout 1.5", "--skip-dropout"),
        ("--patience -1", "'-1'"),
    ] {
        let output = ws.nas(&command(&format!("{TARGET} {flags}"))).assert().code(2).stdout("").get_output().clone();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.starts_with("error: ") && error.contains(said), "{flags}: {error}");
    }
    let warmup = command(&format!("{TARGET} --warmup-epochs 2 --run r --algorithm gradient"));
    assert!(ws.error(&warmup).contains("2 of 2 epochs are for warm-up"));
    for (keys, said) in [
        ("algorithm = \"darts\"", "mixture"),
        ("components = [\"sandwhich\"]", "sandwich"),
        ("candidates = 0", "0 is not a number of networks"),
    ] {
        ws.write("e.toml", &format!("name = \"e\"\ntarget_latency = \"40%\"\n[search]\n{keys}\n"));
        let error = ws.error("run e.toml");
        assert!(error.contains("line 4") && error.contains(said), "{keys}: {error}");
    }
    assert!(!ws.path("r").exists() && !ws.path("runs").exists());
}
