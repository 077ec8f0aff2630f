//! `console-proxy display`: what the broker starts for a display that libvirt alone connects to. A program of its own,
//! as libvirt's library costs ten milliseconds at the start and cannot be told to give up.

use anyhow::{Context, Result};

use crate::edges::displays;
use crate::edges::libvirt::{Libvirt, LibvirtError};
use crate::rules::broker::{Kind, Refusal};
use crate::rules::guest::Uuid;

/// Answers on standard input, which is a socket: the descriptor, or why there is none.
pub fn run(guest: &Uuid, index: u32) -> Result<()> {
    let opened = Libvirt::open().and_then(|libvirt| libvirt.guest(guest)?.open_display(index));
    displays::answer(opened.map_err(|why| refusal(index, &why))).context("the broker does not take the answer")
}

fn refusal(index: u32, why: &LibvirtError) -> Refusal {
    let kind = match why {
        LibvirtError::NoSuchGuest(_) => Kind::Unknown,
        LibvirtError::Busy(_) => Kind::Silent,
        _ => Kind::Refused,
    };
    Refusal::new(kind, format!("display:{index}: {why}"))
}
