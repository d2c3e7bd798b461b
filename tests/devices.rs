//! This machine as a device: whom it trusts, and what it leaves behind.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "../devices/probe/tests/onnx/mod.rs"]
mod onnx;

use common::{NAS, Workspace};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Returns whether a process has this text among its arguments.
fn is_running(argument: &Path) -> bool {
    let argument = argument.to_str().unwrap();
    fs::read_dir("/proc").unwrap().flatten().any(|process| {
        // A zombie has no arguments.
        fs::read(process.path().join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(argument))
    })
}

/// Creates a workspace with a model whose first inference never ends, and one that needs more memory than any machine
/// has.
fn workspace() -> Workspace {
    let ws = Workspace::new();
    fs::write(ws.path("endless.onnx"), onnx::endless()).unwrap();
    fs::write(ws.path("large.onnx"), onnx::pads(1 << 37)).unwrap();
    ws
}

#[test]
fn a_host_that_is_killed_leaves_no_probe_and_no_child() {
    let ws = workspace();
    for signal in ["KILL", "TERM", "HUP"] {
        let mut nas = Command::new(NAS);
        nas.args("bench endless.onnx --runtime ort --run none --timeout 1h".split(' ')).current_dir(ws.dir());
        nas.env("XDG_CACHE_HOME", ws.path("cache")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut nas = nas.spawn().unwrap();
        let model = ws.path("cache/edge-nas/models");
        let start = Instant::now();
        // Only the process that measures memory has the model itself as an argument.
        let of_model = || {
            let files = fs::read_dir(&model).into_iter().flatten().flatten();
            files.filter(|file| file.path().extension().is_some_and(|e| e == "onnx")).any(|f| is_running(&f.path()))
        };
        while !of_model() {
            assert!(start.elapsed() < Duration::from_secs(60) && nas.try_wait().unwrap().is_none(), "it did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(Command::new("kill").args(["-s", signal, &nas.id().to_string()]).status().unwrap().success());
        nas.wait().unwrap();
        let start = Instant::now();
        while is_running(&model) {
            assert!(start.elapsed() < Duration::from_secs(5), "a process is left after SIG{signal}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn models_have_a_deadline_and_a_limit_of_memory() {
    let ws = workspace();
    let late = ws.error("bench endless.onnx --runtime ort --run none --timeout 1s");
    assert!(late.contains("took longer than 1 s") && late.contains("--timeout"), "{late}");
    for runtime in ["ort", "tract"] {
        let large = ws.error(&format!("bench large.onnx --runtime {runtime} --run none"));
        assert!(large.contains("it needs more than") && large.contains("MB of memory"), "{large}");
    }
    ws.nas("bench endless.onnx --timeout 0s").assert().code(2);
    ws.nas("bench endless.onnx --timeout 60").assert().code(2);
}

#[test]
fn without_a_home_no_shared_folder_is_used() {
    let ws = workspace();
    let output = ws
        .nas("bench large.onnx --runtime tract --run none")
        .env_remove("HOME")
        .env_remove("XDG_CACHE_HOME")
        .assert()
        .code(1)
        .get_output()
        .clone();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("HOME or XDG_CACHE_HOME"), "{error}");
}

#[test]
fn a_program_outside_its_clone_loads_nothing_from_the_folders_around_it() {
    let ws = workspace();
    fs::create_dir(ws.path("bin")).unwrap();
    let programs = Path::new(NAS).parent().unwrap();
    for program in ["nas", "nas-probe"] {
        fs::copy(programs.join(program), ws.path("bin").join(program)).unwrap();
    }
    ws.write(".deps/onnxruntime/libonnxruntime.so", "planted");
    ws.write("scripts/build-probe", "#!/bin/sh\ntouch planted\n");
    let mut command = ws.command(ws.path("bin/nas").to_str().unwrap(), "devices check host --runtime ort");
    let output = command.env_remove("ORT_DYLIB_PATH").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("no library was named") && !said.contains("planted"), "{said}");
    ws.write(
        "board.toml",
        "description = \"\"\nlink = \"local\"\ntarget = \"aarch64-unknown-linux-gnu\"\nruntimes = [\"tract\"]\n",
    );
    let mut command = ws.command(ws.path("bin/nas").to_str().unwrap(), "devices check board.toml");
    let output = command.env_remove("NAS_PROBE").output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("scripts/build-probe") && error.contains("clone"), "{error}");
    assert!(!ws.path("planted").exists());
}
