//! Relative least squares with a ridge, and its leave-one-out errors.

use crate::table::MAD_TO_SIGMA;
use nalgebra::{DMatrix, DVector};

/// Returns the weight of a network by its error in standard deviations; an outlier has a proportionally lower weight
/// (Huber 1964, Annals of Mathematical Statistics 35:73). If errors are normally distributed, the constant makes this
/// 95 % as efficient as least squares.
fn huber(deviations: f64) -> f64 {
    (1.345 / deviations).min(1.0)
}

/// A row for each network and a column for each unknown, divided by the measured latency of the network. Each row is to
/// add up to 1, so errors are relative.
#[derive(Debug)]
pub struct LeastSquares {
    x: DMatrix<f64>,
    weights: DVector<f64>,
    normal: DMatrix<f64>,
    moment: DVector<f64>,
}

#[derive(Debug)]
pub struct Solution {
    pub unknowns: DVector<f64>,
    /// Inverse of the normal matrix, including its ridge. Multiplied by `variance`, it is the covariance of the
    /// unknowns.
    pub inverse: DMatrix<f64>,
    /// Relative variance of a measurement of weight 1. It includes what the model cannot express.
    pub variance: f64,
    /// Degrees of freedom: the number of networks minus that of the unknowns that they determine.
    pub free: f64,
    /// The relative error for each network, as predicted by a fit without that network.
    pub leave_one_out_errors: Vec<f64>,
    errors: DVector<f64>,
    leverages: DVector<f64>,
}

impl LeastSquares {
    /// Creates the problem. `weights`, from 0 to 1, say how much each network counts.
    pub fn new(x: DMatrix<f64>, weights: DVector<f64>) -> Self {
        let weighted = weighted(&x, &weights);
        let normal = weighted.tr_mul(&x);
        let moment = weighted.row_sum_tr();
        LeastSquares { x, weights, normal, moment }
    }

    /// Returns the problem with additional unknowns.
    pub fn with(&self, columns: &DMatrix<f64>) -> LeastSquares {
        let old = self.x.ncols();
        let mut x = self.x.clone().resize_horizontally(old + columns.ncols(), 0.0);
        x.columns_mut(old, columns.ncols()).copy_from(columns);
        LeastSquares::new(x, self.weights.clone())
    }

    pub fn weights(&self) -> &DVector<f64> {
        &self.weights
    }

    /// Solves for the unknowns, with a ridge that shrinks them towards 0. Each unknown has its own positive strength.
    /// Returns `None` if some values are not numbers.
    pub fn solve(&self, ridge: &[f64]) -> Option<Solution> {
        let mut normal = self.normal.clone();
        ridge.iter().enumerate().for_each(|(i, ridge)| normal[(i, i)] += ridge);
        let inverse = normal.cholesky()?.inverse();
        let unknowns = &inverse * &self.moment;
        let errors = (&self.x * &unknowns).add_scalar(-1.0);
        let leverages = self.leverages(&self.x, &inverse);
        let free = (self.weights.sum() - leverages.sum()).max(1.0);
        let variance = errors.component_mul(&errors).dot(&self.weights) / free;
        let leave_one_out_errors = leave_one_out(&errors, &leverages);
        Some(Solution { unknowns, inverse, variance, free, leave_one_out_errors, errors, leverages })
    }

    /// Returns, for each strength of the ridge, the leave-one-out errors after unknowns with these columns join those
    /// of `solution`. It uses the block inverse instead of solving the whole problem again.
    pub fn joined<'a>(
        &'a self,
        solution: &'a Solution,
        columns: &DMatrix<f64>,
        ridges: &'a [f64],
    ) -> impl Iterator<Item = (f64, Vec<f64>)> + 'a {
        let weighted = weighted(columns, &self.weights);
        let rest = columns - &self.x * (&solution.inverse * self.x.tr_mul(&weighted));
        let normal = weighted.tr_mul(&rest);
        let moment = weighted.tr_mul(&solution.errors);
        ridges.iter().filter_map(move |&ridge| {
            let diagonal = DMatrix::from_diagonal_element(normal.ncols(), normal.ncols(), ridge);
            let inverse = (&normal + diagonal).cholesky()?.inverse();
            let errors = &solution.errors - &rest * (&inverse * &moment);
            let leverages = &solution.leverages + self.leverages(&rest, &inverse);
            Some((ridge, leave_one_out(&errors, &leverages)))
        })
    }

    /// Returns the problem with a lower weight than in `given` for networks whose leave-one-out error is an outlier.
    pub fn reweighted(&self, solution: &Solution, given: &DVector<f64>) -> LeastSquares {
        let mut sizes: Vec<f64> = solution.leave_one_out_errors.iter().map(|error| error.abs()).collect();
        let sigma = MAD_TO_SIGMA * *sizes.select_nth_unstable_by(given.len() / 2, f64::total_cmp).1;
        let deviations = |i: usize| solution.leave_one_out_errors[i].abs() / sigma.max(f64::MIN_POSITIVE);
        let weight = |i: usize, _| given[i] * huber(deviations(i));
        LeastSquares::new(self.x.clone(), DVector::from_fn(given.len(), weight))
    }

    fn leverages(&self, x: &DMatrix<f64>, inverse: &DMatrix<f64>) -> DVector<f64> {
        (x * inverse).component_mul(x).column_sum().component_mul(&self.weights)
    }
}

fn weighted(x: &DMatrix<f64>, weights: &DVector<f64>) -> DMatrix<f64> {
    DMatrix::from_fn(x.nrows(), x.ncols(), |i, j| weights[i] * x[(i, j)])
}

/// e/(1-h), which is exactly the error of a fit without the network (Allen 1974, Technometrics 16:125).
fn leave_one_out(errors: &DVector<f64>, leverages: &DVector<f64>) -> Vec<f64> {
    errors.iter().zip(leverages).map(|(error, leverage)| error / (1.0 - leverage.min(1.0 - 1e-9))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};

    /// Some networks, a few unknowns, and 2 % of noise.
    fn least_squares(skip: Option<usize>) -> LeastSquares {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let all = DMatrix::from_fn(30, 7, |_, _| rng.random::<f64>() / 3.5);
        let weights = DVector::from_fn(30, |i, _| if i % 4 == 0 { 0.3 } else { 1.0 });
        match skip {
            Some(row) => LeastSquares::new(all.remove_row(row), weights.remove_row(row)),
            None => LeastSquares::new(all, weights),
        }
    }

    #[test]
    fn leave_one_out_errors_are_those_of_fits_without_the_network() {
        let (whole, ridge) = (least_squares(None), [1e-6, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01]);
        let solution = whole.solve(&ridge).unwrap();
        for i in 0..30 {
            let without = least_squares(Some(i)).solve(&ridge).unwrap();
            let error = whole.x.row(i).dot(&without.unknowns.transpose()) - 1.0;
            assert!(
                (error - solution.leave_one_out_errors[i]).abs() < 1e-9,
                "{i}: {error} {}",
                solution.leave_one_out_errors[i]
            );
        }
    }

    #[test]
    fn unknowns_that_join_do_as_if_they_had_been_there() {
        let whole = least_squares(None);
        let first = LeastSquares::new(whole.x.columns(0, 4).into_owned(), whole.weights.clone());
        let solution = first.solve(&[0.1; 4]).unwrap();
        let columns = whole.x.columns(4, 3).into_owned();
        for (ridge, joined) in first.joined(&solution, &columns, &[1e-4, 1.0]) {
            let all = whole.solve(&[0.1, 0.1, 0.1, 0.1, ridge, ridge, ridge]).unwrap();
            assert!(joined.iter().zip(&all.leave_one_out_errors).all(|(a, b)| (a - b).abs() < 1e-9), "{ridge}");
        }
    }

    #[test]
    fn one_network_out_of_line_hardly_counts() {
        let mut x = DMatrix::from_fn(30, 1, |i, _| 1.0 + 1e-3 * (i as f64 - 14.5));
        x[(7, 0)] = 0.5;
        let given = DVector::from_element(30, 1.0);
        let mut least_squares = LeastSquares::new(x.clone(), given.clone());
        let plain = least_squares.solve(&[1e-9]).unwrap().unknowns[0];
        for _ in 0..10 {
            least_squares = least_squares.reweighted(&least_squares.solve(&[1e-9]).unwrap(), &given);
        }
        let unknown = least_squares.solve(&[1e-9]).unwrap().unknowns[0];
        assert!((plain - 1.0).abs() > 5e-3 && (unknown - 1.0).abs() < 2e-3, "{plain} {unknown}");
    }
}
