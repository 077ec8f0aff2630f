//! When a serial port is read. QEMU writes a few bytes at a time; reading each at once costs a wake-up,
//! a read, a TLS record and a write per byte. So the first byte is read at once, and after each read the
//! port is left alone for a moment: the kernel gathers for nothing. What a key brings back is not held.
//!
//! State and clock in, decision out: knows no port and no timer. Times count from any fixed moment of a
//! clock that never goes back.

use std::time::Duration;

/// For how long after a key everything is read at once: a guest's terminal echoes it within that time.
const ECHO: Duration = Duration::from_millis(3);
/// For how long after a key its answer is looked out for: a guest's shell answers within a few
/// milliseconds, under QEMU's emulation within ten.
const ANSWER: Duration = Duration::from_millis(20);
/// The pause while an answer is looked out for. Timers have no finer grain.
const SHORT: Duration = Duration::from_millis(1);

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Read, without waiting.
    Read,
    /// Read at this time, and not before.
    At(Duration),
    /// Wait until there is something, with no timer, then read.
    WhenReadable,
}

/// The policy for one port.
#[derive(Debug)]
pub struct Gather {
    longest: Duration,
    room: usize,
    pause: Duration,
    next: Next,
    typed: Option<Duration>,
}

impl Gather {
    /// A policy that leaves the port alone for at most `longest`, which is also the most that any byte
    /// is held; `room` is how many bytes the kernel keeps for the port before its writer has to wait.
    #[must_use]
    pub fn new(longest: Duration, room: usize) -> Self {
        Self { longest, room, pause: longest, next: Next::WhenReadable, typed: None }
    }

    /// What to do next.
    #[must_use]
    pub fn next(&self) -> Next {
        self.next
    }

    /// Bytes were read: there may be more soon.
    pub fn read(&mut self, now: Duration, bytes: usize) {
        // A guest must not wait for us: half of the kernel's room is what a pause may fill.
        if bytes >= self.room / 2 {
            self.pause /= 2;
        } else if bytes < self.room / 8 {
            self.pause = (self.pause * 2).clamp(SHORT, self.longest.max(SHORT));
        }
        let since = self.typed.map_or(ANSWER, |typed| now.saturating_sub(typed));
        let pause = if since < ANSWER { self.pause.min(SHORT) } else { self.pause };
        let pause = pause.min(self.longest);
        self.next = match pause {
            _ if since < ECHO => Next::WhenReadable,
            pause if pause < SHORT => Next::Read,
            pause => Next::At(now + pause),
        };
    }

    /// There was nothing to read.
    pub fn found_nothing(&mut self) {
        self.pause = self.longest;
        self.next = Next::WhenReadable;
    }

    /// Something was typed: what comes next may be its answer.
    pub fn typed(&mut self, now: Duration) {
        self.typed = Some(now);
        if matches!(self.next, Next::At(_)) {
            self.next = Next::Read;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LONGEST: Duration = Duration::from_millis(8);
    const ROOM: usize = 4096;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn at(time: u64) -> Next {
        Next::At(ms(time))
    }

    #[test]
    fn the_first_byte_is_read_at_once_and_the_next_ones_after_a_pause() {
        let mut gather = Gather::new(LONGEST, ROOM);
        assert_eq!(gather.next(), Next::WhenReadable);
        gather.read(ms(1000), 1);
        assert_eq!(gather.next(), at(1008));
        gather.read(ms(1008), 90);
        assert_eq!(gather.next(), at(1016));
        gather.found_nothing();
        assert_eq!(gather.next(), Next::WhenReadable, "no timer runs while the guest is silent");
    }

    #[test]
    fn a_key_ends_the_pause_and_its_answer_is_looked_out_for() {
        let mut gather = Gather::new(LONGEST, ROOM);
        gather.read(ms(1000), 10);
        gather.typed(ms(1003));
        assert_eq!(gather.next(), Next::Read);
        for time in [1003, 1004, 1005] {
            gather.read(ms(time), 40);
            assert_eq!(gather.next(), Next::WhenReadable, "output that was under way is no answer yet");
        }
        gather.read(ms(1006), 40);
        assert_eq!(gather.next(), at(1007));
        gather.read(ms(1022), 40);
        assert_eq!(gather.next(), at(1023));
        gather.read(ms(1023), 40);
        assert_eq!(gather.next(), at(1031), "that was long enough");
    }

    #[test]
    fn a_key_while_the_guest_is_silent_starts_no_timer() {
        let mut gather = Gather::new(LONGEST, ROOM);
        gather.typed(ms(5));
        assert_eq!(gather.next(), Next::WhenReadable);
    }

    #[test]
    fn a_guest_that_fills_the_kernels_room_is_read_sooner_and_in_the_end_without_a_pause() {
        let mut gather = Gather::new(LONGEST, ROOM);
        for expected in [at(4), at(2), at(1), Next::Read, Next::Read] {
            gather.read(Duration::ZERO, ROOM);
            assert_eq!(gather.next(), expected);
        }
        for expected in [Next::Read, at(1), at(2), at(4), at(8), at(8)] {
            gather.read(Duration::ZERO, if expected == Next::Read { ROOM / 4 } else { 1 });
            assert_eq!(gather.next(), expected);
        }
    }

    #[test]
    fn without_a_pause_everything_is_read_at_once() {
        let mut gather = Gather::new(Duration::ZERO, ROOM);
        gather.read(ms(1), 1);
        assert_eq!(gather.next(), Next::Read);
        gather.typed(ms(2));
        gather.read(ms(5), 1);
        assert_eq!(gather.next(), Next::Read);
    }

    #[derive(Clone, Debug)]
    enum Event {
        Arrives(usize),
        Typed,
        Passes(u64),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            3 => (1usize..6000).prop_map(Event::Arrives),
            1 => Just(Event::Typed),
            3 => (0u64..30).prop_map(Event::Passes),
        ];
        prop::collection::vec(event, 0..200)
    }

    proptest! {
        /// A port in small: bytes arrive, time passes a millisecond at a time, and the policy is obeyed.
        #[test]
        fn no_byte_is_held_longer_than_the_bound_and_no_timer_outlives_the_output(events in events(), longest in 0u64..20) {
            let mut gather = Gather::new(ms(longest), ROOM);
            let (mut now, mut waiting, mut oldest) = (0u64, 0usize, None);
            let obey = |gather: &mut Gather, now: u64, waiting: &mut usize, oldest: &mut Option<u64>| {
                for _ in 0..10_000 {
                    match gather.next() {
                        Next::At(time) if ms(now) < time => {
                            prop_assert!(time <= ms(now + longest));
                            return Ok(());
                        }
                        Next::WhenReadable if *waiting == 0 => return Ok(()),
                        _ if *waiting == 0 => gather.found_nothing(),
                        _ => {
                            let n = (*waiting).min(16384);
                            *waiting -= n;
                            gather.read(ms(now), n);
                            *oldest = (*waiting > 0).then_some(now);
                        }
                    }
                }
                prop_assert!(false, "it never comes to rest");
                Ok(())
            };
            for event in events {
                match event {
                    Event::Arrives(n) => {
                        waiting += n;
                        oldest.get_or_insert(now);
                    }
                    Event::Typed => gather.typed(ms(now)),
                    Event::Passes(span) => for _ in 0..span {
                        obey(&mut gather, now, &mut waiting, &mut oldest)?;
                        now += 1;
                    },
                }
                obey(&mut gather, now, &mut waiting, &mut oldest)?;
                prop_assert!(oldest.is_none_or(|since| now - since <= longest), "held since {oldest:?}, now {now}");
            }
            for _ in 0..=4 * longest {
                now += 1;
                obey(&mut gather, now, &mut waiting, &mut oldest)?;
            }
            prop_assert_eq!((gather.next(), waiting), (Next::WhenReadable, 0));
        }

        #[test]
        fn while_output_keeps_coming_reads_are_a_pause_apart(chunks in prop::collection::vec(1usize..500, 1..50)) {
            let mut gather = Gather::new(LONGEST, ROOM);
            let mut now = ms(77);
            for n in chunks {
                gather.read(now, n);
                prop_assert_eq!(gather.next(), Next::At(now + LONGEST));
                now += LONGEST;
            }
        }
    }
}
