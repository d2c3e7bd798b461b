//! What a search can be asked for, through the real programs: limits, several targets, certificates, and measuring the
//! best networks.
#![allow(clippy::unwrap_used)]

mod common;

use common::Workspace;
use edge_nas::artifact;
use edge_nas::model::LatencyModel;
use edge_nas::record::RunDir;
use edge_nas::space::Genotype;
use edge_nas::table::LatencyTable;
use serde_json::Value;

const SEARCH: &str = "search --algorithm mixture --data folder:images --space tiny.toml --batch-size 16 --epochs 2 \
                      --arithmetic fp32 --candidates 20 --trial-epochs 1 --run r";
const TRACT: &str = "profiles/host/tiny.3x8x8.tract.fp32.jsonl";

fn genotype(ws: &Workspace, run: &str) -> Genotype {
    artifact::read_json(&ws.path(&format!("{run}/genotype.json")), "nas search").unwrap()
}

fn model(ws: &Workspace, genotype: &Genotype, table: &str) -> LatencyModel {
    LatencyModel::new(&LatencyTable::load(&ws.path(table), "").unwrap(), &genotype.networks).unwrap()
}

/// Returns the message for a command that makes no sense.
#[track_caller]
fn refused(ws: &Workspace, args: &str) -> String {
    let output = ws.nas(&format!("{SEARCH} {args}")).assert().code(2).stdout("").get_output().clone();
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn targets_and_limits_that_cannot_be_meant_are_refused() {
    let ws = Workspace::profiled();
    for (args, said) in [
        ("", "--target-latency <TARGET>"),
        ("--target-latency jetson", "`jetson` has no target; write jetson=10ms"),
        ("--target-latency =2ms", "names no device"),
        ("--target-latency jetson:fast=2ms", "the runtimes are tract and ort"),
        ("--target-latency 40% --max-params x", "`x` is not a number such as 300k"),
        ("--target-latency 40% --max-macs 0", "`0` is not a number such as 300k"),
        ("--target-latency 40% --max-memory 512", "`512` is not an amount of memory"),
        ("--target-latency 40% --band 5", "`5` is not a share such as 5%"),
        ("--target-latency 40% --measure-top 0", "--measure-top"),
        ("--target-latency 40% --targets 20%,40%", "cannot be used with"),
    ] {
        let error = refused(&ws, args);
        assert!(error.contains(said), "{args}: {error}");
    }
    for (args, said) in [
        ("--target-latency 40% --target-latency host:ort=30%", "two targets are for latency on host with ort"),
        ("--targets 40%,20%,40%", "two targets are for 40percent; leave one out"),
        ("--target-latency toaster=40%", "there is no device `toaster`"),
        ("--target-latency jetson=40%", "there is no latency table profiles/jetson/"),
        ("--target-latency 40% --max-params 1", " and 1 parameters: no network has less than "),
        ("--target-latency 0% --max-macs 1k", " and 1.00 k MACs: no network has less than "),
        ("--target-latency 40% --max-memory 1B", "no network of the space is within"),
        ("--target-latency 1ns", "no network of the space is within 1 ns of latency on host with ort"),
    ] {
        let error = ws.error(&format!("{SEARCH} --runtime ort {args}"));
        assert!(error.contains(said), "{args}: {error}");
    }
    let both = format!("{SEARCH} --target-latency 40% --target-latency :tract=40% --table {TRACT}");
    assert!(ws.error(&both).contains("leave out --table"));
    assert!(!ws.path("r/genotype.json").exists());

    let experiment = "name = \"e\"\ndata = \"folder:images\"\nspace = \"tiny.toml\"\n";
    for (keys, said) in [
        ("", "a search needs a target"),
        ("target_latency = \"40%\"\ntargets = [\"20%\"]", "are both given"),
        ("target_latency = 40", "`40` has no unit; write 40ms, 40us or 40s; or 40%"),
        ("target_latency = {}", "expected a text, or a list of texts"),
        ("target_latency = [\"40%\", \"jetson\"]", "`jetson` has no target"),
        ("target_latency = \"40%\"\nmax_params = \"x\"", "`x` is not a number such as 300k"),
    ] {
        ws.write("e.toml", &format!("{experiment}{keys}\n"));
        let error = ws.error("run e.toml");
        assert!(error.contains(said), "{keys}: {error}");
    }
}

#[test]
fn a_certificate_says_what_the_limits_cost() {
    let ws = Workspace::profiled();
    let flags = "--target-latency 50% --target-latency :tract=70% --max-params 100k --max-macs 2M --max-memory 64KiB";
    ws.nas(&format!("{SEARCH} --runtime ort {flags}")).assert().success();
    let found = genotype(&ws, "r");
    let certificate = RunDir(ws.path("r")).certificate().unwrap().unwrap();
    let costs: Vec<&str> = certificate.constraints.iter().map(|held| held.cost.as_str()).collect();
    let names = ["latency on host with ort", "latency on host with tract", "parameters", "multiply-accumulates"];
    assert_eq!(costs[..4], names);
    assert!(costs.len() == 5 && certificate.constraints.iter().all(|held| held.value <= held.limit), "{certificate:?}");
    assert!(certificate.constraints.iter().all(|held| held.limit <= held.target));
    let ort = &certificate.constraints[0];
    let ort_model = model(&ws, &found, "profiles/host/tiny.3x8x8.ort.fp32.jsonl");
    assert_eq!(ort.value, ort_model.predict(&found.choices).ns());
    let margin = 1.0 - ort.limit / ort.target;
    assert!(margin > 0.0 && margin <= 0.05 + 1e-9, "of the model's own error: {margin}");
    assert_eq!(certificate.constraints[2].value, found.graph().cost().params as f64);

    let unconstrained = certificate.unconstrained.unwrap();
    // Short trainings may choose another network than the one with the best score.
    let lost = unconstrained.score - certificate.score.unwrap();
    assert!((0.0..=lost).contains(&unconstrained.score_cost_of_limit), "{unconstrained:?}");
    assert_eq!((unconstrained.costs.len(), unconstrained.ops.len()), (5, 3));
    let closest = certificate.nearest_below.as_ref().unwrap();
    assert!(ort.value <= closest.value && closest.value <= ort.limit && closest.resolution == 0.0, "{closest:?}");
    let nearest = Genotype::parse(found.networks.clone(), &closest.ops.join(",")).unwrap();
    assert_eq!(ort_model.predict(&nearest.choices).ns(), closest.value);

    // The certificate is not part of the genotype.
    let text = ws.read("r/genotype.json");
    let mut without: Value = serde_json::from_str(&text).unwrap();
    without.as_object_mut().unwrap().remove("certificate").unwrap();
    let search: Value = serde_json::from_str(&ws.read("r/search.json")).unwrap();
    assert_eq!(search["genotype"], serde_json::to_value(artifact::Digest::of(&found)).unwrap());
    assert_eq!(search["tables"].as_array().unwrap().len(), 2);
    ws.write("r/genotype.json", &without.to_string());
    assert_eq!(genotype(&ws, "r"), found);
    assert!(RunDir(ws.path("r")).certificate().unwrap().is_none());
    assert!(RunDir(ws.path("r")).searched(&found).unwrap().unwrap().is_ok());
}

#[test]
fn several_targets_each_get_a_folder_of_their_own() {
    let ws = Workspace::profiled();
    let found = ws.json(&format!("{SEARCH} --runtime ort --targets 20%,60% --band 20%"));
    let found = found.as_array().unwrap();
    assert_eq!(found.len(), 2);
    assert!(!ws.path("r/genotype.json").exists() && ws.lines("r/search.jsonl").len() == 2);
    for (found, name) in found.iter().zip(["20percent", "60percent"]) {
        let run = format!("r/targets/{name}");
        assert_eq!(found["run"], run.as_str());
        assert!(found["predicted_ns"].as_f64() <= found["target_ns"].as_f64(), "{found}");
        let dir = RunDir(ws.path(&run));
        assert_eq!(dir.searched(&genotype(&ws, &run)).unwrap().unwrap().unwrap().log.len(), 2);
        let target = dir.certificate().unwrap().unwrap().constraints[0].target;
        assert_eq!(Some(target), found["target_ns"].as_f64());
    }
    ws.nas("train --data folder:images --batch-size 16 --epochs 1 --run r/targets/60percent").assert().success();
    ws.nas("export --run r/targets/60percent --data folder:images --images 1").assert().success();
    let report = ws.json("report --run r/targets/60percent");
    assert_eq!(report[0]["genotype"], genotype(&ws, "r/targets/60percent").to_string());
    assert!(report[0]["test_accuracy"].is_number(), "{report}");

    // The report of the run shows the targets of its last search only, whatever the algorithm.
    let targets = |targets: &str| {
        let search = SEARCH.replace("--algorithm mixture", "--algorithm random");
        ws.nas(&format!("{search} --runtime ort {targets} --band 20%")).assert().success();
        ws.json("report --run r").as_array().unwrap().iter().map(|row| row["target"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(targets("--targets 30%,60%"), ["30percent", "60percent"]);
    assert_eq!(targets("--targets 40%,70%"), ["40percent", "70percent"]);
    assert_eq!(targets("--target-latency 50%"), [Value::Null]);
    let export = "export --run r --data folder:images --images 1";
    ws.nas("train --data folder:images --batch-size 16 --epochs 1 --run r").assert().success();
    ws.nas(export).assert().success();
    assert_eq!(targets("--targets 40%,70%"), ["40percent", "70percent"]);
    assert!(!ws.path("r/genotype.json").exists());
    // The network of the single target is no longer one of the run.
    for command in [export, "train --data folder:images --run r --space tiny.toml --genotype skip,skip,skip"] {
        let error = ws.error(command);
        assert!(error.contains("r has networks for several targets; name one with --run: r/targets/40"), "{error}");
    }
}

#[test]
fn the_best_are_measured_and_become_rows_of_the_table() {
    let ws = Workspace::profiled();
    let search = format!("{SEARCH} --runtime tract --target-latency 60% --measure-top 4");
    let copy = ws.read(TRACT);
    ws.write("copy.jsonl", &copy);
    assert!(ws.error(&format!("{search} --table copy.jsonl")).contains("leave out --measure-top or --table"));
    // What is known at the start is checked there.
    let pinned = ws.error(&format!("{search} --pin=0"));
    assert!(pinned.contains("--pin"), "{pinned}");
    assert!(!ws.path("r").join("search.jsonl").exists() && !ws.path("r").join("checkpoint").exists());

    let load = || LatencyTable::load(&ws.path(TRACT), "").unwrap();
    let before = load().rows().len();
    let found = ws.json(&search);
    let certificate = RunDir(ws.path("r")).certificate().unwrap().unwrap();
    let measured = certificate.measured_ns.unwrap();
    assert_eq!(Some(measured.ns()), found["measured_ns"].as_f64());
    assert!(measured.ns() <= certificate.constraints[0].target, "{certificate:?}");
    let (table, network) = (load(), genotype(&ws, "r"));
    assert!(table.rows().len() > before, "a table of 24 of 392 networks had all of the best four");
    assert!(table.rows()[before..].iter().all(|row| row.unseen.is_none()));
    let subject = edge_nas::table::Subject::Network(network.layers());
    assert_eq!(table.estimates()[&subject].latency, measured);
    let model = model(&ws, &network, TRACT);
    assert_eq!(certificate.constraints[0].value, model.predict(&network.choices).ns());
    let search_json: Value = serde_json::from_str(&ws.read("r/search.json")).unwrap();
    assert_eq!(search_json["tables"][0], serde_json::to_value(table.digest()).unwrap());

    // No rows are added to a table of another machine.
    let cpu = copy.split("\"cpu\":\"").nth(1).unwrap().split('"').next().unwrap();
    ws.write(TRACT, &copy.replacen(cpu, "an abacus", 1));
    let error = ws.error(&format!("{search} --allow-foreign-table"));
    assert!(error.contains("an abacus") && error.contains("leave out --measure-top"), "{error}");
}

#[test]
fn rows_of_networks_that_miss_the_target_are_kept() {
    // The table has no networks, so those that are found have to be measured.
    let ws = Workspace::wide();
    let path = "profiles/host/wide.3x8x8.tract.fp32.jsonl";
    // By this table, networks are much faster than they are. The anchor would show that the device has become slower.
    let flattered = |line: &str| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        if row["anchor"].is_null() && row["median_ns"].is_number() {
            row["median_ns"] = (0.05 * row["median_ns"].as_f64().unwrap()).into();
            let samples = row["samples_ns"].as_array_mut().unwrap();
            samples.iter_mut().for_each(|sample| *sample = (0.05 * sample.as_f64().unwrap()).into());
        }
        format!("{row}\n")
    };
    let flattering: String = ws.read(path).lines().map(flattered).collect();
    ws.write(path, &flattering);
    let search = "search --algorithm random --candidates 4 --trial-epochs 1 --data folder:images --space wide.toml \
                  --runtime tract --target-latency 60% --band 80% --batch-size 16 --arithmetic fp32 --measure-top 2";
    let error = ws.error(&format!("{search} --run r"));
    assert!(error.contains("none of the 2 best networks"), "{error}");
    let table = ws.read(path);
    assert!(table.starts_with(&flattering) && table.lines().count() > flattering.lines().count());
    assert!(!ws.path("r/genotype.json").exists());

    // A target that is missed does not take away what was found for another one.
    ws.write(path, &flattering);
    let two = search.replace("--target-latency 60%", "--targets 60%,1s").replace("--measure-top 2", "--measure-top 9");
    let output = ws.nas(&format!("{two} --run two")).assert().code(1).get_output().clone();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("error: none of the 4 best networks") && stderr.contains("another --run"), "{stderr}");
    assert!(stderr.contains("warning: only 4 networks are measured"), "{stderr}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("two/targets/"), "what was found is printed");
    let targets = RunDir(ws.path("two")).targets().unwrap();
    let [(name, dir)] = targets.as_slice() else { panic!("{targets:?}") };
    assert!(name.ends_with('s') && dir.certificate().unwrap().unwrap().measured_ns.is_some(), "{name}");
    assert!(!ws.path("two/targets/60percent/genotype.json").exists());
    assert!(!RunDir(ws.path("two")).begun_files().exists());

    for args in
        ["train --data folder:images --epochs 1", "export --data folder:images", "eval --data folder:images", "bench"]
    {
        let error = ws.error(&format!("{args} --run two"));
        assert!(error.contains("two has networks for several targets; name one with --run: two/targets/"), "{error}");
    }
}
