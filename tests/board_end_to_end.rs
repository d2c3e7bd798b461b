//! All stages on an emulated AArch64 board: cross-compiled probe, SSH, latency table, search, export, bench.
#![allow(clippy::unwrap_used)]

mod board;
mod common;

use board::Board;
use common::{NAS, Workspace};
use edge_nas::device::{self, Device, Session, Source};
use edge_nas::space::{Genotype, Networks, SearchSpace};
use edge_nas::table::{Row, Summary};
use nas_exporters::{Precision, Shape, Weights, onnx};
use nas_probe::{DeployedGraph, MeasurePlan, ModelRef, Reply, Request, Runtime, TensorData, sha256};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

/// The largest difference of an output value between the board and this machine.
const TOLERANCE: f32 = 1e-4;
const SPACE: &str = r#"
name = "tiny"
candidates = ["conv_3x3", "sep_conv_3x3", "skip"]
layers = [{ ops = ["conv_3x3"], channels = 4 }, { channels = 4 }, { channels = 8, stride = 2 }]
"#;
/// A bare call, stem, head, and three candidates in two layers, one of which is a skip that does nothing.
const MODELS: usize = 8;
const THROTTLED: &str = "sys/devices/platform/soc/soc:firmware/get_throttled";

struct Rig {
    board: Board,
    ws: Workspace,
}

impl Rig {
    /// Returns `None`, with a message, if this machine cannot emulate the board. In CI, this panics.
    fn new(options: &[&str]) -> Option<Rig> {
        let board = Board::up(options)?;
        let ws = Workspace::new();
        ws.write("tiny.toml", SPACE);
        Some(Rig { board, ws })
    }

    /// Returns `nas`, for which the board is a Raspberry Pi 4.
    fn nas(&self, args: &str) -> assert_cmd::Command {
        let mut command = assert_cmd::Command::new(NAS);
        command.args(args.split_whitespace()).current_dir(self.ws.dir());
        command.env("HOME", self.board.home()).env("XDG_CACHE_HOME", self.ws.path("cache"));
        command.env_remove("XDG_CONFIG_HOME").env_remove("SSH_AUTH_SOCK");
        command
    }

    fn profile(&self, runtime: &str) -> assert_cmd::Command {
        let ssh = self.board.ssh_arg();
        self.nas(&format!("profile --device raspberry-pi-4 --ssh {ssh} --space tiny.toml --data folder:images --isolated --runtime {runtime}"))
    }

    /// Returns the number of models in the rows of a table.
    fn models(rows: &[Value]) -> usize {
        rows.iter().map(|row| row["key"].to_string()).collect::<BTreeSet<_>>().len()
    }

    fn rows(&self, runtime: &str) -> Vec<Value> {
        self.ws.lines(&format!("profiles/raspberry-pi-4/tiny.3x8x8.{runtime}.fp32.jsonl")).split_off(1)
    }
}

macro_rules! rig {
    ($options:expr) => {
        match Rig::new($options) {
            Some(rig) => rig,
            None => return,
        }
    };
}

#[test]
fn all_stages_run_from_the_table_to_the_report() {
    let rig = rig!(&[]);
    rig.profile("tract").args(["--runtime", "ort"]).assert().success();
    for runtime in ["tract", "ort"] {
        let table = rig.ws.lines(&format!("profiles/raspberry-pi-4/tiny.3x8x8.{runtime}.fp32.jsonl"));
        assert_eq!(Rig::models(&table[1..]), MODELS);
        assert_eq!(table[0]["arch"], "aarch64");
        assert_eq!(table[0]["cpu"], "0x41/0xd08", "a Cortex-A72");
    }
    let data = "--run run --data folder:images";
    let device = format!("--device raspberry-pi-4 --ssh {}", rig.board.ssh_arg());
    rig.nas(&format!("search {data} --device raspberry-pi-4 --space tiny.toml --epochs 2 --target-latency 60%"))
        .assert()
        .success();
    rig.nas(&format!("train {data} --epochs 1")).assert().success();
    rig.nas(&format!("export {data} --images 2")).assert().success();
    rig.nas(&format!("bench --run run {device} --rounds 1")).assert().success();
    let bench = rig.ws.lines("run/bench.jsonl");
    assert_eq!(bench.len(), 2);
    for row in bench {
        assert_eq!(row["device"], "raspberry-pi-4");
        assert!(
            row["latency_ns"].as_f64().unwrap() > 0.0 && row["prediction"]["latency_ns"].as_f64().unwrap() > 0.0,
            "{row}"
        );
    }
    rig.nas("report --run run").assert().success();
    assert!(rig.ws.read("run/report.html").contains("raspberry-pi-4"));
}

#[test]
fn outputs_on_the_board_equal_those_of_this_machine() {
    let rig = rig!(&[]);
    let input = Shape::new(3, 16, 16);
    let networks = Networks::new(SearchSpace::load("chain_small").unwrap(), input, [10]).unwrap();
    let ops = "conv_3x3,sep_conv_5x5,skip,max_pool_3x3,conv_5x5,avg_pool_3x3";
    let graph = Genotype::parse(networks, ops).unwrap().graph();
    let file = Source::File(onnx::encode(&graph, &Weights::random(&graph, 7), Precision::Fp32).unwrap());
    // The board must make the same bytes from the graph as this machine. Otherwise, it refuses to run them.
    let model =
        [("file".to_string(), file), ("graph".to_string(), Source::Graph { graph, precision: Precision::Fp32 })];
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let values = (0..input.len()).map(|_| rng.random_range(-1.0..1.0)).collect();
    let image = TensorData { shape: vec![1, 3, 16, 16], values };

    let folder = tempfile::tempdir().unwrap();
    let mut here = device::Board::local(Device::load("host").unwrap());
    here.device.folder = Some(folder.path().display().to_string());
    let there = device::Board {
        site: Some(rig.board.site(rig.board.port())),
        ..device::Board::local(Device::load("raspberry-pi-4").unwrap())
    };
    let [mut here, mut there] = [here, there].map(|board| Session::open(&board).unwrap());
    for runtime in Runtime::ALL {
        for source in 0..model.len() {
            let [a, b] = [&mut here, &mut there].map(|session| {
                let placed = session.place(&model).unwrap();
                session.infer(&placed[source], runtime, vec![image.clone()]).unwrap().remove(0).values
            });
            assert_eq!((a.len(), b.len()), (10, 10));
            let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= TOLERANCE, "{} in {runtime}: the board differs by {worst:e}", model[source].0);
        }
    }
}

#[test]
fn throttling_is_reported_and_rows_are_flagged() {
    let rig = rig!(&[]);
    rig.board.write(THROTTLED, "50004\n");
    let ssh = rig.board.ssh_arg();
    let check = rig.nas(&format!("devices check raspberry-pi-4 --ssh {ssh}")).assert().success().get_output().clone();
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(said.contains("! throttled: use the power supply"), "{said}");
    let output = rig.profile("tract").assert().success().get_output().clone();
    let warning = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(warning.contains(&format!("{MODELS} models")) && warning.contains("throttling"), "{warning}");
    for row in rig.rows("tract") {
        assert!(row["disturbed"].as_array().unwrap().contains(&"throttled".into()), "{row}");
        assert_eq!(row["before"]["throttled"], true);
    }
}

#[test]
fn a_jump_of_the_boards_clock_does_not_change_latencies() {
    let rig = rig!(&["--clock"]);
    let profile = std::thread::scope(|scope| {
        let profile = scope.spawn(|| rig.profile("tract").assert().success().get_output().clone());
        // The clock jumps forwards and back for as long as the profile runs.
        for seconds in ["+86400", "-86400"].iter().cycle() {
            if profile.is_finished() {
                break;
            }
            rig.board.write("clock", &format!("{seconds}\n"));
            std::thread::sleep(Duration::from_millis(50));
        }
        profile.join().unwrap()
    });
    assert!(profile.status.success());
    for row in rig.rows("tract") {
        let slowest = row["samples_ns"].as_array().unwrap().iter().map(|ns| ns.as_f64().unwrap()).fold(0.0, f64::max);
        assert!(slowest < 10e9, "a sample of {slowest} ns");
    }
}

/// The clock of the virtual machine counts instructions, so the same work takes the same time in it, whatever this
/// machine does meanwhile. The latencies in the table must equal those that the probe reports when it is run on the
/// board by hand.
#[test]
#[ignore = "boots a virtual machine"]
fn the_table_has_the_latencies_that_the_probe_measures_on_the_board() {
    let Some(board) = Board::vm(&[]) else { return };
    let rig = Rig { board, ws: Workspace::new() };
    rig.ws.write("tiny.toml", SPACE);
    let slow = rig.board.proxy(&["--delay", "10"]);
    let ssh = slow.ssh_arg();
    rig.nas(&format!(
        "profile --device raspberry-pi-4 --ssh {ssh} --space tiny.toml --data folder:images --isolated --runtime tract"
    ))
    .timeout(Duration::from_secs(500))
    .assert()
    .success();
    let rows: Vec<Row> = rig.rows("tract").into_iter().map(|row| serde_json::from_value(row).unwrap()).collect();
    assert_eq!(rows.iter().map(|row| &row.subject).collect::<BTreeSet<_>>().len(), MODELS);

    let plan = MeasurePlan { warmup_ns: 50_000_000, min_sample_ns: 1_000_000, samples: 100, limit_ns: 300_000_000 };
    let precision = Precision::Fp32;
    let deployed = |row: &Row| {
        let graph = row.subject.graph();
        let model = sha256(&onnx::untrained(&graph, precision).unwrap());
        DeployedGraph { model, graph, precision }
    };
    let graphs: Vec<DeployedGraph> = rows.iter().map(deployed).collect();
    let measure = |DeployedGraph { model, .. }: &DeployedGraph| {
        let model = ModelRef { model: model.clone(), runtime: Runtime::Tract, threads: 1 };
        Request::Measure { id: 1, model, plan }
    };
    let measures: Vec<Request> = graphs.iter().map(measure).collect();
    let all = [Request::Graphs { id: 0, graphs }].into_iter().chain(measures);
    let requests: Vec<String> = all.map(|request| serde_json::to_string(&request).unwrap()).collect();
    let probe = format!("cd .cache/edge-nas && ./nas-probe-* --models models <<'END'\n{}\nEND", requests.join("\n"));
    let replies = rig.board.run(&probe);
    for (row, reply) in rows.iter().zip(replies.lines().skip(2)) {
        let Reply::Samples { samples, .. } = serde_json::from_str(reply).unwrap() else { panic!("{reply}") };
        let there = Summary::of(&samples.ns).unwrap().median.ns();
        let ratio = row.median_ns.ns() / there;
        assert!((ratio - 1.0).abs() < 0.02, "{}: {} here and {there} ns on the board", row.subject, row.median_ns);
    }
}
