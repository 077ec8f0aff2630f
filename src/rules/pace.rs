//! Whether a serial port's log keeps up with the port itself. The port is drained all along: what it
//! says is not shown, but it is the sign that the log is about to grow, and the proof that it should
//! have. State and clock in, decision out; times count from any fixed moment.

use std::time::Duration;

/// The first look after the port spoke and the log had nothing yet; each next one after twice that time.
const FIRST: Duration = Duration::from_millis(1);
/// The last look: who writes the log needs less than that.
const LAST: Duration = Duration::from_millis(512);
/// A log that is behind for so long may have been renamed: its files are looked for anew.
const RENAMED: Duration = Duration::from_millis(4);
/// A log that is behind and did not grow for so long is given up.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// What to do when the log has nothing new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing is due: wait until the port speaks.
    WhenReadable,
    /// Look into the log at this time.
    At(Duration),
    /// Look for its files anew, then go on.
    Refresh,
    /// It is given up.
    GiveUp,
}

/// The state of one port and its log.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// Bytes that the port said and the log does not have yet.
    behind: u64,
    /// Something is awaited of the log: the port spoke, or the log grew.
    awaiting: bool,
    /// The log did not grow since then.
    step: Option<Duration>,
    refreshed: Option<Duration>,
    /// Since when the log is behind and has not grown.
    stuck: Option<Duration>,
}

impl Pace {
    /// The port said something.
    pub fn spoke(&mut self, now: Duration, bytes: usize) {
        self.behind += bytes as u64;
        self.awaiting = true;
        self.step = None;
        self.stuck.get_or_insert(now);
    }

    /// The log grew. It may be ahead: what was said while nobody drained the port is in the log alone.
    pub fn logged(&mut self, now: Duration, bytes: usize) {
        self.behind = self.behind.saturating_sub(bytes as u64);
        self.refreshed = None;
        self.step = None;
        self.stuck = (self.behind > 0).then_some(now);
        // Once more even where it is not behind: it may have been ahead before.
        self.awaiting = true;
    }

    /// How many bytes the log lacks.
    #[must_use]
    pub fn behind(&self) -> u64 {
        self.behind
    }

    /// What to do, the log having nothing new at `now`.
    pub fn next(&mut self, now: Duration) -> Next {
        if !self.awaiting {
            return Next::WhenReadable;
        }
        let stuck = self.stuck.filter(|_| self.behind > 0);
        let over = stuck.map(|stuck| stuck + PATIENCE);
        if let Some(stuck) = stuck {
            if now >= stuck + PATIENCE {
                return Next::GiveUp;
            }
            // Often at first, as a renaming takes no time, and then ever less.
            let due = self.refreshed.map_or(stuck + RENAMED, |last| last + last.saturating_sub(stuck).max(RENAMED));
            if now >= due {
                self.refreshed = Some(now);
                return Next::Refresh;
            }
        }
        let step = self.step.map_or(FIRST, |step| step * 2);
        match over {
            Some(over) => {
                self.step = Some(step.min(LAST));
                Next::At((now + step).min(over))
            }
            None if step > LAST => {
                self.awaiting = false;
                Next::WhenReadable
            }
            None => {
                self.step = Some(step);
                Next::At(now + step)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Does what is decided from `now` on, with a log that never grows; when each look was, and its end.
    fn follow(pace: &mut Pace, mut now: Duration) -> (Vec<u128>, usize, Next) {
        let (mut looks, mut refreshed) = (Vec::new(), 0);
        loop {
            match pace.next(now) {
                Next::At(time) => {
                    assert!(time > now);
                    now = time;
                    looks.push(now.as_millis());
                }
                Next::Refresh => refreshed += 1,
                end => return (looks, refreshed, end),
            }
        }
    }

    #[test]
    fn nothing_is_done_where_nothing_was_said() {
        assert_eq!(Pace::default().next(ms(5)), Next::WhenReadable);
    }

    #[test]
    fn a_log_that_does_not_grow_is_looked_for_and_given_up_after_a_second() {
        let mut pace = Pace::default();
        pace.spoke(ms(1000), 10);
        let (looks, refreshed, end) = follow(&mut pace, ms(1000));
        assert_eq!(end, Next::GiveUp);
        assert_eq!(looks, [1001, 1003, 1007, 1015, 1031, 1063, 1127, 1255, 1511, 2000]);
        assert!((3..10).contains(&refreshed), "{refreshed}");
        assert_eq!(pace.behind(), 10);
    }

    #[test]
    fn one_that_keeps_up_is_looked_at_for_half_a_second_more_and_then_left_alone() {
        let mut pace = Pace::default();
        pace.spoke(ms(0), 10);
        pace.logged(ms(1), 10);
        let (looks, refreshed, end) = follow(&mut pace, ms(1));
        assert_eq!((looks.len(), refreshed, end), (10, 0, Next::WhenReadable));
        assert_eq!(pace.next(ms(5000)), Next::WhenReadable);
    }

    #[test]
    fn a_log_that_was_ahead_does_not_hide_that_it_stands_still_later() {
        let mut pace = Pace::default();
        pace.logged(ms(0), 1_000_000);
        pace.spoke(ms(10), 1);
        assert_eq!(follow(&mut pace, ms(10)).2, Next::GiveUp);
    }

    #[test]
    fn a_guest_that_talks_without_end_does_not_keep_a_log_that_stands_still() {
        let mut pace = Pace::default();
        let mut now = ms(0);
        while now < PATIENCE + ms(10) {
            pace.spoke(now, 100);
            if pace.next(now) == Next::GiveUp {
                break;
            }
            now += ms(8);
        }
        assert!((PATIENCE..PATIENCE + ms(9)).contains(&now), "{now:?}");
    }

    #[test]
    fn a_slow_log_that_grows_now_and_then_is_not_given_up() {
        let mut pace = Pace::default();
        pace.spoke(ms(0), 1_000_000);
        for turn in 1..100 {
            let now = ms(turn * 900);
            assert_ne!(pace.next(now), Next::GiveUp, "{turn}");
            pace.logged(now, 10);
        }
    }

    proptest! {
        /// Whatever happened: without a word more it comes to rest or gives up, within bounds.
        #[test]
        fn it_always_comes_to_an_end(events in prop::collection::vec((0u64..2000, any::<bool>(), 0usize..1000), 0..40)) {
            let (mut pace, mut now) = (Pace::default(), ms(0));
            for (wait, spoke, bytes) in events {
                now += ms(wait);
                if spoke { pace.spoke(now, bytes) } else { pace.logged(now, bytes) }
                let _ = pace.next(now);
            }
            let behind = pace.behind();
            let (looks, refreshed, end) = follow(&mut pace, now);
            prop_assert!(looks.len() <= 12 && refreshed <= 12);
            prop_assert_eq!(end == Next::GiveUp, behind > 0);
        }
    }
}
