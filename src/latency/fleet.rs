//! Several boards of one kind share the work only if they are alike.

use super::profile::ProfileError;
use super::{Latency, Summary, micro_model};
use crate::device::{DeviceError, Session};
use crate::space::Layer;
use nas_probe::{MeasurePlan, Runtime};

/// Boards that differ by more than this share are not alike.
const ALIKE: f64 = 0.03;

/// Times that the anchor is measured on a board; their median counts.
const TIMES: usize = 3;

/// Does something on each board and drops those that are lost over it, with a warning that names them.
///
/// # Errors
/// Why the first was lost, where all are.
pub fn each<T>(
    sessions: &mut Vec<Session>,
    mut work: impl FnMut(&mut Session) -> Result<T, DeviceError>,
) -> Result<Vec<T>, DeviceError> {
    let done: Vec<Result<T, DeviceError>> = sessions.iter_mut().map(&mut work).collect();
    let kept: Vec<bool> = done.iter().map(Result::is_ok).collect();
    let others = kept.contains(&true);
    let mut results = vec![];
    for (session, done) in sessions.iter().zip(done) {
        match done {
            Ok(result) => results.push(result),
            Err(why) if !others => return Err(why),
            Err(why) => eprintln!("warning: going on without {}: {why}", session.board()),
        }
    }
    keep(sessions, kept);
    Ok(results)
}

/// Keeps the boards that are marked so.
pub fn keep(sessions: &mut Vec<Session>, kept: Vec<bool>) {
    let mut kept = kept.into_iter();
    sessions.retain(|_| kept.next() == Some(true));
}

/// Measures `anchor` on each board and drops those that are not like the others, with a warning that
/// names them.
///
/// # Errors
/// Where no board can measure it.
pub fn keep_alike(
    sessions: &mut Vec<Session>,
    anchor: &Layer,
    runtime: Runtime,
    threads: usize,
    plan: MeasurePlan,
) -> Result<(), ProfileError> {
    if sessions.len() < 2 {
        return Ok(());
    }
    let name = anchor.to_string();
    let model = [(name.clone(), micro_model(&anchor.graph())?)];
    let measure = |session: &mut Session| {
        let placed = session.put(&model)?;
        let time = |session: &mut Session| -> Result<Latency, DeviceError> {
            let samples = session.measure(&placed[0], runtime, threads, plan)?;
            Ok(Summary::measured(&samples.ns, &name, runtime)?.median)
        };
        let times: Vec<Latency> = (0..TIMES).map(|_| time(session)).collect::<Result<_, _>>()?;
        Ok(middle(&times))
    };
    let anchors = each(sessions, measure)?;
    let reference = reference(&anchors);
    let mut anchors = anchors.into_iter();
    sessions.retain(|session| {
        let Some(latency) = anchors.next() else { return true };
        let difference = latency.ns() / reference.ns() - 1.0;
        if difference.abs() > ALIKE {
            let board = session.board();
            eprintln!(
                "warning: {board} is left out: {name} takes {latency} there and {reference} on the others ({:+.1} %)",
                100.0 * difference
            );
        }
        difference.abs() <= ALIKE
    });
    Ok(())
}

/// What the boards are compared with: the median board, of two the first that was named.
fn reference(anchors: &[Latency]) -> Latency {
    if anchors.len() == 2 {
        return anchors[0];
    }
    middle(anchors)
}

/// The median, of an even number the lower one.
fn middle(latencies: &[Latency]) -> Latency {
    let mut sorted = latencies.to_vec();
    sorted.sort_by(|a, b| a.ns().total_cmp(&b.ns()));
    sorted[(sorted.len() - 1) / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_the_median_board_and_of_two_the_first() {
        let of = |ns: &[f64]| reference(&ns.iter().map(|&ns| Latency::from_ns(ns)).collect::<Vec<_>>()).ns();
        assert_eq!(of(&[3.0, 1.0]), 3.0);
        assert_eq!(of(&[9.0, 1.0, 1.01]), 1.01);
        assert_eq!(of(&[1.0, 2.0, 3.0, 4.0]), 2.0);
    }
}
