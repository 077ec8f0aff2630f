//! Connections and sessions: what happens between an accepted socket and a guest's console.

pub mod attach;
mod audit;
pub mod control;
pub mod display;
pub mod entry;
pub mod forward;
pub mod guest;
pub mod hub;
mod identity;
mod limits;
pub mod live;
pub mod logged;
mod login;
mod page;
pub mod past;
pub mod recorder;
mod refused;
pub mod serial;
pub mod server;
mod session;
mod spice;
mod standing;
#[cfg(test)]
mod testing;
mod upgrade;
