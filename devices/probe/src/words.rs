//! The words of failures.

use nas_probe::ModelRef;
use std::any::Any;

/// A model in an error: the first 12 digits of its digest.
pub fn short(digest: &str) -> String {
    format!("model {}", digest.get(..12).unwrap_or(digest))
}

/// A model and its runtime in an error.
pub fn name(model: &ModelRef) -> String {
    format!("{} with {}", short(&model.model), model.runtime)
}

/// What a panic said.
pub fn words(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => panic.downcast_ref::<&str>().map_or("without a message", |m| m).to_owned(),
    }
}

pub fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
