//! `nas-probe` runs on the device and answers each line on stdin with one line on stdout. The crate's library
//! defines these lines. Messages for people go to stderr.
// A probe without a runtime still sends a hello, which reports why no runtime is available.
#![cfg_attr(not(any(feature = "tract", feature = "ort")), allow(dead_code))]

mod affinity;
mod busy;
mod children;
mod deadline;
mod device;
mod device_lock;
mod governor;
mod loaded;
mod measure;
mod memory;
mod messages;
mod noise;
mod options;
mod private;
mod runtime;
mod sensors;
mod serve;
mod store;
mod temporary;
mod watchdog;

use governor::Governor;
use nas_probe::{Line, MOST_REQUEST_BYTES, Reply, read_line};
use options::Options;
use serve::Probe;
use std::{
    io::{self, BufRead, Write},
    process::ExitCode,
    sync::Arc,
};
use watchdog::Watchdog;

const USAGE: &str = "\
Measures ONNX models on this device: requests as JSON lines on stdin, replies on stdout.

Usage: nas-probe [--models DIR] [--ort LIBONNXRUNTIME.so] [--providers A,B]

  --models DIR      store models in this folder, which is created if necessary
  --ort FILE        load ONNX Runtime from this shared library
  --providers LIST  ONNX Runtime's execution providers in order of preference, out of
                    tensorrt, cuda, xnnpack and cpu
  --version         print the probe's version
  --help            print this help";

fn main() -> ExitCode {
    let mut options = Options::default();
    let mut args = std::env::args_os().skip(1);
    while let Some(arg) = args.next() {
        match (arg.to_str(), args.len()) {
            (Some("--help"), _) => {
                println!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            (Some("--version"), _) => {
                println!("nas-probe {}", env!("CARGO_PKG_VERSION"));
                return ExitCode::SUCCESS;
            }
            (Some(memory::PEAK), _) => {
                return exit_code(memory::child(&options, &args.collect::<Vec<_>>()));
            }
            (Some("--models"), 1..) => options.models = args.next().map(Into::into),
            (Some("--ort"), 1..) => options.ort_library = args.next().map(Into::into),
            (Some("--providers"), 1..) => {
                let list = args.next().unwrap_or_default();
                options.providers = list.to_string_lossy().split(',').map(|name| name.trim().to_owned()).collect();
            }
            _ => {
                eprintln!("{USAGE}\n\nnas-probe: {} is unknown, or its value is missing", arg.display());
                return ExitCode::from(2);
            }
        }
    }
    exit_code(run(options))
}

fn exit_code(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // It is possible that nobody reads stderr any more.
            let _ = writeln!(io::stderr(), "nas-probe: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<(), String> {
    let governor = Arc::new(Governor::default());
    let watchdog = Watchdog::start(&governor, true).map_err(|e| format!("can't install the signal handlers: {e}"))?;
    let probe = Probe::start(options, governor, watchdog)?;
    talk(probe).map_err(|e| format!("lost the connection to the host: {e}"))
}

/// Sends the hello, then answers requests until stdin ends.
fn talk(mut probe: Probe) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut send = |reply: &Reply| {
        writeln!(out, "{}", serde_json::to_string(reply)?)?;
        out.flush()
    };
    send(&Reply::Hello(probe.hello()))?;
    let mut requests = io::stdin().lock();
    loop {
        match read_line(&mut requests, MOST_REQUEST_BYTES)? {
            Line::Ended => return Ok(()),
            Line::Whole(line) => send(&probe.answer(Some(&line)))?,
            Line::TooLong => {
                requests.skip_until(b'\n')?;
                send(&probe.answer(None))?;
            }
        }
    }
}
