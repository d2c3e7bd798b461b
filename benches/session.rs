//! A table of 60 layers, measured over SSH with round trips of 20 ms and over this machine's own link, which costs next
//! to nothing. The difference is the cost of reaching a board. The sshd is real, and the userland is this machine's
//! own; see docs/benchmarks.md.
#![allow(clippy::unwrap_used)]

#[path = "../tests/board/mod.rs"]
mod board;
#[path = "../tests/table/mod.rs"]
mod table;

use board::Board;
use edge_nas::device::{self, Device, Session};
use edge_nas::profile::{Plan, header, rounds};
use edge_nas::space::{CandidateOp, Layer, Networks, SearchSpace};
use edge_nas::table::{LatencyTable, Subject};
use nas_exporters::{Precision, Shape};
use nas_probe::{MeasurePlan, Runtime};

const LAYERS: usize = 60;
/// One row for each layer.
const PLAN: Plan = Plan {
    measure: MeasurePlan { warmup_ns: 50_000_000, min_sample_ns: 1_000_000, samples: 100, limit_ns: 300_000_000 },
    fewest: 1,
    most: 1,
    precision: 0.0,
    again: 0,
};

fn main() {
    divan::main();
}

fn here() -> device::Board {
    let mut board = device::Board::local(Device::load("host").unwrap());
    board.runtimes = vec![Runtime::Tract];
    board
}

/// Measures a complete table, including the connection to the board.
fn table_of(board: &device::Board) {
    let conv: CandidateOp = "conv_3x3".parse().unwrap();
    let input = Shape::new(16, 16, 16);
    let layer = |channels| Subject::Layer(Layer { op: conv, input, channels, stride: 1 });
    let layers: Vec<Subject> = (1..=LAYERS).map(layer).collect();
    let folder = tempfile::tempdir().unwrap();
    let mut sessions = vec![Session::open(board).unwrap()];
    let networks = Networks::new(SearchSpace::load("chain").unwrap(), input, [10]).unwrap();
    let header = header("bench", &sessions, Runtime::Tract, 1, Precision::Fp32, &networks).unwrap();
    let mut table = LatencyTable::open(&folder.path().join("table.jsonl"), header, table::COMMAND).unwrap();
    rounds(&mut sessions, &mut table, &layers, &layers[0], &Default::default(), PLAN).unwrap();
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn local(bencher: divan::Bencher) {
    bencher.bench_local(|| table_of(&here()));
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn ssh_20ms(bencher: divan::Bencher) {
    let Some(rig) = Board::plain(&[]) else { return };
    let link = rig.proxy(&["--delay", "10"]);
    let board = device::Board { site: Some(rig.site(link.port())), ..here() };
    // The probe is uploaded only the first time.
    table_of(&board);
    bencher.bench_local(|| table_of(&board));
}
