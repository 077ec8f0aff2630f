//! A channel to the broker as a proxy has one, for programs in a proxy's place.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use console_proxy::edges::{caller, passing};
use console_proxy::rules::broker::{Answer, Told, VERSION};
use rustix::event::PollFlags;

pub const BROKER: &str = "/run/console-proxy/broker/socket";

pub struct Channel {
    pub socket: OwnedFd,
    turn: u32,
    last_id: u32,
}

impl Channel {
    /// Connects and is greeted; an error is what the broker or the kernel said.
    pub fn open() -> Result<Self, String> {
        let socket = Self::knock()?;
        let mut channel = Self { socket, turn: 0, last_id: 0 };
        match channel.hear(Duration::from_secs(20))?.0 {
            Told::Greeting { turn, .. } => channel.turn = turn,
            other => return Err(serde_json::to_string(&other).unwrap()),
        }
        Ok(channel)
    }

    /// Connects and says hello.
    pub fn knock() -> Result<OwnedFd, String> {
        let socket = passing::connect(Path::new(BROKER)).map_err(|why| why.to_string())?;
        // Whoever is refused may have the answer before this has gone out.
        let _ = passing::send(&socket, format!("{{\"hello\":{{\"version\":{VERSION}}}}}").as_bytes(), &[]);
        Ok(socket)
    }

    /// Sends a request without waiting for its answer; `console` may be empty.
    pub fn send(&mut self, guest: &str, console: &str, part: &str) -> Result<u32, String> {
        self.last_id += 1;
        let console = if console.is_empty() { String::new() } else { format!("\"console\":\"{console}\",") };
        let request = format!(
            "{{\"ask\":{{\"id\":{},\"turn\":{},\"guest\":\"{guest}\",{console}\"part\":\"{part}\"}}}}",
            self.last_id, self.turn
        );
        passing::send(&self.socket, request.as_bytes(), &[]).map_err(|why| why.to_string())?;
        Ok(self.last_id)
    }

    /// Asks, and waits: the descriptors where it was granted, the broker's own words where not.
    pub fn ask(&mut self, guest: &str, console: &str, part: &str) -> Result<Vec<OwnedFd>, String> {
        self.send(guest, console, part)?;
        match self.hear(Duration::from_secs(20))? {
            (Told::Answer(Answer { refusal: None, .. }), descriptors) => Ok(descriptors),
            (other, _) => Err(serde_json::to_string(&other).unwrap()),
        }
    }

    /// The next message.
    pub fn hear(&mut self, patience: Duration) -> Result<(Told, Vec<OwnedFd>), String> {
        let words = |why: std::io::Error| why.to_string();
        if !caller::wait(self.socket.as_fd(), PollFlags::IN, patience).map_err(words)? {
            return Err("the broker says nothing".to_owned());
        }
        let (message, descriptors) = passing::take(&self.socket).map_err(words)?.ok_or("the broker has hung up")?;
        let told = serde_json::from_slice(&message).map_err(|why| why.to_string())?;
        Ok((told, descriptors))
    }

    /// Says that a console is given back.
    pub fn release(&self, id: u32, console: &str) {
        let message = format!("{{\"release\":{{\"id\":{id},\"console\":\"{console}\"}}}}");
        let _ = passing::send(&self.socket, message.as_bytes(), &[]);
    }
}
