//! `nas-probe`: runs on the device, answers each line of stdin with one line of stdout; the lines
//! are those of the crate's library. Whatever is for people goes to stderr.
// A probe without a runtime still says hello, and why it can do no more.
#![cfg_attr(not(any(feature = "tract", feature = "ort")), allow(dead_code))]

mod device;
mod measure;
mod runtime;
mod serve;

use nas_probe::Reply;
use serve::Probe;
use std::{
    io::{self, BufRead, Write},
    path::PathBuf,
    process::ExitCode,
};

const USAGE: &str = "\
Measures ONNX models on this device: requests as JSON lines on stdin, replies on stdout.

Usage: nas-probe [--ort LIBONNXRUNTIME.so]

  --ort FILE   load ONNX Runtime from this shared library
  --version    print the probe's version
  --help       print this";

fn main() -> ExitCode {
    let mut ort_library = None;
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
            (Some("--ort"), 1..) => ort_library = args.next().map(PathBuf::from),
            _ => {
                eprintln!("nas-probe: {} is not an argument, or lacks its value\n\n{USAGE}", arg.display());
                return ExitCode::from(2);
            }
        }
    }
    match talk(Probe::start(ort_library.as_deref())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nas-probe: the host can't be heard or reached any more: {error}");
            ExitCode::FAILURE
        }
    }
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
