//! From measured networks to a polynomial that predicts all networks of a space.
//!
//! latency = base + Σ contributions + Σ interactions, by relative least squares with a ridge. The interactions are those that
//! improve predictions for networks left out of the fit.

mod accuracy;
mod design;
mod fit;
mod latency;
mod polynomial;
mod select;
mod solve;
mod structure;
mod terms;
mod validation;

pub use accuracy::Accuracy;
pub use design::{balanced, random};
pub use fit::{Contribution, Effect, Fit, FitError, Interaction, Measured, d_optimal};
pub use latency::{Adds, FitData, LatencyModel, ModelError, isolated_subjects, measured, structure, unfit};
pub use polynomial::{Monomial, Place, Polynomial, Product};
pub use select::Gain;
pub use structure::{Pair, Part, Relation, Role, Structure};
pub use validation::{Unseen, Validation, Validations};
