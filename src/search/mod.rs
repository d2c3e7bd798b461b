//! What networks cost, what they may cost, and exact choice of the best ones within that.

mod check;
mod choose;
mod cost;
mod limits;
mod propose;
mod states;

pub use check::{check, latency_range, scores_of};
pub use choose::{Nearest, best_of, best_within, extreme, nearest_below, range};
pub use cost::{Constraint, Cost, SearchError, Unit, latency_name};
pub use limits::{Candidate, Goal, Limits, Searched};
pub use propose::{evolve, fitted, near, propose, sample};
