//! The sections about searches.

use super::{escape, figure, missing, table};
use crate::record::{Begun, CandidateRow, Certificate, Held, NearestBelow, Unconstrained};
use crate::report::figures::{self, Compared, compared};
use crate::report::summary::{or_dash, percent};
use crate::report::{ReportError, Run, counted};
use std::collections::BTreeSet;

/// The number of candidates that are shown by name.
pub const BEST: usize = 10;

/// Describes the search that found the network, and why the search chose it.
pub fn ended(run: &Run) -> Result<String, ReportError> {
    if run.search.is_empty() && run.certificate.is_none() {
        return Ok(missing("There is no search.jsonl in this run", "nas search"));
    }
    let certificate = run.certificate.as_ref().map(certificate).unwrap_or_default();
    let log = figures::of_log(&run.search.log, run.genotype.as_ref())?;
    Ok(certificate + &candidates(&run.search.candidates)? + &log.into_iter().map(figure).collect::<String>())
}

/// Describes what there is so far of an unfinished search.
pub fn begun(begun: &Begun) -> Result<String, ReportError> {
    if begun.log.is_empty() && begun.candidates.is_empty() {
        return Ok(
            "<p class=\"missing\">There is nothing to show before its first epoch or network is done.</p>\n".into()
        );
    }
    let log = figures::of_log(&begun.log, None)?;
    Ok(candidates(&begun.candidates)? + &log.into_iter().map(figure).collect::<String>())
}

fn certificate(certificate: &Certificate) -> String {
    let Certificate { algorithm, constraints, score, unconstrained, nearest_below, measured_ns } = certificate;
    let mut header = vec!["cost", "asked for", "margin", "limit", "predicted"];
    if unconstrained.is_some() {
        header.push("without limits");
    }
    let row = |(i, held): (usize, &Held)| {
        let Held { cost, unit, target, limit, value } = held;
        let margin = (*target > 0.0).then(|| format!("{:.1} %", 100.0 * (1.0 - limit / target)));
        let mut cells = vec![cost.clone(), unit.show(*target), or_dash(margin), unit.show(*limit), unit.show(*value)];
        if let Some(best) = unconstrained {
            cells.push(or_dash(best.costs.get(i).map(|value| unit.show(*value))));
        }
        cells
    };
    let rows: Vec<_> = constraints.iter().enumerate().map(row).collect();
    let mut sentences = vec![match score {
        Some(score) => format!("The score of the network is {score:.4} ({algorithm})."),
        None => format!("The algorithm does not score networks ({algorithm})."),
    }];
    sentences.push(match unconstrained {
        Some(Unconstrained { score_cost_of_limit, .. }) if *score_cost_of_limit == 0.0 => {
            "The limits cost nothing: the best network without them is within them.".into()
        }
        Some(Unconstrained { ops, score, score_cost_of_limit, .. }) => format!(
            "Without the limits, the best would be {}, with a score of {score:.4}: the limits cost {score_cost_of_limit:.4}.",
            ops.join(", ")
        ),
        None => "It is not known what the limits cost, since networks beyond them have no scores.".into(),
    });
    if let (Some(first), Some(nearest_below)) = (constraints.first(), nearest_below) {
        let NearestBelow { ops, value, resolution } = nearest_below;
        let below = 100.0 * (1.0 - value / first.target);
        let nearer = match resolution {
            0.0 => "no network within the limits is nearer to it".into(),
            share => format!("another one may be nearer by up to {:.2} % of the limit", 100.0 * share),
        };
        sentences.push(format!(
            "The nearest network within the limits is {}, with {}, {below:.1} % below what was asked for; {nearer}.",
            ops.join(", "),
            first.unit.show(*value)
        ));
    }
    if let Some(measured) = measured_ns {
        sentences.push(format!("Before it was chosen, the network was measured to take {measured}."));
    }
    let sentences: String = sentences.iter().map(|sentence| format!("<p>{}</p>\n", escape(sentence))).collect();
    "<h3>Why this network</h3>\n".to_string()
        + &table(1, &header, &rows)
        + "<p>The limit of a prediction is below what was asked for by the margin: twice the mean error of predictions, but at most 5 %, and nothing if the network was measured.</p>\n"
        + &sentences
}

/// Lists the best networks by name, and draws one comparison against the next. Returns an empty text if no networks were
/// compared.
fn candidates(rows: &[CandidateRow]) -> Result<String, ReportError> {
    let networks = compared(rows);
    if networks.is_empty() {
        return Ok(String::new());
    }
    let levels: BTreeSet<usize> = rows.iter().map(|row| row.epochs).collect();
    let level = |epochs: &usize| match epochs {
        0 => "loss with the supernet's weights".to_string(),
        epochs => format!("loss of {}", counted(*epochs, "epoch")),
    };
    let mut header = vec!["".to_string(), "network".into()];
    header.extend(levels.iter().map(level));
    header.push("held-out accuracy".into());
    let row = |(i, network): (usize, &Compared)| {
        let mut cells = vec![(i + 1).to_string(), network.ops.join(", ")];
        let loss = |epochs| network.losses.get(epochs).map(|loss| format!("{loss:.4}"));
        cells.extend(levels.iter().map(|epochs| or_dash(loss(epochs))));
        cells.push(or_dash(network.last.accuracy.map(percent)));
        cells
    };
    let best: Vec<_> = networks.iter().take(BEST).enumerate().map(row).collect();
    let by = |epochs: &usize| {
        let number = counted(rows.iter().filter(|row| row.epochs == *epochs).count(), "network");
        match epochs {
            0 => format!("{number} with the weights of the supernet"),
            epochs => format!("{number} by a training of {}", counted(*epochs, "epoch")),
        }
    };
    let numbers: Vec<String> = levels.iter().map(by).collect();
    let figure = figures::candidates(rows)?.map(figure).unwrap_or_default();
    let scored = match levels.contains(&0) {
        true => "The loss with the weights of the supernet is the cross-entropy on held-out images. ",
        false => "",
    };
    Ok(format!(
        "<h3>Candidates</h3>\n<p>The search compared {}. {scored}The loss of a training from scratch is its training loss in \
         the last epoch. Networks that were trained longest come first.</p>\n{}{figure}",
        numbers.join(", "),
        table(2, &header, &best)
    ))
}
