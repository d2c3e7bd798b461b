//! Parts of error messages.

use nas_probe::{ModelRef, printable};
use std::any::Any;

/// How an error names a model: by the first 12 digits of its digest.
pub fn short(digest: &str) -> String {
    format!("model {}", digest.get(..12).unwrap_or(digest))
}

/// How an error names a model and its runtime.
pub fn name(model: &ModelRef) -> String {
    format!("{} with {}", short(&model.model), model.runtime)
}

/// The message of a panic.
pub fn panic_message(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => panic.downcast_ref::<&str>().map_or("no message", |m| m).to_owned(),
    }
}

/// A message of a runtime or the system in one line, which a terminal can show.
pub fn one_line(message: &str) -> String {
    printable(&message.split_whitespace().collect::<Vec<_>>().join(" "))
}
