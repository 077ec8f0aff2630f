//! Installing, removing, purging.

use std::time::Duration;

use crate::host::{
    Guest, SOON, User, exists, files_named_console_proxy, install_package, sh, state_of, systemctl, try_sh, wait_until,
};
use crate::ws::Ws;

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
        ("/run/console-proxy/broker", "750 root:console-proxy"),
        ("/run/console-proxy/broker/socket", "660 root:console-proxy"),
        ("/run/console-proxy/front", "750 root:console-proxy-front"),
        ("/var/lib/console-proxy", "750 root:libvirt"),
        ("/var/lib/console-proxy/revoked", "750 root:console-proxy"),
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

/// Who is on which console and from where, which guests there are, what was ended, keys: of all files below our folders
/// those alone are for everybody that say nothing of it.
#[test]
fn of_what_is_kept_of_guests_and_people_an_ordinary_user_reads_nothing() {
    let guest = Guest::define("private").with_vnc().with_pty_serial().started();
    guest.port();
    let _open = Ws::connect(guest.port(), "/serial/0", &guest.ticket_with("--user ann")).unwrap();
    let live = format!("/run/console-proxy/state/{}/live.json", guest.uuid());
    wait_until("the session in live.json", SOON, || exists(&live));
    sh("console-proxy revoke --person e2e-nobody; console-proxy unwire private");
    let kept = ["/run/console-proxy", "/var/lib/console-proxy", "/etc/console-proxy"].join(" ");
    let files = sh(&format!("find {kept} -type f"));
    for file in [&live, "/var/lib/console-proxy/revoked/orders.json", "/var/lib/console-proxy/slots"] {
        assert!(files.lines().any(|line| line == file), "{file} in {files}");
    }
    for file in ["/var/lib/console-proxy/unwired", "/run/console-proxy/guests/"] {
        assert!(files.contains(file), "{file} in {files}");
    }
    let script = "/tmp/e2e-read.sh";
    std::fs::write(
        script,
        format!(
            "#!/bin/sh\nfor file in {}; do cat $file >/dev/null 2>&1 && echo $file; done; true\n",
            files.replace('\n', " ")
        ),
    )
    .unwrap();
    sh(&format!("chmod 755 {script}"));
    let user = User::in_groups("e2e-reader", "");
    let read = user.run(script).unwrap();
    let for_all = |file: &str| {
        ["/etc/console-proxy/issuers.d/", "/etc/console-proxy/console-proxy.toml"].iter().any(|at| file.starts_with(at))
            || file == "/etc/console-proxy/tls/certificate.pem"
    };
    assert_eq!(read.lines().filter(|file| !for_all(file)).collect::<Vec<_>>(), Vec::<&str>::new());
    assert!(read.contains("certificate.pem"), "it can read at all: {read}");
    let seen = user.run(&format!("find {kept} -mindepth 2 2>/dev/null; true")).unwrap();
    let uuid = guest.uuid();
    assert!(!seen.contains(&uuid), "not even that a guest is there: {seen}");

    // Those who need it still do: the proxy, which is to know what was ended, and group libvirt.
    sh("console-proxy revoke --person ann");
    wait_until("ann to be out", SOON, || !exists(&live));
    let operator = User::in_groups("e2e-reads", "libvirt");
    assert!(operator.run("console-proxy list").unwrap().contains("private"));
    let doctor = operator.run("console-proxy doctor").unwrap_or_else(|said| said);
    assert!(!doctor.contains("nobody in") && !doctor.contains("FAULT   private"), "{doctor}");
}

#[test]
fn an_upgrade_closes_folders_that_were_open_and_removes_the_one_that_is_not_used_any_more() {
    sh("mkdir -p /run/console-proxy/claims; echo of an earlier version >/run/console-proxy/claims/tcp-5900");
    let folders = ["/run/console-proxy/guests", "/var/lib/console-proxy", "/var/lib/console-proxy/revoked"];
    let rights = || folders.map(|folder| sh(&format!("stat -c '%a %U:%G' {folder}")));
    for folder in folders {
        sh(&format!("chown root:root {folder}; chmod 755 {folder}"));
    }
    install_package();
    assert_eq!(rights(), ["750 root:libvirt", "750 root:libvirt", "750 root:console-proxy"]);
    assert!(!exists("/run/console-proxy/claims"));
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
