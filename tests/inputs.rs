//! Flags and files that make no sense are rejected before anything is written.
#![allow(clippy::unwrap_used)]

mod common;

use common::{NAS, NAS_PROFILE, Workspace};
use edge_nas::space::{CandidateOp, LayerSpec, Networks, SearchSpace};
use nas_exporters::Shape;
use std::error::Error;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

const TRAIN: &str = "train --data folder:images --run r --space tiny.toml --genotype skip,skip,skip";
const SEARCH: &str = "search --data folder:images --run r --space tiny.toml --target-latency 50%";
const PROFILE: &str = "profile --space tiny.toml --input 3x8x8 --classes 3";

/// Numbers that a flag must reject, each with the key of the experiment that must reject it as well.
const NUMBERS: [(&str, &str, &str, &[&str]); 21] = [
    (TRAIN, "--epochs", "train.epochs", &["0", "-1", "1000000000"]),
    (TRAIN, "--batch-size", "train.batch_size", &["0", "1000000000000"]),
    (TRAIN, "--learning-rate", "train.learning_rate", &["nan", "inf", "-0.1", "0"]),
    (TRAIN, "--momentum", "train.momentum", &["nan", "-0.1", "1", "1.5"]),
    (TRAIN, "--weight-decay", "train.weight_decay", &["nan", "inf", "-1"]),
    (TRAIN, "--padding", "train.padding", &["-1"]),
    (TRAIN, "--seed", "train.seed", &["-1"]),
    (TRAIN, "--torch-threads", "train.threads", &["0", "4294967296"]),
    (SEARCH, "--epochs", "search.epochs", &["0"]),
    (SEARCH, "--image-share", "search.image_share", &["nan", "0", "1.5", "-0.5"]),
    (SEARCH, "--held-out", "search.held_out", &["nan", "0", "1", "-0.5"]),
    (SEARCH, "--learning-rate", "search.learning_rate", &["nan", "-1"]),
    (SEARCH, "--momentum", "search.momentum", &["nan", "1"]),
    (SEARCH, "--weight-decay", "search.weight_decay", &["nan", "-1"]),
    (SEARCH, "--alpha-learning-rate", "search.alpha_learning_rate", &["nan", "inf", "-1"]),
    (SEARCH, "--alpha-weight-decay", "search.alpha_weight_decay", &["nan", "-1"]),
    (SEARCH, "--latency-weight", "search.latency_weight", &["nan", "inf", "-1"]),
    (SEARCH, "--threads", "measure.threads", &["0", "4294967296"]),
    (PROFILE, "--networks", "profile.networks", &["0", "19", "1000000000000"]),
    ("train --arch mobilenet_v2", "--width", "baseline.width", &["nan", "inf", "1e19", "1e5", "0", "-1"]),
    ("bench", "--rounds", "bench.rounds", &["0", "100000000"]),
];

/// Returns the message of a command that must fail with this exit code and write nothing to stdout.
#[track_caller]
fn refused(ws: &Workspace, args: &str, code: i32) -> String {
    let output = ws.nas(args).assert().code(code).stdout("").get_output().clone();
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn numbers_out_of_bounds_are_refused_as_flags_and_in_experiments() {
    let ws = Workspace::new();
    ws.write("r/weights.safetensors", "earlier");
    for (command, flag, key, values) in NUMBERS {
        let (section, key) = key.split_once('.').unwrap();
        for value in values {
            let said = refused(&ws, &format!("{command} {flag}={value}"), 2);
            assert!(said.contains(&format!("invalid value '{value}' for '{flag}")), "{said}");
            ws.write("e.toml", &format!("name = \"e\"\ntarget_latency = \"50%\"\n[{section}]\n{key} = {value}\n"));
            let said = refused(&ws, "run e.toml", 1);
            assert!(said.starts_with("error: cannot read e.toml: line 4: "), "{key} = {value}: {said}");
        }
    }
    assert_eq!(ws.files("r").len(), 1, "something was written");
    assert!(!ws.path("runs").exists() && !ws.path("profiles").exists(), "something was written");
    assert_eq!(ws.read("r/weights.safetensors"), "earlier");
}

/// Otherwise, the choice would be based on an alpha that was never trained.
#[test]
fn a_search_must_train_alpha() {
    let ws = Workspace::profiled();
    for flags in ["--epochs 1", "--epochs 3 --warmup-epochs 3"] {
        let said = ws.error(&format!("{SEARCH} --algorithm gradient {flags}"));
        assert!(said.contains("none to train alpha") && said.contains("lower --warmup-epochs"), "{said}");
    }
    let experiment = "name = \"e\"\ntarget_latency = \"50%\"\ndata = \"folder:images\"\nspace = \"tiny.toml\"\n";
    ws.write("e.toml", &format!("{experiment}[search]\nalgorithm = \"mixture\"\nepochs = 1\n"));
    assert!(ws.error("run e.toml").contains("none to train alpha"));
    ws.write("e.toml", &format!("{experiment}[train]\npadding = 9\n"));
    assert!(ws.error("run e.toml").contains("a padding of 9 pixels is larger than the images, which have 8x8"));
    assert!(ws.error(&format!("{TRAIN} --padding 9")).contains("lower --padding"));
    assert!(ws.error(&format!("{SEARCH} --padding 9")).contains("lower --padding"));
    assert!(!ws.path("r").exists() && !ws.path("runs").exists(), "something was written");
}

#[test]
fn names_of_files_cannot_leave_their_folder() {
    let ws = Workspace::new();
    for name in ["../out", "/tmp/out", "..", ".hidden", "a b", "", &"n".repeat(65)] {
        ws.write("e.toml", &format!("name = \"{name}\"\ntarget_latency = \"50%\"\n"));
        ws.write("space.toml", &common::SPACE.replace("\"tiny\"", &format!("\"{name}\"")));
        for args in ["run e.toml", "profile --space space.toml --input 3x8x8 --classes 3"] {
            let said = ws.error(args);
            assert!(said.contains("line ") && said.contains(" is not a name: use up to 64 letters"), "{said}");
        }
    }
    ws.write("my device.toml", "description = \"mine\"\nlink = \"local\"\nruntimes = [\"tract\"]\n");
    let output = ws.nas("devices check").arg("my device.toml").assert().code(1).get_output().clone();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("my device.toml: \"my device\" is not a name"), "{said}");
}

#[test]
fn sizes_that_would_exhaust_the_memory_are_refused() {
    let ws = Workspace::new();
    let said = refused(&ws, "profile --input 3x8x8 --classes 1000000000", 2);
    assert!(said.contains("is not a number of classes from 1 to 100000"), "{said}");
    refused(&ws, "profile --input 3x8x8 --classes 0", 2);
    for (input, said) in
        [("3x100000x8", "1 to 4096 pixels a side"), ("20000x8x8", "1 to 16384 channels"), ("3x0x8", "shape")]
    {
        let output = ws.nas(&format!("profile --space tiny.toml --input {input} --classes 3")).assert().failure();
        let stderr = String::from_utf8(output.get_output().stderr.clone()).unwrap();
        assert!(stderr.contains(said) && !stderr.contains("panicked"), "{input}: {stderr}");
    }
    for (from, to, said) in [
        ("channels = 4 }", "channels = 16385 }", "channels are numbers from 1 to 16384"),
        ("stride = 2", "stride = 128", "a stride is a number from 1 to 127"),
        ("channels = 8 }", "channels = 16384 }, { channels = 16384 }", "the weights of an op would have"),
    ] {
        ws.write("space.toml", &common::SPACE.replace(from, to));
        let said_now = ws.error("profile --space space.toml --input 3x8x8 --classes 3");
        assert!(said_now.contains(said), "{said_now}");
    }
    assert!(!ws.path("profiles").exists(), "something was written");
}

/// A network that [`Networks::new`] accepts has a graph. What it rejects would have none.
#[test]
fn a_network_within_the_limits_has_a_graph() {
    let ops = [
        "conv_15x15",
        "sep_conv_15x15",
        "mb_15x15_e16",
        "mb_3x3_e16_se",
        "fused_15x15_e16",
        "mb_3x3_e16_se_relu",
        "avg_pool_3x3",
        "skip",
        "zero",
    ];
    let (mut taken, mut refused) = (0, 0);
    for op in ops {
        for (channels, side) in [(8, 4096), (64, 2048), (512, 64), (2048, 8), (16384, 1), (16384, 4096)] {
            let ops = vec![op.parse::<CandidateOp>().unwrap(), CandidateOp::Skip];
            let ops = if op == "skip" { vec![CandidateOp::Skip] } else { ops };
            let layer = LayerSpec { ops, channels: vec![channels].into(), stride: 2 };
            let space = SearchSpace { name: "large".into(), layers: vec![layer.clone(), layer] };
            match Networks::new(space, Shape::new(channels, side, side), [1000]) {
                Ok(networks) => {
                    networks.distinct_layers().iter().for_each(|layer| _ = layer.graph().cost());
                    taken += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(taken > 10 && refused > 10, "{taken} {refused}");
}

#[test]
fn a_baseline_within_the_limits_has_a_graph() {
    use edge_nas::bounded::Width;
    use edge_nas::space::Network;
    let (mut taken, mut refused) = (0, 0);
    let names: Vec<&str> = Network::baselines().collect();
    for (name, width) in names.iter().flat_map(|name| [0.05, 1.0, 10.0].map(|width| (*name, width))) {
        for (side, classes) in [(1, 2), (224, 1000), (1024, 10), (4096, 100_000), (8, 100_000)] {
            let (factor, input) = (Width::of(width), Shape::new(3, side, side));
            let network = Network::baseline(name, Some(factor), input, classes);
            let made = network.is_ok();
            match network {
                Ok(network) => {
                    network.graph().cost();
                    taken += 1;
                }
                Err(_) => refused += 1,
            }
            let written =
                serde_json::json!({"architecture": name, "width": width, "input": [3, side, side], "classes": classes});
            let read = serde_json::from_value::<Network>(written);
            assert_eq!(read.is_ok(), made);
        }
    }
    assert!(taken > 5 && refused > 3, "{taken} {refused}");
    let wide = serde_json::json!({"architecture": "mobilenet_v2", "width": 1e19, "input": [3, 8, 8], "classes": 3});
    assert!(serde_json::from_value::<Network>(wide).is_err());
}

#[test]
fn flags_that_would_be_ignored_are_refused() {
    let ws = Workspace::profiled();
    let said = refused(&ws, &format!("{SEARCH} --runtime ort --runtime tract"), 2);
    assert!(said.contains("a search is for one runtime; give --runtime once"), "{said}");
    let said = refused(&ws, "train --space tiny.toml", 2);
    assert!(said.contains("--genotype <GENOTYPE>"), "{said}");
    let said = refused(&ws, "train --data folder:images --space tiny.toml --genotype r/genotype.json", 2);
    assert!(said.contains("holds its own space; leave out --space"), "{said}");
    assert!(refused(&ws, "search --target-latency 40", 2).contains("write 40ms, 40us or 40s; or 40%"));
    assert!(!refused(&ws, "search --target-latency 140", 2).contains('%'));
    refused(&ws, "search --target-latency 1e300s", 2);
}

#[test]
fn a_target_that_limits_nothing_is_mentioned() {
    let ws = Workspace::profiled();
    let search = format!("{SEARCH} --epochs 1 --warmup-epochs 0 --target-latency");
    for (target, mentioned) in [("10s", true), ("100%", false)] {
        let search = search.replace("--target-latency 50% ", "");
        let output = ws.nas(&format!("{search} {target}")).assert().success().get_output().clone();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            said.contains("does not limit the search: no network of the space has more than"),
            mentioned,
            "{said}"
        );
    }
    let output = ws.nas(&format!("{TRAIN} --epochs 1")).assert().success().get_output().clone();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains(" after 1 epoch, "), "{said}");
}

/// Runs a shell command in the workspace, with `$NAS` and `$NAS_PROFILE`, and returns its exit code and stderr.
fn shell(ws: &Workspace, command: &str) -> (Option<i32>, String) {
    let shell = Command::new("bash")
        .args(["-c", &format!("set -o pipefail; {command}")])
        .current_dir(ws.dir())
        .env("NAS", NAS)
        .env("NAS_PROFILE", NAS_PROFILE)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (shell.status.code(), String::from_utf8_lossy(&shell.stderr).into_owned())
}

#[test]
fn output_that_cannot_be_written_is_no_panic() {
    let ws = Workspace::profiled();
    assert_eq!(shell(&ws, "$NAS completions bash | true"), (Some(0), String::new()));
    assert_eq!(shell(&ws, "$NAS report 2>/dev/full").0, Some(1));
    assert_eq!(shell(&ws, "$NAS train --epochs 0 2>/dev/full").0, Some(2));
    let (code, said) = shell(&ws, "$NAS completions bash >/dev/full");
    assert!(code == Some(1) && said.starts_with("error: ") && said.contains("No space left"), "{code:?} {said}");
    // A search warns if nobody validated the table.
    let search = format!("$NAS {SEARCH} --epochs 1 --warmup-epochs 0 2>/dev/full");
    assert_eq!(shell(&ws, &search).0, Some(0));
    assert!(ws.path("r/genotype.json").exists());
}

#[test]
fn a_path_that_json_cannot_hold_is_refused_before_any_work() {
    let ws = Workspace::profiled();
    let path = OsStr::from_bytes(b"r\xff");
    let output = ws.nas(&format!("{TRAIN} --json --epochs 1")).arg("--run").arg(path).output().unwrap();
    // The flag --run is given twice.
    assert_eq!(output.status.code(), Some(2));
    let train = TRAIN.replace("--run r ", "");
    let output = ws.nas(&format!("{train} --json --epochs 1 --run")).arg(path).assert().code(2).get_output().clone();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("error: \"r\\xFF\" is not UTF-8") && said.contains("leave out --json"), "{said}");
    assert!(!ws.dir().join(path).exists());
    ws.nas(&format!("{train} --epochs 1 --run")).arg(path).assert().success();
    assert!(ws.dir().join(path).join("weights.safetensors").exists());
}

#[test]
fn a_deleted_folder_is_named_as_the_cause() {
    let ws = Workspace::new();
    let (code, said) = shell(
        &ws,
        "mkdir gone; cd gone; rmdir ../gone; $NAS profile --input 3x8x8 --classes 3 --isolated --runtime tract",
    );
    assert!(code == Some(1) && said.contains("the current folder cannot be used"), "{said}");
    assert_eq!(said.matches("error: ").count(), 1, "{said}");
}

#[test]
fn each_cause_is_printed_once() {
    let ws = Workspace::new();
    ws.write("space.toml", "name = \"s\"\nlayers = 3\n");
    for (args, cause) in [
        ("run absent.toml", "No such file"),
        ("profile --space space.toml", "invalid type"),
        ("run space.toml", "unknown field"),
    ] {
        let said = ws.error(args);
        assert_eq!(said.matches(cause).count(), 1, "{said}");
    }
    let error = SearchSpace::load(ws.path("space.toml").to_str().unwrap()).unwrap_err();
    assert!(error.source().is_none(), "its message holds the cause, so it is no source");
}

#[test]
fn help_has_each_heading_once_and_a_text_for_each_flag() {
    let ws = Workspace::new();
    let verbs = [
        "",
        "profile",
        "search",
        "train",
        "export",
        "bench",
        "report",
        "run",
        "devices",
        "devices check",
        "completions",
    ];
    let tables = ["validate", "show", "diff", "merge", "export", "import"];
    let nas = verbs.iter().map(|verb| (NAS, verb.to_string()));
    let subcommands =
        tables.iter().flat_map(|verb| [(NAS, format!("profile {verb}")), (NAS_PROFILE, verb.to_string())]);
    for (program, verb) in nas.chain(subcommands).chain([(NAS_PROFILE, String::new())]) {
        for help in ["-h", "--help"] {
            let output = ws.command(program, &format!("{verb} {help}")).assert().success().get_output().clone();
            let text = String::from_utf8(output.stdout).unwrap();
            let mut headings: Vec<&str> =
                text.lines().filter(|line| line.ends_with(':') && !line.starts_with(' ')).collect();
            let all = headings.len();
            headings.sort_unstable();
            headings.dedup();
            assert_eq!(headings.len(), all, "{program} {verb} {help}: {text}");
            let options = text.split("\n\n").find(|part| part.starts_with("Options:"));
            assert!(options.is_some() || help == "--help", "{text}");
        }
    }
    let output = ws.nas("train --help").assert().success().get_output().clone();
    let text = String::from_utf8(output.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    for said in ["usually 0.9", "usual values are 1e-5 to 1e-3", "libtorch trains on this machine"] {
        assert!(text.contains(said), "{text}");
    }
}
