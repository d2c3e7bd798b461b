//! Boards over SSH: a fault is reported in one line, no row is lost, and the same command then completes the table. The
//! board is this machine's own userland behind a real sshd; `board_end_to_end` has an AArch64 board.
#![allow(clippy::unwrap_used)]

mod board;
mod common;
#[path = "../devices/probe/tests/onnx/mod.rs"]
mod onnx;
mod plain_board;

use board::Board;
use common::NAS;
use plain_board::{DEVICE, MODELS, ROUNDS, Rig, SPACE, TABLE, assert_complete, error_of, make_key, wait_for};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

macro_rules! rig {
    ($options:expr) => {
        match Rig::new($options) {
            Some(rig) => rig,
            None => return,
        }
    };
    () => {
        rig!(&[])
    };
}

#[test]
fn a_table_is_measured_over_ssh_and_the_same_command_then_adds_nothing() {
    let rig = rig!();
    rig.assert_completes(&[]);
    let before = rig.rows();
    rig.assert_completes(&before);
    assert_eq!(rig.rows(), before);
}

#[test]
fn a_refused_connection_is_reported() {
    let rig = rig!();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = rig.error(&mut rig.profile(free));
    assert!(error.contains("cannot reach") && error.contains("refused"), "{error}");
    rig.assert_completes(&[]);
}

#[test]
fn a_failed_login_names_the_keys_that_were_tried() {
    let rig = rig!();
    let other = rig.board.home().join(".ssh/other");
    make_key(&other);
    rig.site("key = \"~/.ssh/other\"");
    let error = rig.error(&mut rig.profile(rig.board.port()));
    assert!(error.contains(".ssh/other") && error.contains("ssh-copy-id"), "{error}");
    rig.site("");
    rig.assert_completes(&[]);
}

#[test]
fn a_changed_host_key_is_refused_and_a_new_one_must_be_accepted() {
    let rig = rig!();
    let known_hosts = rig.board.home().join(".ssh/known_hosts");
    let right = std::fs::read_to_string(&known_hosts).unwrap();
    let other = rig.ws.path("other");
    make_key(&other);
    let key = std::fs::read_to_string(other.with_extension("pub")).unwrap();
    let key: Vec<&str> = key.split(' ').collect();
    let port = rig.board.port();
    std::fs::write(&known_hosts, format!("[127.0.0.1]:{port} {} {}\n", key[0], key[1])).unwrap();
    let error = rig.error(&mut rig.profile(port));
    assert!(error.contains("another machine") && error.matches("SHA256:").count() == 2, "{error}");
    let error = rig.error(rig.profile(port).arg("--accept-new-host-key"));
    assert!(error.contains("another machine"), "{error}");

    std::fs::write(&known_hosts, "# mine\n").unwrap();
    let error = rig.error(&mut rig.profile(port));
    assert!(error.contains("--accept-new-host-key") && error.contains("SHA256:"), "{error}");
    let output = rig.profile(port).arg("--accept-new-host-key").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let remembered = std::fs::read_to_string(&known_hosts).unwrap();
    assert!(remembered.starts_with("# mine\n") && remembered.contains(right.split(' ').nth(2).unwrap().trim()));
    rig.assert_completes(&rig.rows());
}

#[test]
fn a_known_host_is_found_in_hashed_entries_and_among_keys_of_other_types() {
    let rig = rig!();
    let known_hosts = rig.board.home().join(".ssh/known_hosts");
    let hashed = Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&known_hosts).output().unwrap();
    assert!(hashed.status.success());
    assert!(std::fs::read_to_string(&known_hosts).unwrap().starts_with("|1|"));
    rig.assert_completes(&[]);
}

#[test]
fn an_interrupted_upload_is_repeated() {
    let rig = rig!();
    let proxy = rig.board.proxy(&["--reset-after", "3000000"]);
    let error = rig.error(&mut rig.profile(proxy.port()));
    assert!(error.contains("uploading nas-probe"), "{error}");
    rig.assert_completes(&[]);
}

#[test]
fn no_row_is_lost_if_the_ssh_server_dies() {
    let rig = rig!();
    let child = rig.measuring(rig.board.port());
    rig.board.kill_sshd();
    let error = error_of(child.wait_with_output().unwrap());
    assert!(error.contains("the probe ended"), "{error}");
    let before = rig.rows();
    assert!(before.len() < ROUNDS * MODELS);
    wait_for(|| std::net::TcpStream::connect(("127.0.0.1", rig.board.port())).is_ok(), || ());
    rig.assert_completes(&before);
}

#[test]
fn a_silent_board_is_given_up_after_the_timeout() {
    let rig = rig!();
    rig.site("timeout = \"2s\"");
    let child = rig.measuring(rig.board.port());
    rig.board.freeze();
    let error = error_of(child.wait_with_output().unwrap());
    assert!(error.contains("did not answer within") || error.contains("silent"), "{error}");
    rig.board.thaw();
    rig.assert_completes(&rig.rows());
}

#[test]
fn a_full_disk_is_reported_with_its_free_bytes() {
    let rig = rig!(&["--disk", "4"]);
    let error = rig.error(&mut rig.profile(rig.board.port()));
    assert!(error.contains("bytes free") && error.contains("nas-probe"), "{error}");
    assert_eq!(rig.board.run("ls .cache/edge-nas"), "", "a partial file was left there");
}

#[test]
fn a_probe_that_is_killed_by_a_signal_is_an_error() {
    let rig = rig!();
    let child = rig.measuring(rig.board.port());
    rig.board
        .run("for p in /proc/[0-9]*; do case $(readlink $p/exe) in *nas-probe*) kill -KILL ${p#/proc/};; esac; done");
    let error = error_of(child.wait_with_output().unwrap());
    assert!(error.contains("SIGKILL"), "{error}");
    rig.assert_completes(&rig.rows());
}

#[test]
fn a_missing_incompatible_or_wrong_probe_is_reported() {
    let rig = rig!();
    let profile = |probe: &Path| rig.error(rig.profile(rig.board.port()).env("NAS_PROBE", probe));
    let error = profile(&rig.ws.path("nowhere"));
    assert!(error.contains("there is no probe at") && error.contains("nowhere"), "{error}");
    let hello = r#"echo '{"type":"hello","protocol":99,"probe":"9","runtimes":[],"unavailable":[],"arch":"x86_64","os":"linux","libc":"","cpu":"","cores":1,"conditions":{"governor":null,"khz":null,"millicelsius":null,"load1":null,"free_bytes":null,"throttled":null,"power_mw":null}}'; cat"#;
    let error = profile(&rig.fake_probe(hello));
    assert!(error.contains("protocol 99"), "{error}");
    let error = profile(&rig.fake_probe("echo Welcome to this board; cat"));
    assert!(error.contains("Welcome to this board"), "{error}");
    let error = profile(&rig.fake_probe("echo /lib/libc.so.6: version GLIBC_2.99 not found >&2; exit 1"));
    assert!(error.contains("exit status: 1") && error.contains("GLIBC_2.99"), "{error}");
    rig.assert_completes(&[]);
}

#[test]
fn a_model_that_a_runtime_rejects_does_not_prevent_other_rows() {
    let rig = rig!();
    // tract supports only one thread.
    let error = rig.error(rig.profile(rig.board.port()).args("--runtime ort --runtime tract --threads 2".split(' ')));
    assert!(error.contains(&format!("{MODELS} of {MODELS} models")) && error.contains("1 thread"), "{error}");
    let measured = rig.ws.read("profiles/plain/tiny.3x8x8.ort.fp32.2threads.jsonl");
    assert_complete(&measured.lines().skip(1).map(String::from).collect::<Vec<_>>());
    rig.assert_completes(&[]);
}

#[test]
fn killing_the_host_keeps_rows_and_restores_the_governor() {
    let rig = rig!();
    let governor = "cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
    let was = rig.board.run(governor);
    let mut command = rig.profile(rig.board.port());
    let mut child = command.args(["--governor", "performance"]).spawn().unwrap();
    wait_for(|| rig.rows().len() >= 3, || assert_eq!(child.try_wait().unwrap(), None));
    assert_eq!(rig.board.run(governor), "performance");
    child.kill().unwrap();
    child.wait().unwrap();
    let before = rig.rows();
    wait_for(|| rig.board.run(governor) == was, || ());
    rig.assert_completes(&before);
}

#[test]
fn a_host_that_is_killed_leaves_no_probe_and_no_child() {
    let rig = rig!();
    for signal in ["KILL", "TERM", "HUP", "INT"] {
        let mut child = rig.bench_endless("--timeout 1h").spawn().unwrap();
        // The probe, and the process that measures the memory of the model.
        wait_for(|| rig.probes().lines().count() == 2, || assert_eq!(child.try_wait().unwrap(), None));
        let kill = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        child.wait().unwrap();
        let start = Instant::now();
        while !rig.probes().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(5), "after SIG{signal}: {}", rig.probes());
        }
    }
}

#[test]
fn a_model_that_never_ends_fails_with_its_deadline() {
    let rig = rig!();
    let error = rig.error(&mut rig.bench_endless("--timeout 2s"));
    assert!(error.contains("the first inference took longer than 2 s") && error.contains("--timeout"), "{error}");
    assert_eq!(rig.probes(), "");
}

#[test]
fn one_measurement_runs_on_a_board_at_a_time() {
    let rig = rig!();
    let mut first = rig.bench_endless("--timeout 1h").spawn().unwrap();
    wait_for(|| rig.probes().lines().count() == 2, || assert_eq!(first.try_wait().unwrap(), None));
    let error = rig.error(&mut rig.profile(rig.board.port()));
    let process = error.split("process ").nth(1).and_then(|rest| rest.split([' ', ',', ';']).next());
    let is_named = rig.probes().lines().any(|probe| Some(probe) == process);
    assert!(error.contains("another measurement runs") && is_named, "{error}");
    let check = rig.program(NAS).args(["devices", "check", "plain.toml", "--ssh", &rig.board.ssh_arg()]).output();
    assert!(check.unwrap().status.success(), "a check times nothing");
    first.kill().unwrap();
    first.wait().unwrap();
    rig.assert_completes(&[]);
}

#[test]
fn an_evaluation_is_as_on_this_machine_and_does_not_wait_for_the_link() {
    let rig = rig!();
    let train = "train --run r --data folder:images --space tiny.toml --genotype conv_3x3,skip,skip --arithmetic fp32";
    rig.ws.nas(&format!("{train} --epochs 2 --batch-size 16")).assert().success();
    rig.ws.nas("export --run r --data folder:images --images 1 --runtime tract").assert().success();
    let here = rig.ws.json("eval --run r --data folder:images --runtime tract");
    let eval = |port: u16, images: usize| -> (serde_json::Value, Duration) {
        let mut command = rig.program(NAS);
        command.args("eval --run r --data folder:images --device plain.toml --json".split(' '));
        command.args(["--ssh", &format!("pi@127.0.0.1:{port}"), "--images", &images.to_string()]);
        let started = Instant::now();
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (serde_json::from_slice(&output.stdout).unwrap(), started.elapsed())
    };
    let (there, _) = eval(rig.board.port(), 48);
    assert_eq!((&there[0]["device"], &there[0]["runtime"]), (&"plain".into(), &"tract".into()));
    assert_eq!((&there[0]["digest"], &there[0]["metrics"]), (&here[0]["digest"], &here[0]["metrics"]));

    // A round trip takes 0.1 s.
    let slow = rig.board.proxy(&["--delay", "50"]);
    let ((_, one), (_, all)) = (eval(slow.port(), 1), eval(slow.port(), 48));
    let more = all.saturating_sub(one);
    assert!(more < Duration::from_millis(47 * 100 / 2), "47 more images took {more:?}");
}

#[test]
fn a_damaged_probe_is_uploaded_again() {
    let rig = rig!();
    rig.assert_completes(&[]);
    let sum = "cd .cache/edge-nas; sha256sum nas-probe-*";
    let before = rig.board.run(sum);
    rig.board.run("cd .cache/edge-nas; printf XXXX | dd of=$(echo nas-probe-*) conv=notrunc seek=100 2>/dev/null");
    assert_ne!(rig.board.run(sum), before);
    rig.assert_completes(&rig.rows());
    assert_eq!(rig.board.run(sum), before);
}

#[test]
fn a_probe_that_talks_without_end_is_left() {
    let rig = rig!();
    let hello = format!(
        r#"echo '{{"type":"hello","protocol":{},"probe":"9","runtimes":[],"unavailable":[],"arch":"x86_64","os":"linux","libc":"","cpu":"","cores":1,"conditions":{{}}}}'"#,
        nas_probe::PROTOCOL
    );
    let profile = |talk: &str| {
        let start = Instant::now();
        let error =
            rig.error(rig.profile(rig.board.port()).env("NAS_PROBE", rig.fake_probe(&format!("{hello}; {talk}"))));
        assert!(start.elapsed() < Duration::from_secs(60), "{error}");
        error
    };
    let error = profile("yes '{\"type\":\"stored\",\"id\":7}'");
    assert!(error.contains("not a reply"), "{error}");
    let error = profile("tr '\\0' x </dev/zero");
    assert!(error.contains("a line of more than"), "{error}");
    let error = profile("printf '\\033]0;owned\\007\\n'; cat");
    assert!(error.contains(r"\u{1b}]0;owned\u{7}"), "{error}");
    let error = profile("printf '\\033[2J gone' >&2; exit 3");
    assert!(error.contains(r"exit status: 3: \u{1b}[2J gone"), "{error}");
}

#[test]
fn wrong_sites_are_reported() {
    let rig = rig!();
    let port = rig.board.port();
    for (entry, why) in [
        ("folder = \"\"", "[plain]: `folder` is empty"),
        ("folder = \"~/probe\"", "[plain]: `folder` starts with ~, which is not expanded"),
        ("timeout = \"0s\"", "a timeout is at least 1 second"),
        ("timeout = 60", "`60` is not a duration; write it with a unit"),
    ] {
        rig.site(entry);
        let error = rig.error(&mut rig.profile(port));
        assert!(error.contains("sites.toml") && error.contains(why), "{error}");
    }
    rig.site("");
    let host = format!("Host plain\n  HostName localhost\n  Port {port}\n  User pi\n");
    std::fs::write(rig.board.home().join(".ssh/config"), host).unwrap();
    for again in [format!("pi@127.0.0.1:{port}"), "plain".into()] {
        let error = rig.error(rig.profile(port).args(["--ssh", &again]));
        assert!(error.contains("are the same board"), "{error}");
    }
    let error = rig.error(rig.profile(port).env_remove("HOME"));
    assert!(error.contains("HOME is not set"), "{error}");
}

#[test]
fn a_folder_that_cannot_be_written_is_reported() {
    let rig = rig!();
    rig.site("folder = \"/proc/nowhere\"");
    let error = rig.error(&mut rig.profile(rig.board.port()));
    assert!(error.contains("cannot write /proc/nowhere") && error.contains("`folder`"), "{error}");
    rig.site("");
    rig.assert_completes(&[]);
}

#[test]
fn a_board_is_found_in_sites_toml_and_in_the_configuration_of_ssh() {
    let rig = rig!();
    let nas = |args: &str| {
        let mut command = rig.program(NAS);
        command.args(args.split(' '));
        assert_cmd::Command::from_std(command)
    };
    let nobody = nas("devices check plain.toml").assert().code(1).get_output().stderr.clone();
    assert!(String::from_utf8_lossy(&nobody).contains("--ssh user@host"));
    // A wrong entry of another device does no harm.
    rig.site(&format!("ssh = \"pi@127.0.0.1:{}\"\n[other]\nport = 22", rig.board.port()));
    nas("devices check plain.toml").assert().success();
    std::fs::remove_file(rig.board.home().join(".config/edge-nas/sites.toml")).unwrap();
    let host = format!("Host plain\n  HostName 127.0.0.1\n  Port {}\n  User pi\n", rig.board.port());
    std::fs::write(rig.board.home().join(".ssh/config"), host).unwrap();
    nas("devices check plain.toml").assert().success();
    nas("devices check plain.toml --ssh plain").assert().success();
}

#[test]
fn questions_can_be_answered_on_a_terminal() {
    let rig = rig!(&["--password", "open sesame"]);
    let ssh = rig.board.home().join(".ssh");
    let check = || {
        let mut command = rig.program(NAS);
        command.args(["devices", "check", "plain.toml", "--ssh", &rig.board.ssh_arg()]);
        rexpect::session::spawn_command(command, Some(60_000)).unwrap()
    };
    let lock = ["-q", "-p", "-N", "a passphrase", "-f"];
    let locked = Command::new("ssh-keygen").args(lock).arg(ssh.join("id_ed25519")).status();
    assert!(locked.unwrap().success());
    let mut terminal = check();
    terminal.exp_string("Passphrase of").unwrap();
    terminal.send_line("a passphrase").unwrap();
    terminal.exp_string("glibc").unwrap();
    terminal.exp_eof().unwrap();

    std::fs::remove_file(ssh.join("id_ed25519")).unwrap();
    std::fs::remove_file(ssh.join("known_hosts")).unwrap();
    let mut terminal = check();
    terminal.exp_string("Is this the board's key?").unwrap();
    terminal.send("y").unwrap();
    terminal.flush().unwrap();
    terminal.exp_string("Password of").unwrap();
    terminal.send_line("open sesame").unwrap();
    terminal.exp_string("glibc").unwrap();
    terminal.exp_eof().unwrap();

    let mut terminal = check();
    terminal.exp_string("Password of").unwrap();
    terminal.send_line("open barley").unwrap();
    terminal.exp_string("accepts none of").unwrap();
}

#[test]
fn no_row_is_lost_if_the_disk_is_full_when_models_are_written() {
    let rig = rig!();
    rig.assert_completes(&[]);
    let before = rig.rows();
    rig.ws.write("tiny.toml", &SPACE.replace("tiny", "wide").replace("channels = 8", "channels = 16"));
    rig.board.run("dd if=/dev/zero of=fill bs=4k 2>/dev/null; true");
    let error = rig.error(&mut rig.profile(rig.board.port()));
    assert!(error.contains("No space left on device"), "{error}");
    assert_eq!(rig.rows(), before);
    rig.board.run("rm fill");
    let output = rig.profile(rig.board.port()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(rig.rows(), before);
    let wide = rig.ws.read(&TABLE.replace("tiny", "wide"));
    assert_complete(&wide.lines().skip(1).map(String::from).collect::<Vec<_>>());
}

#[test]
fn a_wrong_architecture_is_reported_before_anything_is_uploaded() {
    let rig = rig!();
    rig.ws.write("plain.toml", &DEVICE.replace("x86_64", "aarch64"));
    let probe = rig.fake_probe("exit 1");
    let error = rig.error(rig.profile(rig.board.port()).env("NAS_PROBE", probe));
    assert!(error.contains("x86_64") && error.contains("aarch64-unknown-linux-gnu"), "{error}");
}

#[test]
fn boards_of_one_kind_share_the_work() {
    let (Some(rig), Some(other)) = (Rig::new(&[]), Board::plain(&[])) else { return };
    // The owner of the first board reaches the second one as `other`.
    let ssh = rig.board.home().join(".ssh");
    let known = |board: &Board| std::fs::read_to_string(board.home().join(".ssh/known_hosts")).unwrap();
    std::fs::write(ssh.join("known_hosts"), known(&rig.board) + &known(&other)).unwrap();
    std::fs::copy(other.home().join(".ssh/id_ed25519"), ssh.join("other")).unwrap();
    let port = other.port();
    let config = format!("Host other\n  HostName 127.0.0.1\n  Port {port}\n  User pi\n  IdentityFile ~/.ssh/other\n");
    std::fs::write(ssh.join("config"), config).unwrap();
    // The rows say how hot their board was.
    for (board, temperature) in [(&rig.board, 41_000), (&other, 42_000)] {
        board.write("sys/class/thermal/thermal_zone0/temp", &temperature.to_string());
    }
    let nowhere = "pi@127.0.0.1:1";
    let output = rig.profile(rig.board.port()).args(["--ssh", nowhere, "--ssh", "other"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_complete(&rig.rows());
    assert!(stderr.contains("is left out: cannot reach pi@127.0.0.1:1"), "{stderr}");
    let rows = rig.rows();
    let measured_at =
        |temperature: u32| rows.iter().any(|row| row.contains(&format!("\"millicelsius\":{temperature}")));
    // On a busy machine, the boards may seem to differ in speed. A warning then names the one that is left out.
    let alike = !stderr.contains("is left out: the anchor takes");
    assert!(!alike || (measured_at(41_000) && measured_at(42_000)), "{stderr}");

    let check = rig.program(NAS).args(["devices", "check", "plain.toml", "--ssh", nowhere, "--ssh", "other"]).output();
    let Output { status, stdout, stderr } = check.unwrap();
    let [stdout, stderr] = [stdout, stderr].map(|said| String::from_utf8(said).unwrap());
    assert_eq!(status.code(), Some(1));
    assert!(stdout.contains("glibc") && stderr.contains("cannot reach pi@127.0.0.1:1"), "{stdout}{stderr}");
    assert!(stderr.contains("1 of 2 boards cannot be used"), "{stderr}");
}
