//! Prints what the library logs on stderr, above any progress bar. Warnings begin with `warning: `.

use super::output::shown;
use crate::progress::BARS;
use indicatif_log_bridge::LogWrapper;
use log::{Level, LevelFilter};
use std::io::Write;

/// Installs the logger; a second call does nothing.
pub fn init() {
    let logger = env_logger::Builder::new()
        .filter_module("edge_nas", LevelFilter::Info)
        .format(|out, record| match record.level() {
            Level::Error | Level::Warn => writeln!(out, "warning: {}", shown(&record.args().to_string())),
            _ => writeln!(out, "{}", shown(&record.args().to_string())),
        })
        .build();
    let level = logger.filter();
    if LogWrapper::new(BARS.clone(), logger).try_init().is_ok() {
        log::set_max_level(level);
    }
}
