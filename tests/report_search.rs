//! What the report shows of a search: its curves, its certificate, its candidates and its targets, also while it runs.
#![allow(clippy::unwrap_used)]

mod run_folder;

use edge_nas::artifact::{self, Digest};
use edge_nas::bounded::Share;
use edge_nas::latency::Latency;
use edge_nas::record::{
    CandidateRow, Certificate, Certified, Confusion, Evaluation, Expected, Held, Metrics, NearestBelow, OfClass,
    RunDir, SearchEpoch, SearchedOn, Unconstrained,
};
use edge_nas::report::Run;
use edge_nas::search::Unit;
use edge_nas::space::{Genotype, Network, Networks, SearchSpace, names_of};
use nas_exporters::Shape;
use nas_probe::Runtime;
use run_folder::{
    OPS, baseline, begin, bench_row, candidate, candidates, complete_run, folder, genotype, genotype_of, key, model,
    oneshot_epoch, page, report, reported, section, share, write_model,
};

#[test]
fn a_search_that_runs_shows_what_there_is() {
    let (_temp, dir) = folder();
    begin(&dir, Some('0'), &[]);
    let (page, warnings) = reported(&dir);
    assert!(warnings.contains("a search has not ended: nothing is done so far\n"), "{warnings}");
    assert!(
        page.contains("There is nothing to show before its first epoch or network is done")
            && !page.contains("<h2>Result")
    );

    artifact::write_lines(&dir.unfinished().log(&key('0')), &[oneshot_epoch(1)]).unwrap();
    assert!(report(&dir).1.contains("a search has not ended: 1 epoch so far\n"));
    let rows = candidates();
    let compared = |letter: char, rows: &[CandidateRow]| {
        artifact::write_lines(&dir.unfinished().candidates(&key(letter)), rows).unwrap()
    };
    // These candidates are from an earlier search with another supernet.
    compared('a', &rows[..2]);
    let (page, _) = reported(&dir);
    let begun = section(&page, "The search that has not ended");
    assert!(begun.contains("Loss of the search") && !begun.contains("Candidates"), "{begun}");

    begin(&dir, Some('0'), &['b']);
    compared('b', &rows[..1]);
    let (page, warnings) = reported(&dir);
    assert!(warnings.contains("a search has not ended: 1 epoch, 1 network so far\n"), "{warnings}");
    assert!(section(&page, "The search that has not ended").contains("The search compared 1 network with the weights"));

    // The search goes on with the next target.
    begin(&dir, Some('0'), &['b', 'c']);
    compared('c', &rows);
    let (page, warnings) = reported(&dir);
    let said = "a search has not ended: 1 epoch, 1 target, 3 networks for the next one so far\n";
    assert!(warnings.contains(said), "{warnings}");
    for figure in ["Loss of the search", "First comparison against the next one"] {
        assert!(page.contains(&format!("<h3>{figure}</h3>")), "{figure}");
    }
    for figure in ["Expected costs", "Multipliers", "Indecision", "Probability"] {
        assert!(!page.contains(figure), "{figure}");
    }
    let (best, second) = (page.find(&OPS.replace(',', ", ")), page.find("skip, skip, conv_5x5, skip"));
    assert!(best.unwrap() < second.unwrap(), "the best by the longest training comes first");
    assert!(page.contains("loss with the supernet's weights</th>"));
}

#[test]
fn an_algorithm_without_a_supernet_has_no_curve_of_another_one() {
    let (_temp, dir) = folder();
    let rows: Vec<CandidateRow> = candidates().into_iter().filter(|row| row.epochs > 0).collect();
    begin(&dir, None, &['b']);
    artifact::write_lines(&dir.unfinished().candidates(&key('b')), &rows).unwrap();
    artifact::write_lines(&dir.unfinished().log(&key('0')), &[oneshot_epoch(1)]).unwrap();
    let (page, warnings) = reported(&dir);
    assert!(warnings.contains("a search has not ended: 2 networks so far\n"), "{warnings}");
    assert!(!page.contains("Loss of the search"));
}

#[test]
fn results_are_not_shown_as_those_of_a_search_that_runs() {
    let (_temp, dir) = folder();
    complete_run(&dir);
    let log = dir.unfinished().log(&key('b'));
    artifact::write_lines(&log, &[oneshot_epoch(1), oneshot_epoch(2)]).unwrap();
    assert_eq!(Run::load(&dir).unwrap().notes, [""; 0], "one that was interrupted before");
    begin(&dir, Some('b'), &[]);
    let (page, warnings) = reported(&dir);
    let said = "a later search has not ended: 2 epochs so far; the results are those of the search before";
    assert!(warnings.contains(said) && page.contains(said), "{warnings}");
    let begun = section(&page, "The search that has not ended");
    assert!(begun.contains("Loss of the search") && !begun.contains("Probability of each choice"));
    assert!(section(&page, "Search").contains("Probability of each choice"));
    assert!(page.find("The search that has not ended").unwrap() < page.find("<h2>Result").unwrap());
}

/// Returns the evaluation of a network that classifies all images correctly, except for one of the first class.
fn evaluation(digest: Digest, classes: usize) -> Evaluation {
    let mut confusion = Confusion::new(classes);
    (0..classes).for_each(|class| (0..20).for_each(|_| confusion.add(class, class)));
    confusion.add(0, classes - 1);
    let name = |class| if class == 0 { "<&> of a very long name".into() } else { format!("class {class}") };
    let of = |class| OfClass {
        class: name(class),
        images: confusion.images(class) as usize,
        accuracy: Share::new(20.0 / confusion.images(class) as f64),
    };
    Evaluation {
        model: "found".into(),
        digest,
        device: "test board <&>".into(),
        runtime: "ort".into(),
        runtime_version: Some("0.0.1".into()),
        providers: vec!["cpu".into()],
        data: "test".into(),
        data_digest: Digest::of_bytes(b"data"),
        images: 20 * classes + 1,
        test_images: 10_000,
        metrics: Metrics {
            top1: share(0.5),
            top5: Some(share(0.875)),
            cross_entropy: 1.25,
            calibration_error: share(0.03125),
            classes: (0..classes).map(of).collect(),
            confusion,
        },
    }
}

#[test]
fn evaluations_are_shown_with_the_network_that_they_are_of() {
    let (_temp, dir) = folder();
    complete_run(&dir);
    assert!(!page(&dir).contains("<h2>Evaluation"));
    let (found, other) = (Network::Genotype(genotype()), Digest::of_bytes(b"other"));
    // Either the weights or the exported model were evaluated.
    let weights = Digest::of_bytes(found.name().as_bytes());
    for digest in [weights.clone(), Digest::of_bytes(&model(&found))] {
        artifact::write_json(&dir.found().eval(), &evaluation(digest, 10)).unwrap();
        let page = page(&dir);
        let section = section(&page, "Evaluation");
        for text in [
            "<td class=\"text\">ort 0.0.1 on test board &lt;&amp;&gt;</td><td class=\"text\">201 of 10000</td>",
            "<td>50.00 %</td><td>87.50 %</td>",
            "95.24 %</td><td>1.2500</td><td>3.12 %</td>",
            "&lt;&amp;&gt; of a very lon… 0",
        ] {
            assert!(section.contains(text), "`{text}` is not in {section}");
        }
        // Ten shares on the diagonal and one beside it, which are also numbers.
        assert_eq!((section.matches("opacity=\"0.7\"").count(), section.matches("\n100\n").count()), (9, 9));
        assert!(section.contains("\n95\n") && section.contains("\n5\n"), "{section}");
        assert!(page.contains("201 of 10000 test images of test, in ort 0.0.1 on test board &lt;&amp;&gt;"));
    }
    // This many classes have neither numbers nor names.
    artifact::write_json(&dir.found().eval(), &evaluation(weights, 300)).unwrap();
    assert!(!section(&page(&dir), "Evaluation").contains("class 7 7"));

    artifact::write_json(&dir.found().eval(), &evaluation(other, 10)).unwrap();
    let run = Run::load(&dir).unwrap();
    assert!(run.notes.iter().any(|note| note.contains("eval.json is of neither the weights nor")), "{:?}", run.notes);
    assert!(!page(&dir).contains("<h2>Evaluation"));
    let text = std::fs::read_to_string(dir.found().eval()).unwrap();
    let torn = text.replacen("          0,\n", "", 1).replacen("        0,\n", "", 1);
    assert_ne!(text, torn);
    std::fs::write(dir.found().eval(), torn).unwrap();
    let error = Run::load(&dir).unwrap_err().to_string();
    assert!(error.contains("eval.json") && error.contains("a row and a column for each class"), "{error}");
}

fn held(cost: &str, unit: Unit, target: f64, limit: f64, value: f64) -> Held {
    Held { cost: cost.into(), unit, target, limit, value }
}

fn certificate(target: f64) -> Certificate {
    let latency = held("latency on test board <&> with ort", Unit::Nanoseconds, target, 0.98 * target, 0.96 * target);
    Certificate {
        algorithm: "oneshot: minus the cross-entropy".into(),
        constraints: vec![latency, held("activations beyond 64 KiB", Unit::Bytes, 0.0, 0.0, 0.0)],
        score: Some(-0.91),
        unconstrained: Some(Unconstrained {
            ops: vec!["conv_5x5".into(); 6],
            score: -0.8,
            score_cost_of_limit: 0.11,
            costs: vec![3.0 * target, 4096.0],
        }),
        nearest_below: Some(NearestBelow { ops: vec!["skip".into(); 6], value: 0.975 * target, resolution: 0.0 }),
        measured_ns: Some(Latency::from_ns(0.97 * target)),
    }
}

fn write_certificate(dir: &RunDir, genotype: &Genotype, certificate: Certificate) {
    artifact::write_json(&dir.genotype(), &Certified { genotype: genotype.clone(), certificate }).unwrap();
}

#[test]
fn a_certificate_and_candidates_are_shown() {
    let (_temp, dir) = folder();
    complete_run(&dir);
    write_certificate(&dir, &genotype(), certificate(1.25e6));
    artifact::write_lines(&dir.candidates(), &candidates()).unwrap();
    let page = page(&dir);
    let search = section(&page, "Search");
    for text in [
        "<td>1.25 ms</td><td>2.0 %</td><td>1.23 ms</td><td>1.20 ms</td><td>3.75 ms</td>",
        "<td>none</td><td>–</td><td>none</td><td>none</td><td>4 KiB</td>",
        "with a score of -0.8000: the limits cost 0.1100.",
        "skip, skip, skip, skip, skip, skip, with 1.22 ms, 2.5 % below what was asked for; no network within the limits is nearer to it.",
        "Before it was chosen, the network was measured to take 1.21 ms.",
        "3 networks with the weights of the supernet, 2 networks by a training of 1 epoch, 2 networks by a training of 2 epochs",
        "First comparison against the next one",
        "<td>0.9100</td><td>1.6200</td><td>1.3100</td><td>75.00 %</td>",
    ] {
        assert!(search.contains(text), "`{text}` is not in {search}");
    }
    assert!(
        page.contains("The search was limited to 1.25 ms of latency on test board &lt;&amp;&gt; with ort and no activations beyond 64 KiB")
    );
    assert!(page.contains("3 networks in 14.0 s"));
    assert!(!page.contains("more than asked for"));
    assert!(section(&page, "Accuracy and latency").contains("target</li>"), "the target is a mark");

    // The network takes 1.2 ms.
    write_certificate(&dir, &genotype(), certificate(1e6));
    assert!(self::page(&dir).contains(", it takes 20.0 % more than asked for."));

    artifact::write_lines(&dir.candidates(), &candidates()[1..3]).unwrap();
    let run = Run::load(&dir).unwrap();
    assert!(run.notes.iter().any(|note| note.contains("candidates.jsonl is of another search")), "{:?}", run.notes);
}

#[test]
fn many_choices_a_layer_stay_readable() {
    let (_temp, dir) = folder();
    let space = SearchSpace::load("chain").unwrap();
    let networks = Networks::new(space, Shape::new(3, 32, 32), [10]).unwrap();
    let epoch = |epoch: usize| {
        let rows = networks.searched().map(|layer| names_of(&networks.choices()[layer])).collect::<Vec<_>>();
        let alpha = |names: &Vec<String>| (0..names.len()).map(|i| 0.01 * (epoch * (i % 7)) as f64).collect();
        SearchEpoch {
            alpha: rows.iter().map(alpha).collect(),
            entropies: rows.iter().map(|names| (names.len() as f64).ln() / epoch as f64).collect(),
            choices: rows,
            constraints: vec![Expected {
                cost: "latency on host with ort".into(),
                unit: Unit::Nanoseconds,
                expected: 1e6 / epoch as f64,
                limit: 4e5,
            }],
            multipliers: vec![0.1 * epoch as f64],
            ..oneshot_epoch(epoch)
        }
    };
    begin(&dir, Some('0'), &[]);
    artifact::write_lines(&dir.unfinished().log(&key('0')), &[epoch(1), epoch(2), epoch(3)]).unwrap();
    let (page, _) = reported(&dir);
    let begun = section(&page, "The search that has not ended");
    for figure in [
        "Loss of the search",
        "Expected costs against their limits",
        "Multipliers of the limits",
        "Indecision of each layer",
        "Probability of each op",
        "Probability of each width",
    ] {
        assert!(begun.contains(&format!("<h3>{figure}</h3>")), "{figure}");
    }
    assert!(!begun.contains("Probability of each choice"));
    assert_eq!(begun.matches("aria-label=\"Probability of each op layer").count(), 6);
    assert_eq!(begun.matches("aria-label=\"Probability of each width layer").count(), 3);
    let panels = begun.split("aria-label=\"Probability").skip(1);
    for lines in panels.map(|panel| panel.split_once("</svg>").unwrap().0.matches("<circle").count() / 3) {
        assert!(lines <= 8, "{lines} lines in a panel");
    }
}

/// Writes a run for three targets. The networks for the first two are trained and measured.
fn run_of_targets(dir: &RunDir) {
    let log = [oneshot_epoch(1), oneshot_epoch(2)];
    let networks = ["skip,skip,skip,skip,skip,conv_3x3", OPS, "conv_5x5,skip,conv_5x5,skip,conv_5x5,conv_5x5"];
    for (i, (target, ops)) in [0.6e6, 1.25e6, 1.0e7].into_iter().zip(networks).enumerate() {
        let of_target = dir.target(&format!("{}ms", target / 1e6));
        let genotype = genotype_of(ops);
        artifact::write_lines(&of_target.candidates(), &[candidate(ops, 0, 0.9)]).unwrap();
        write_certificate(&of_target, &genotype, certificate(target));
        let on = SearchedOn {
            data: "test".into(),
            data_digest: Digest::of_bytes(b"data"),
            tables: vec![],
            genotype: Digest::of(&genotype),
            log: Digest::of_lines(&log),
            foreign_table: Some("CPU an abacus, not this one".into()),
            made: None,
        };
        artifact::write_json(&of_target.searched_on(), &on).unwrap();
        if i < 2 {
            let network = Network::Genotype(genotype);
            write_model(&of_target.found(), &network, 0.8 + 0.06 * i as f64);
            artifact::append_line(&of_target.bench(), &bench_row(&network, Runtime::Ort, 0.97 * target)).unwrap();
        }
    }
    artifact::write_lines(&dir.search_log(), &log).unwrap();
    artifact::write_json(&dir.target_names(), &["0.6ms", "1.25ms", "10ms"]).unwrap();
}

#[test]
fn several_targets_are_a_front() {
    let (_temp, dir) = folder();
    run_of_targets(&dir);
    let with_baseline = dir.target("1.25ms");
    write_model(&with_baseline.baseline(), &baseline(), 0.83);
    artifact::append_line(&with_baseline.bench(), &bench_row(&baseline(), Runtime::Ort, 0.65e6)).unwrap();

    let (out, warnings) = report(&dir);
    assert_eq!(warnings, "");
    for text in [&format!("1.25ms {OPS}"), "1.25ms: mobilenet_v2_x0.5", "86.00 %"] {
        assert!(out.contains(text), "`{text}` is not in\n{out}");
    }
    assert!(out.find("0.6ms skip").unwrap() < out.find("10ms conv_5x5").unwrap(), "by rising target");
    for name in ["0.6ms", "1.25ms", "10ms"] {
        let page = std::fs::read_to_string(dir.target(name).report()).unwrap();
        assert!(page.contains("Why this network") && page.contains("Loss of the search"), "{name}");
    }
    let page = page(&dir);
    assert!(page.contains("<h1>Networks for 3 targets</h1>"));
    assert!(page.contains("The networks were searched with a foreign latency table: CPU an abacus, not this one."));
    assert!(section(&page, "Conditions").contains("; ort 0.0.1</td>"));
    let targets = section(&page, "Targets");
    for text in [
        "<td class=\"text\">1.25ms</td>",
        "<td>1.25 ms</td><td>1.20 ms</td><td>1.21 ms</td><td>86.00 %</td>",
        "<td>10.0 ms</td><td>9.60 ms</td><td>–</td><td>–</td>",
        "<a href=\"targets/0.6ms/report.html\">0.6ms</a>",
    ] {
        assert!(targets.contains(text), "`{text}` is not in {targets}");
    }
    let accuracy = section(&page, "Accuracy and latency");
    for text in ["0.6ms", "1.25ms", "mobilenet_v2_x0.5", "target</li>"] {
        assert!(accuracy.contains(text), "{text}");
    }
    assert!(section(&page, "Search").contains("Loss of the search"));
    let rows = serde_json::to_value(Run::load(&dir).unwrap().rows()).unwrap();
    assert_eq!((&rows[0]["target"], &rows[0]["test_accuracy"]), (&"0.6ms".into(), &0.8.into()));

    // Another search is running, to which the pages of targets are outdated as well.
    begin(&dir, Some('0'), &[]);
    artifact::write_lines(&dir.unfinished().log(&key('0')), &[oneshot_epoch(1)]).unwrap();
    for dir in [&dir, &dir.target("0.6ms")] {
        let (page, warnings) = reported(dir);
        assert!(warnings.contains("a later search has not ended: 1 epoch so far"), "{warnings}");
        assert!(page.contains("a later search has not ended") && page.contains("Accuracy and latency"));
    }
    std::fs::remove_file(dir.begun_files()).unwrap();

    // The search has ended, and left out a target.
    artifact::write_lines(&dir.search_log(), &[oneshot_epoch(1)]).unwrap();
    let run = Run::load(&dir).unwrap();
    assert!(run.targets.is_empty());
    assert_eq!(run.notes.iter().filter(|note| note.contains("was found by an earlier search")).count(), 3);
}
