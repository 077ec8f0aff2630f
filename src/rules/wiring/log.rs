//! The `<log>` of serial ports: libvirt keeps in that file what the guest says. Ours is known by its
//! path alone, so nothing needs to be noted; an owner's own `<log>` is never touched.

use super::splice::Splices;
use super::{Change, Settings};
use crate::rules::config::History;
use crate::rules::domain::{Chardev, Domain, Source};
use crate::rules::log::{OurLog, our_log};
use crate::rules::xml::Node;

/// What happens to the `<log>` of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LogStep {
    None,
    /// It gets one, of this path.
    Add(String),
    /// Ours names another guest's or port's file: it becomes this one.
    Correct(String),
    /// Ours goes.
    TakeBack,
}

/// The decision for each `<serial>`, in their order.
pub(super) fn plan(domain: &Domain, settings: Option<&Settings<'_>>, left: &mut Vec<String>) -> Vec<LogStep> {
    let on = settings.is_some_and(|settings| settings.config.serial.history == History::On);
    domain.serials.iter().map(|serial| step(domain, serial, on, left)).collect()
}

fn step(domain: &Domain, serial: &Chardev, on: bool, left: &mut Vec<String>) -> LogStep {
    let ours = serial.log.as_deref().and_then(OurLog::of_path);
    let wanted = serial.port.map(|port| our_log(&domain.uuid, port));
    match (&serial.log, ours, on, wanted) {
        (_, Some(_), false, _) => LogStep::TakeBack,
        (Some(path), Some(_), true, Some(wanted)) if *path != wanted => LogStep::Correct(wanted),
        (None, _, true, Some(wanted)) if keeps_a_log(serial) => LogStep::Add(wanted),
        (None, _, true, None) if keeps_a_log(serial) => {
            left.push("serial: no log for a port without a number: `virsh define` first gives it one".to_owned());
            LogStep::None
        }
        _ => LogStep::None,
    }
}

/// Whether it can be reached at all: what is no console needs no history.
fn keeps_a_log(serial: &Chardev) -> bool {
    matches!(serial.source, Source::Pty(_) | Source::TcpListen { .. } | Source::UnixListen(_))
}

/// What happens to a `<console>`, which libvirt writes as a copy of the first serial port.
pub(super) fn twin_step(domain: &Domain, console: Node<'_>, settings: Option<&Settings<'_>>) -> LogStep {
    let Some(path) = log_of(console).and_then(|log| log.attribute("file")) else { return LogStep::None };
    let Some(ours) = OurLog::of_path(path) else { return LogStep::None };
    if settings.is_none_or(|settings| settings.config.serial.history == History::Off) {
        return LogStep::TakeBack;
    }
    let wanted = our_log(&domain.uuid, ours.index);
    if path == wanted { LogStep::None } else { LogStep::Correct(wanted) }
}

/// Carries a step out on a device's element; what changed, where something did.
pub(super) fn carry_out(
    splices: &mut Splices<'_>,
    node: Node<'_>,
    step: LogStep,
    index: Option<u16>,
) -> Option<Change> {
    match step {
        LogStep::None => None,
        LogStep::Add(path) => {
            let log = format!("<log file='{path}' append='on'/>");
            // Where libvirt writes it.
            let before = node.children().filter(|child| child.is("source") || child.is("protocol")).last();
            match before {
                Some(neighbour) => splices.insert_after(neighbour, |_| log),
                None => {
                    splices.insert_first(node, |_| log);
                }
            }
            Some(Change::LogAdded { index })
        }
        LogStep::Correct(path) => {
            let file = log_of(node)?.attribute_at("file")?;
            splices.replace(file.raw.clone(), path);
            Some(Change::LogCorrected { index })
        }
        LogStep::TakeBack => {
            splices.remove(log_of(node)?.element().span.clone());
            Some(Change::LogTakenBack { index })
        }
    }
}

fn log_of(node: Node<'_>) -> Option<Node<'_>> {
    node.first("log")
}
