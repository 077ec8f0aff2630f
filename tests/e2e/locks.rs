//! The folder of terminals' locks is open to all: what others leave there keeps nobody from a console.

use std::time::Duration;

use crate::auth::{enter, open, person};
use crate::host::{
    Guest, Running, SOON, User, exists, journal_cursor, journal_since, sh, systemctl, try_sh, wait_until,
};

/// How many terminals' names are taken: more than the tests ever have.
const TERMINALS: u32 = 40;

/// Takes all of the host's locks away, at the end of a test too.
struct Locks;

impl Locks {
    fn forget() -> Self {
        sh("rm -rf /run/lock/LCK.._pts_* /run/lock/.console-proxy-lock.*");
        Self
    }
}

impl Drop for Locks {
    fn drop(&mut self) {
        let _ = try_sh("rm -rf /run/lock/LCK.._pts_* /run/lock/.console-proxy-lock.*");
    }
}

#[test]
fn whatever_an_ordinary_user_leaves_in_the_folder_of_locks_ptys_open_and_so_does_everything_else() {
    let guest = Guest::define("locked-out").with_vnc().with_pty_serial().started();
    guest.wait_to_boot();
    let (port, number) = (guest.port(), guest.pty().strip_prefix("/dev/pts/").unwrap().to_owned());
    let _ann = person("e2e-ann", "secret");
    let stranger = User::in_groups("e2e-locker", "");
    let lock = format!("/run/lock/LCK.._pts_{number}");
    for (what, command) in [
        ("it is no regular file", "mkfifo $f"),
        ("it is no regular file", "mkdir $f"),
        ("it is no regular file", "mkdir $f; touch $f/file"),
        // A file of root's that names a process that lives.
        ("it is a symbolic link", "ln -s /run/libvirt/qemu/locked-out.pid $f"),
        ("it belongs to uid ", "printf '%10d\\n' 1 >$f"),
    ] {
        let _locks = Locks::forget();
        let all = format!("for n in $(seq 0 {TERMINALS}); do f=/run/lock/LCK.._pts_$n; {command}; done");
        stranger.run(&format!("sh -c '{}'", all.replace('\'', "'\\''"))).unwrap();
        let before = journal_cursor();
        // Each would take a thread of the broker's for good; it has 64 of them for one guest.
        for _ in 0..3 {
            guest.open("serial/0").command("echo $((6 * 7)) is right", "42 is right");
            wait_until("the lock to be given back", SOON, || !exists(&lock));
            stranger.run(&format!("sh -c 'f={lock}; {}'", command.replace('\'', "'\\''"))).unwrap();
        }
        let said = journal_since(&before);
        assert!(
            said.contains(&format!("{} was no lock and is passed over: {what}", lock.replace("/run", "/var"))),
            "{said}"
        );
        let mut screen = guest.open("vnc");
        assert_eq!(screen.read_until("\n", SOON), "RFB 003.008\n", "{what}");
        let cookie = enter(port, "e2e-ann", "secret");
        open(port, "serial/0", &cookie).command("echo $((6 * 8)) too", "48 too");
        wait_until("the lock to be given back", SOON, || !exists(&lock));
    }
    assert!(exists("/run/libvirt/qemu/locked-out.pid"), "what a link led to is still there");
}

#[test]
fn who_makes_locks_again_and_again_keeps_nobody_out() {
    let guest = Guest::define("contended").with_pty_serial().started();
    guest.wait_to_boot();
    guest.port();
    let stranger = User::in_groups("e2e-locker", "");
    let _locks = Locks::forget();
    let lock = format!("/run/lock/LCK.._pts_{}", guest.pty().strip_prefix("/dev/pts/").unwrap());
    let loops = format!("while :; do echo 1 >{lock}; mkfifo {lock}; done");
    let busy = Running::sh(&format!("runuser -u {} -- sh -c '{loops}'", stranger.0));
    std::thread::sleep(Duration::from_millis(300));
    for _ in 0..5 {
        guest.open("serial/0").command("echo $((6 * 7)) is right", "42 is right");
    }
    drop(busy);
    sh(&format!("pkill -KILL -u {}; true", stranger.0));
}

#[test]
fn where_an_ordinary_user_has_filled_the_folder_of_locks_terminals_open_without_one_and_it_is_said() {
    let _full = Locks::forget();
    let guest = Guest::define("no-room").with_pty_serial().started();
    guest.wait_to_boot();
    guest.port();
    let stranger = User::in_groups("e2e-filler", "");
    // A file system of its own, so that nothing else of the host's is in the way.
    sh("mount -t tmpfs -o size=64k,mode=1777 e2e-locks /run/lock");
    let _mounted = Mounted("/run/lock");
    systemctl("restart console-proxy-broker");
    assert!(stranger.run("sh -c 'cat /dev/zero >/run/lock/x'").is_err(), "it is full");
    let before = journal_cursor();
    guest.open("serial/0").command("echo $((6 * 7)) is right", "42 is right");
    let said = journal_since(&before);
    let number = guest.pty().strip_prefix("/dev/pts/").unwrap().to_owned();
    let words = format!("/var/lock/LCK.._pts_{number} cannot be made: No space left on device");
    assert!(said.contains(&words) && said.contains("the terminal is opened without it"), "{said}");
}

/// A file system of a test's, which ends with it.
struct Mounted(&'static str);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = try_sh(&format!("umount --lazy {}; systemctl restart console-proxy-broker", self.0));
    }
}
