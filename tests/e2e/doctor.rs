//! What `console-proxy doctor` says where libvirt's daemon hangs, and to an ordinary user.

use std::time::{Duration, Instant};

use crate::host::{Configured, Guest, SOON, User, property, sh, try_sh, wait_for, wait_until};

/// libvirt's daemon, stopped: it takes connections, as the kernel does that, and answers none.
struct Stopped(String);

impl Stopped {
    fn libvirt() -> Self {
        let pid = property("libvirtd.service", "MainPID");
        assert_ne!(pid, "0", "libvirt's daemon runs");
        sh(&format!("kill -STOP {pid}"));
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = try_sh(&format!("kill -CONT {}", self.0));
    }
}

fn faults(said: &str) -> Vec<&str> {
    said.lines().filter(|line| line.starts_with("FAULT")).collect()
}

#[test]
fn a_daemon_of_libvirts_that_hangs_is_a_fault_in_words_and_all_else_is_looked_at() {
    let guest = Guest::define("hangs-not").with_vnc().with_pty_serial().started();
    guest.port();
    // One that has idled out would be started, and not be the one that is stopped.
    sh("virsh list");
    let stopped = Stopped::libvirt();
    let begun = Instant::now();
    let said = try_sh("timeout 120 console-proxy doctor").unwrap_err();
    let hung = "FAULT   libvirt's daemon has not answered for 5 s";
    assert!(said.contains(hung) && said.contains("ok      console-proxy-prune.timer"), "{said}");
    assert!(said.contains("exit status: 1"), "{said}");
    // What is published is known without libvirt.
    let url = sh("timeout 120 console-proxy url hangs-not");
    assert!(url.contains(&format!(":{}/?token=", guest.port())), "{url}");
    let said = try_sh("timeout 120 console-proxy publish hangs-not").unwrap_err();
    assert!(said.contains("libvirt's daemon has not answered for 15 s"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(120), "each has its end");
    drop(stopped);
    wait_for("libvirt to answer again", SOON, || try_sh("virsh list").ok());
    let said = try_sh("console-proxy doctor").unwrap_or_else(|said| said);
    assert!(!said.contains("has not answered") && said.contains("ok      hangs-not: port"), "{said}");
}

#[test]
fn an_ordinary_user_is_told_of_no_fault_that_is_none_and_what_only_root_can_see() {
    let guest = Guest::define("seen-by-root").with_vnc().with_pty_serial().started();
    guest.port();
    // In a folder that root and QEMU's user alone may look into.
    let path = "/var/lib/libvirt/qemu/e2e-seen.sock";
    let hidden = Guest::define("in-a-folder").with_unix_serial(path).started();
    hidden.port();
    let roots = try_sh("console-proxy doctor").unwrap_or_else(|said| said);
    assert!(roots.contains("ok      seen-by-root: port") && !roots.contains("unseen"), "{roots}");
    for groups in ["", "libvirt"] {
        let user = User::in_groups("e2e-patient", groups);
        let said = user.run("console-proxy doctor").unwrap_or_else(|said| said);
        for fault in faults(&said) {
            assert!(faults(&roots).contains(&fault), "{fault:?} is none:\n{said}\nroot is told:\n{roots}");
        }
        assert!(said.contains("unseen  /etc/console-proxy/tls/key.pem cannot be read by you"), "{said}");
        assert!(said.contains("unseen  the guard can be looked at by root alone"), "{said}");
        assert_eq!(said.contains("ok      seen-by-root: port"), groups == "libvirt", "{said}");
        let unseen = format!("unseen  in-a-folder: unix:{path}, its serial/0: Permission denied");
        assert_eq!(said.contains(&unseen), groups == "libvirt", "{said}");
        let refused = user.run("console-proxy sessions seen-by-root").unwrap_err();
        assert!(refused.contains("seeing who has a session takes root"), "{refused}");
        if faults(&roots).is_empty() {
            assert!(said.ends_with("no fault in what you may see: run it as root for the rest"), "{said}");
        }
    }
}

/// Whether other users reach a display depends on the guard, and root alone sees what is in the kernel.
#[test]
fn an_ordinary_user_is_not_told_that_a_display_is_open_or_guarded_where_root_alone_can_see_that() {
    let guest = Guest::define("kept").with_vnc().with_pty_serial().started();
    guest.port();
    let display =
        guest.xml().split("<graphics type='vnc' port='").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    let open = "kept: any local user reaches";
    let unseen = format!(
        "unseen  kept: root alone can see whether the guard keeps other users from its VNC display on loopback ({display})"
    );
    let libvirts = User::in_groups("e2e-onlooker", "libvirt");
    let stranger = User::in_groups("e2e-passer-by", "");
    let doctor = |user: &User| user.run("console-proxy doctor").unwrap_or_else(|said| said);
    let look = || {
        for user in [&libvirts, &stranger] {
            let said = doctor(user);
            assert!(!said.contains(open), "{said}");
            assert!(said.contains(&unseen) || said.contains("unseen  libvirt"), "{said}");
        }
        assert!(doctor(&libvirts).contains(&unseen));
        try_sh("console-proxy doctor").unwrap_or_else(|said| said)
    };
    let roots = look();
    assert!(roots.contains(&format!("note    {open}")) && !roots.contains("unseen"), "{roots}");
    let _asked_for = Configured::with("[guard]\ndisplays = true\n");
    sh("console-proxy publish --all");
    wait_until("the display to be guarded", SOON, || {
        stranger.run(&format!("bash -c 'echo </dev/tcp/127.0.0.1/{display}'")).is_err()
    });
    let roots = look();
    assert!(!roots.contains(open) && !roots.contains("unseen"), "{roots}");
}
