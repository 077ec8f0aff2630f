//! Golden files (`tests/xml/wiring`, made by the libvirt that their names say, or by hand), tables and
//! properties.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::rules::domain::{ALIAS, Domain};
use crate::rules::log::{OurLog, our_log};

const SLOT: Slot = 4;
const ALL: &str = "[serial]\nadd = \"always\"\n[vnc]\nwebsocket = \"add\"";
const LOG: &str = "[serial]\nhistory = \"on\"";
const TCP: &str = "[serial]\nadd = \"never\"\nexisting = \"tcp\"";

fn config(text: &str) -> Config {
    Config::parse([("t", text)]).unwrap()
}

fn with<T>(settings: &str, then: impl FnOnce(Settings<'_>) -> T) -> T {
    let config = config(settings);
    then(Settings { config: &config, vnc_listen: "127.0.0.1" })
}

fn wired(text: &str, settings: &str) -> Wired {
    with(settings, |settings| wire(text, settings, Some(SLOT)).unwrap())
}

fn cases() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/xml/wiring");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "xml"));
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// `CONSOLE_PROXY_UPDATE_GOLDEN=1 cargo test golden` writes them anew; read the difference before committing.
#[test]
fn golden_files_are_wired_as_they_were_when_someone_looked() {
    let update = std::env::var_os("CONSOLE_PROXY_UPDATE_GOLDEN").is_some();
    for (path, text) in cases() {
        for (name, settings) in [("missing", ""), ("all", ALL), ("tcp", TCP), ("log", LOG)] {
            let result = wired(&text, settings);
            let golden = path.with_extension(format!("{name}.golden"));
            let expected = (result.text != text).then_some(result.text);
            if update {
                let _ = std::fs::remove_file(&golden);
                if let Some(text) = &expected {
                    std::fs::write(&golden, text).unwrap();
                }
            }
            // No golden file: unchanged.
            assert_eq!(std::fs::read_to_string(&golden).ok(), expected, "{}", golden.display());
        }
    }
}

#[test]
fn every_golden_file_unwires_to_the_bytes_it_came_from_and_wires_to_itself() {
    for (path, text) in cases() {
        let original = unwire(&text).unwrap().text;
        for settings in ["", ALL, TCP, LOG] {
            let once = wired(&text, settings);
            assert_eq!(wired(&once.text, settings).text, once.text, "{} {settings}", path.display());
            assert_eq!(wired(&once.text, settings).changes, [], "{} {settings}", path.display());
            assert_eq!(unwire(&once.text).unwrap().text, original, "{} {settings}", path.display());
        }
    }
}

/// What happens to each file, in words.
#[test]
fn what_changes_and_what_is_left_is_said() {
    let said = |name: &str, settings: &str| {
        let (_, text) = cases().into_iter().find(|(path, _)| path.file_stem().unwrap() == name).unwrap();
        let result = wired(&text, settings);
        result.changes.iter().map(ToString::to_string).chain(result.left).collect::<Vec<_>>().join("; ")
    };
    let added = |n: u16| format!("serial/{n} added on 127.0.0.1:28004");
    let websocket = "QEMU's websocket asked for on the VNC display";
    for (name, settings, expected) in [
        ("none-libvirt-9.0.0", "", added(0)),
        ("none-libvirt-9.0.0", ALL, format!("{}; {websocket}", added(0))),
        ("pty-libvirt-9.0.0", "", String::new()),
        ("pty-libvirt-9.0.0", ALL, format!("{}; {websocket}", added(1))),
        ("pty-libvirt-9.0.0", TCP, "serial/0 turned from a pty into 127.0.0.1:28004".into()),
        ("two-libvirt-9.0.0", ALL, format!("{}; {websocket}", added(2))),
        (
            "two-libvirt-9.0.0",
            TCP,
            "serial: of several serial ports none becomes tcp: libvirt would move its console".into(),
        ),
        ("full-libvirt-9.0.0", ALL, "serial: no room: pc-i440fx-7.2 has 4, all in use".into()),
        ("virtio-libvirt-9.0.0", "", String::new()),
        (
            "virtio-libvirt-9.0.0",
            ALL,
            "serial: it has a virtio console alone, and a serial port would become its first console; \
             websocket: the VNC display listens at 0.0.0.0, not on loopback alone"
                .into(),
        ),
        (
            "network-libvirt-9.0.0",
            ALL,
            format!("{}; websocket: the VNC display listens on a network's address, not on loopback alone", added(0)),
        ),
        ("socket-libvirt-9.0.0", ALL, format!("{}; websocket: the VNC display listens at a unix socket", added(0))),
        ("optout-libvirt-9.0.0", ALL, "left alone: its metadata says wire='no'".into()),
        (
            "copy-libvirt-9.0.0",
            ALL,
            "serial/0 moved from port 28007 to 28004, this guest's own; the websocket's fixed port taken out".into(),
        ),
        (
            "copy-libvirt-9.0.0",
            "",
            "serial/0 moved from port 28007 to 28004, this guest's own; QEMU's websocket taken back".into(),
        ),
        (
            "moved-to-network-by-hand",
            ALL,
            "serial added on 127.0.0.1:28004; QEMU's websocket taken back; websocket: the VNC display listens at 0.0.0.0, not on loopback alone".into(),
        ),
        ("aarch64-libvirt-9.0.0", ALL, format!("{websocket}; serial: no room: virt-7.2 has 1, all in use")),
        ("aarch64-virt-9.1-by-hand", ALL, format!("{}; {websocket}", added(1))),
        ("s390x-libvirt-9.0.0", ALL, added(1)),
        ("riscv64-libvirt-9.0.0", ALL, "serial: no room: virt has 1, all in use".into()),
        ("ppc64-libvirt-9.0.0", ALL, added(1)),
        (
            "console-alone-by-hand",
            ALL,
            "serial: its serial port is written as a <console> alone: `virsh define` first makes it a <serial>".into(),
        ),
        ("nothing-by-hand", "", added(0)),
        ("none-libvirt-9.0.0", LOG, format!("{}; serial/0: what it says will be kept", added(0))),
        ("two-libvirt-9.0.0", LOG, "serial/0: what it says will be kept".into()),
        ("pty-libvirt-9.0.0", LOG, String::new()),
        ("virtio-libvirt-9.0.0", LOG, String::new()),
        ("optout-libvirt-9.0.0", LOG, "left alone: its metadata says wire='no'".into()),
        (
            "unnumbered-by-hand",
            LOG,
            "serial: no log for a port without a number: `virsh define` first gives it one".into(),
        ),
    ] {
        let said = said(name, settings);
        assert_eq!(said, expected, "{name} {settings}");
    }
}

/// A guest of parts that stand in any order and spelling, and what libvirt might have said about it.
fn guest() -> impl Strategy<Value = String> {
    let metadata = prop_oneof![
        Just(String::new()),
        Just("<metadata/>".into()),
        Just("<metadata />".into()),
        Just("<metadata></metadata>".into()),
        Just("<metadata>\n  </metadata>".into()),
        Just("<metadata>words &amp; <a:b xmlns:a='u'/> more</metadata>".into()),
        Just("<metadata a='/'><!-- x --><c xmlns='u'><wired/></c></metadata>".to_owned()),
        Just("<metadata><x:settings xmlns:x='urn:console-proxy:1' publish='no'/></metadata>".to_owned()),
    ];
    let device = prop_oneof![
        Just("<serial type='pty'/>"),
        Just("<serial type=\"pty\"><target port='0'/></serial>"),
        Just(
            "<serial type='pty'><source path='/dev/pts/7'/><target type='isa-serial' port='2'><model name='isa-serial'/></target><alias name='serial2'/></serial>"
        ),
        Just("<serial type='tcp'><source mode='bind' host='0.0.0.0' service='28004'/><target port='1'/></serial>"),
        Just(
            "<serial type='pty'>\n  <source path='/dev/pts/1'/> <log file='/var/log/libvirt/qemu/g-serial.log'/><target port='3'/></serial>"
        ),
        Just(
            "<serial type='unix'><source mode='bind' path='/run/s'/><protocol type='raw'/><target type='isa-serial' port='4'/></serial>"
        ),
        Just("<serial type='file'><source path='/a&amp;b'/><log file='/x'/></serial>"),
        Just("<console type='pty'/>"),
        Just("<console type='pty'><target type='virtio' port='0'/></console>"),
        Just("<graphics type='vnc' port='-1'/>"),
        Just(
            "<graphics  type = \"vnc\"  listen='127.0.0.1'\n passwd='&lt;&quot;'\t><listen type='address' address='127.0.0.1'/></graphics >"
        ),
        Just("<graphics type='vnc' websocket='5700'/>"),
        Just("<graphics type='vnc' websocket='0'/>"),
        Just("<graphics websocket='-1' type='vnc' listen='::1'/>"),
        Just("<graphics type='spice' autoport='yes'/>"),
        Just("<!-- <serial type='pty'/> -->"),
        Just("<x:serial xmlns:x='u' type='pty'/>"),
        Just("<![CDATA[<serial/>]]>"),
        Just("<channel type='unix'><target type='virtio' name='a'/></channel>"),
    ];
    let devices = (prop::collection::vec(device, 0..6), space(), any::<bool>()).prop_map(|(all, space, closed)| {
        if all.is_empty() && closed {
            return "<devices />".to_owned();
        }
        let inside: String = all.iter().flat_map(|device| [space, *device]).collect();
        format!("<devices>{inside}{space}</devices>")
    });
    let os = prop_oneof![
        Just(""),
        Just("<os><type arch='x86_64' machine='pc-q35-9.2'>hvm</type></os>"),
        Just("<os><type machine='virt-9.1' arch='aarch64'>hvm</type></os>"),
        Just("<os><type machine='s390-ccw-virtio' arch='s390x'>hvm</type></os>"),
    ];
    (metadata, devices, os, space()).prop_map(|(metadata, devices, os, space)| {
        let uuid = "<uuid>b50bdc9f-490b-4b9b-8641-7573c0eba77c</uuid>";
        let parts = ["<name>g&apos;1</name>", uuid, &metadata, os, &devices];
        let inside: String = parts.into_iter().filter(|part| !part.is_empty()).flat_map(|part| [space, part]).collect();
        format!("<domain type='kvm'>{inside}{space}</domain>{space}")
    })
}

fn space() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just(""), Just(" "), Just("\n"), Just("\n  "), Just("\r\n\t"), Just("\n\n      ")]
}

fn settings() -> impl Strategy<Value = String> {
    let add = prop_oneof![Just("missing"), Just("always"), Just("never")];
    let existing = prop_oneof![Just("keep"), Just("tcp")];
    let websocket = prop_oneof![Just("use"), Just("add"), Just("bridge")];
    let history = prop_oneof![Just("on"), Just("off")];
    (add, existing, websocket, history).prop_map(|(add, existing, websocket, history)| {
        format!("[serial]\nadd = \"{add}\"\nexisting = \"{existing}\"\nhistory = \"{history}\"\n[vnc]\nwebsocket = \"{websocket}\"")
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn wiring_twice_is_wiring_once_and_unwiring_gives_the_bytes_back(text in guest(), settings in settings()) {
        let once = wired(&text, &settings);
        prop_assert_eq!(&wired(&once.text, &settings).text, &once.text);
        prop_assert_eq!(unwire(&once.text).unwrap().text, text);
    }

    #[test]
    fn from_any_configuration_to_any_other_the_way_round_gives_what_the_straight_way_gives_to_unwire(
        text in guest(), first in settings(), second in settings()
    ) {
        let there = wired(&wired(&text, &first).text, &second);
        prop_assert_eq!(&wired(&there.text, &second).text, &there.text);
        prop_assert_eq!(unwire(&there.text).unwrap().text, text);
    }

    #[test]
    fn nothing_but_our_own_differs(text in guest(), settings in settings()) {
        let (before, after) = (Domain::parse(&text).unwrap(), Domain::parse(&wired(&text, &settings).text).unwrap());
        let turned = before.serials.len() == 1 && after.serials.len() == 1 && after.serials[0].is_ours();
        if !turned {
            let mut others: Vec<_> = after.serials.iter().filter(|serial| !serial.is_ours()).cloned().collect();
            for other in &mut others {
                other.log.take_if(|path| OurLog::of_path(path).is_some());
            }
            prop_assert_eq!(others, before.serials);
        }
        prop_assert!(after.serials.iter().filter(|serial| serial.is_ours()).count() <= 1);
        prop_assert_eq!(after.consoles, before.consoles);
        prop_assert_eq!((after.name, after.uuid), (before.name, before.uuid));
        prop_assert_eq!(after.displays.len(), before.displays.len());
    }

    #[test]
    fn the_filter_moves_ports_alone_and_only_ours(text in guest(), settings in settings(), slot in 0u16..1000) {
        let config = config("");
        prop_assert_eq!(filter(&text, &config, slot).unwrap(), None);
        let wired = wired(&text, &settings).text;
        let moved = filter(&wired, &config, slot).unwrap();
        prop_assert_eq!(moved.is_none(), slot == SLOT || !wired.contains(ALIAS));
        let moved = moved.unwrap_or(wired);
        let domain = Domain::parse(&moved).unwrap();
        for serial in domain.serials.iter().filter(|serial| serial.is_ours()) {
            let own = matches!(serial.source, crate::rules::domain::Source::TcpListen { port, .. } if port == 28000 + slot);
            prop_assert!(own);
        }
        prop_assert_eq!(filter(&moved, &config, slot).unwrap(), None);
        prop_assert_eq!(unwire(&moved).unwrap().text, text);
    }

    #[test]
    fn the_calls_are_single_devices_and_nothing_where_nothing_changed(text in guest(), settings in settings()) {
        let wired = wired(&text, &settings).text;
        prop_assert_eq!(calls(&wired, &wired).unwrap(), []);
        let there = calls(&text, &wired).unwrap();
        let back = calls(&wired, &text).unwrap();
        prop_assert_eq!(there.is_empty(), wired == text);
        prop_assert!(there.is_empty() || matches!(there[0].call, Call::Note(Some(_))));
        prop_assert!(there.is_empty() || matches!(there[0].undo, Call::Note(None)));
        prop_assert!(back.is_empty() || matches!(back[back.len() - 1].call, Call::Note(None)));
    }

    #[test]
    fn no_text_makes_it_panic(text in guest(), cut in 0usize..600, put in "[<>/a='\"&;! ]{0,6}") {
        let at = (0..=cut.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let text = format!("{}{put}{}", &text[..at], &text[at..]);
        let _ = with(ALL, |settings| wire(&text, settings, Some(SLOT)));
        let _ = unwire(&text);
        let _ = filter(&text, &config(""), SLOT);
    }
}

const UUID: &str = "<uuid>b50bdc9f-490b-4b9b-8641-7573c0eba77c</uuid>";

#[test]
fn a_slot_is_asked_for_only_where_the_guest_gets_a_port_of_ours() {
    let guest = |devices: &str| format!("<domain><name>g</name>{UUID}<devices>{devices}</devices></domain>");
    let without = |text: &str, settings: &str| with(settings, |settings| wire(text, settings, None));
    assert_eq!(without(&guest(""), ""), Err(CannotWire::SlotNeeded));
    assert!(without(&guest("<serial type='pty'/><graphics type='vnc'/>"), "[vnc]\nwebsocket='add'").is_ok());
    assert_eq!(with("", |settings| wire(&guest(""), settings, Some(1000))), Err(CannotWire::OutOfRange(1000)));
}

#[test]
fn what_cannot_be_wired_is_refused_by_name() {
    let ours = format!("<serial type='tcp'><alias name='{ALIAS}'/></serial>");
    for (inside, words) in [
        (String::new(), "no <devices>"),
        (format!("<devices>{ours}{ours}</devices>"), "two serial ports"),
        (UUID.to_owned(), "<uuid> is there twice"),
    ] {
        let text = format!("<domain><name>g</name>{UUID}{inside}</domain>");
        let why = with("", |settings| wire(&text, settings, Some(SLOT))).unwrap_err().to_string();
        assert!(why.contains(words), "{why}");
    }
    for text in ["", "<domain>", "<network/>", "<!DOCTYPE a [<!ENTITY b 'c'>]><domain/>"] {
        assert!(with("", |settings| wire(text, settings, Some(SLOT))).is_err(), "{text}");
    }
}

#[test]
fn a_definition_that_was_cut_off_is_refused_at_every_byte() {
    let (_, text) = cases().into_iter().find(|(path, _)| path.ends_with("comments-by-hand.xml")).unwrap();
    let end = text.find("</domain>").unwrap() + "</domain>".len();
    for cut in (0..end).filter(|cut| text.is_char_boundary(*cut)) {
        assert!(with(ALL, |settings| wire(&text[..cut], settings, Some(SLOT))).is_err(), "cut at {cut}");
        assert!(unwire(&text[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn turning_that_was_broken_off_is_made_good() {
    let guest = format!("<domain><name>g</name>{UUID}<devices><serial type='pty'/></devices></domain>");
    let turned = wired(&guest, TCP).text;
    let from = turned.find("<serial type='tcp'>").unwrap();
    let to = turned.find("</serial>").unwrap() + "</serial>".len();
    let broken_off = format!("{}{}", &turned[..from], &turned[to..]);
    assert_eq!(unwire(&broken_off).unwrap().text, guest);
    assert_eq!(wired(&broken_off, TCP).text, turned);
}

#[test]
fn a_console_that_libvirt_made_of_our_port_goes_with_it() {
    let (_, text) = cases().into_iter().find(|(path, _)| path.ends_with("copy-libvirt-9.0.0.xml")).unwrap();
    let unwired = unwire(&text).unwrap().text;
    assert!(!unwired.contains("<console") && !unwired.contains("<serial") && !unwired.contains("<metadata"));
}

#[test]
fn our_alias_on_a_device_that_somebody_changed_is_left_alone() {
    let text = format!(
        "<domain><name>g</name>{UUID}<devices><serial type='pty'><alias name='{ALIAS}'/></serial></devices></domain>"
    );
    assert_eq!(wired(&text, ALL).text, text);
    assert!(wired(&text, ALL).left[0].contains("somebody changed it"));
}

#[test]
fn a_guest_that_opts_out_after_it_was_wired_gets_its_bytes_back() {
    let text = format!("<domain><name>g1</name>{UUID}<devices/></domain>");
    assert_eq!(wired(&wired(&text, "").text, "[guests]\nskip = [\"g*\"]").text, text);
}

#[test]
fn displays_without_an_address_follow_the_hosts_default() {
    let text =
        format!("<domain><name>g</name>{UUID}<devices><serial type='pty'/><graphics type='vnc'/></devices></domain>");
    let config = config(ALL);
    let on = |vnc_listen| {
        wire(&text, Settings { config: &config, vnc_listen }, Some(SLOT)).unwrap().text.contains("websocket")
    };
    assert!(on("127.0.0.1") && on("::1") && !on("0.0.0.0"));
}

/// A guest with serial ports 0, 1, ..., each with what stands in it beside its number.
fn ports(inside: &[&str]) -> String {
    let port = |(n, inside): (usize, &&str)| format!("<serial type='pty'>{inside}<target port='{n}'/></serial>");
    let devices: String = inside.iter().enumerate().map(port).collect();
    format!("<domain><name>g</name>{UUID}<devices>{devices}</devices></domain>")
}

fn log_of(index: u16) -> String {
    format!("<log file='{}' append='on'/>", our_log(&"b50bdc9f-490b-4b9b-8641-7573c0eba77c".parse().unwrap(), index))
}

#[test]
fn an_owners_log_is_never_touched_and_anothers_of_ours_becomes_this_guests() {
    let theirs = "<log file='/var/log/mine.log' append='off'/>";
    let copied = log_of(7).replace("b50bdc9f", "00000000");
    assert_eq!(wired(&ports(&[theirs, "", &copied]), LOG).text, ports(&[theirs, &log_of(1), &log_of(2)]));
    assert_eq!(wired(&ports(&[theirs, "", &copied]), "").text, ports(&[theirs, "", ""]));
    assert_eq!(unwire(&ports(&[theirs, &log_of(1), &copied])).unwrap().text, ports(&[theirs, "", ""]));
}

#[test]
fn the_console_that_libvirt_copies_from_a_serial_port_follows_it() {
    let twin = |log: &str| {
        let text = ports(&[log]);
        text.replace(
            "</devices>",
            &format!("<console type='pty'>{log}<target type='serial' port='0'/></console></devices>"),
        )
    };
    let copied = log_of(0).replace("b50bdc9f", "00000000");
    assert_eq!(wired(&twin(&copied), LOG).text, twin(&log_of(0)));
    assert_eq!(unwire(&twin(&log_of(0))).unwrap().text, twin(""));
}

#[test]
fn serial_ports_keep_their_order_when_one_of_them_is_exchanged() {
    let theirs = "<log file='/var/log/mine.log' append='off'/>";
    let before = ports(&[theirs, "", theirs, ""]);
    let after = wired(&before, LOG).text;
    let port = |n: usize, inside: &str| format!("<serial type='pty'>{inside}<target port='{n}'/></serial>");
    let (one, two, three) = (port(1, ""), port(2, theirs), port(3, ""));
    let said: Vec<Call> = calls(&before, &after).unwrap().into_iter().map(|step| step.call).collect();
    let Call::Note(Some(note)) = &said[0] else { panic!("{said:?}") };
    assert!(note.contains("exchanged='&lt;serial type=&apos;pty&apos;&gt;&lt;target port=&apos;1&apos;"), "{note}");
    let expected = [
        Call::Detach(three),
        Call::Detach(two.clone()),
        Call::Detach(one),
        Call::Attach(port(1, &log_of(1))),
        Call::Attach(two),
        Call::Attach(port(3, &log_of(3))),
        Call::Note(None),
    ];
    assert_eq!(said[1..], expected);
}

/// Whatever call is the last that was made, wiring and unwiring get where they would have got.
#[test]
fn an_exchange_of_serial_ports_that_was_broken_off_is_made_good() {
    let theirs = "<log file='/var/log/mine.log' append='off'/>";
    let before = ports(&["", theirs, ""]);
    let after = wired(&before, LOG).text;
    let steps = calls(&before, &after).unwrap();
    let mut now = before.clone();
    for step in &steps {
        now = made(&now, &step.call);
        let sorted = |text: &str| {
            let mut serials = Domain::parse(text).unwrap().serials;
            serials.sort_by_key(|serial| serial.port);
            serials
        };
        assert_eq!(sorted(&wired(&now, LOG).text), sorted(&after), "after {step:?}");
        assert_eq!(sorted(&unwire(&now).unwrap().text), sorted(&before), "after {step:?}");
        assert!(!unwire(&now).unwrap().text.contains("wired"), "after {step:?}");
    }
    assert_eq!(now, after.replace("<devices>", "<metadata></metadata><devices>"));
}

/// What libvirt makes of a call, as far as these texts go.
fn made(text: &str, call: &Call) -> String {
    match call {
        Call::Note(note) => {
            let bare = match (text.find("<metadata>"), text.find("</metadata>")) {
                (Some(from), Some(to)) => format!("{}{}", &text[..from], &text[to + "</metadata>".len()..]),
                _ => text.to_owned(),
            };
            let note =
                note.as_ref().map(|note| note.replace("<wired", "<w:wired xmlns:w='urn:console-proxy:wiring:1'"));
            bare.replace("<devices>", &format!("<metadata>{}</metadata><devices>", note.unwrap_or_default()))
        }
        Call::Detach(device) => {
            assert!(text.contains(device.as_str()), "{device} is not in {text}");
            text.replacen(device.as_str(), "", 1)
        }
        Call::Attach(device) => text.replace("</devices>", &format!("{device}</devices>")),
        other => panic!("{other:?}"),
    }
}
