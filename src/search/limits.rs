use super::{Constraint, SearchError, best_within, scores_of};
use crate::space::Networks;
use rand::Rng;
use rand::seq::IndexedRandom;

#[derive(Clone, Debug, serde::Serialize)]
pub struct Limits {
    pub constraints: Vec<Constraint>,
    pub band: f64,
}

impl Limits {
    pub fn allow(&self, choices: &[usize]) -> bool {
        let first = self.constraints[0].cost.polynomial.value(choices, 0);
        self.constraints.iter().all(|c| c.cost.polynomial.value(choices, 0) <= c.limit)
            && first >= (1.0 - self.band) * self.constraints[0].limit
    }
    pub fn best(&self, networks: &Networks, scores: &[Vec<f64>], _n: usize) -> Result<Vec<Vec<usize>>, SearchError> {
        let scores = scores_of(networks, |l, c| scores[l][c]);
        Ok(best_within(&scores, &self.constraints).into_iter().collect())
    }
    pub fn sample(&self, networks: &Networks, rng: &mut impl Rng) -> Result<Vec<usize>, SearchError> {
        loop {
            let c: Vec<usize> = (0..networks.len()).map(|l| *networks.live(l).choose(rng).unwrap_or(&0)).collect();
            if self.allow(&c) {
                return Ok(c);
            }
        }
    }
}
