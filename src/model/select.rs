//! Which terms a latency model has: those that improve predictions for networks left out of the fit.

use super::Measured;
use super::design::d_optimal;
use super::solve::{LeastSquares, Solution};
use super::terms::{Family, Term};
use crate::latency::Latency;
use nalgebra::{DMatrix, DVector};

/// Ridge of the base, which is too weak to shrink it.
const FREE: f64 = 1e-6;
/// Strengths of a ridge to try, from one that hardly shrinks the unknowns to one that makes them almost 0.
const RIDGES: [f64; 7] = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2];
/// Rounds of reweighting. The weights settle within a few.
const ROUNDS: usize = 5;
/// The probability that any interaction is added if none has an effect.
const CHANCE: f64 = 0.05;

/// How an interaction improves predictions for networks left out of the fit.
#[derive(Clone, Debug, PartialEq)]
pub struct Gain {
    pub interaction: String,
    /// Mean absolute relative error without this interaction and all that were added after it.
    pub before: f64,
    /// Mean absolute relative error with this interaction.
    pub after: f64,
}

/// A fit, with the interactions that were found so far.
pub struct Selection<'a> {
    measured: &'a [Measured],
    /// The weights of the networks before any are found to be outliers.
    given: DVector<f64>,
    families: Vec<Family>,
    ridges: Vec<f64>,
    gains: Vec<Gain>,
    least_squares: LeastSquares,
    solution: Solution,
}

impl<'a> Selection<'a> {
    /// Fits `families` alone; the first of them contains the base. Returns `None` if a latency is not a number.
    pub fn new(measured: &'a [Measured], families: Vec<Family>) -> Option<Self> {
        let given = DVector::from_iterator(measured.len(), measured.iter().map(|m| m.weight));
        let mut ridges = vec![RIDGES[2]; families.len()];
        ridges[0] = FREE;
        let columns = columns(measured, families.iter().flat_map(|family| &family.terms));
        let least_squares = LeastSquares::new(columns, given.clone());
        let solution = least_squares.solve(&by_unknown(&families, &ridges))?;
        let mut selection = Selection { measured, given, families, ridges, gains: vec![], least_squares, solution };
        selection.settle();
        Some(selection)
    }

    /// Adds the family that helps most, repeatedly, as long as one helps by more than noise. Families with more
    /// unknowns than there are networks are not tried.
    pub fn grow(&mut self, families: Vec<Family>) {
        let few = families.into_iter().filter(|family| family.terms.len() <= self.measured.len());
        let with_columns = few.map(|family| {
            let columns = columns(self.measured, &family.terms);
            (family, columns)
        });
        let mut candidates: Vec<(Family, DMatrix<f64>)> = with_columns.collect();
        // A family that occurs in no network cannot be seen to help.
        candidates.retain(|(_, columns)| columns.iter().any(|share| *share != 0.0));
        loop {
            let tries = candidates.len();
            let helps = |(i, (_, columns)): (usize, &(Family, DMatrix<f64>))| Some((i, self.weigh(columns, tries)?));
            let helping = candidates.iter().enumerate().filter_map(helps);
            let Some((i, (ridge, after))) = helping.min_by(|a, b| a.1.1.total_cmp(&b.1.1)) else { return };
            let (family, columns) = candidates.swap_remove(i);
            self.gains.push(Gain { interaction: family.name.clone(), before: self.error(), after });
            self.families.push(family);
            self.ridges.push(ridge);
            self.least_squares = self.least_squares.with(&columns);
            self.solve();
            self.settle();
        }
    }

    pub fn terms(&self) -> impl Iterator<Item = &Term> {
        self.families.iter().flat_map(|family| &family.terms)
    }

    /// Returns the unknowns, one per term.
    pub fn unknowns(&self) -> &DVector<f64> {
        &self.solution.unknowns
    }

    /// Returns the interactions, with their terms and the indices of these terms among all terms.
    pub fn found(&self) -> impl Iterator<Item = (&Gain, impl Iterator<Item = (usize, &Term)>)> {
        let fixed = self.families.len() - self.gains.len();
        let mut start: usize = self.families[..fixed].iter().map(|family| family.terms.len()).sum();
        self.gains.iter().zip(&self.families[fixed..]).map(move |(gain, family)| {
            let first = start;
            start += family.terms.len();
            (gain, family.terms.iter().enumerate().map(move |(i, term)| (first + i, term)))
        })
    }

    /// Returns the standard error of a linear form of the unknowns, in nanoseconds.
    pub fn standard_error(&self, form: &DVector<f64>) -> Latency {
        let variance = self.solution.variance * form.dot(&(&self.solution.inverse * form));
        Latency::from_ns(variance.max(0.0).sqrt())
    }

    /// Returns the indices of the `most` networks that are most useful to measure next.
    pub fn d_optimal(&self, networks: &[Vec<usize>], most: usize) -> Vec<usize> {
        let shares = |choices: &Vec<usize>| {
            let ns = DVector::from_iterator(self.unknowns().len(), self.terms().map(|term| term.ns(choices)));
            let latency = ns.dot(self.unknowns());
            (ns / latency).iter().copied().collect::<Vec<f64>>()
        };
        let x = networks.iter().flat_map(shares);
        let x = DMatrix::from_row_iterator(networks.len(), self.unknowns().len(), x);
        d_optimal(&x, self.solution.inverse.clone(), most)
    }

    pub fn leave_one_out_errors(&self) -> &[f64] {
        &self.solution.leave_one_out_errors
    }

    pub fn weights(&self) -> &DVector<f64> {
        self.least_squares.weights()
    }

    /// Returns the mean absolute relative error of networks left out of the fit.
    fn error(&self) -> f64 {
        self.mean(|i| self.solution.leave_one_out_errors[i].abs())
    }

    fn mean(&self, of: impl Fn(usize) -> f64) -> f64 {
        (0..self.given.len()).map(|i| self.given[i] * of(i)).sum::<f64>() / self.given.sum()
    }

    /// Returns the best ridge for a family with these columns, and the error with it, or `None` if the family does not
    /// help. The error must fall by at least its standard error. The likelihood of the left-out networks (with errors
    /// taken to be Laplace-distributed) must also rise by a factor of `tries / CHANCE`, since the best of many useless
    /// families looks good by chance.
    fn weigh(&self, columns: &DMatrix<f64>, tries: usize) -> Option<(f64, f64)> {
        let trials = self.least_squares.joined(&self.solution, columns, &RIDGES);
        let errors =
            trials.map(|(ridge, errors_without)| (ridge, self.mean(|i| errors_without[i].abs()), errors_without));
        let (ridge, after, errors_without) = errors.min_by(|a, b| a.1.total_cmp(&b.1))?;
        let gain = |i: usize| self.solution.leave_one_out_errors[i].abs() - errors_without[i].abs();
        let (mean, free) = (self.mean(gain), self.solution.free);
        let standard_error = (self.mean(|i| (gain(i) - mean).powi(2)) / free).sqrt();
        let likelier = free * (self.error() / after).ln();
        (mean > standard_error && likelier > (tries as f64 / CHANCE).ln()).then_some((ridge, after))
    }

    /// Tunes the ridges, then reweights the networks, then tunes the ridges again.
    fn settle(&mut self) {
        self.tune();
        for _ in 0..ROUNDS {
            self.least_squares = self.least_squares.reweighted(&self.solution, &self.given);
            self.solve();
        }
        self.tune();
    }

    /// Sets the ridge of one family after another to the strength that predicts left-out networks best.
    fn tune(&mut self) {
        for family in (1..self.ridges.len()).chain(1..self.ridges.len()) {
            let mut best = (self.error(), self.ridges[family]);
            for ridge in RIDGES {
                self.ridges[family] = ridge;
                self.solve();
                if self.error() < best.0 {
                    best = (self.error(), ridge);
                }
            }
            self.ridges[family] = best.1;
            self.solve();
        }
    }

    fn solve(&mut self) {
        if let Some(solution) = self.least_squares.solve(&by_unknown(&self.families, &self.ridges)) {
            self.solution = solution;
        }
    }
}

fn by_unknown(families: &[Family], ridges: &[f64]) -> Vec<f64> {
    let each = families.iter().zip(ridges);
    each.flat_map(|(family, &ridge)| family.terms.iter().map(move |_| ridge)).collect()
}

/// Returns, for each network, what each term's unknown counts for, as a share of the measured latency.
fn columns<'t>(measured: &[Measured], terms: impl IntoIterator<Item = &'t Term>) -> DMatrix<f64> {
    let share = |term: &Term, m: &Measured| term.ns(&m.choices) / m.latency.ns();
    let column = |term| DVector::from_iterator(measured.len(), measured.iter().map(|m| share(term, m)));
    DMatrix::from_columns(&terms.into_iter().map(column).collect::<Vec<_>>())
}
