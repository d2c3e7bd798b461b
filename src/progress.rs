//! Progress bars on stderr, which are hidden if stderr is not a terminal.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::sync::LazyLock;

/// All bars. Log messages are printed above them.
pub static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// A bar of `len` steps.
pub fn bar(stage: &str, message: &str, len: usize) -> ProgressBar {
    styled("{prefix:>9} {bar:30} {pos}/{len} {elapsed} (about {eta} left) {msg}", stage, message, len as u64)
}

/// A bar of `len` bytes.
pub fn bytes(stage: &str, message: &str, len: u64) -> ProgressBar {
    let template = "{prefix:>9} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} (about {eta} left) {msg}";
    styled(template, stage, message, len)
}

/// A bar of `len` steps above a line for the message, which is truncated at the width of the terminal.
#[cfg(feature = "torch")]
pub fn training(stage: &str, message: &str, len: usize) -> ProgressBar {
    styled("{prefix:>9} {bar:30} {percent} % {elapsed} (about {eta} left)\n{wide_msg}", stage, message, len as u64)
}

fn styled(template: &str, stage: &str, message: &str, len: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = BARS.add(ProgressBar::new(len)).with_style(style).with_prefix(stage.to_string());
    bar.with_message(message.to_string())
}
