//! `nas-probe`: runs on the device, answers each line of stdin with one line of stdout; the lines
//! are those of the crate's library. Whatever is for people goes to stderr.
// A probe without a runtime still says hello, and why it can do no more.
#![cfg_attr(not(any(feature = "tract", feature = "ort")), allow(dead_code))]

mod affinity;
mod busy;
mod device;
mod governor;
mod loaded;
mod measure;
mod memory;
mod noise;
mod runtime;
mod sensors;
mod serve;
mod store;
mod words;

use governor::Governor;
use nas_probe::Reply;
use serve::{Options, Probe};
use std::{
    io::{self, BufRead, Write},
    process::ExitCode,
};

const USAGE: &str = "\
Measures ONNX models on this device: requests as JSON lines on stdin, replies on stdout.

Usage: nas-probe [--models DIR] [--ort LIBONNXRUNTIME.so] [--providers A,B]

  --models DIR      keep models in this folder; it is made if it is not there
  --ort FILE        load ONNX Runtime from this shared library
  --providers LIST  ONNX Runtime's execution providers in order: tensorrt, cuda, xnnpack, cpu
  --version         print the probe's version
  --help            print this";

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
                return ended(memory::child(&options, &args.collect::<Vec<_>>()));
            }
            (Some("--models"), 1..) => options.models = args.next().map(Into::into),
            (Some("--ort"), 1..) => options.ort_library = args.next().map(Into::into),
            (Some("--providers"), 1..) => {
                let list = args.next().unwrap_or_default();
                options.providers =
                    list.to_string_lossy().split(',').map(|name| name.trim().to_owned()).collect();
            }
            _ => {
                eprintln!("{USAGE}\n\nnas-probe: {} is not an argument, or lacks its value", arg.display());
                return ExitCode::from(2);
            }
        }
    }
    ended(run(options))
}

fn ended(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nas-probe: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<(), String> {
    let governor = Governor::start().map_err(|e| format!("can't be told of signals: {e}"))?;
    let probe = Probe::start(options, governor)?;
    talk(probe).map_err(|e| format!("the host can't be heard or reached any more: {e}"))
}

/// Says hello, then answers request after request until stdin ends.
fn talk(mut probe: Probe) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut say = |reply: &Reply| {
        writeln!(out, "{}", serde_json::to_string(reply)?)?;
        out.flush()
    };
    say(&Reply::Hello(probe.hello()))?;
    for line in io::stdin().lock().split(b'\n') {
        say(&probe.answer(&line?))?;
    }
    Ok(())
}
