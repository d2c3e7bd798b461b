//! How long a part of a request may take.

use std::time::{Duration, Instant};

/// The moment until which a part of a request must be done.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    doing: &'static str,
    limit: Duration,
    pub until: Instant,
}

/// A part of a request took too long.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{doing} took longer than {seconds:.0} s; if it is only slow, raise the limit with --timeout", seconds = limit.as_secs_f64())]
pub struct Late {
    doing: &'static str,
    limit: Duration,
}

impl Deadline {
    /// Creates a deadline. `doing` names the part, as in "loading the model".
    pub fn new(doing: &'static str, limit: Duration) -> Deadline {
        let now = Instant::now();
        // A limit of centuries is no limit.
        let until = now.checked_add(limit).unwrap_or(now + Duration::from_secs(u32::MAX.into()));
        Deadline { doing, limit, until }
    }

    /// Checks that the deadline has not passed.
    ///
    /// # Errors
    /// Fails if the deadline was before `now`.
    pub fn check(&self, now: Instant) -> Result<(), Late> {
        if now <= self.until { Ok(()) } else { Err(self.late()) }
    }

    pub fn late(&self) -> Late {
        Late { doing: self.doing, limit: self.limit }
    }
}
