#![allow(clippy::unwrap_used)]

use super::*;
use crate::PROTOCOL;
use nas_exporters::{Graph, Op, Precision, Shape};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

/// Checks that these messages are written as the lines of a golden file, and that the lines are read back as the
/// messages.
fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(file: &str, messages: &[T]) {
    let written: String = messages.iter().map(|m| serde_json::to_string(m).unwrap() + "\n").collect();
    assert_eq!(written, file, "the protocol changed: raise PROTOCOL and update the golden file");
    let read: Vec<T> = file.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(read, messages);
}

fn tensor() -> TensorData {
    TensorData { shape: vec![1, 2, 1, 1], values: vec![1.0, -0.5] }
}

fn digest() -> String {
    "0123456789abcdef".repeat(4)
}

fn sensors() -> Sensors {
    Sensors {
        governor: vec!["/sys/g*".to_owned()],
        clock: vec!["/sys/c".to_owned()],
        temperature: vec!["/sys/t".to_owned()],
        throttle: vec![
            Throttle { file: "/sys/m".to_owned(), kind: ThrottleKind::Mask, mask: 15 },
            Throttle { file: "/sys/n".to_owned(), kind: ThrottleKind::Counter, mask: 0 },
            Throttle { file: "/sys/s".to_owned(), kind: ThrottleKind::State, mask: 0 },
        ],
        power: vec![Rail { name: "all".to_owned(), milliwatts: Some("/sys/p".to_owned()), ..Rail::default() }],
    }
}

#[test]
fn requests_match_the_golden_file() {
    let model = |runtime| ModelRef { model: digest(), runtime, threads: 1 };
    let plan = MeasurePlan { warmup_ns: 100, min_sample_ns: 200, samples: 50, limit_ns: 300 };
    let mut graph = Graph::new(Shape::new(2, 4, 4));
    let conv = Op::Conv2d { out_channels: 4, kernel: 3, stride: 2, groups: 1, bias: false };
    let x = graph.add("conv", conv, &[graph.input()]);
    graph.add("relu", Op::Relu, &[x]);
    golden(
        include_str!("../../tests/golden/requests.jsonl"),
        &[
            Request::Setup {
                id: 1,
                sensors: sensors(),
                pin: vec![2, 3],
                governor: Some("performance".to_owned()),
                timeout_ns: 60_000_000_000,
                alone: true,
            },
            Request::Graphs {
                id: 7,
                graphs: vec![DeployedGraph { model: digest(), graph, precision: Precision::Fp32 }],
            },
            Request::Have { id: 2, models: vec![digest()] },
            Request::Put { id: 3, model: digest(), bytes: vec![0, 1, 255] },
            Request::Measure { id: 4, model: model(Runtime::Tract), plan },
            Request::Infer { id: 5, model: model(Runtime::Ort), inputs: vec![tensor()] },
            Request::Memory { id: 6, model: model(Runtime::Ort) },
        ],
    );
}

#[test]
fn replies_match_the_golden_file() {
    let conditions = Conditions {
        governor: Some("performance".to_owned()),
        khz: Some(1_500_000),
        millicelsius: Some(-1_000),
        load1: Some(0.25),
        free_bytes: Some(1 << 33),
        throttled: Some(false),
        power_mw: Some(2500.5),
    };
    let runtime = |runtime, version: &str, providers: &[&str]| RuntimeInfo {
        runtime,
        version: version.to_owned(),
        providers: providers.iter().map(|p| (*p).to_owned()).collect(),
    };
    let hello = Hello {
        protocol: PROTOCOL,
        probe: "0.1.0".to_owned(),
        runtimes: vec![runtime(Runtime::Tract, "0.23.9", &[]), runtime(Runtime::Ort, "1.28.0", &["xnnpack", "cpu"])],
        unavailable: vec!["ort provider cuda: not in this build".to_owned()],
        arch: "aarch64".to_owned(),
        os: "linux".to_owned(),
        libc: "glibc 2.27".to_owned(),
        cpu: "0x41/0xd08".to_owned(),
        cores: 4,
        conditions: conditions.clone(),
    };
    golden(
        include_str!("../../tests/golden/replies.jsonl"),
        &[
            Reply::Hello(hello),
            Reply::Ready {
                id: 1,
                conditions: conditions.clone(),
                pinned: vec![3],
                governor_was: Some("ondemand".to_owned()),
                notes: vec!["no file matches /sys/none".to_owned()],
            },
            Reply::Known { id: 7, room_bytes: 1 << 26 },
            Reply::Missing { id: 2, models: vec![digest()] },
            Reply::Stored { id: 3 },
            Reply::Samples {
                id: 4,
                samples: Samples {
                    batch: 4,
                    ns: vec![1200.25, 1199.0],
                    before: conditions,
                    during: Conditions::default(),
                    after: Conditions::default(),
                    others: Some(0.125),
                },
            },
            Reply::Outputs { id: 5, outputs: vec![tensor()] },
            Reply::Memory { id: 6, peak_bytes: 50_000_000 },
            Reply::Failed { id: 0, error: "not a request".to_owned() },
        ],
    );
}

#[test]
fn floats_are_transferred_bit_by_bit() {
    let values = vec![0.1, f32::MIN_POSITIVE, f32::NEG_INFINITY, f32::NAN];
    let sent = TensorData { shape: vec![4], values };
    let got: TensorData = serde_json::from_str(&serde_json::to_string(&sent).unwrap()).unwrap();
    let bits = |t: &TensorData| t.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&got), bits(&sent));
    assert!(serde_json::from_str::<TensorData>(r#"{"shape":[1],"values":"AAA="}"#).is_err());
}

#[test]
fn numbers_out_of_bounds_are_refused() {
    let samples = include_str!("../../tests/golden/replies.jsonl").lines().nth(5).unwrap();
    let memory = r#"{"type":"memory","id":6,"peak_bytes":1}"#;
    let read = |line: &str| serde_json::from_str::<Reply>(line).map_err(|e| e.to_string());
    assert!(read(samples).is_ok() && read(memory).is_ok());
    for (line, good, bad) in [
        (samples, "1199.0", "-5.0"),
        (samples, "1199.0", "0"),
        (samples, "1199.0", "1e300"),
        (samples, "1199.0", "1e999"),
        (samples, "1199.0", "null"),
        (samples, "\"batch\":4", "\"batch\":0"),
        (samples, "0.125", "-1"),
        (samples, "-1000", "-300000"),
        (samples, "1500000", "0"),
        (samples, "2500.5", "1e12"),
        (memory, "\"peak_bytes\":1", "\"peak_bytes\":0"),
    ] {
        assert!(line.contains(good));
        assert!(read(&line.replace(good, bad)).is_err(), "{bad} in {line}");
    }
    let (before, after) = samples.split_once("\"ns\":[").unwrap();
    let after = after.split_once(']').unwrap().1;
    assert!(read(&format!("{before}\"ns\":[]{after}")).is_err(), "no duration");
    let plan =
        include_str!("../../tests/golden/requests.jsonl").replace("\"samples\":50", "\"samples\":18446744073709551615");
    let error = serde_json::from_str::<Request>(plan.lines().nth(4).unwrap()).unwrap_err().to_string();
    assert!(error.contains("samples are too many"), "{error}");
}

#[test]
fn text_of_a_device_cannot_control_a_terminal() {
    let line = r#"{"type":"failed","id":1,"error":"\u001b]0;owned\u0007 na\u00efve \u202e\u009b2J"}"#;
    let Reply::Failed { error, .. } = serde_json::from_str(line).unwrap() else { panic!() };
    assert_eq!(error, r"\u{1b}]0;owned\u{7} naïve \u{202e}\u{9b}2J");
}

#[test]
fn a_line_that_is_too_long_is_not_read_to_its_end() {
    let mut text: &[u8] = b"12345\n123456\n\nend";
    let mut next = || read_line(&mut text, 5).unwrap();
    assert_eq!(next(), Line::Whole(b"12345".to_vec()));
    assert_eq!(next(), Line::TooLong);
    assert_eq!([next(), next()], [Line::Whole(vec![]), Line::Whole(vec![])]);
    // The stream broke off within a line.
    assert_eq!(next(), Line::Ended);
    assert_eq!(read_line(&mut std::io::BufReader::new(std::io::repeat(b'x')), 5).unwrap(), Line::TooLong);
}

#[test]
fn unknown_fields_are_refused() {
    for line in include_str!("../../tests/golden/requests.jsonl").lines() {
        assert!(serde_json::from_str::<Request>(&line.replacen('{', r#"{"repeat":3,"#, 1)).is_err());
    }
    assert!(serde_json::from_str::<Sensors>(r#"{"clocks":[]}"#).is_err());
}

#[test]
fn inconsistent_sensors_are_refused() {
    assert_eq!(serde_json::from_str::<Sensors>("{}").unwrap(), Sensors::default());
    assert_eq!(Sensors::default().check(), Ok(()));
    assert_eq!(sensors().check(), Ok(()));
    let throttle =
        |kind, mask| Sensors { throttle: vec![Throttle { file: "/f".to_owned(), kind, mask }], ..Sensors::default() };
    assert!(throttle(ThrottleKind::Mask, 0).check().unwrap_err().contains("/f"));
    assert!(throttle(ThrottleKind::State, 1).check().is_err());
    let file = || Some("/f".to_owned());
    let rail = || Rail { name: "cpu".to_owned(), ..Rail::default() };
    for (rail, good) in [
        (Rail { milliwatts: file(), ..rail() }, true),
        (Rail { millivolts: file(), milliamps: file(), ..rail() }, true),
        (Rail { command: Some(vec!["adc".to_owned()]), ..rail() }, true),
        (rail(), false),
        (Rail { millivolts: file(), ..rail() }, false),
        (Rail { milliwatts: file(), milliamps: file(), ..rail() }, false),
        (Rail { command: Some(vec![]), ..rail() }, false),
    ] {
        let sensors = Sensors { power: vec![rail], ..Sensors::default() };
        assert_eq!(sensors.check().is_ok(), good, "{sensors:?}");
    }
}
