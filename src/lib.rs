//! An encrypted port per libvirt guest for HTML5 clients.
//!
//! Layers, each of which knows only those below: `programs` (what a binary does), `flow` (connections
//! and sessions), `edges` (one outside thing each), `rules` (pure). The words are those of
//! `docs/architecture.md`.

pub mod edges;
pub mod flow;
pub mod programs;
pub mod rules;
