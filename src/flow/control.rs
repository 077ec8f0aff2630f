//! What every kind of session shares: being ended from outside, and finding out that the client has
//! gone.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

use super::live::Entry;
use crate::edges::websocket::{Incoming, Receiver, Sender};
use crate::rules::close::End;

/// A session's ties to the outside.
#[derive(Debug)]
pub struct Control {
    /// Its entry in the table.
    pub entry: Rc<Entry>,
    /// When it ends at the latest.
    pub deadline: Instant,
    /// The client's pulse.
    pub pulse: Pulse,
}

impl Control {
    /// Returns when the session is to end for a reason that is not in its streams.
    pub async fn ended(&self) -> End {
        tokio::select! {
            end = self.entry.ended() => end,
            () = tokio::time::sleep_until(self.deadline) => End::TIME_OUT,
        }
    }

    /// Sends a ping whenever one is due and no other frame is on its way.
    pub async fn send_pings(&self, sender: &Mutex<&mut Sender>) -> End {
        loop {
            self.pulse.due().await;
            if let Ok(mut sender) = sender.try_lock()
                && let Err(end) = sender.ping().await
            {
                return end;
            }
        }
    }

    /// What a client sends next, which is nothing where it only shows that it lives. A ping is answered, unless
    /// another frame is on its way: that one, or the next, brings the answer.
    pub async fn hear<'a>(&self, receiver: &'a mut Receiver, sender: &Mutex<&mut Sender>) -> Result<&'a [u8], End> {
        let incoming = receiver.next().await?;
        self.pulse.alive();
        match incoming {
            Incoming::Data(bytes) => return Ok(bytes),
            Incoming::Asks => {
                if let Ok(mut sender) = sender.try_lock() {
                    sender.answer().await?;
                }
            }
            Incoming::Alive => {}
        }
        Ok(&[])
    }

    /// Counts bytes to the client.
    pub fn sent(&self, bytes: usize) {
        self.entry.out.set(self.entry.out.get() + bytes as u64);
        self.pulse.progress();
    }

    /// Counts bytes from the client.
    pub fn received(&self, bytes: usize) {
        self.entry.input.set(self.entry.input.get() + bytes as u64);
    }
}

/// Whether a client is still there: a ping each interval, and two unanswered ones end the session.
/// While a send waits for the client no ping can go out; then it lives for as long as it takes bytes.
#[derive(Debug)]
pub struct Pulse {
    interval: Duration,
    unanswered: Cell<u32>,
    progressed: Cell<bool>,
    deaf: Cell<bool>,
    due: Notify,
}

impl Pulse {
    /// A pulse with a ping each interval.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            unanswered: Cell::new(0),
            progressed: Cell::new(false),
            deaf: Cell::new(false),
            due: Notify::new(),
        }
    }

    /// Something came from the client.
    pub fn alive(&self) {
        self.unanswered.set(0);
    }

    /// The client took bytes.
    fn progress(&self) {
        self.progressed.set(true);
    }

    /// Waits for something that keeps us from reading the client, such as a guest that takes no input:
    /// what the client answers then stands behind what it has typed, and its silence says nothing.
    pub async fn while_deaf<T>(&self, waiting: impl Future<Output = T>) -> T {
        self.deaf.set(true);
        let result = waiting.await;
        self.deaf.set(false);
        result
    }

    /// Returns when a ping should be sent.
    pub async fn due(&self) {
        self.due.notified().await;
    }

    /// Runs for as long as the session; returns when the client is lost. `can_ping` tells whether a
    /// ping could be sent now, or a send is under way.
    pub async fn lost(&self, can_ping: impl Fn() -> bool) -> End {
        let mut tick = tokio::time::interval_at(Instant::now() + self.interval, self.interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let progressed = self.progressed.take();
            match can_ping() {
                false if progressed => {
                    self.unanswered.set(0);
                    continue;
                }
                true if self.deaf.get() => self.unanswered.set(0),
                _ => {}
            }
            if self.unanswered.get() >= 2 {
                return End::ClientLost;
            }
            self.unanswered.set(self.unanswered.get() + 1);
            self.due.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn two_unanswered_pings_end_the_session_at_the_third_interval() {
        let pulse = Pulse::new(INTERVAL);
        let start = Instant::now();
        assert_eq!(pulse.lost(|| true).await, End::ClientLost);
        assert_eq!(start.elapsed(), 3 * INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_starts_the_count_anew() {
        let pulse = Pulse::new(INTERVAL);
        let start = Instant::now();
        let answers_once = async {
            tokio::time::sleep(2 * INTERVAL + INTERVAL / 2).await;
            pulse.alive();
            std::future::pending::<()>().await;
        };
        tokio::select! { end = pulse.lost(|| true) => assert_eq!(end, End::ClientLost), () = answers_once => {} }
        assert_eq!(start.elapsed(), 5 * INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_that_still_takes_bytes_is_not_lost() {
        let pulse = Pulse::new(INTERVAL);
        let start = Instant::now();
        let takes_bytes = async {
            for _ in 0..10 {
                pulse.progress();
                tokio::time::sleep(INTERVAL).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! { _ = pulse.lost(|| false) => {}, () = takes_bytes => {} }
        assert!(start.elapsed() >= 12 * INTERVAL, "{:?}", start.elapsed());
    }
}
