//! The examples of docs/guide.md that need only this machine, in their order, with small settings.
#![allow(clippy::unwrap_used)]

mod common;

use common::{NAS, Workspace};

/// Flags that shorten an example, by its beginning: another space and data set, and fewer networks, epochs and rounds.
const SHORTER: [(&str, &str); 8] = [
    ("nas profile validate --", "--networks 3 --data folder:images"),
    ("nas profile --", "--networks 20 --data folder:images"),
    ("nas search", "--epochs 1 --warmup-epochs 0 --candidates 4 --finalists 2 --trial-epochs 1 --data folder:images"),
    ("nas train", "--epochs 1 --data folder:images"),
    ("nas export", "--images 1 --data folder:images"),
    ("nas eval", "--data folder:images"),
    ("nas bench", "--rounds 1"),
    ("nas profile show", ""),
];

/// Words in examples that stand for a file or take too long, and their replacements.
const REPLACED: [(&str, &str); 5] = [
    ("--space chain_small", "--space chain_small.toml"),
    ("chain_small.1x28x28", "chain_small.3x8x8"),
    ("TABLE", "profiles/host/chain_small.3x8x8.ort.fp32.jsonl"),
    ("other.onnx", "runs/mine/baseline/model.onnx"),
    ("scripts/quickstart.toml", "quick.toml"),
];

/// Returns the commands in the last column of the table of verbs, then those in the text that follows it, and then
/// those about searching.
fn examples() -> Vec<String> {
    let guide = include_str!("../docs/guide.md");
    let (_, verbs) = guide.split_once("## The verbs").unwrap();
    let (verbs, _) = verbs.split_once("\n## ").unwrap();
    let quoted = |text: &str| -> Vec<String> {
        let commands = text.split('`').skip(1).step_by(2).filter(|code| code.starts_with("nas "));
        commands.map(|command| command.replace('\n', " ")).collect()
    };
    let rows = verbs.lines().filter(|line| line.starts_with("| `nas"));
    let last = |row: &str| quoted(row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap());
    let (_, text) = verbs.split_once("The examples work in this order.").unwrap();
    let of_verbs = rows.flat_map(last).chain(quoted(text).into_iter().filter(|command| command.contains("--run")));
    let (_, searching) = guide.split_once("\n## Searching\n").unwrap();
    let (searching, _) = searching.split_once("\n## ").unwrap();
    let of_searching = searching.lines().filter(|line| line.starts_with("nas ")).map(String::from);
    of_verbs.chain(of_searching).collect()
}

#[test]
fn the_examples_of_the_guide_work_in_their_order() {
    let ws = Workspace::new();
    ws.write("chain_small.toml", &common::SPACE.replace("\"tiny\"", "\"chain_small\""));
    let quick = include_str!("../scripts/quickstart.toml");
    let quick = quick.replace("\"embedded\"", "\"folder:images\"").replace("\"chain_small\"", "\"chain_small.toml\"");
    let quick = quick.replace("epochs = 8", "epochs = 1") + "\n[bench]\nrounds = 1\n";
    ws.write("quick.toml", &quick);
    let examples = examples();
    assert!(examples.len() >= 20, "{examples:?}");
    for example in examples {
        let mut command = REPLACED.iter().fold(example.clone(), |command, (from, to)| command.replace(from, to));
        if let Some((_, flags)) = SHORTER.iter().find(|(start, _)| command.starts_with(start)) {
            command = format!("{command} {flags}");
        }
        let (_, args) = command.split_once(' ').unwrap();
        ws.command(NAS, args).assert().success();
    }
    for written in [
        "runs/front/report.html",
        "runs/front/targets/40percent/report.html",
        "chain.csv",
        "runs/mine/baseline/model.onnx",
        "runs/mine/eval.json",
        "runs/mine/confusion.svg",
        "runs/mine/report.html",
        "runs/quickstart/report.html",
    ] {
        assert!(ws.path(written).is_file(), "{written}");
    }
}
