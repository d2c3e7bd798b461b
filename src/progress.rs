//! Progress bars on stderr; silent where stderr is no terminal.

use indicatif::{ProgressBar, ProgressStyle};

const TEMPLATE: &str = "{prefix:>9} {bar:30} {pos}/{len} {elapsed} (about {eta} left) {msg}";

/// A bar of `len` steps.
pub fn bar(stage: &str, message: &str, len: usize) -> ProgressBar {
    let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(len as u64).with_style(style).with_prefix(stage.to_string());
    bar.with_message(message.to_string())
}

/// A bar of all steps of a training of `epochs`, of which `done` lie behind.
pub fn epochs(stage: &str, message: &str, steps: usize, epochs: usize, done: usize) -> ProgressBar {
    bar(stage, message, steps * epochs).with_position((steps * done) as u64)
}

/// A bar of `len` bytes.
pub fn bytes(stage: &str, message: &str, len: u64) -> ProgressBar {
    const TEMPLATE: &str =
        "{prefix:>9} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} (about {eta} left) {msg}";
    let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(len).with_style(style).with_prefix(stage.to_string());
    bar.with_message(message.to_string())
}
