//! An interruption at any moment leaves valid files, and the same command resumes.
#![allow(clippy::unwrap_used)]

mod common;

use common::{NAS, Workspace};
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SEARCH: &str = "search --data folder:images --space wide.toml --runtime tract --batch-size 8 \
                      --target-latency 80% --band 80% --arithmetic fp32";
const TRAIN: &str = "train --data folder:images --space tiny.toml --batch-size 8 --epochs 40 --arithmetic fp32 \
                     --genotype conv_3x3,sep_conv_5x5,conv_5x5 --run";
const PROFILE: &str = "profile --space tiny.toml --input 3x8x8 --classes 3 --runtime tract --networks 24";
const TABLE: &str = "profiles/host/tiny.3x8x8.tract.fp32.jsonl";

const SIGINT: i32 = 2;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// Returns the logs of a run's unfinished stages whose names begin with this: `r/checkpoint/train-`.
fn unfinished(ws: &Workspace, begins: &str) -> Vec<String> {
    let (folder, begins) = begins.rsplit_once('/').unwrap();
    let Ok(entries) = std::fs::read_dir(ws.path(folder)) else { return vec![] };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let logs = names.filter(|name| name.starts_with(begins) && name.ends_with(".jsonl"));
    logs.map(|name| format!("{folder}/{name}")).collect()
}

/// Returns the number of whole lines of a log, or of the logs of unfinished stages.
fn lines(ws: &Workspace, log: &str) -> usize {
    let logs = if log.ends_with('-') { unfinished(ws, log) } else { vec![log.to_string()] };
    let texts = logs.iter().filter_map(|log| std::fs::read_to_string(ws.path(log)).ok());
    texts.map(|text| text.matches('\n').count()).sum()
}

/// Runs a command until `log` has `least` lines, and then sends it the signal.
fn interrupt(ws: &Workspace, args: &str, log: &str, least: usize, signal: i32) {
    interrupt_when(ws, args, || lines(ws, log) >= least, signal);
}

/// Runs a command until it has come `far_enough`, and then sends it the signal.
fn interrupt_when(ws: &Workspace, args: &str, far_enough: impl Fn() -> bool, signal: i32) {
    // Background jobs of a shell ignore SIGINT, and these tests may be run in one.
    let mut child = Command::new("env")
        .args(["--default-signal=INT", NAS])
        .args(args.split_whitespace())
        .current_dir(ws.dir())
        .env("XDG_CACHE_HOME", ws.path("cache"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while !far_enough() {
        assert!(start.elapsed() < Duration::from_secs(120), "nas {args} did not come far enough");
        assert_eq!(child.try_wait().unwrap(), None, "nas {args} ended too early");
        std::thread::sleep(Duration::from_millis(2));
    }
    let sent = Instant::now();
    Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(sent.elapsed() < Duration::from_secs(5), "nas {args}: took {:?} to end", sent.elapsed());
    let said = String::from_utf8_lossy(&output.stderr);
    let mut said: Vec<&str> = said.lines().filter(|line| !line.starts_with("warning: ")).collect();
    // A training or a search saves its position and says so. Everything else ends at once.
    if signal == SIGKILL || args.starts_with("profile") {
        assert_eq!(output.status.signal(), Some(signal), "nas {args}");
    } else {
        assert_eq!(output.status.code(), Some(128 + signal), "nas {args}: {said:?}");
        let error = said.pop().unwrap_or_default();
        let interrupted = [
            "error: interrupted in epoch ",
            "error: interrupted, with ",
            "error: interrupted while the logits of the teacher were computed",
        ];
        assert!(interrupted.iter().any(|begins| error.starts_with(begins)), "nas {args}: {error}");
        assert!(error.ends_with("; the same command resumes"), "nas {args}: {error}");
    }
    assert!(said.is_empty(), "nas {args}: {said:?}");
}

/// Each algorithm, and the moments at which it is interrupted, by the number of lines in its logs.
const SEARCHES: [(&str, &[(&str, usize)]); 6] = [
    ("mixture --epochs 8", &[("search-", 1), ("search-", 4), ("candidates-", 1), ("trial-", 3)]),
    ("gradient --epochs 12", &[("search-", 1), ("search-", 6), ("candidates-", 1), ("trial-", 3)]),
    (
        "oneshot --epochs 12 --components sandwich,distillation,recalibration,sharing,reranking",
        &[("search-", 1), ("search-", 3), ("candidates-", 1), ("candidates-", 14), ("candidates-", 42)],
    ),
    ("surrogate", &[("trial-", 1), ("candidates-", 5), ("candidates-", 22)]),
    ("random", &[("trial-", 1), ("candidates-", 5), ("candidates-", 22)]),
    ("evolution", &[("trial-", 1), ("candidates-", 5), ("candidates-", 22)]),
];

#[test]
fn an_interrupted_search_gives_the_same_result_as_an_uninterrupted_one() {
    let ws = Workspace::wide();
    for (flags, moments) in SEARCHES {
        let algorithm = flags.split_whitespace().next().unwrap();
        let candidates = if algorithm == "oneshot" { 40 } else { 20 };
        let flags = format!("--algorithm {flags} --candidates {candidates} --finalists 6 --trial-epochs 8");
        let search = |run: &str| format!("{SEARCH} {flags} --run {run}");
        ws.nas(&search("whole")).assert().success();
        for signals in [[SIGKILL, SIGINT], [SIGTERM, SIGKILL]] {
            for (&(log, lines), signal) in moments.iter().zip(signals.into_iter().cycle()) {
                interrupt(&ws, &search("r"), &format!("r/checkpoint/{log}"), lines, signal);
                assert!(
                    !["genotype.json", "search.jsonl", "candidates.jsonl"]
                        .iter()
                        .any(|name| ws.path("r").join(name).exists())
                );
            }
            ws.nas(&search("r")).assert().success();
            for log in ["search.jsonl", "candidates.jsonl"] {
                assert_eq!(ws.lines(&format!("r/{log}")), ws.lines(&format!("whole/{log}")), "{algorithm}: {log}");
            }
            assert_eq!(ws.read("r/genotype.json"), ws.read("whole/genotype.json"), "{algorithm}");
            std::fs::remove_dir_all(ws.path("r")).unwrap();
        }
        std::fs::remove_dir_all(ws.path("whole")).unwrap();
    }
}

#[test]
fn networks_are_compared_after_the_same_number_of_epochs_if_the_target_has_changed() {
    let ws = Workspace::wide();
    let search = |run: &str, target: &str| {
        let search = SEARCH.replace("80% --band", &format!("{target} --band"));
        format!("{search} --algorithm random --candidates 20 --trial-epochs 8 --run {run}")
    };
    // 20 networks were trained for one epoch, 10 for two, and some of the best 5 for four.
    interrupt(&ws, &search("r", "80%"), "r/checkpoint/candidates-", 33, SIGKILL);
    let report = || ws.nas("report --run r").assert().success();
    report().stderr(predicates::str::contains("a search has not ended: 20 networks so far"));
    for run in ["r", "whole"] {
        ws.nas(&search(run, "79%")).assert().success();
    }
    assert_eq!(ws.lines("r/candidates.jsonl"), ws.lines("whole/candidates.jsonl"));
    report().stderr("");
}

/// Settings that have their own state or random numbers.
const RICH: &str = "--ema 0.9 --mixup 0.3 --clip 1 --cutout 3 --balanced --held-out 0.2 --schedule one_cycle --run";

#[test]
fn a_search_that_is_killed_while_it_measures_trains_nothing_again() {
    let ws = Workspace::wide();
    let table = "profiles/host/wide.3x8x8.tract.fp32.jsonl";
    let search = format!("{SEARCH} --algorithm random --candidates 6 --trial-epochs 2 --measure-top 3 --run r");
    let trained =
        || -> Vec<String> { unfinished(&ws, "r/checkpoint/candidates-").iter().map(|log| ws.read(log)).collect() };
    let before = ws.read(table);
    for rows in [4, 12] {
        interrupt(&ws, &search, "r/checkpoint/measured-", before.lines().count() + rows, SIGKILL);
        assert_eq!(ws.read(table), before, "the predictions that the search depends on are the same");
    }
    let candidates = trained();
    assert_eq!(candidates.len(), 1);
    ws.nas(&search).assert().success();
    assert_eq!(trained(), candidates);
    let after = ws.read(table);
    assert!(after.starts_with(&before) && after.lines().count() >= before.lines().count() + 3 * 8);
    assert!(unfinished(&ws, "r/checkpoint/measured-").is_empty());
}

#[test]
fn an_interrupted_training_gives_the_same_result_as_an_uninterrupted_one() {
    let ws = Workspace::new();
    for (recipe, flags) in [("fast", "--run"), ("rich", RICH)] {
        let train = |run: &str| TRAIN.replace("--run", &format!("{flags} {run}"));
        let whole = format!("{recipe}-whole");
        ws.nas(&train(&whole)).assert().success();
        let weights = |run: &str| std::fs::read(ws.path(run).join("weights.safetensors"));
        for (name, signal) in [("int", SIGINT), ("term", SIGTERM), ("killed", SIGKILL)] {
            let run = format!("{recipe}-{name}");
            let log = format!("{run}/train.jsonl");
            let part = format!("{run}/checkpoint/train-");
            interrupt(&ws, &train(&run), &part, 1, signal);
            assert!(lines(&ws, &part) < 40 && weights(&run).is_err() && !ws.path(&log).exists());
            // Interrupts it once more, after it has resumed.
            interrupt(&ws, &train(&run), &part, lines(&ws, &part) + 1, signal);
            ws.nas(&train(&run)).assert().success();
            assert_eq!(ws.lines(&log), ws.lines(&format!("{whole}/train.jsonl")), "{run}");
            assert!(weights(&run).unwrap() == weights(&whole).unwrap(), "{run}: the weights differ");
            let best = |run: &str| std::fs::read(ws.path(run).join("best.safetensors")).ok();
            assert!(best(&run) == best(&whole) && best(&run).is_some() == (recipe == "rich"), "{run}: the best differ");
        }
    }
}

#[test]
fn answers_of_a_teacher_are_computed_once_for_each_view() {
    let ws = Workspace::new();
    let train = TRAIN.replace("--epochs 40", "--epochs 1");
    ws.nas(&format!("{train} teacher")).assert().success();
    // 8 pixels of padding are 578 views.
    let train = |run: &str| format!("{train} {run} --padding 8 --teacher teacher");
    let answers = |folder: &str| -> BTreeMap<_, _> {
        let files = std::fs::read_dir(ws.path(folder)).unwrap().map(|entry| entry.unwrap().path());
        // The command may rename a `.part` at any time.
        let is_answers = |name: &str| name.starts_with("answers-") && name.ends_with(".safetensors");
        let answers = files.filter(|path| is_answers(path.file_name().unwrap().to_str().unwrap()));
        answers
            .map(|path| (path.clone(), (std::fs::read(&path).unwrap(), path.metadata().unwrap().modified().unwrap())))
            .collect()
    };
    let of_views = || answers("teacher/checkpoint");
    let mut before = BTreeMap::new();
    for (views, signal) in [(3, SIGINT), (10, SIGKILL)] {
        interrupt_when(&ws, &train("a"), || of_views().len() >= views, signal);
        let after = of_views();
        assert!(before.iter().all(|(path, answers)| after.get(path) == Some(answers)), "a view was computed again");
        assert!(after.len() > before.len() && answers("teacher").is_empty());
        before = after;
    }
    ws.nas(&train("a")).assert().success();
    assert!(of_views().is_empty());
    let resumed = answers("teacher").into_values().next().unwrap().0;
    std::fs::remove_file(answers("teacher").into_keys().next().unwrap()).unwrap();
    ws.nas(&train("b")).assert().success();
    assert!(answers("teacher").into_values().next().unwrap().0 == resumed);
    assert_eq!(ws.lines("a/train.jsonl"), ws.lines("b/train.jsonl"));
}

/// It does not matter what a measurement would decide on another day.
#[test]
fn a_training_keeps_to_the_arithmetic_that_it_began_with() {
    let ws = Workspace::new();
    let train = TRAIN.replace("--epochs 40 --arithmetic fp32", "--epochs 1");
    ws.nas(&format!("{train} r"))
        .assert()
        .success()
        .stderr(predicates::str::contains("number formats of convolutions: "));
    let log = unfinished(&ws, "r/checkpoint/train-").swap_remove(0);
    let decided = log.replace(".jsonl", ".json");
    let arithmetic =
        || serde_json::from_str::<serde_json::Value>(&ws.read("r/data.json")).unwrap()["arithmetic"].clone();
    assert_eq!(arithmetic(), serde_json::from_str::<serde_json::Value>(&ws.read(&decided)).unwrap());
    for other in ["fp32", "bf16"] {
        let floats = serde_json::json!({ "dense": other, "pointwise": other, "depthwise": "fp32" });
        ws.write(&decided, &floats.to_string());
        ws.nas(&format!("{train} r")).assert().success();
        assert_eq!(arithmetic(), floats);
    }
}

#[test]
fn a_profile_measures_only_the_rows_that_are_missing() {
    let ws = Workspace::new();
    interrupt(&ws, PROFILE, TABLE, 3, SIGINT);
    interrupt(&ws, PROFILE, TABLE, 6, SIGKILL);
    let kept = ws.lines(TABLE);
    let profiled = ws.json(PROFILE);
    let rows = profiled[0]["rows"].as_u64().unwrap();
    // The first two lines are the header and the number of planned networks.
    assert_eq!(profiled[0]["measured"].as_u64().unwrap(), rows - (kept.len() as u64 - 2), "{profiled}");
    let all = ws.lines(TABLE);
    assert_eq!(all.len() as u64, rows + 2);
    assert_eq!(all[..kept.len()], kept, "earlier rows have changed");

    // A power failure can leave an incomplete last line.
    let text = ws.read(TABLE);
    ws.write(TABLE, &text[..text.len() - 20]);
    // The anchor is measured before the lost row, and there are more rows if the new row does not repeat the best one.
    assert!(ws.json(PROFILE)[0]["measured"].as_u64() >= Some(2));
    assert_eq!(ws.lines(TABLE)[..rows as usize + 1], all[..rows as usize + 1]);
    assert_eq!(ws.json(PROFILE)[0]["measured"], 0);
}

/// Its layers are not known well enough to need only the cost of another classifier.
#[test]
fn an_interrupted_profile_is_no_model_for_another_number_of_classes() {
    let ws = Workspace::new();
    let profile = PROFILE.replace(" --networks 24", "");
    interrupt(&ws, &profile, TABLE, 3, SIGINT);
    let before = lines(&ws, TABLE);
    interrupt(&ws, &profile.replace("--classes 3", "--classes 2"), TABLE, before + 1, SIGINT);
    let plans: Vec<_> = ws.lines(TABLE).iter().filter_map(|line| line.get("planned").cloned()).collect();
    assert_eq!([plans[0]["classes"].clone(), plans[1]["classes"].clone()], [3, 2]);
    assert!(plans[1]["networks"] == plans[0]["networks"], "{plans:?}");
}

/// According to the rows of the table, only one layer is left to measure. The new rows then show that the device was
/// three times slower before, so the other layers are less certain than they seemed.
#[test]
fn a_profile_measures_more_rows_if_the_device_turns_out_to_drift() {
    let ws = Workspace::new();
    let profile = "profile --isolated --space tiny.toml --input 3x8x8 --classes 3 --runtime tract";
    ws.nas(profile).assert().success();
    let mut lines = ws.lines(TABLE);
    let anchor = lines.iter().find(|row| row["anchor"] == true).unwrap()["layer"].clone();
    let lost = lines.iter().find(|row| row["layer"].is_object() && row["layer"] != anchor).unwrap()["layer"].clone();
    lines.retain(|row| row["layer"] != lost);
    // The two fastest rows of each subject agree; the others differ, and not all at the same times.
    let mut seen: BTreeMap<String, (f64, usize)> = BTreeMap::new();
    for row in lines.iter_mut().skip(1) {
        let others = seen.len();
        let new = (row["median_ns"].as_f64().unwrap(), others);
        let (ns, rows) = seen.entry(row["key"].to_string()).or_insert(new);
        *rows += 1;
        let slow = 3.0 * *ns * if *rows % 3 == 0 { 1.0 } else { 1.1 };
        row["samples_ns"] = serde_json::json!([slow, slow]);
        row["median_ns"] = slow.into();
        row.as_object_mut().unwrap().remove("disturbed");
    }
    let text: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
    ws.write(TABLE, &text.concat());
    ws.nas(profile).assert().success().stderr(predicates::str::contains("the speed of the device changed by"));
    assert!(ws.lines(TABLE).iter().filter(|row| row["layer"] == lost).count() >= 8);
}
