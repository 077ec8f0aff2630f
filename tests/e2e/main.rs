//! The end-to-end suite. It runs inside a scratch host in which the package was installed; `make e2e` builds it,
//! boots the host and runs it there. One test after the other: they share the host.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
// Its modules are the suite's own: `pub` in them is for the others of them.
#![allow(missing_docs, unreachable_pub)]

mod audit;
mod auth;
mod broker;
mod channel;
mod displays;
mod doctor;
mod faults;
mod front;
mod guard;
mod history;
mod hook;
mod host;
mod hostile;
mod keys;
mod ldap;
mod limits;
mod locks;
mod owners;
mod package;
mod reboot;
mod recording;
mod rights;
mod secrets;
mod spice;
mod storms;
mod terminal;
mod units;
mod unread;
mod user;
mod view;
mod wiring;
mod ws;
