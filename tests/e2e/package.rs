//! Installing, removing, purging.

use crate::host::{
    Guest, exists, files_named_console_proxy, install_package, sh, state_of, systemctl, try_sh, wait_until,
};
use std::time::Duration;

/// Installs the package again at the end of a test that took it away.
struct Reinstalled;

impl Drop for Reinstalled {
    fn drop(&mut self) {
        install_package();
    }
}

#[test]
fn after_installation_the_host_listens_to_libvirt() {
    for unit in [
        "console-proxy.target",
        "console-proxy-sync.path",
        "console-proxy-wire.path",
        "console-proxy-wire-notes.path",
        "console-proxy-broker.socket",
        "console-proxy-ssh.socket",
        "console-proxy-auth.socket",
        "console-proxy-prune.timer",
        "console-proxy-guard.service",
    ] {
        assert_eq!(state_of(unit), "active", "{unit}");
        assert_eq!(systemctl(&format!("is-enabled {unit}")), "enabled", "{unit}");
    }
    assert_eq!(sh("systemctl list-units --failed --no-legend --plain 'console-proxy*'"), "");
}

#[test]
fn its_folders_are_open_to_those_who_need_them_alone() {
    for (folder, rights) in [
        ("/run/console-proxy", "755 root:root"),
        ("/run/console-proxy/queue", "700 root:root"),
        ("/run/console-proxy/wire", "700 root:root"),
        ("/run/console-proxy/guests", "750 root:libvirt"),
        ("/run/console-proxy/claims", "755 root:root"),
        ("/run/console-proxy/broker", "750 root:console-proxy"),
        ("/run/console-proxy/broker/socket", "660 root:console-proxy"),
        ("/run/console-proxy/front", "750 root:console-proxy-front"),
        ("/var/lib/console-proxy", "755 root:root"),
        ("/var/lib/console-proxy/recordings", "750 root:root"),
        ("/etc/console-proxy/issuers.d", "755 root:root"),
        ("/run/console-proxy/ssh", "755 root:root"),
        ("/run/console-proxy/ssh/socket", "600 console:root"),
        ("/run/console-proxy/auth", "700 root:root"),
        ("/run/console-proxy/auth/socket", "600 root:root"),
        ("/etc/console-proxy/ssh", "750 root:console"),
        ("/etc/console-proxy/tls", "751 root:console-proxy"),
        ("/etc/console-proxy/signing", "750 root:libvirt"),
    ] {
        assert_eq!(sh(&format!("stat -c '%a %U:%G' {folder}")), rights, "{folder}");
    }
}

#[test]
fn after_removal_guests_run_on_start_stop_and_survive_libvirtd() {
    let _again = Reinstalled;
    let guest = Guest::define("stays").with_pty_serial().with_vnc().started();
    let before = (guest.pid(), guest.definition());
    sh("DEBIAN_FRONTEND=noninteractive apt-get remove -y -qq console-proxy");
    assert!(!exists("/usr/sbin/console-proxy-hook"));
    assert!(exists("/etc/libvirt/hooks/qemu.d/console-proxy"), "configuration stays until purge");
    assert_eq!(before, (guest.pid(), guest.definition()));
    systemctl("restart libvirtd");
    wait_until("libvirtd to answer", Duration::from_secs(60), || try_sh("virsh list").is_ok());
    assert_eq!(guest.state(), "running");
    guest.destroy();
    guest.start();
    assert_eq!(guest.state(), "running");
    // What is enabled stays so until purge, as with any package; but nothing of it is there or runs.
    let units = sh("systemctl list-units --all --no-legend --plain 'console-proxy*'");
    assert!(units.lines().all(|unit| unit.contains("not-found inactive dead")), "{units}");
}

#[test]
fn purging_leaves_no_file() {
    let _again = Reinstalled;
    sh("DEBIAN_FRONTEND=noninteractive apt-get purge -y -qq console-proxy");
    assert_eq!(files_named_console_proxy(), Vec::<String>::new());
    // And the other way: removed first, purged later.
    install_package();
    sh("DEBIAN_FRONTEND=noninteractive apt-get remove -y -qq console-proxy");
    sh("DEBIAN_FRONTEND=noninteractive apt-get purge -y -qq console-proxy");
    assert_eq!(files_named_console_proxy(), Vec::<String>::new());
}

#[test]
fn in_a_chroot_the_package_is_installed_and_removed_without_a_service_manager() {
    // The host's own root with empty places for what only a running system has.
    let run = |command: &str| {
        sh(&format!(
            "unshare --mount --pid --fork bash -euc 'mkdir -p /tmp/image/{{upper,work,root}}; \
             mount -t tmpfs tmpfs /tmp/image; mkdir /tmp/image/{{upper,work,root}}; \
             mount -t overlay overlay -o lowerdir=/,upperdir=/tmp/image/upper,workdir=/tmp/image/work /tmp/image/root; \
             cd /tmp/image/root; mount -t proc proc proc; mount -t tmpfs tmpfs run; mount -t tmpfs tmpfs tmp; \
             chroot . bash -euc \"{command}\"'"
        ))
    };
    run("export DEBIAN_FRONTEND=noninteractive; dpkg --purge console-proxy; dpkg -i /root/console-proxy.deb; \
         test -L /etc/systemd/system/multi-user.target.wants/console-proxy.target; \
         test -z \\\"\\$(ls -A /etc/console-proxy/tls /etc/console-proxy/signing | grep -v :)\\\"; \
         dpkg --remove console-proxy; dpkg --purge console-proxy; test ! -e /etc/console-proxy");
}

#[test]
fn installing_it_again_touches_no_guest() {
    let guest = Guest::define("upgraded").with_pty_serial().with_vnc().started();
    let before = guest.pid();
    let libvirtd = systemctl("show --value -p MainPID libvirtd");
    install_package();
    assert_eq!(guest.state(), "running");
    assert_eq!(guest.pid(), before);
    assert_eq!(systemctl("show --value -p MainPID libvirtd"), libvirtd, "libvirtd was reloaded, not restarted");
}
