//! Handling of Ctrl-C and SIGTERM. If a training is running, the first signal makes it save a checkpoint and end. At
//! any other time, and at the second signal, the program ends at once, as usual.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

/// Shared with the signal handlers.
struct Flags {
    /// The signal that was seen, or 0 for none.
    seen: Arc<AtomicUsize>,
    /// Whether the next signal ends the program.
    ends: Arc<AtomicBool>,
    /// The number of [`Deferred`] that exist.
    deferred: AtomicUsize,
}

static FLAGS: LazyLock<Flags> = LazyLock::new(|| {
    let ends = Arc::new(AtomicBool::new(true));
    let flags = Flags { seen: Arc::default(), ends, deferred: AtomicUsize::new(0) };
    for signal in [SIGINT, SIGTERM] {
        if is_ignored(signal) {
            continue;
        }
        // The handlers are registered in this order. If one cannot be installed, the signal ends the program as usual.
        let _ = flag::register_conditional_default(signal, flags.ends.clone())
            .and_then(|_| flag::register_usize(signal, flags.seen.clone(), signal as usize))
            .and_then(|_| flag::register(signal, flags.ends.clone()));
    }
    flags
});

/// Returns whether the program was started with a signal ignored, as a shell starts background jobs.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

/// While it exists, the first Ctrl-C or SIGTERM does not end the program, but is reported by [`interrupted`].
pub struct Deferred(());

impl Deferred {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Deferred {
        FLAGS.deferred.fetch_add(1, Ordering::SeqCst);
        FLAGS.ends.store(interrupted(), Ordering::SeqCst);
        Deferred(())
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        if FLAGS.deferred.fetch_sub(1, Ordering::SeqCst) == 1 {
            FLAGS.ends.store(true, Ordering::SeqCst);
        }
    }
}

/// Returns whether Ctrl-C or SIGTERM came while signals were [`Deferred`]. A training must then end, and say how it
/// resumes.
pub fn interrupted() -> bool {
    interruption().is_some()
}

/// Returns the signal that came while signals were [`Deferred`].
pub fn interruption() -> Option<u8> {
    match FLAGS.seen.load(Ordering::SeqCst) {
        0 => None,
        signal => u8::try_from(signal).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_deferred_only_while_something_defers_it() {
        let ends = || FLAGS.ends.load(Ordering::SeqCst);
        assert!(!interrupted() && ends());
        let (outer, inner) = (Deferred::new(), Deferred::new());
        assert!(!ends());
        drop(inner);
        assert!(!ends());
        drop(outer);
        assert!(ends());
    }
}
