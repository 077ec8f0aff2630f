//! Recordings of text consoles on a host: whose they are, how long they are kept, and a disk that is full.

use crate::host::{
    Configured, Guest, SOON, journal_cursor, journal_since, property, sh, state_of, systemctl, try_sh, wait_for,
    wait_until,
};

const FOLDER: &str = "/var/lib/console-proxy/recordings";

/// The guest's recordings in the order of their beginnings; none where it has no folder.
fn recordings(guest: &Guest) -> Vec<String> {
    let found = sh(&format!("ls -d {FOLDER}/{}/*.cast 2>/dev/null; true", guest.uuid()));
    found.lines().map(str::to_owned).collect()
}

fn replay(recording: &str) -> String {
    sh(&format!("console-proxy replay --idle-limit 0s {recording}"))
}

#[test]
fn a_console_is_recorded_where_the_configuration_says_so_into_a_file_of_roots() {
    let _config = Configured::with("[record]\nguests = [\"tap*\"]\n");
    let guest = Guest::define("taped").with_pty_serial().started();
    let other = Guest::define("untaped").with_pty_serial().blank().started();
    guest.wait_to_boot();
    let mut serial = guest.open("serial/0");
    serial.read_until("[console-proxy: what this console shows is recorded]\r\n", SOON);
    serial.command("echo the answer is $((6 * 7))", "the answer is 42\r\n");
    drop(serial);
    let recording = wait_for("the recording", SOON, || {
        recordings(&guest).into_iter().find(|path| replay(path).contains("the answer is 42\r\n"))
    });
    let name = recording.rsplit_once('/').unwrap().1;
    assert!(name.starts_with("taped_serial-0_2") && name.ends_with("Z.cast"), "{name}");
    let rights = sh(&format!("stat -c '%a %U:%G' {recording} {FOLDER}/{}", guest.uuid()));
    assert_eq!(rights, "640 root:root\n750 root:root");
    // What is typed is there because the guest echoed it, and in no event of its own.
    assert!(!sh(&format!("cat {recording}")).contains(", \"i\", "));

    other.open("serial/0");
    assert_eq!(recordings(&other), Vec::<String>::new());

    sh(&format!("touch -d '40 days ago' {recording}"));
    systemctl("start console-proxy-prune.service");
    assert_eq!(recordings(&guest), Vec::<String>::new());
    assert!(try_sh(&format!("ls -d {FOLDER}/{}", guest.uuid())).is_err(), "an empty folder is left");
}

/// A disk of that size where recordings go.
struct SmallDisk;

impl SmallDisk {
    #[track_caller]
    fn of(size: &str) -> Self {
        sh(&format!("mount -t tmpfs -o mode=0750,size={size} tmpfs {FOLDER}"));
        // It sees the disk when it is started anew.
        systemctl("stop console-proxy-broker.service");
        Self
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = try_sh(&format!("systemctl stop console-proxy-broker.service; umount {FOLDER}"));
    }
}

#[test]
fn a_full_disk_ends_the_recording_and_not_the_session() {
    let _config = Configured::with("[record]\nguests = [\"full\"]\n");
    let _disk = SmallDisk::of("300k");
    let guest = Guest::define("full").with_pty_serial().started();
    guest.wait_to_boot();
    let before = journal_cursor();
    let mut serial = guest.open("serial/0");
    serial.command("seq 100000 200000; echo e''nd", "end");
    let journal = wait_for("the end of the recording", SOON, || {
        Some(journal_since(&before)).filter(|journal| journal.contains("the recording of full serial/0 ends here: "))
    });
    assert!(journal.contains("No space left on device"), "{journal}");
    serial.command("echo still $((1 + 1))", "still 2");
    let [recording] = &recordings(&guest)[..] else { panic!("{:?}", recordings(&guest)) };
    let played = sh(&format!("console-proxy replay --idle-limit 0s {recording} 2>&1"));
    assert!(played.contains("100000\r\n100001\r\n") && played.contains("the recording ends in the middle of a line"));
    assert!(!played.contains("still 2"));

    // Nor does it keep the next one from coming in.
    drop(serial);
    wait_until("the console to be closed", SOON, || {
        property(&guest.service(), "StatusText").ends_with("nobody is connected")
    });
    guest.open("serial/0").command("echo again $((2 + 2))", "again 4");
    assert_eq!(state_of(&guest.service()), "active");
}
