//! How often something may happen: a number at once, and then so many a second. Clock in, decision out; times count from
//! any fixed moment.

use std::time::Duration;

/// Tokens: one is taken each time, and they come back with time.
#[derive(Clone, Debug)]
pub struct Bucket {
    room: u32,
    a_token: Duration,
    /// When it will be full, or was.
    full_at: Duration,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn new(room: u32, a_second: u32) -> Self {
        Self { room, a_token: Duration::from_secs(1) / a_second, full_at: Duration::ZERO }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Duration) -> bool {
        let full_at = self.full_at.max(now) + self.a_token;
        let fits = full_at <= now + self.a_token * self.room;
        if fits {
            self.full_at = full_at;
        }
        fits
    }

    /// Takes a token that may still be missing; how long until it is there.
    pub fn wait(&mut self, now: Duration) -> Duration {
        self.full_at = self.full_at.max(now) + self.a_token;
        self.full_at.saturating_sub(now + self.a_token * self.room)
    }

    /// Whether nothing is missing.
    #[must_use]
    pub fn is_full(&self, now: Duration) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn so_many_come_at_once_and_then_so_many_a_second() {
        let mut bucket = Bucket::new(3, 2);
        let taken: Vec<_> =
            [0, 0, 0, 0, 499, 500, 501, 2000, 2000, 2000, 2000, 9000].map(|t| bucket.take(at(t))).into();
        let yes = true;
        assert_eq!(taken, [yes, yes, yes, false, false, yes, false, yes, yes, yes, false, yes]);
        assert!(!bucket.is_full(at(9000)) && bucket.is_full(at(9500)));
    }

    #[test]
    fn who_waits_gets_a_token_in_turn() {
        let mut bucket = Bucket::new(2, 10);
        let waits: Vec<_> = [0, 0, 0, 0, 200, 5000].map(|t| bucket.wait(at(t)).as_millis()).into();
        assert_eq!(waits, [0, 0, 100, 200, 100, 0]);
    }
}
