//! The installed units.

use crate::host::{install_package, sh, state_of, systemctl, try_sh, wait_until};
use std::time::Duration;

const UUID: &str = "11111111-2222-4333-8444-555555555555";

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let _drop_in = DropIn::listening_on(23999);
    let units = sh(&format!("cd /usr/lib/systemd/system; for u in console-proxy*; do echo ${{u/@./@{UUID}.}}; done"));
    let units = units.lines().collect::<Vec<_>>().join(" ");
    let said = try_sh(&format!("systemd-analyze verify --man=no --recursive-errors=no {units} 2>&1"))
        .unwrap_or_else(|said| said);
    let complaints: Vec<_> = said.lines().filter(|line| line.contains("console-proxy")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn a_guests_socket_cannot_start_without_its_drop_in() {
    assert!(try_sh(&format!("systemctl start console-proxy@{UUID}.socket")).is_err());
    sh(&format!("systemctl reset-failed 'console-proxy@{UUID}.socket' || true"));
}

/// A drop-in as sync writes it, taken away at the end.
struct DropIn;

impl DropIn {
    fn listening_on(port: u16) -> Self {
        let folder = format!("/run/systemd/system/console-proxy@{UUID}.socket.d");
        sh(&format!(
            "mkdir -p {folder}; printf '[Unit]\\nDescription=Consoles of guest test\\n[Socket]\\nListenStream={port}\\n' >{folder}/50-listen.conf"
        ));
        Self
    }
}

impl Drop for DropIn {
    fn drop(&mut self) {
        let _ = try_sh(&format!(
            "systemctl stop console-proxy@{UUID}.socket; rm -rf /run/systemd/system/console-proxy@{UUID}.socket.d; \
             systemctl daemon-reload; systemctl reset-failed 'console-proxy@*'; systemctl start console-proxy.target"
        ));
    }
}

#[test]
fn stopping_the_target_shuts_every_socket_and_it_stays_shut() {
    let _drop_in = DropIn::listening_on(23999);
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
