//! Users whom an LDAP directory alone knows, through SSSD, as the README sets it up. They run by themselves, after all
//! others: `tests/host/ldap.sh` changes whom the host knows.

use std::time::Duration;

use crate::auth::{enter, forget, log_in, open};
use crate::host::{Configured, Guest, User, sh, systemctl, try_sh, wait_until};

const LENA: (&str, &str) = ("lena", "lena's secret");
const MINUTE: Duration = Duration::from_secs(60);

fn rights() -> Configured {
    Configured::with("[access]\nrights = [{ groups = [\"operators\", \"libvirt\"], guests = [\"ldap-*\"] }]\n")
}

/// SSSD looks for its directory now, and not when it thinks that it is time.
#[track_caller]
fn find_directory() {
    systemctl("start slapd");
    wait_until("SSSD to find its directory", MINUTE, || {
        try_sh("kill -USR2 $(cat /run/sssd.pid); sleep 0.5; id lena").is_ok()
    });
}

#[test]
#[ignore = "needs a directory"]
fn a_user_of_the_directory_alone_has_the_serial_console_of_the_guests_they_may_open() {
    assert!(try_sh("grep -q ^lena: /etc/passwd").is_err());
    let _rights = rights();
    forget();
    let (guest, other) = (
        Guest::define("ldap-mine").with_pty_serial().with_vnc().started(),
        Guest::define("not-mine").with_vnc().blank().started(),
    );
    guest.wait_to_boot();
    let port = guest.port();
    let session = enter(port, LENA.0, LENA.1);
    open(port, "serial/0", &session).command("echo $((6 * 7)) is right", "42 is right");
    let (status, _, words) = log_in(other.port(), LENA.0, LENA.1);
    assert!(status == 403 && words.contains("lena has no right to this guest"), "{status} {words}");
    let (status, _, words) = log_in(port, "otto", "otto's secret");
    assert!(status == 403 && words.contains("otto has no right to this guest"), "{status} {words}");
    assert_eq!(log_in(port, LENA.0, "wrong").0, 401);
}

const STOP_SSSD: &str = "systemctl stop sssd.service sssd-nss.socket sssd-pam.socket sssd-pam-priv.socket sssd-nss.service sssd-pam.service";
const START_SSSD: &str = "systemctl start sssd-nss.socket sssd-pam.socket sssd-pam-priv.socket sssd.service";

#[test]
#[ignore = "needs a directory"]
fn while_the_directory_is_down_its_users_are_told_so_and_local_ones_enter() {
    let _rights = rights();
    forget();
    let guest = Guest::define("ldap-down").with_vnc().blank().started();
    let port = guest.port();
    let _ann = User::in_groups("e2e-ann", "libvirt");
    sh("echo e2e-ann:secret | chpasswd");
    assert_eq!(log_in(port, LENA.0, LENA.1).0, 200);
    let down = |when: &str| {
        for (user, password) in [LENA, ("lena", "wrong"), ("otto", "otto's secret")] {
            let (status, _, words) = log_in(port, user, password);
            assert!(status == 503 && words.contains("cannot be checked now"), "{when}: {user}: {status} {words}");
        }
        assert_eq!(log_in(port, "e2e-ann", "secret").0, 200, "{when}");
        assert_eq!(log_in(port, "e2e-ann", "wrong").0, 401, "{when}");
    };
    systemctl("stop slapd");
    down("SSSD knows them from before");
    sh("systemctl stop sssd; rm -f /var/lib/sss/db/* /var/lib/sss/mc/*; systemctl start sssd");
    down("SSSD has never seen them");
    sh(STOP_SSSD);
    down("SSSD does not run");
    sh(START_SSSD);
    find_directory();
    assert_eq!(log_in(port, LENA.0, LENA.1).0, 200, "none of it was counted as failed");
}

#[test]
#[ignore = "needs a directory"]
fn who_is_taken_out_of_a_group_in_the_directory_is_out_within_a_minute() {
    let _rights = rights();
    forget();
    let guest = Guest::define("ldap-group").with_pty_serial().with_vnc().started();
    guest.wait_to_boot();
    let port = guest.port();
    let session = enter(port, LENA.0, LENA.1);
    let mut serial = open(port, "serial/0", &session);
    serial.command("echo $((6 * 7)) is right", "42 is right");
    // While SSSD is away nobody is taken for gone, whatever the host says of them meanwhile.
    sh(STOP_SSSD);
    for _ in 0..3 {
        sh("console-proxy publish ldap-group");
        std::thread::sleep(Duration::from_secs(1));
    }
    sh(START_SSSD);
    find_directory();
    serial.command("echo $((7 * 7)) is right", "49 is right");
    // Who is the host's own needs no directory to be gone.
    let _ann = User::in_groups("e2e-ann", "libvirt");
    sh("echo e2e-ann:secret | chpasswd");
    let mut display = open(port, "vnc", &enter(port, "e2e-ann", "secret"));
    sh("userdel e2e-ann; console-proxy publish ldap-group");
    let end = display.wait_for_close(MINUTE);
    assert_eq!(end, (4403, "this host knows no such user any more".to_owned()));
    sh("/root/ldap.sh remove lena operators");
    let end = serial.wait_for_close(MINUTE);
    sh("/root/ldap.sh add lena operators");
    assert_eq!(end, (4403, "the right to serial/0 was taken away".to_owned()));
}
