//! Progress bars on stderr, which are hidden if stderr is not a terminal.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::sync::LazyLock;

/// All bars. Log messages are printed above them.
pub static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// A bar of `len` steps.
pub fn bar(stage: &str, message: &str, len: usize) -> ProgressBar {
    styled("{pos}/{len} {elapsed}", stage, message, len as u64)
}

/// A bar of `len` bytes.
pub fn bytes(stage: &str, message: &str, len: u64) -> ProgressBar {
    styled("{bytes}/{total_bytes} {bytes_per_sec}", stage, message, len)
}

fn styled(done: &str, stage: &str, message: &str, len: u64) -> ProgressBar {
    let template = format!("{{prefix:>9}} {{bar:30}} {done} (about {{eta}} left) {{msg}}");
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = BARS.add(ProgressBar::new(len)).with_style(style).with_prefix(stage.to_string());
    bar.with_message(message.to_string())
}
