//! The real proxy binary, as systemd starts it and as a person does, with made-up guests: no libvirt, no systemd.
//!
//! `host` is a made-up host and the proxy's process on it, `backends` what its guest's consoles lead to, `client` a
//! client that can do what no library's client does. The tests are in the other modules.

#![allow(missing_docs, reason = "tests are sentences")]
#![allow(unreachable_pub, reason = "nobody else reads this crate")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod audit;
mod backends;
mod client;
mod console;
mod host;
mod terminal;

mod clock;
mod embedded;
mod ends;
mod faults;
mod frames;
mod front;
mod guest;
mod headers;
mod history;
mod issuers;
mod limits;
mod login;
mod native;
mod page;
mod process;
mod recording;
mod refusals;
mod replay;
mod requests;
mod serial;
mod sessions;
mod spice;
mod tickets;
mod view;
