//! The output of the commands on stdout and stderr, and their exit codes.
#![allow(clippy::unwrap_used)]

mod common;

use assert_cmd::Command;
use common::{NAS_PROFILE, Workspace};
use predicates::prelude::*;
use std::fs;

const VERBS: [(&str, &[&str]); 10] = [
    (
        "profile",
        &[
            "--device",
            "--runtime",
            "--threads",
            "--profiles",
            "--space",
            "--data",
            "--input",
            "--classes",
            "--ssh",
            "--pin",
            "--governor",
            "--networks",
            "--isolated",
            "validate",
        ],
    ),
    (
        "search",
        &["--run", "--target-latency", "--space", "--data", "--epochs", "--algorithm", "--candidates", "--seed"],
    ),
    ("train", &["--run", "--genotype", "--arch", "--width", "--data", "--epochs", "--seed", "--torch-threads"]),
    ("export", &["--run", "--data", "--images", "--runtime"]),
    ("eval", &["--run", "--onnx", "--data", "--images", "--runtime", "--device", "--ssh"]),
    ("bench", &["--run", "--device", "--runtime", "--threads", "--rounds", "[MODELS]"]),
    ("report", &["--run"]),
    ("run", &["--run", "<EXPERIMENT>"]),
    ("devices", &["list", "check"]),
    ("completions", &["<SHELL>"]),
];

/// A space whose table is measured quickly.
const SMALL: &str = r#"
name = "small"
candidates = ["conv_3x3", "skip"]
layers = [{ ops = ["conv_3x3"], channels = 4 }, { channels = 4 }]
"#;
const PROFILE: &str = "profile --runtime tract --space small.toml --data folder:images --profiles tables";
const SEARCH: &str = "search --runtime tract --space small.toml --data folder:images --profiles tables --run r \
                      --epochs 1 --arithmetic fp32";
const TRAIN: &str = "train --data folder:images --run r --epochs 1 --arithmetic fp32";
const OPS: &str = "--space small.toml --genotype";

#[test]
fn help_lists_every_flag_of_every_verb() {
    let ws = Workspace::new();
    let stdout = |mut command: Command| {
        let output = command.assert().success().stderr("").get_output().clone();
        String::from_utf8(output.stdout).unwrap()
    };
    let (help, completions) = (stdout(ws.nas("--help")), stdout(ws.nas("completions bash")));
    for (verb, flags) in VERBS {
        assert!(help.contains(verb), "nas --help: no {verb}");
        assert!(completions.contains(verb), "completions: no {verb}");
        let help = stdout(ws.nas(&format!("{verb} --help")));
        for flag in flags.iter().chain(&["--json"]) {
            assert!(help.contains(flag), "nas {verb} --help: no {flag}");
        }
    }
    let help = stdout(ws.command(NAS_PROFILE, "--help"));
    VERBS[0].1.iter().for_each(|flag| assert!(help.contains(flag), "nas-profile --help: no {flag}"));
}

#[test]
fn wrong_usage_exits_with_code_2() {
    let ws = Workspace::new();
    for (args, said) in [
        ("frobnicate", "unrecognized subcommand 'frobnicate'"),
        ("search --target-latency 5ms --frobnicate", "unexpected argument '--frobnicate'"),
        ("search", "--target-latency"),
        ("search --target-latency 5", "`5` has no unit; write 5ms, 5us or 5s; or 5%"),
        ("search --target-latency 5ms --torch-threads 0", "--torch-threads"),
        ("search --target-latency 5ms --runtime tensorflow", "tensorflow"),
        ("profile --threads 0", "--threads"),
        ("eval --images 0", "`0` is not a number of images, at least 1"),
        ("search --target-latency 5ms --measure-top 0", "`0` is not a number of networks from 1 to 100000"),
        ("profile --input 3x8x8", "--classes"),
        ("train --data nothing:here", "data set `nothing:here` is not known: use `embedded`"),
        ("train --arch resnet", "mobilenet_v2"),
        ("train --arch mobilenet_v2 --genotype skip", "cannot be used with"),
        ("completions", "<SHELL>"),
    ] {
        let output = ws.nas(args).assert().code(2).stdout("").get_output().clone();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.starts_with("error: ") && stderr.contains(said), "nas {args}: {stderr}");
    }
}

#[test]
fn an_error_is_one_line_that_names_the_cause() {
    let ws = Workspace::new();
    ws.write("typo.toml", "name = \"t\"\ntarget_latency = \"1ms\"\n[train]\nepoch = 3\n");
    ws.write("unit.toml", "name = \"t\"\ntarget_latency = \"5\"\n");
    ws.write("number.toml", "name = \"t\"\ntarget_latency = 5\n");
    ws.write("threads.toml", "name = \"t\"\ntarget_latency = \"5ms\"\n[search]\nthreads = 0\n");
    ws.write("field.toml", &SMALL.replace("layers", "size = 3\nlayers"));
    ws.write("op.toml", &SMALL.replace("\"skip\"", "\"conv_8x8\""));
    ws.write("twice.toml", &SMALL.replace("\"skip\"", "\"conv_3x3\""));
    ws.write("small.toml", SMALL);
    ws.write("device.toml", "description = \"mine\"\nlink = \"carrier pigeon\"\nruntimes = [\"tract\"]\n");
    fs::create_dir(ws.path("empty")).unwrap();
    let space = |name: &str| format!("profile --space {name} --input 3x8x8 --classes 3");
    let cases: [(String, &[&str]); 20] = [
        ("run typo.toml".into(), &["typo.toml", "line 4", "epoch"]),
        ("run unit.toml".into(), &["unit.toml", "line 2", "`5` has no unit"]),
        ("run number.toml".into(), &["number.toml", "line 2", "`5` has no unit; write 5ms"]),
        ("run threads.toml".into(), &["threads.toml", "line 4", "0 is not a number of threads from 1 to 1024"]),
        ("run absent.toml".into(), &["absent.toml", "No such file"]),
        (space("field.toml"), &["field.toml", "line 4", "size"]),
        (space("op.toml"), &["op.toml", "line 3", "no candidate op `conv_8x8`", "conv_KxK, sep_conv_KxK"]),
        (space("twice.toml"), &["space `small`", "op `conv_3x3` is listed twice"]),
        (space("chian"), &["no space `chian`", "chain"]),
        (
            "profile --device android --runtime ort --input 3x8x8 --classes 3".into(),
            &["android has a static musl probe", "leave out --runtime ort"],
        ),
        ("devices check toaster".into(), &["no device `toaster`", "host"]),
        ("devices check device.toml".into(), &["device.toml", "line 2", "carrier pigeon", "local"]),
        (format!("{TRAIN} {OPS} skip,skip"), &["2 ops", "space `small` needs 1"]),
        (format!("{TRAIN} {OPS} fly"), &["layer1 of space `small`", "no choice `fly`", "conv_3x3, skip"]),
        (format!("{TRAIN} {OPS} zero"), &["layer1 of space `small`", "no choice `zero`", "conv_3x3, skip"]),
        (TRAIN.into(), &["r/genotype.json is missing", "`nas search`"]),
        (TRAIN.replace("folder:images", "empty"), &["empty contains no data set", "train/<class>"]),
        ("export --run r --data folder:images".into(), &["no trained network", "`nas train --run r`"]),
        ("bench --run r".into(), &["no exported network", "`nas export --run r`"]),
        ("report --run r".into(), &["r"]),
    ];
    for (args, said) in cases {
        let error = ws.error(&args);
        said.iter().for_each(|said| assert!(error.contains(said), "nas {args}: no {said:?} in {error}"));
    }
    assert!(!ws.path("r").exists(), "a command that failed created its folder");
}

#[test]
fn the_commands_that_errors_suggest_fix_them() {
    let ws = Workspace::new();
    ws.write("small.toml", SMALL);
    let search = format!("{SEARCH} --target-latency 100%");
    // Runs the command between the last two backticks.
    let measure = |error: String| {
        let (program, args) = error.rsplit('`').nth(1).unwrap().split_once(' ').unwrap();
        assert_eq!(program, "nas-profile");
        // On a busy machine, there may be warnings.
        let quiet = predicate::str::is_empty().or(predicate::str::starts_with("warning: "));
        ws.command(NAS_PROFILE, args).assert().success().stderr(quiet);
    };
    let error = ws.error(&search);
    assert!(error.contains("there is no latency table tables/host/small.3x8x8.tract.fp32.jsonl"), "{error}");
    measure(error);

    let table = ws.read("tables/host/small.3x8x8.tract.fp32.jsonl");
    let kept: Vec<&str> = table.lines().filter(|line| !line.contains("[4,8,8]")).collect();
    ws.write("tables/host/small.3x8x8.tract.fp32.jsonl", &(kept.join("\n") + "\n"));
    let error = ws.error(&search);
    for said in ["lacks 2 models that are needed", "conv_3x3 4x8x8->4", "head 4x8x8->3"] {
        assert!(error.contains(said), "{error}");
    }
    measure(error);

    let error = ws.error(&format!("{SEARCH} --target-latency 1ns"));
    assert!(
        error
            .contains("no network of the space is within 1 ns of latency on host with tract: no network has less than"),
        "{error}"
    );
    ws.nas(&search).assert().success();
}

#[test]
fn networks_of_other_commands_are_not_used_unnoticed() {
    let ws = Workspace::new();
    ws.write("small.toml", SMALL);
    ws.nas(PROFILE).assert().success();
    ws.nas(&format!("{SEARCH} --target-latency 100%")).assert().success();
    let genotype: serde_json::Value = serde_json::from_str(&ws.read("r/genotype.json")).unwrap();
    let found = genotype["ops"][0].as_str().unwrap();
    let other = if found == "skip" { "conv_3x3" } else { "skip" };
    ws.nas(&format!("{TRAIN} {OPS} {other}")).assert().success();
    let said =
        format!("the network that was trained, {other}, is not the one that was found, {found}; `nas train --run r`");
    let export = "export --run r --data folder:images --images 1";
    let bench = "bench --run r --runtime tract --rounds 1 --profiles tables";
    for args in [export, "eval --run r --data folder:images", bench] {
        ws.nas(args).assert().success().stderr(predicate::str::contains(&said));
    }
    let itself = ws.nas(&format!("{TRAIN} --teacher ./r")).assert().code(1);
    itself.stderr(predicate::str::contains("r cannot be its own teacher"));
    for (args, missing) in [
        (format!("{bench} --table no.jsonl"), "there is no latency table no.jsonl"),
        ("bench no.onnx".into(), "there is no file no.onnx"),
        ("eval --run r --onnx no.onnx --data folder:images".into(), "there is no file no.onnx"),
        (format!("{TRAIN} --genotype no.json"), "there is no file no.json"),
        (
            TRAIN.replace("--run r", "--run new"),
            "new/genotype.json is missing; `nas search` writes it, or name a network",
        ),
    ] {
        let error = ws.error(&args);
        assert!(error.contains(missing), "nas {args}: {error}");
    }
    ws.nas(TRAIN).assert().success();
    ws.nas(export).assert().success().stderr(predicate::str::contains("is not the one").not());
}

#[test]
fn disturbed_rows_are_measured_again_and_stay_in_the_file() {
    let ws = Workspace::new();
    ws.write("small.toml", SMALL);
    ws.nas(PROFILE).assert().success();
    let path = "tables/host/small.3x8x8.tract.fp32.jsonl";
    let disturbed = "[4,8,8]";
    let disturb = |line: &str| {
        let mut row: serde_json::Value = serde_json::from_str(line).unwrap();
        row["disturbed"] = serde_json::json!(["load"]);
        row.to_string()
    };
    let table = ws.read(path);
    let lines = table.lines().map(|line| if line.contains(disturbed) { disturb(line) } else { line.into() });
    let lines: Vec<String> = lines.collect();
    ws.write(path, &(lines.join("\n") + "\n"));
    let before = lines.iter().filter(|line| line.contains(disturbed)).count();
    ws.nas(&format!("{PROFILE} --again")).assert().success();
    let after = ws.read(path);
    assert!(after.starts_with(&lines.join("\n")), "rows were lost");
    let added = after.lines().filter(|line| line.contains(disturbed)).count() - before;
    // At least eight rows of the convolution and of the classifier.
    assert!(added >= 2 * 8, "{added}");
}

#[test]
fn a_table_of_another_machine_must_be_allowed_and_is_mentioned_in_the_report() {
    let ws = Workspace::new();
    ws.write("small.toml", SMALL);
    ws.nas(PROFILE).assert().success();
    let table = ws.read("tables/host/small.3x8x8.tract.fp32.jsonl");
    let (header, rows) = table.split_once('\n').unwrap();
    let mut header: serde_json::Value = serde_json::from_str(header).unwrap();
    header["cpu"] = "an abacus".into();
    ws.write("tables/host/small.3x8x8.tract.fp32.jsonl", &format!("{header}\n{rows}"));

    let search = format!("{SEARCH} --target-latency 100%");
    let bench = "bench --run r --runtime tract --rounds 1 --profiles tables";
    let refused = |args: &str| {
        let error = ws.error(args);
        assert!(error.contains("CPU an abacus, not ") && error.contains("--allow-foreign-table"), "{error}");
    };
    refused(&search);
    ws.nas(&format!("{search} --allow-foreign-table")).assert().success();
    ws.nas(TRAIN).assert().success();
    ws.nas("export --run r --data folder:images --images 1").assert().success();
    refused(bench);
    ws.nas(&format!("{bench} --allow-foreign-table")).assert().success();
    // Latencies of another runtime are no estimate, whatever is allowed.
    let table = "--table tables/host/small.3x8x8.tract.fp32.jsonl --allow-foreign-table";
    let error = ws.error(&format!(
        "{} {table} --target-latency 100%",
        SEARCH.replace("tract", "ort").replace("--run r", "--run other")
    ));
    assert!(error.contains("was measured with runtime tract, not ort") && !error.contains("allow"), "{error}");
    let both = bench.replace("--run r", "--run r --runtime ort");
    ws.nas(&format!("{both} {table}")).assert().success();
    let rows = ws.lines("r/bench.jsonl");
    assert!(rows.iter().all(|row| row["prediction"].is_null() == (row["runtime"] == "ort")), "{rows:?}");
    let error = ws.error(&format!("{PROFILE} --runtime ort --table new.jsonl"));
    assert!(error.contains("new.jsonl is a table for one runtime; name it with --runtime"), "{error}");

    let prediction = &rows.iter().find(|row| row["runtime"] == "tract").unwrap()["prediction"];
    assert!(prediction["latency_ns"].is_number() && prediction["slowness"].is_null(), "{prediction}");
    ws.nas("report --run r").assert().success();
    let report = ws.read("r/report.html");
    for what in ["searched", "predicted"] {
        assert!(report.contains(&format!("It was {what} with a foreign latency table: CPU an abacus")), "{what}");
    }
}

#[test]
fn with_json_stdout_contains_only_json() {
    let ws = Workspace::new();
    ws.write("small.toml", SMALL);
    let shipped = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/devices")).unwrap().map(|e| e.unwrap().path());
    let shipped = shipped.filter(|path| path.extension().is_some_and(|e| e == "toml")).count();
    let devices = ws.json("devices");
    assert_eq!(devices[0]["name"], "host");
    assert_eq!(devices.as_array().unwrap().len(), shipped, "a file of devices/ is not built in");
    let checked = ws.json("devices check host");
    let found = |what: &str| checked[0]["findings"].as_array().unwrap().iter().find(|f| f["what"] == what).cloned();
    assert!(found("ort").is_some_and(|ort| ort["found"] == "1.28.0 on cpu"), "run scripts/setup: {checked}");
    let profiled = ws.json(PROFILE);
    assert_eq!(profiled[0]["measured"], profiled[0]["rows"]);
    assert!(profiled[0]["rows"].as_u64() >= Some(4 * 6), "three layers and a call, six times each: {profiled}");
    let found = ws.json(&format!("{SEARCH} --target-latency 50%"));
    assert!(found["predicted_ns"].as_f64() <= found["target_ns"].as_f64(), "{found}");
    assert_eq!(ws.json(TRAIN)["epoch"], 1);
    assert_eq!(ws.json("export --run r --data folder:images --images 1")[0]["network"], "genotype");
    assert_eq!(ws.json("bench --run r --runtime tract --rounds 1 --profiles tables")[0]["model"], "genotype");
    assert!(ws.json("report --run r").is_array());
}

#[test]
fn a_command_that_cannot_write_leaves_no_files() {
    let ws = Workspace::new();
    ws.write("small.toml", SMALL);
    ws.write("file", "");
    ws.nas(PROFILE).assert().success();
    ws.nas(&format!("{TRAIN} {OPS} skip")).assert().success();
    ws.nas("export --run r --data folder:images --images 1").assert().success();
    ws.write("experiment.toml", "name = \"t\"\ntarget_latency = \"1ms\"\n");
    // In the cache, the lock of the probe contains the id of the process that measured last.
    let files = || {
        let mut files = ws.files(".");
        files.retain(|path, _| !path.starts_with("./cache"));
        files
    };
    let before = files();
    for args in [
        PROFILE.replace("tables", "file/tables"),
        format!("{SEARCH} --target-latency 100%").replace("--run r", "--run file/r"),
        format!("{TRAIN} {OPS} skip").replace("--run r", "--run file/r"),
        "bench --run file/r --rounds 1 --runtime tract r/model.onnx".into(),
        "run experiment.toml --run file/r".into(),
    ] {
        let error = ws.error(&args);
        assert!(error.contains("file/"), "nas {args}: {error}");
    }
    assert!(before == files(), "a command that failed left something behind");
}

#[test]
fn errors_name_the_damaged_file() {
    let ws = Workspace::new();
    ws.write("small.toml", SMALL);
    ws.nas(PROFILE).assert().success();
    let table = ws.read("tables/host/small.3x8x8.tract.fp32.jsonl");
    ws.write("tables/host/small.3x8x8.tract.fp32.jsonl", &table.replacen("\"median_ns\":", "\"median_ns\":oops", 1));
    let search = format!("{SEARCH} --target-latency 100%");
    let said =
        predicate::str::contains("small.3x8x8.tract.fp32.jsonl: 1 damaged rows are left out; the first is line 2");
    ws.nas(&search).assert().success().stderr(said);

    let halve = |name: &str| {
        let bytes = fs::read(ws.path(name)).unwrap();
        fs::write(ws.path(name), &bytes[..bytes.len() / 2]).unwrap();
    };
    let train = format!("{TRAIN} {OPS} skip");
    ws.nas(&train).assert().success();
    let unfinished = |extension: &str| {
        let names = ws.files("r/checkpoint").into_keys().map(|path| path.display().to_string());
        let mut names = names.filter(|name| name.contains("/train-") && name.ends_with(extension));
        names.next().unwrap()
    };
    let log = unfinished(".jsonl");
    ws.write(&log, "");
    let error = ws.error(&train);
    assert!(error.contains(&format!("it is of epoch 1, and {log} has 0 lines; delete it")), "{error}");
    let checkpoint = unfinished(".safetensors");
    halve(&checkpoint);
    let error = ws.error(&train);
    assert!(error.contains(&checkpoint) && error.contains("delete it"), "{error}");

    let export = "export --run r --data folder:images --images 1";
    let other = format!("{TRAIN} {OPS} conv_3x3").replace("--run r", "--run other");
    ws.nas(&other).assert().success();
    fs::copy(ws.path("r/weights.safetensors"), ws.path("other/weights.safetensors")).unwrap();
    let error = ws.error(&export.replace("--run r", "--run other"));
    assert!(error.contains("weights.safetensors in other is not of the training"), "{error}");
    halve("r/weights.safetensors");
    assert!(ws.error(export).contains("weights.safetensors in r is not of the training"));
    assert!(!ws.path("r/model.onnx").exists() && !ws.path("other/model.onnx").exists());
}

#[test]
fn files_of_different_runs_are_refused() {
    let ws = Workspace::new();
    ws.write("small.toml", SMALL);
    ws.nas(PROFILE).assert().success();
    ws.nas(&format!("{SEARCH} --target-latency 100%")).assert().success();
    ws.nas(TRAIN).assert().success();
    let error = ws.error("export --run r");
    assert!(error.contains("the images are 1x28x28 and the network takes 3x8x8"), "{error}");

    // The data set without one of its classes.
    fs::remove_dir_all(ws.path("images/train/red")).unwrap();
    fs::remove_dir_all(ws.path("images/test/red")).unwrap();
    let error = ws.error(TRAIN);
    assert!(error.contains("the data have 2 classes and the network has 3"), "{error}");

    let genotype = ws.read("r/genotype.json");
    let (before, ops) = genotype.split_once('[').unwrap();
    let (_, after) = ops.split_once(']').unwrap();
    for (ops, said) in [("\"skip\", \"skip\"", "2 ops"), ("\"zero\"", "no choice `zero`"), ("\"fly\"", "`fly`")] {
        ws.write("r/genotype.json", &format!("{before}[{ops}]{after}"));
        let error = ws.error(TRAIN);
        assert!(error.contains("r/genotype.json") && error.contains(said), "{error}");
    }
}
