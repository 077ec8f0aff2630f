//! One outside thing each, known by one module alone.

pub mod backends;
pub mod broker;
pub mod broker_server;
pub mod claims;
pub mod files;
pub mod host;
pub mod http;
pub mod issuers;
pub mod journal;
pub mod keys;
pub mod libvirt;
pub mod line;
pub mod nft;
pub mod paths;
pub mod ports;
pub mod publish;
<<<<<<< HEAD
pub mod read_ahead;
=======
pub mod recordings;
>>>>>>> term
pub mod sessions;
pub mod slots;
pub mod ssh;
pub mod systemd;
pub mod terminal;
pub mod tls;
pub mod tty;
pub mod units;
pub mod unwired;
pub mod websocket;
