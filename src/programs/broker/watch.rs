//! Looks after the serial ports that proxies were lent. One that is held unread freezes its guest; a proxy that does that
//! is ended, as the watchdog ends one that does not answer at all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::edges::paths::Paths;
use crate::edges::unread::Port;
use crate::edges::{terminal, units};
use crate::rules::guest::{Console, Uuid};
use crate::rules::unread::{Finding, Watch};

/// Between two looks at ports that are read: two a second apart, and then a longer while.
const APART: Duration = Duration::from_secs(1);
const WHILE: Duration = Duration::from_secs(4);
/// Between two looks as long as a port may be held.
const CLOSELY: Duration = Duration::from_millis(20);

/// The ports, for all channels' threads.
#[derive(Clone, Debug, Default)]
pub(super) struct Watches(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    ports: Mutex<Vec<Weak<Watched>>>,
    more: Condvar,
}

/// One port under watch, for as long as this is kept.
#[derive(Debug)]
pub(super) struct Watched {
    guest: Uuid,
    console: Console,
    port: Port,
    state: Mutex<Watch>,
    /// The proxy says that it has closed it.
    is_given_back: AtomicBool,
}

impl Watched {
    /// The proxy says that it has closed the port: now it has. A terminal's descriptor cannot be cut off; where the proxy
    /// may still have one, this goes on watching.
    pub(super) fn give_back(self: Arc<Self>) -> Option<Arc<Self>> {
        self.port.cut();
        self.is_given_back.store(true, Ordering::Relaxed);
        self.port.terminal().is_some().then_some(self)
    }

    pub(super) fn is_the_port_of(&self, other: &Self) -> bool {
        self.port.terminal() == other.port.terminal()
    }

    fn look(&self, paths: &Paths, now: Duration) -> Option<Finding> {
        // Somebody else's by now: whether that one reads is no fault of the proxy's.
        let is_anothers = |number| terminal::living_holder(paths, number).is_some();
        if self.is_given_back.load(Ordering::Relaxed) && self.port.terminal().is_some_and(is_anothers) {
            return None;
        }
        let look = self.port.look().ok()?;
        Some(self.state.lock().unwrap_or_else(PoisonError::into_inner).look(now, look))
    }

    /// Ends the proxy, and everything else in its unit.
    fn end(&self) {
        let (guest, console) = (&self.guest, self.console);
        tracing::error!(
            guest = %guest, console = %console,
            "the proxy of {guest} holds {console} and does not read it, which freezes the guest: its unit is killed"
        );
        self.port.cut();
        let unit = units::service_of(guest);
        // The system manager may be busy for longer than another port can wait.
        std::thread::spawn(move || {
            if let Err(why) = units::kill(&unit) {
                tracing::error!("{unit} cannot be killed: {why:#}");
            }
        });
    }
}

impl Watches {
    /// Watches a port.
    pub(super) fn watch(&self, guest: &Uuid, console: Console, port: Port) -> Arc<Watched> {
        let (state, is_given_back) = (Mutex::default(), AtomicBool::new(false));
        let watched = Arc::new(Watched { guest: guest.clone(), console, port, state, is_given_back });
        self.ports().push(Arc::downgrade(&watched));
        self.0.more.notify_one();
        watched
    }

    /// Looks, for as long as the broker runs; not at all while nothing is lent.
    pub(super) fn run(&self, paths: &Paths) {
        let began = Instant::now();
        let mut apart = false;
        loop {
            let ports = self.living();
            let mut closely = false;
            for port in ports {
                match port.look(paths, began.elapsed()) {
                    Some(Finding::Held) => {
                        port.end();
                        // Once; the next channel's ports are others.
                        self.ports().retain(|other| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(&port)));
                    }
                    Some(Finding::Suspicious) => closely = true,
                    Some(Finding::Read) | None => {}
                }
            }
            apart = !apart;
            // Nobody can read in step with it.
            let odd = Duration::from_millis(u64::from(began.elapsed().subsec_micros() % 1000));
            std::thread::sleep(if closely {
                CLOSELY
            } else if apart {
                APART
            } else {
                WHILE + odd
            });
        }
    }

    /// What is lent; waits until something is.
    fn living(&self) -> Vec<Arc<Watched>> {
        let mut ports = self.ports();
        loop {
            ports.retain(|port| port.strong_count() > 0);
            if !ports.is_empty() {
                return ports.iter().filter_map(Weak::upgrade).collect();
            }
            ports = self.0.more.wait(ports).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn ports(&self) -> MutexGuard<'_, Vec<Weak<Watched>>> {
        self.0.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
