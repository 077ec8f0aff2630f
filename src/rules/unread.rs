//! Whether a serial port is held by a proxy that does not read it, which freezes the guest at its next message. State
//! and clock in, decision out; times count from any fixed moment.
//!
//! A proxy reads within milliseconds, also while a guest talks without end. So what counts is for how much of the time
//! bytes have lain there for long: a byte that is read now and then, or a buffer now and then, helps nobody.

use std::collections::VecDeque;
use std::time::Duration;

/// A port that was held unread for this long, or for most of a longer time, is taken from its proxy.
pub const LIMIT: Duration = Duration::from_secs(10);
/// A byte that was read later than that was read late.
const LATE: Duration = Duration::from_secs(1);
/// So much time in which the port was read makes up for a time in which it was not.
const MAKES_UP: u32 = 2;

/// What is seen of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Bytes that have ever come, and those of them that lie unread: a TCP connection.
    Counted {
        /// All of them.
        received: u64,
        /// The unread ones.
        unread: u64,
    },
    /// Bytes that lie unread: a terminal, a unix socket. That some were read is seen where there are fewer than before.
    Level {
        /// So many.
        unread: u64,
    },
}

/// What one port's looks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is read.
    Read,
    /// It may be held: look again soon.
    Suspicious,
    /// It is held unread.
    Held,
}

/// One port under watch.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// What had come, and when, for [`LATE`] back.
    earlier: VecDeque<(Duration, u64)>,
    /// Where it is not counted: what was seen to be read, and what lay there at the last look.
    seen_read: u64,
    level: u64,
    last: Option<Duration>,
    held: Duration,
}

impl Watch {
    /// Enters a look.
    pub fn look(&mut self, now: Duration, look: Look) -> Finding {
        let since = self.last.map_or(Duration::ZERO, |last| now.saturating_sub(last));
        self.last = Some(now);
        let (received, unread) = match look {
            Look::Counted { received, unread } => (received, unread),
            Look::Level { unread } => {
                self.seen_read += self.level.saturating_sub(unread);
                self.level = unread;
                (self.seen_read + unread, unread)
            }
        };
        self.held = if self.is_late(now, received, unread) {
            self.held + since
        } else {
            self.held.saturating_sub(since * MAKES_UP)
        };
        match self.held {
            Duration::ZERO => Finding::Read,
            held if held < LIMIT => Finding::Suspicious,
            _ => Finding::Held,
        }
    }

    /// Whether something is still there that had come by the last look that is [`LATE`] ago.
    fn is_late(&mut self, now: Duration, received: u64, unread: u64) -> bool {
        let read = received.saturating_sub(unread);
        while self.earlier.get(1).is_some_and(|(time, _)| *time + LATE <= now) {
            self.earlier.pop_front();
        }
        let is_late = self.earlier.front().is_some_and(|(time, had_come)| *time + LATE <= now && read < *had_come);
        self.earlier.push_back((now, received));
        is_late
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FAST: Duration = Duration::from_millis(20);

    /// When the port is found held, looked at as the broker does, for two minutes.
    fn held_after(mut see: impl FnMut(Duration) -> Look) -> Option<Duration> {
        let (mut watch, mut now, mut soon) = (Watch::default(), Duration::ZERO, false);
        while now < Duration::from_secs(120) {
            soon = !soon;
            now += match watch.look(now, see(now)) {
                Finding::Held => return Some(now),
                Finding::Suspicious => FAST,
                Finding::Read if soon => Duration::from_secs(1),
                Finding::Read => Duration::from_secs(4),
            };
        }
        None
    }

    fn within(held: Option<Duration>, from: u64, to: u64) -> bool {
        held.is_some_and(|held| (from..to).contains(&held.as_secs()))
    }

    #[test]
    fn a_port_that_is_never_read_is_found_within_a_quarter_of_a_minute() {
        assert!(within(held_after(|_| Look::Counted { received: 9000, unread: 9000 }), 9, 16));
        assert!(within(held_after(|_| Look::Level { unread: 4095 }), 9, 16));
        assert!(within(held_after(|_| Look::Level { unread: 277 }), 9, 16));
    }

    #[test]
    fn one_byte_now_and_then_or_a_buffer_every_few_seconds_saves_nobody() {
        // A byte each 100 ms, and one more comes in its place.
        let trickle = |now: Duration| (now.as_millis() / 100) as u64;
        assert!(within(held_after(|now| Look::Counted { received: 9000 + trickle(now), unread: 9000 }), 9, 16));
        assert!(within(held_after(|now| Look::Level { unread: 4095 - trickle(now) % 2 }), 9, 16));
        // All of it each 4.7 s, which the guest fills at once.
        let buffers = |now: Duration| now.as_millis() as u64 / 4700;
        assert!(held_after(|now| Look::Counted { received: 9000 * (1 + buffers(now)), unread: 9000 }).is_some());
        // A unix socket takes nothing more before three quarters of it were read: it empties slowly.
        assert!(within(held_after(|now| Look::Level { unread: 277 - trickle(now) / 2 % 200 }), 9, 16));
        let level = |now: Duration| if now.as_millis() % 4700 < 100 { 0 } else { 4095 };
        assert!(held_after(|now| Look::Level { unread: level(now) }).is_some());
    }

    #[test]
    fn silence_is_not_held_and_neither_is_what_lies_there_for_a_moment() {
        assert_eq!(held_after(|_| Look::Counted { received: 9000, unread: 0 }), None);
        assert_eq!(held_after(|_| Look::Level { unread: 0 }), None);
        // A stop of the whole host for 5 s, each half a minute.
        let stops = |now: Duration| u64::from(now.as_secs() % 30 < 5);
        assert_eq!(held_after(|now| Look::Counted { received: 9000, unread: stops(now) * 9000 }), None);
        assert_eq!(held_after(|now| Look::Level { unread: stops(now) * 4095 }), None);
    }

    proptest! {
        /// A guest that talks without end, and a proxy that reads within a second: how full the port is when it is looked
        /// at is chance, full up to nine times in ten.
        #[test]
        fn a_proxy_that_reads_a_flood_is_never_hit(levels in proptest::collection::vec(0_u64..10, 6100), rate in 1_u64..100_000) {
            let mut looks = levels.into_iter().cycle();
            prop_assert_eq!(held_after(|_| Look::Level { unread: looks.next().unwrap().min(1) * 4095 }), None);
            prop_assert_eq!(held_after(|now| {
                let received = rate * now.as_millis() as u64;
                Look::Counted { received, unread: received.min(rate * 900) }
            }), None);
        }
    }
}
