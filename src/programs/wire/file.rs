//! `--xml FILE`: a definition in a file, without libvirt. Nothing is reserved.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::Part;
use crate::edges::paths::Paths;
use crate::edges::{files, slots};
use crate::rules::config::{Config, History, SerialAdd, SerialExisting, VncWebsocket};
use crate::rules::domain::Domain;
use crate::rules::ports::Slot;
use crate::rules::wiring::{self, CannotWire, Settings, Wired};
use crate::rules::{diff, xml};

pub(super) fn wire(
    paths: &Paths,
    path: &Path,
    slot: Option<Slot>,
    without: &[Part],
    dry_run: bool,
    out: &mut dyn Write,
) -> Result<()> {
    let text = read(path)?;
    let mut config = files::config(paths)?;
    leave_out(&mut config, without);
    let vnc_listen = super::guest::vnc_listen(paths)?;
    let settings = Settings { config: &config, vnc_listen: &vnc_listen };
    let slot = match slot {
        Some(slot) => Some(slot),
        None => its_own(paths, &text)?,
    };
    let wired = match wiring::wire(&text, settings, slot) {
        Err(CannotWire::SlotNeeded) => {
            bail!("{}: the guest gets a port of its host and has no slot on this one: say --slot N", path.display())
        }
        wired => wired.with_context(|| path.display().to_string())?,
    };
    print(path, &text, &wired, dry_run, out)
}

pub(super) fn unwire(path: &Path, dry_run: bool, out: &mut dyn Write) -> Result<()> {
    let text = read(path)?;
    let unwired = wiring::unwire(&text).with_context(|| path.display().to_string())?;
    print(path, &text, &unwired, dry_run, out)
}

fn leave_out(config: &mut Config, without: &[Part]) {
    for part in without {
        match part {
            Part::Websocket => config.vnc.websocket = VncWebsocket::Use,
            Part::Serial => {
                (config.serial.add, config.serial.existing) = (SerialAdd::Never, SerialExisting::Keep);
            }
            Part::History => config.serial.history = History::Off,
        }
    }
}

/// The slot that the guest has on this host already, if any.
fn its_own(paths: &Paths, text: &str) -> Result<Option<Slot>> {
    // What is wrong with the text is said by wiring.
    let Ok(domain) = Domain::parse(text) else { return Ok(None) };
    Ok(slots::load(paths)?.slot_of(&domain.uuid))
}

/// The text as it is, byte for byte.
fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    let limit = xml::LARGEST as u64 + 1;
    let result = if path.as_os_str() == "-" {
        std::io::stdin().take(limit).read_to_string(&mut text)
    } else {
        File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text))
    };
    result.with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text)
}

/// The result on standard output, what was left and why on standard error.
fn print(path: &Path, before: &str, after: &Wired, dry_run: bool, out: &mut dyn Write) -> Result<()> {
    for why in &after.left {
        writeln!(std::io::stderr(), "{}: {why}", path.display()).context("cannot print")?;
    }
    let name = path.display().to_string();
    let diff;
    let bytes = if dry_run {
        diff = diff::unified(&name, before, &format!("{name} then"), &after.text);
        diff.as_bytes()
    } else {
        after.text.as_bytes()
    };
    out.write_all(bytes).context("cannot print")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: &str = "<domain><name>g</name><uuid>b50bdc9f-490b-4b9b-8641-7573c0eba77c</uuid><devices>\n <graphics type='vnc'/>\n</devices></domain>\n";

    fn wired(paths: &Paths, slot: Option<Slot>, without: &[Part]) -> Result<String> {
        let path = paths.root().join("guest.xml");
        std::fs::write(&path, GUEST).unwrap();
        let mut out = Vec::new();
        wire(paths, &path, slot, without, false, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn host(config: &str) -> (tempfile::TempDir, Paths) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        std::fs::create_dir_all(paths.config().parent().unwrap()).unwrap();
        std::fs::write(paths.config(), config).unwrap();
        (root, paths)
    }

    #[test]
    fn a_file_is_wired_for_the_slot_that_was_named_and_nothing_is_reserved() {
        let (_root, paths) = host("[vnc]\nwebsocket = \"add\"\n");
        let text = wired(&paths, Some(9), &[]).unwrap();
        assert!(text.contains("service='28009'") && text.contains("websocket='-1'"));
        assert!(!paths.state().exists());
        let path = paths.root().join("wired.xml");
        std::fs::write(&path, &text).unwrap();
        let mut out = Vec::new();
        unwire(&path, false, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), GUEST);
    }

    #[test]
    fn parts_can_be_left_out_and_then_no_slot_is_needed() {
        let (_root, paths) = host("[vnc]\nwebsocket = \"add\"\n");
        let text = wired(&paths, None, &[Part::Serial]).unwrap();
        assert!(!text.contains("<serial") && text.contains("websocket='-1'"));
        assert_eq!(wired(&paths, None, &[Part::Serial, Part::Websocket]).unwrap(), GUEST);
    }

    #[test]
    fn without_a_slot_a_port_cannot_be_given_and_the_error_says_so() {
        let (_root, paths) = host("");
        let why = wired(&paths, None, &[]).unwrap_err().to_string();
        assert!(why.contains("--slot"), "{why}");
    }

    #[test]
    fn a_dry_run_prints_a_diff() {
        let (_root, paths) = host("");
        let path = paths.root().join("guest.xml");
        std::fs::write(&path, GUEST).unwrap();
        let mut out = Vec::new();
        wire(&paths, &path, Some(1), &[], true, &mut out).unwrap();
        let diff = String::from_utf8(out).unwrap();
        assert!(diff.starts_with("--- ") && diff.contains("\n+ <serial type='tcp'>"), "{diff}");
    }
}
