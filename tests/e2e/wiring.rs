//! Wiring under a real libvirtd: who gets what, that nobody else's edit is lost, that every change is
//! seen, and that all of it can be taken back.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread::sleep;
use std::time::Duration;

use crate::host::{
    Configured, Guest, SOON, journal_cursor, journal_since, sh, state_of, try_sh, virsh, wait_for, wait_until,
};

const ALIAS: &str = "ua-console-proxy";
const ALWAYS: &str = "[serial]\nadd = \"always\"\n";
const WEBSOCKET: &str = "[vnc]\nwebsocket = \"add\"\n";
const TCP: &str = "[serial]\nadd = \"never\"\nexisting = \"tcp\"\n";

/// The loopback port of our serial port in a definition.
fn wired_port(definition: &str) -> Option<u16> {
    let serials = definition.split("<serial ").skip(1).filter_map(|rest| rest.split("</serial>").next());
    let ours = serials.into_iter().find(|serial| serial.contains(&format!("<alias name='{ALIAS}'/>")))?;
    ours.split("service='").nth(1)?.split('\'').next()?.parse().ok()
}

#[track_caller]
fn wait_for_wiring(guest: &Guest) -> u16 {
    wait_for(&format!("{} to be wired", guest.name), SOON, || wired_port(&guest.definition()))
}

fn slots() -> String {
    sh("cat /var/lib/console-proxy/slots 2>/dev/null || true")
}

/// What `define` makes of a text that was dumped and not changed, without an empty `<metadata/>`,
/// which stays behind wherever metadata was.
fn redefined(guest: &Guest) -> String {
    sh(&format!(
        "virsh dumpxml --inactive --security-info '{0}' >/tmp/{0}.xml; virsh --quiet define /tmp/{0}.xml",
        guest.name
    ));
    comparable(guest)
}

fn comparable(guest: &Guest) -> String {
    virsh(&format!("dumpxml --inactive --security-info '{}'", guest.name)).replace("  <metadata/>\n", "")
}

/// No service of ours wires anything while this exists.
struct Unwatched;

impl Unwatched {
    fn now() -> Self {
        sh("systemctl stop console-proxy-wire.path console-proxy-wire-notes.path console-proxy-wire.service");
        // Whose end starts this; and sync does.
        sh(
            "systemctl stop console-proxy-wire-again.service; systemctl mask --runtime console-proxy-wire-again.service",
        );
        Self
    }
}

impl Drop for Unwatched {
    fn drop(&mut self) {
        sh("systemctl unmask --runtime console-proxy-wire-again.service
            systemctl start console-proxy-wire.path console-proxy-wire-notes.path");
    }
}

#[test]
fn a_guest_without_a_serial_port_gets_one_by_itself_and_serves_it_from_its_first_start() {
    let guest = Guest::define("bare").with_vnc().done();
    wait_for_wiring(&guest);
    guest.start();
    guest.wait_to_boot();
    guest.open("serial/0").command("echo the answer is $((6 * 7))", "the answer is 42");
}

#[test]
fn a_guest_with_a_pty_and_one_with_a_virtio_console_are_left_as_they_are() {
    let pty = Guest::define("has-pty").with_pty_serial().with_vnc().done();
    let virtio = Guest::define("has-virtio").with_virtio_console().done();
    let before = (pty.definition(), virtio.definition());
    let said = sh("console-proxy wire has-pty has-virtio");
    assert_eq!(said, "has-pty: nothing to change\nhas-virtio: nothing to change");
    assert_eq!((pty.definition(), virtio.definition()), before);
}

#[test]
fn with_always_a_guest_gets_one_more_as_serial_1_and_what_runs_stays_as_it_is() {
    let running = Guest::define("already").with_pty_serial().started();
    let (live, pid) = (running.xml(), running.pid());
    let _always = Configured::with(ALWAYS);
    assert!(sh("console-proxy wire already").contains("(from its next start on)"));
    assert!(wired_port(&running.definition()).is_some());
    assert_eq!((running.xml(), running.pid()), (live, pid));

    let guest = Guest::define("one-more").with_pty_serial().with_vnc().done();
    wait_for_wiring(&guest);
    guest.start();
    guest.wait_to_boot();
    guest.open("serial/0").command("tty", "/dev/ttyS0");
    guest.open("serial/1").command("tty", "/dev/ttyS1");
}

#[test]
fn a_websocket_is_asked_for_and_the_displays_password_stays() {
    let _unwatched = Unwatched::now();
    let guest = Guest::define("secret").with_vnc().with_pty_serial().done();
    sh("virsh dumpxml --inactive secret | sed \"s/<graphics type='vnc'/& passwd='it\\&apos;s'/\" >/tmp/secret.xml
        virsh --quiet define /tmp/secret.xml");
    let before = redefined(&guest);
    assert!(before.contains("passwd='it&apos;s'"), "{before}");
    let _add = Configured::with(WEBSOCKET);
    let preview = sh("console-proxy wire --dry-run secret");
    assert!(preview.contains("websocket='-1'") && !preview.contains("apos;s"), "{preview}");
    assert_eq!(comparable(&guest), before, "a dry run changes nothing");

    sh("console-proxy wire secret");
    let wired = comparable(&guest);
    assert!(wired.contains("websocket='-1'") && wired.contains("passwd='it&apos;s'"), "{wired}");
    guest.start();
    let reached = wait_for("the guest to be published", SOON, || guest.listed())["consoles"][0]["reached"].clone();
    assert_eq!(reached, "native");
    guest.destroy();
    sh("console-proxy unwire --once secret");
    assert_eq!(comparable(&guest), before);
}

#[test]
fn a_display_that_listens_to_the_network_gets_no_websocket_and_loses_the_one_it_had_from_us() {
    let _unwatched = Unwatched::now();
    let _add = Configured::with(WEBSOCKET);
    let guest = Guest::define("moved").with_vnc().with_pty_serial().done();
    sh("console-proxy wire moved");
    sh(
        "virsh dumpxml --inactive moved | sed 's/127.0.0.1/0.0.0.0/' >/tmp/moved.xml; virsh --quiet define /tmp/moved.xml",
    );
    let said = sh("console-proxy wire moved");
    assert!(said.contains("taken back") && said.contains("not on loopback alone"), "{said}");
    assert!(!guest.definition().contains("websocket"));
}

#[test]
fn a_pty_becomes_tcp_and_the_pty_again_that_it_was() {
    let _unwatched = Unwatched::now();
    let guest = Guest::define("turned").with_pty_serial().with_vnc().done();
    let before = redefined(&guest);
    let _tcp = Configured::with(TCP);
    sh("console-proxy wire turned");
    assert!(wired_port(&guest.definition()).is_some());
    guest.start();
    guest.wait_to_boot();
    guest.open("serial/0").command("echo the answer is $((6 * 7))", "the answer is 42");
    guest.destroy();
    sh("console-proxy unwire --once turned");
    assert_eq!(comparable(&guest), before);
}

#[test]
fn a_change_that_was_broken_off_between_two_calls_is_made_good() {
    let _unwatched = Unwatched::now();
    let guest = Guest::define("half").with_pty_serial().done();
    let before = redefined(&guest);
    let _tcp = Configured::with(TCP);
    for verb in ["wire", "unwire --once"] {
        sh("console-proxy wire half");
        // As after a kill: the pty is gone, the port is not there yet.
        virsh(&format!("detach-device-alias half {ALIAS} --config"));
        assert!(!guest.definition().contains("<serial"));
        sh(&format!("console-proxy {verb} half"));
        assert!(guest.definition().contains("<serial"), "after {verb}");
    }
    assert_eq!(comparable(&guest), before);
}

#[test]
fn of_many_wirings_at_once_each_finds_what_the_one_before_left() {
    let _unwatched = Unwatched::now();
    let guest = Guest::define("crowded").with_pty_serial().with_vnc().blank().done();
    let before = redefined(&guest);
    let _all = Configured::with(&format!("{TCP}{WEBSOCKET}"));
    let four = |verb: &str| sh(&format!("for n in 1 2 3 4; do console-proxy {verb} crowded & done; wait"));
    for _ in 0..3 {
        four("wire");
        let wired = comparable(&guest);
        assert!(
            wired_port(&wired).is_some() && wired.contains("was-pty") && wired.contains("websocket='-1'"),
            "{wired}"
        );
        four("unwire --once");
        assert_eq!(comparable(&guest), before);
    }
}

#[test]
fn of_ten_edits_by_another_tool_that_race_with_wiring_none_is_lost() {
    let _unwatched = Unwatched::now();
    let guest = Guest::define("raced").with_vnc().blank().done();
    let _add = Configured::with(WEBSOCKET);
    sh("touch /tmp/raced.img");
    let disks: Vec<char> = ('a'..='j').collect();
    std::thread::scope(|scope| {
        let wiring = scope.spawn(|| {
            for _ in 0..10 {
                sh("console-proxy wire raced; console-proxy unwire --once raced");
            }
            sh("console-proxy wire raced");
        });
        for disk in &disks {
            virsh(&format!("attach-disk raced /tmp/raced.img vd{disk} --config --targetbus virtio"));
            sleep(Duration::from_millis(50));
        }
        wiring.join().unwrap();
    });
    let definition = guest.definition();
    for disk in disks {
        assert!(
            definition.contains(&format!("<target dev='vd{disk}' bus='virtio'/>")),
            "vd{disk} is lost: {definition}"
        );
    }
    assert!(wired_port(&definition).is_some() && definition.contains("websocket='-1'"), "{definition}");
}

#[test]
fn a_hundred_defines_at_random_gaps_are_all_seen_and_a_hundred_undefines_free_all_slots() {
    let guests: Vec<Guest> = (0..100)
        .map(|n| {
            let guest = Guest::define(&format!("burst{n}")).with_vnc().blank().done();
            let random = u64::from(rand());
            sleep(Duration::from_millis(random % 701));
            guest
        })
        .collect();
    wait_until("all to be wired", SOON, || guests.iter().all(|guest| wired_port(&guest.definition()).is_some()));
    let ports: BTreeSet<_> = guests.iter().filter_map(|guest| wired_port(&guest.definition())).collect();
    assert_eq!(ports.len(), 100, "each has a port of its own");
    let uuids: Vec<String> = guests.iter().map(Guest::uuid).collect();
    drop(guests);
    wait_until("all slots to be free", SOON, || {
        let slots = slots();
        uuids.iter().all(|uuid| !slots.contains(uuid))
    });
}

fn rand() -> u16 {
    let mut bytes = [0; 2];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).unwrap();
    u16::from_ne_bytes(bytes)
}

/// The path unit loses what changes while its service runs, and between the service's last look and its
/// end nobody watches: guests are defined right there.
#[test]
fn what_is_defined_while_the_watcher_ends_is_seen() {
    for n in 0..2 {
        let first = Guest::define("ending-first").blank().done();
        wait_for_wiring(&first);
        wait_until("the watcher to end", Duration::from_secs(30), || {
            state_of("console-proxy-wire.service") == "deactivating"
                || state_of("console-proxy-wire.service") == "inactive"
        });
        let second = Guest::define(&format!("ending{n}")).blank().done();
        wait_for_wiring(&second);
    }
}

/// systemd watches all folders of a path unit anew after an event that triggers nothing. Its manager is held, so that
/// it finds both events at once.
#[test]
fn a_definition_that_changes_as_a_note_comes_and_goes_is_seen() {
    for _ in 0..3 {
        wait_until("the watcher to have ended", Duration::from_secs(30), || {
            ["console-proxy-wire.service", "console-proxy-wire-again.service"].map(state_of) == ["inactive"; 2]
        });
        let frozen = FrozenManager::now();
        sh("touch /run/console-proxy/wire/note; rm /run/console-proxy/wire/note
            touch /etc/libvirt/qemu/changed; rm /etc/libvirt/qemu/changed");
        drop(frozen);
        wait_until("a look at it", SOON, || state_of("console-proxy-wire.service") == "active");
    }
}

/// The system manager takes no step while this exists.
struct FrozenManager;

impl FrozenManager {
    const SWITCH: &str = "/sys/fs/cgroup/init.scope/cgroup.freeze";

    fn now() -> Self {
        fs::write(Self::SWITCH, "1").unwrap();
        let events = || fs::read_to_string("/sys/fs/cgroup/init.scope/cgroup.events").unwrap();
        wait_until("the manager to be frozen", SOON, || events().contains("frozen 1"));
        Self
    }
}

impl Drop for FrozenManager {
    fn drop(&mut self) {
        fs::write(Self::SWITCH, "0").unwrap();
    }
}

/// The path units begin anew when systemd reads its unit files again, which sync has it do.
#[test]
fn a_definition_that_changes_while_units_are_read_again_is_seen() {
    let moves = Guest::define("reads-again").with_vnc().with_pty_serial().blank().started();
    moves.port();
    sh("systemctl stop console-proxy-wire.path console-proxy-wire-notes.path console-proxy-wire.service");
    sh("systemctl stop console-proxy-wire-again.service");
    let _watched = Watched;
    let missed = Guest::define("missed").blank().done();
    assert_eq!(wired_port(&missed.definition()), None);
    let drop_in = format!("/run/systemd/system/{}.d/50-listen.conf", moves.socket());
    sh(&format!("sed -i 's/^ListenStream=.*/ListenStream=29999/' {drop_in}; touch /run/console-proxy/queue/note"));
    wait_for_wiring(&missed);
}

/// Definitions are watched again at its end.
struct Watched;

impl Drop for Watched {
    fn drop(&mut self) {
        sh("systemctl start console-proxy-wire.path console-proxy-wire-notes.path");
    }
}

#[test]
fn a_copy_of_a_wired_guest_points_to_its_own_port_within_seconds_and_both_run() {
    let original = Guest::define("original").with_vnc().done();
    let port = wait_for_wiring(&original);
    sh(
        "virsh dumpxml --inactive original | sed 's/original/copy/; /<uuid>/d' >/tmp/copy.xml; virsh --quiet define /tmp/copy.xml",
    );
    let copy = Guest::existing("copy");
    wait_until("the copy to have its own port", SOON, || wired_port(&copy.definition()).is_some_and(|own| own != port));
    assert_eq!(wired_port(&original.definition()), Some(port));
    original.start();
    copy.start();
    for guest in [&original, &copy] {
        guest.wait_to_boot();
        // The kernel's command line says who this is.
        let answer = format!("I am {}", guest.name);
        guest.open("serial/0").command("echo I am $(sed 's/.*guest=//' /proc/cmdline)", &answer);
    }
}

#[test]
fn a_reverted_snapshot_brings_an_unwired_definition_that_is_wired_again() {
    let guest = Guest::define("reverted").with_vnc().blank().done();
    let (port, unwatched) = {
        let unwatched = Unwatched::now();
        sh("console-proxy unwire --once reverted");
        fs::write("/var/lib/libvirt/images/reverted.qcow2", empty_qcow2()).unwrap();
        virsh(
            "attach-disk reverted /var/lib/libvirt/images/reverted.qcow2 vda --config --targetbus virtio --subdriver qcow2",
        );
        guest.start();
        virsh("snapshot-create-as reverted before");
        guest.destroy();
        sh("console-proxy wire reverted");
        (wired_port(&guest.definition()).unwrap(), unwatched)
    };
    virsh("snapshot-revert reverted before");
    assert_eq!(wired_port(&guest.definition()), None, "the snapshot's own definition");
    drop(unwatched);
    sh("systemctl start console-proxy-wire.service");
    assert_eq!(wait_for_wiring(&guest), port, "the same port as ever");
    // And by itself, when it happens under the eyes of the watcher.
    virsh("snapshot-revert reverted before");
    wait_until("the wiring to come back", SOON, || wired_port(&guest.definition()) == Some(port));
}

/// A qcow2 image of 1 MiB, in which QEMU keeps a running guest's snapshots: header, table of reference
/// counts, a block of them, and a table without entries, a cluster each.
fn empty_qcow2() -> Vec<u8> {
    const CLUSTER: usize = 1 << 16;
    let mut image = vec![0; 4 * CLUSTER];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb\0\0\0\x02");
    put(20, &16u32.to_be_bytes());
    put(24, &(1u64 << 20).to_be_bytes());
    put(36, &1u32.to_be_bytes());
    put(40, &(3 * CLUSTER as u64).to_be_bytes());
    put(48, &(CLUSTER as u64).to_be_bytes());
    put(56, &1u32.to_be_bytes());
    put(CLUSTER, &(2 * CLUSTER as u64).to_be_bytes());
    put(2 * CLUSTER, &[0, 1, 0, 1, 0, 1, 0, 1]);
    image
}

#[test]
fn unwire_all_gives_back_what_define_gives_and_is_remembered_until_wire() {
    let _unwatched = Unwatched::now();
    let bare = Guest::define("back-bare").with_vnc().done();
    let pty = Guest::define("back-pty").with_vnc().with_pty_serial().done();
    let before = (redefined(&bare), redefined(&pty));
    let both = Configured::with(&format!("{ALWAYS}{WEBSOCKET}"));
    sh("console-proxy wire --all");
    assert!(wired_port(&bare.definition()).is_some() && wired_port(&pty.definition()).is_some());
    sh("console-proxy unwire --all");
    assert_eq!((comparable(&bare), comparable(&pty)), before);
    sh("console-proxy wire --all --watch=0");
    assert_eq!((comparable(&bare), comparable(&pty)), before, "who was unwired by hand stays unwired");
    sh("console-proxy wire --all");
    assert!(wired_port(&bare.definition()).is_some() && wired_port(&pty.definition()).is_some());
    drop(both);
    sh("console-proxy unwire --all --once");
}

#[test]
fn an_owner_opts_out_in_the_metadata_and_keeps_what_else_is_there() {
    let guest = Guest::define("opted-out").with_vnc().done();
    wait_for_wiring(&guest);
    virsh("metadata opted-out urn:console-proxy:1 settings \"<settings wire='no'/>\" --config");
    wait_until("what was wired to be taken back", SOON, || wired_port(&guest.definition()).is_none());
    let definition = guest.definition();
    assert!(definition.contains("wire=\"no\"") && !definition.contains("wiring"), "{definition}");
    assert!(sh("console-proxy wire opted-out").contains("wire='no'"));
}

#[test]
fn settings_whose_namespace_is_declared_on_the_domain_keep_a_guest_closed() {
    let guest = Guest::define("hoisted").with_vnc().blank().done();
    wait_for_wiring(&guest);
    let settings = "<metadata><cp:settings wire='no' publish='no'/></metadata>";
    let definition = sh("console-proxy unwire --xml <(virsh dumpxml --inactive hoisted)");
    let definition = definition.replacen("<domain ", "<domain xmlns:cp='urn:console-proxy:1' ", 1).replacen(
        "</uuid>",
        &format!("</uuid>{settings}"),
        1,
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), definition).unwrap();
    virsh(&format!("define {}", file.path().display()));
    let stored = guest.definition();
    assert!(stored.contains("<metadata xmlns:cp="), "libvirt has moved the declaration: {stored}");
    assert!(sh("console-proxy wire hoisted").contains("wire='no'"));
    wait_until("what was wired to be taken back", SOON, || wired_port(&guest.definition()).is_none());
    guest.start();
    let said = sh("console-proxy publish hoisted");
    assert!(said.contains("left out"), "{said}");
    assert_eq!(guest.listed(), None);
    assert!(!crate::host::exists(&format!("/run/console-proxy/guests/{}/route.toml", guest.uuid())));
}

#[test]
fn undefine_frees_the_slot_and_a_transient_guests_end_does() {
    let guest = Guest::define("undefined").with_vnc().blank().done();
    wait_for_wiring(&guest);
    let uuid = guest.uuid();
    guest.start();
    virsh("undefine undefined");
    sleep(Duration::from_secs(4));
    assert!(slots().contains(&uuid), "it still runs");
    guest.destroy();
    wait_until("the slot to be free", SOON, || !slots().contains(&uuid));
    assert_eq!(
        sh(&format!(
            "ls -d /run/systemd/system/console-proxy@{uuid}* /run/console-proxy/guests/{uuid} 2>/dev/null; true"
        )),
        ""
    );
}

#[test]
fn prune_frees_what_was_missed_and_says_whose() {
    let _unwatched = Unwatched::now();
    let guest = Guest::define("missed").with_vnc().blank().done();
    sh("console-proxy wire missed");
    let uuid = guest.uuid();
    drop(guest);
    let said = sh("console-proxy prune");
    assert!(said.lines().any(|line| line == format!("{uuid}: its slot is free")), "{said}");
    assert!(!slots().contains(&uuid));
}

#[test]
fn wiring_waits_for_a_guest_that_takes_longer_to_start_than_libvirt_lets_it_wait() {
    let _unwatched = Unwatched::now();
    let slow = "/etc/libvirt/hooks/qemu.d/e2e-slow";
    fs::create_dir_all("/etc/libvirt/hooks/qemu.d").unwrap();
    fs::write(slow, "#!/bin/sh\n[ \"$1 $2\" != 'slow start' ] || sleep 33\n").unwrap();
    fs::set_permissions(slow, fs::Permissions::from_mode(0o755)).unwrap();
    sh("systemctl reload libvirtd");
    let guest = Guest::define("slow").with_vnc().blank().done();
    let result = std::thread::scope(|scope| {
        let start = scope.spawn(|| try_sh("virsh start slow"));
        sleep(Duration::from_secs(1));
        let wired = try_sh("console-proxy wire slow");
        start.join().unwrap().and(wired)
    });
    fs::remove_file(slow).unwrap();
    result.unwrap();
    assert!(wired_port(&guest.definition()).is_some());
}

#[test]
fn definitions_in_files_are_wired_without_libvirt_and_given_back_byte_for_byte() {
    let text = sh("define-guest anywhere --vnc --uuid b50bdc9f-490b-4b9b-8641-7573c0eba77c --print") + "\n";
    fs::write("/tmp/anywhere.xml", &text).unwrap();
    sh("console-proxy wire --xml /tmp/anywhere.xml --slot 17 >/tmp/anywhere-wired.xml");
    assert_eq!(wired_port(&fs::read_to_string("/tmp/anywhere-wired.xml").unwrap()), Some(28017));
    sh(
        "console-proxy unwire --xml - </tmp/anywhere-wired.xml >/tmp/anywhere-back.xml; cmp /tmp/anywhere.xml /tmp/anywhere-back.xml",
    );
    assert!(!slots().contains("b50bdc9f-490b-4b9b-8641-7573c0eba77c"), "nothing is reserved");
    virsh("define /tmp/anywhere-wired.xml");
    let guest = Guest::existing("anywhere");
    wait_until("its own port", SOON, || wired_port(&guest.definition()).is_some_and(|port| port != 28017));
}

#[test]
fn a_refused_configuration_is_said_and_does_not_make_the_watcher_spin() {
    let before = journal_cursor();
    {
        let _broken = Configured::with("[serial]\nadd = \"sometimes\"\n");
        let guest = Guest::define("patient").with_vnc().blank().started();
        sleep(Duration::from_secs(5));
        assert_eq!(guest.state(), "running");
        assert_eq!(wired_port(&guest.definition()), None);
    }
    let said = journal_since(&before);
    let lines = said.lines().filter(|line| line.contains("nothing is wired: /etc/console-proxy/")).count();
    assert!((1..=6).contains(&lines), "{lines} times:\n{said}");
    sh("systemctl reset-failed 'console-proxy-wire*'");
    let guest = Guest::define("patient-after").with_vnc().blank().done();
    wait_for_wiring(&guest);
}

#[test]
fn every_serial_port_gets_a_log_in_its_place_and_all_of_it_is_taken_back() {
    let _unwatched = Unwatched::now();
    let guest = Guest::define("several").with_pty_serial().with_tcp_serial(28990).with_pty_serial().with_vnc().done();
    let before = redefined(&guest);
    let on = Configured::with("[serial]\nhistory = \"on\"\n");
    let said = sh("console-proxy wire several");
    assert_eq!(said.matches("what it says will be kept").count(), 3, "{said}");
    let wired = comparable(&guest);
    let uuid = guest.uuid();
    let places: Vec<_> = (0..3)
        .map(|n| wired.find(&format!("console-proxy-{uuid}-serial-{n}.log' append='on'/>")).expect("a log"))
        .collect();
    assert!(places.is_sorted(), "the ports are in their order: {wired}");
    assert_eq!(sh("console-proxy wire several"), "several: nothing to change");
    guest.start();
    guest.wait_to_boot();
    guest.open("serial/2").command("tty", "/dev/ttyS2");
    guest.destroy();
    drop(on);
    sh("console-proxy wire several");
    assert_eq!(comparable(&guest), before, "switched off");
    let _on = Configured::with("[serial]\nhistory = \"on\"\n");
    sh("console-proxy wire several");
    assert_eq!(comparable(&guest), wired);
    sh("console-proxy unwire --once several");
    assert_eq!(comparable(&guest), before);
}
