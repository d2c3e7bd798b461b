//! Recipes of `nas train`: presets, held-out images, teachers, and the processor.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)]

mod common;

use common::Workspace;
use edge_nas::train::fit::read_weights;
use serde_json::Value;
use std::collections::BTreeMap;

const DATA: &str = "train --data folder:images --batch-size 16 --arithmetic fp32 --torch-device cpu";
const NETWORK: &str = "--space tiny.toml --genotype conv_3x3,skip,conv_3x3";

fn share(row: &Value, of: &str) -> Option<f64> {
    row[of].as_f64()
}

#[test]
fn a_preset_says_what_flags_do_not() {
    let ws = Workspace::new();
    let epochs = |run: &str, flags: &str| {
        ws.nas(&format!("{DATA} {NETWORK} --run {run} {flags}")).assert().success();
        ws.lines(&format!("{run}/train.jsonl"))
    };
    assert_eq!(epochs("fast", "").len(), 30);
    let plain = epochs("plain", "--preset reference --epochs 3");
    let best = "--preset best --epochs 3";
    assert_ne!(epochs("best", best), plain);
    let changes = "--learning-rate 0.05 --init random --label-smoothing 0 --ema 0 --border mean --cutout 0";
    assert_eq!(epochs("same", &format!("{best} {changes}")), plain);
    // An experiment has the same presets.
    let toml = "name = \"e\"\ndata = \"folder:images\"\ntarget_latency = \"40%\"\n[train]\npreset = \"slow\"\n";
    ws.write("e.toml", toml);
    assert!(ws.error("run e.toml").contains("unknown variant `slow`, expected one of `reference`, `fast`, `best`"));
}

#[test]
fn a_whitened_start_decorrelates_patches_and_copies_features() {
    let ws = Workspace::new();
    // The weights hardly move, so those after an epoch are those at the start.
    let convolutions = |run: &str, flags: &str| -> BTreeMap<Vec<usize>, Vec<f32>> {
        let network = NETWORK.replace("skip", "conv_3x3");
        ws.nas(&format!("{DATA} {network} --run {run} --epochs 1 --learning-rate 1e-12 {flags}")).assert().success();
        let weights = read_weights(&ws.path(&format!("{run}/weights.safetensors"))).unwrap();
        weights.iter().map(|(_, weight)| (weight.dims.clone(), weight.values.clone())).collect()
    };
    let (random, whitened) = (convolutions("a", "--init random"), convolutions("b", "--init whitened"));
    assert_eq!(random, convolutions("c", "--preset reference"), "the reference recipe starts at random");
    assert_eq!(whitened, convolutions("d", "--init whitened"), "the start is reproducible");

    // The first convolution has two directions, of which the first one varies most, and their negatives.
    let first = &whitened[&vec![4, 3, 3, 3]];
    let filters: Vec<&[f32]> = first.chunks(27).collect();
    assert!((0..2).all(|i| filters[i].iter().zip(filters[i + 2]).all(|(a, b)| *a == -*b)), "{filters:?}");
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    assert!(dot(filters[0], filters[1]).abs() < 1e-3 * dot(filters[0], filters[0]), "directions are orthogonal");
    assert!(dot(filters[0], filters[0]) < dot(filters[1], filters[1]), "more variance needs a smaller filter");

    // Another one copies its four inputs to the first four of its outputs.
    let copying = &whitened[&vec![8, 4, 3, 3]];
    for (i, kernel) in copying.chunks(9).take(16).enumerate() {
        let centre = if i / 4 == i % 4 { 1.0 } else { 0.0 };
        let expected = [0.0, 0.0, 0.0, 0.0, centre, 0.0, 0.0, 0.0, 0.0];
        assert!(kernel.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{i}: {kernel:?}");
    }
    assert_eq!(copying[16 * 9..], random[&vec![8, 4, 3, 3]][16 * 9..], "the other filters stay random");
}

#[test]
fn images_that_are_kept_back_choose_the_best_epoch() {
    let ws = Workspace::new();
    ws.nas(&format!("{DATA} {NETWORK} --run r --epochs 6 --held-out 0.25 --learning-rate 0.3")).assert().success();
    let log = ws.lines("r/train.jsonl");
    let held_out: Vec<f64> = log.iter().map(|row| share(row, "held_out_accuracy").unwrap()).collect();
    let tested: Vec<bool> = log.iter().map(|row| share(row, "test_accuracy").is_some()).collect();
    assert_eq!(tested, [false, false, false, false, false, true], "test images are used once");
    let best = held_out.iter().copied().fold(0.0, f64::max);
    let read = |name: &str| std::fs::read(ws.path(name)).unwrap();
    let first_best = held_out.iter().position(|accuracy| *accuracy == best).unwrap();
    assert_eq!(read("r/best.safetensors") == read("r/weights.safetensors"), first_best == 5, "{held_out:?}");
    // Without held-out images, every epoch shows the accuracy on test images.
    ws.nas(&format!("{DATA} {NETWORK} --run s --epochs 2")).assert().success();
    assert!(ws.lines("s/train.jsonl").iter().all(|row| share(row, "test_accuracy").is_some()));
    assert!(!ws.path("s/best.safetensors").exists());
    // A training without them removes the best weights of the one before.
    ws.nas(&format!("{DATA} {NETWORK} --run r --epochs 2")).assert().success();
    assert!(!ws.path("r/best.safetensors").exists());
}

#[test]
fn a_network_learns_from_a_teacher() {
    let ws = Workspace::new();
    ws.nas(&format!("{DATA} {NETWORK} --run teacher --epochs 8")).assert().success();
    let taught = format!("{DATA} {NETWORK} --epochs 4 --padding 1 --teacher-weight 1 --teacher teacher");
    let answers = || {
        let files = ws.files("teacher");
        files.into_iter().filter(|(name, _)| name.display().to_string().contains("answers-")).collect::<Vec<_>>()
    };
    ws.nas(&format!("{taught} --run a")).assert().success();
    let first = answers();
    // 96 images in 18 views, with 3 logits of 2 bytes.
    assert!(first.len() == 1 && first[0].1.1.len() >= 96 * 18 * 3 * 2, "{}", first.len());
    ws.nas(&format!("{taught} --run b")).assert().success();
    assert!(answers() == first, "they are computed once");
    assert_eq!(ws.lines("a/train.jsonl"), ws.lines("b/train.jsonl"));
    // From the answers alone, it learns to tell the classes apart.
    let accuracy = share(ws.lines("a/train.jsonl").last().unwrap(), "test_accuracy").unwrap();
    assert!(accuracy > 0.8, "{accuracy}");

    assert!(ws.error(&format!("{taught} --run c --teacher none").replace("--teacher teacher ", "")).contains("none"));
    std::fs::remove_file(ws.path("images/train/red/0.png")).unwrap();
    let error = ws.error(&format!("{taught} --run d"));
    assert!(error.contains("the teacher was trained on other data; give the --data of teacher"), "{error}");
}

#[test]
fn results_say_how_they_were_made() {
    let ws = Workspace::new();
    ws.nas(&format!("{DATA} {NETWORK} --run r --epochs 1 --seed 7")).assert().success();
    let on: Value = serde_json::from_str(&ws.read("r/data.json")).unwrap();
    let made = &on["made"];
    assert_eq!((&made["seed"], &made["processor"]), (&7.into(), &"cpu".into()));
    assert_eq!(made["version"], env!("CARGO_PKG_VERSION"));
    let command: Vec<&str> = made["command"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(command[1..3], ["train", "--data"]);
}

/// The machines that run the tests have no GPU. On a machine with a GPU, there is nothing to test.
#[test]
fn a_missing_gpu_is_an_error_where_one_is_asked_for() {
    let ws = Workspace::new();
    let train = format!("{DATA} {NETWORK} --run r --epochs 1").replace("cpu", "cuda");
    if edge_nas::train::TorchDevice::Cuda.resolve().is_err() {
        assert!(ws.error(&train).contains("no GPU can be used"));
    }
    ws.nas(&train.replace("cuda", "auto")).assert().success();
}
