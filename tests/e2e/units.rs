//! The installed units.

use crate::host::{Replaced, SOON, install_package, property, sh, state_of, systemctl, try_sh, wait_for, wait_until};
use std::time::Duration;

const UUID: &str = "11111111-2222-4333-8444-555555555555";

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let _drop_in = DropIns::of(UUID, 23999);
    let units = sh(&format!("cd /usr/lib/systemd/system; for u in console-proxy*; do echo ${{u/@./@{UUID}.}}; done"));
    let units = units.lines().collect::<Vec<_>>().join(" ");
    let said = try_sh(&format!("systemd-analyze verify --man=no --recursive-errors=no {units} 2>&1"))
        .unwrap_or_else(|said| said);
    let complaints: Vec<_> = said.lines().filter(|line| line.contains("console-proxy")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn what_watches_folders_can_be_stopped_and_started_as_often_as_one_likes() {
    for unit in ["console-proxy-wire.path", "console-proxy-wire-notes.path", "console-proxy-sync.path"] {
        for _ in 0..8 {
            systemctl(&format!("stop {unit}"));
            systemctl(&format!("start {unit}"));
        }
        assert_eq!(state_of(unit), "active");
    }
}

#[test]
fn a_guests_socket_cannot_start_without_its_drop_in() {
    assert!(try_sh(&format!("systemctl start console-proxy@{UUID}.socket")).is_err());
    sh(&format!("systemctl reset-failed 'console-proxy@{UUID}.socket' || true"));
}

/// A guest's drop-ins as sync writes them, taken away at the end.
struct DropIns<'a>(&'a str);

impl<'a> DropIns<'a> {
    fn of(uuid: &'a str, port: u16) -> Self {
        let unit = format!("/run/systemd/system/console-proxy@{uuid}");
        sh(&format!(
            "mkdir -p {unit}.socket.d {unit}.service.d
             printf '[Unit]\\nDescription=Consoles of guest test\\n[Socket]\\nListenStream={port}\\n' >{unit}.socket.d/50-listen.conf
             printf '[Service]\\nUser=console-proxy-{port}\\n' >{unit}.service.d/50-user.conf"
        ));
        Self(uuid)
    }
}

impl Drop for DropIns<'_> {
    fn drop(&mut self) {
        let unit = format!("console-proxy@{}", self.0);
        let _ = try_sh(&format!(
            "systemctl stop {unit}.socket {unit}.service; rm -rf /run/systemd/system/{unit}.*.d; \
             systemctl daemon-reload; systemctl reset-failed 'console-proxy@*'; systemctl start console-proxy.target"
        ));
    }
}

#[test]
fn stopping_the_target_shuts_every_socket_and_it_stays_shut() {
    let _drop_in = DropIns::of(UUID, 23999);
    let socket = format!("console-proxy@{UUID}.socket");
    systemctl(&format!("start {socket}"));
    assert!(sh("ss -Hltn 'sport = :23999'").contains("*:23999"), "IPv4 and IPv6");
    assert_eq!(systemctl(&format!("show --value -p Description {socket}")), "Consoles of guest test");
    systemctl("stop console-proxy.target");
    assert_eq!(state_of(&socket), "inactive");
    assert!(try_sh(&format!("systemctl start {socket}")).is_err(), "it started without its target");
    systemctl("start console-proxy.target");
    systemctl(&format!("start {socket}"));
    assert_eq!(state_of(&socket), "active");
}

/// systemd names a template's dynamic user after the template, for all of its instances alike.
#[test]
fn each_guests_proxy_has_a_user_of_its_own_and_none_starts_without() {
    let other = "22222222-2222-4333-8444-555555555555";
    let (_one, _two) = (DropIns::of(UUID, 23998), DropIns::of(other, 23999));
    let _sleeper =
        Replaced::by_script("/usr/sbin/console-proxyd", "#!/bin/sh\nsystemd-notify --ready\nexec sleep 30\n");
    let user = |uuid: &str| {
        sh(&format!("systemctl start --no-block console-proxy@{uuid}.service"));
        let uid = wait_for("the proxy's user", SOON, || {
            Some(property(&format!("console-proxy@{uuid}.service"), "UID")).filter(|uid| uid != "[not set]")
        });
        sh(&format!("systemctl stop console-proxy@{uuid}.service"));
        uid
    };
    assert_ne!(user(UUID), user(other));
    let third = "33333333-2222-4333-8444-555555555555";
    assert!(try_sh(&format!("systemctl start console-proxy@{third}.service")).is_err());
    sh(&format!("systemctl stop console-proxy@{third}.service; systemctl reset-failed 'console-proxy@*'"));
}

#[test]
fn the_guards_unit_comes_back_whenever_nftables_is_restarted_or_started() {
    let started = || systemctl("show --value -p ActiveEnterTimestampMonotonic console-proxy-guard.service");
    systemctl("start nftables");
    for command in ["restart nftables", "stop nftables; systemctl start nftables"] {
        let before = started();
        systemctl(command);
        wait_until(&format!("the guard after {command}"), Duration::from_secs(10), || {
            state_of("console-proxy-guard.service") == "active" && started() != before
        });
    }
    systemctl("stop nftables");
    install_package();
}
