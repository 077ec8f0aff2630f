//! What one proxy has been lent: its text consoles, each with libvirt's lock where it has one, and under watch.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::watch::Watched;
use crate::edges::terminal;
use crate::rules::guest::Console;

/// The text consoles that one proxy has, for its channel's threads.
#[derive(Clone, Debug, Default)]
pub(super) struct Lent(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    loans: Vec<Loan>,
    /// Terminals that it says it has closed.
    given_back: Vec<Arc<Watched>>,
    has_ended: bool,
}

/// One of them; dropped, it is given back.
#[derive(Debug)]
pub(super) struct Loan {
    /// The request that was granted; of an earlier broker's it is not known any more.
    pub(super) id: Option<u32>,
    /// The console; of a lock that the guest's route does not explain it is not known.
    pub(super) console: Option<Console>,
    /// libvirt's lock.
    #[allow(dead_code, reason = "held, and given back by being dropped")]
    pub(super) lock: Option<terminal::Lock>,
    /// That it is read.
    pub(super) watched: Option<Arc<Watched>>,
}

impl Lent {
    /// Enters one. Where the proxy has gone meanwhile it is given back at once.
    pub(super) fn enter(&self, loan: Loan) {
        let mut state = self.state();
        state.loans.push(loan);
        if state.has_ended {
            state.give_back(|_| true);
        }
    }

    /// Gives back what was lent for a request; of what an earlier broker lent, that console.
    pub(super) fn release(&self, id: u32, console: Console) {
        self.state().give_back(|loan| match loan.id {
            Some(of) => of == id,
            None => loan.console == Some(console),
        });
    }

    /// Gives back a console, whoever has lent it: the proxy asks for it anew, so it has it no more.
    pub(super) fn give_back(&self, console: Console) {
        self.state().give_back(|loan| loan.console == Some(console));
    }

    /// Gives back all, and whatever is entered later.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.has_ended = true;
        state.give_back(|_| true);
        state.given_back.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn give_back(&mut self, is_meant: impl Fn(&Loan) -> bool) {
        for loan in self.loans.extract_if(.., |loan| is_meant(loan)) {
            // First the port, then its lock.
            let watched = loan.watched.and_then(Watched::give_back);
            self.given_back.retain(|other| watched.as_ref().is_none_or(|watched| !watched.is_the_port_of(other)));
            self.given_back.extend(watched.filter(|_| !self.has_ended));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loan(id: Option<u32>, console: &str) -> Loan {
        Loan { id, console: Some(console.parse().unwrap()), lock: None, watched: None }
    }

    fn consoles(lent: &Lent) -> Vec<String> {
        lent.state().loans.iter().map(|loan| loan.console.unwrap().to_string()).collect()
    }

    #[test]
    fn a_console_is_given_back_by_its_own_request_by_being_asked_for_anew_and_by_the_end() {
        let lent = Lent::default();
        lent.enter(loan(Some(1), "serial/0"));
        lent.enter(loan(Some(2), "serial/1"));
        lent.enter(loan(None, "serial/2"));
        lent.release(1, "serial/1".parse().unwrap());
        assert_eq!(consoles(&lent), ["serial/1", "serial/2"], "its id says which");
        lent.release(99, "serial/2".parse().unwrap());
        assert_eq!(consoles(&lent), ["serial/1"], "an earlier broker's has none");
        lent.give_back("serial/1".parse().unwrap());
        lent.enter(loan(Some(3), "serial/1"));
        lent.release(2, "serial/1".parse().unwrap());
        assert_eq!(consoles(&lent), ["serial/1"], "an answer that came too late releases no newer loan");
        lent.end();
        lent.enter(loan(Some(4), "serial/1"));
        assert!(consoles(&lent).is_empty());
    }
}
