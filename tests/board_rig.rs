//! Tests of the emulated boards that other tests rely on.
#![allow(clippy::unwrap_used)]

mod board;

use board::Board;
use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

const TEMPERATURE: &str = "sys/class/thermal/thermal_zone0/temp";
const GOVERNOR: &str = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";

fn connects(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[test]
fn an_arm64_board_looks_like_a_raspberry_pi() {
    let Some(board) = Board::up(&[]) else { return };
    assert_eq!(board.run("uname -sm"), "Linux aarch64");
    assert_eq!(board.run("id -un; pwd"), "pi\n/home/pi");
    assert!(board.run("cat /proc/cpuinfo").contains("Raspberry Pi 4"));

    board.write(TEMPERATURE, "81000\n");
    assert_eq!(board.run(&format!("cat /{TEMPERATURE}")), "81000");
    board.run(&format!("echo performance >{GOVERNOR}"));
    assert_eq!(board.read("sys/devices/system/cpu/cpufreq/policy0/scaling_governor"), "performance\n");

    // The board cannot change this machine, although pi may have root's permissions on its files.
    assert!(!board.try_run("touch /usr/bin/x").status.success());
    assert!(!board.try_run("echo 1 >/proc/sys/vm/drop_caches").status.success());
    assert!(!board.try_run("chmod 600 /dev/null").status.success());
}

#[test]
fn a_plain_board_runs_on_this_machines_cpu() {
    let Some(board) = Board::plain(&["--env", "GREETING=two words"]) else { return };
    assert_eq!(board.run("uname -m"), std::env::consts::ARCH);
    assert_eq!(board.run("echo \"$GREETING\""), "two words");
}

#[test]
fn the_disk_has_the_requested_size() {
    let Some(board) = Board::up(&["--disk", "4"]) else { return };
    assert_eq!(board.run("df -k --output=size . | tail -n 1").trim(), "4096");
    let full = board.try_run("head -c 5000000 /dev/zero >zeros");
    assert!(String::from_utf8_lossy(&full.stderr).contains("No space left on device"));
    board.run("mkdir locked && chmod 555 locked");
    assert!(!board.try_run("touch locked/x").status.success());
}

#[test]
fn a_crash_closes_connections_and_a_boot_restarts_the_board() {
    let Some(mut board) = Board::plain(&[]) else { return };
    board.run("touch kept");
    let mut connection = TcpStream::connect(("127.0.0.1", board.port())).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    board.crash();
    // The connection ends or is reset after the data in flight, and does not time out.
    let end = connection.read_to_end(&mut Vec::new());
    assert!(end.is_ok() || end.unwrap_err().kind() == std::io::ErrorKind::ConnectionReset);
    assert!(!connects(board.port()));
    let port = board.port();
    board.boot();
    assert_eq!(board.port(), port);
    assert_eq!(board.run("ls"), "");
}

#[test]
fn sshd_restarts_after_it_was_killed() {
    let Some(board) = Board::plain(&[]) else { return };
    board.run("(sleep 100 & echo $! >sleeper) >/dev/null 2>&1");
    board.kill_sshd();
    let start = Instant::now();
    while !connects(board.port()) {
        assert!(start.elapsed() < Duration::from_secs(10), "sshd did not restart");
        std::thread::sleep(Duration::from_millis(20));
    }
    board.run("kill -0 $(cat sleeper)");
}

#[test]
fn a_frozen_board_sends_nothing_until_it_is_thawed() {
    let Some(board) = Board::plain(&[]) else { return };
    board.freeze();
    let mut connection = TcpStream::connect(("127.0.0.1", board.port())).unwrap();
    connection.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut banner = [0; 4];
    assert_eq!(connection.read(&mut banner).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    board.thaw();
    connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    connection.read_exact(&mut banner).unwrap();
    assert_eq!(&banner, b"SSH-");
}

#[test]
fn the_clock_can_be_set() {
    let Some(board) = Board::up(&["--clock"]) else { return };
    let now = || board.run("date +%s").parse::<i64>().unwrap();
    let before = now();
    board.write("clock", "+86400\n");
    assert!((86400..86460).contains(&(now() - before)));
}

#[test]
fn a_proxy_delays_and_resets() {
    let Some(board) = Board::plain(&[]) else { return };
    let slow = board.proxy(&["--delay", "100"]);
    let start = Instant::now();
    let mut banner = [0; 4];
    TcpStream::connect(("127.0.0.1", slow.port())).unwrap().read_exact(&mut banner).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(100));
    let resetting = board.proxy(&["--reset-after", "1", "--times", "1"]);
    let first = TcpStream::connect(("127.0.0.1", resetting.port())).unwrap().read_exact(&mut banner);
    assert_eq!(first.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    TcpStream::connect(("127.0.0.1", resetting.port())).unwrap().read_exact(&mut banner).unwrap();
}

/// Booting takes seconds, so only `./scripts/test --all` runs this test.
#[test]
#[ignore = "boots a virtual machine"]
fn the_virtual_machine_counts_instructions() {
    let Some(board) = Board::vm(&[]) else { return };
    assert_eq!(board.run("uname -sm"), "Linux aarch64");
    let time = || {
        let loop_ = "a=$(date +%s%N); i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo $(($(date +%s%N) - a))";
        board.run(loop_).parse::<f64>().unwrap()
    };
    time();
    let times: Vec<f64> = (0..5).map(|_| time()).collect();
    let (least, most) = (times.iter().cloned().fold(f64::MAX, f64::min), times.iter().cloned().fold(0.0, f64::max));
    assert!(most / least < 1.02, "a loop took {times:?} ns");
}
