//! What networks cost, what they may cost, and the best one within that, exactly.

mod choose;
mod cost;
mod derive;
mod limits;
mod propose;

pub use choose::{best_within, extreme, range};
pub use cost::{Constraint, Cost, SearchError, Unit};
pub use derive::{check, derive, latency_range, scores_of};
pub use limits::Limits;
pub use propose::{Candidate, evolve, fitted, propose};
