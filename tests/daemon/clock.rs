//! A host whose clock is set while its proxy runs: by libfaketime, which changes what this one process sees of it.

use std::fs;

use crate::backends::Backend;
use crate::host::{GUEST, Host, Proxy, until};

/// A proxy whose clock goes wrong by what [`set`] says.
fn proxy() -> Proxy {
    let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH);
    assert!(fs::metadata(&library).is_ok(), "{library} is not there: tests/host/install-needs.sh installs libfaketime");
    let mut host = Host::new().raw("serial/0", &Backend::echo()).config("[record]\nguests = [\"*\"]\n");
    let clock = host.path("clock");
    let more = [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        // As a clock that is set: the monotonic one and the files' times stay what they are.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("NO_FAKE_STAT", "1".to_owned()),
    ];
    host.environment.extend(more);
    set(&host, "+0");
    Proxy::activated(host)
}

/// Sets the clock, by a span such as `+2d`.
fn set(host: &Host, span: &str) {
    host.write("clock", span);
}

#[test]
fn a_clock_that_jumps_neither_ends_a_session_nor_holds_a_key_back_nor_disturbs_a_recording() {
    let proxy = proxy();
    let mut ws = proxy.open("/serial/0");
    ws.read(b"\x18\r\n[console-proxy: what this console shows is recorded]\r\n".len());
    ws.echoes("now");
    for (span, word) in [("+3d", "later"), ("-3d", "earlier"), ("+0", "again")] {
        set(&proxy, span);
        // The second one is within the time for which a port that talks is left alone.
        ws.echoes(word);
        ws.echoes(word);
    }
    drop(ws);
    let folder = proxy.path("var/lib/console-proxy/recordings").join(GUEST);
    let recording = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let text = || fs::read_to_string(&recording).unwrap();
    until("it is written", || text().contains("again"));
    let times: Vec<f64> =
        text().lines().skip(1).map(|line| line[1..line.find(',').unwrap()].parse::<f64>().unwrap()).collect();
    assert!(times.is_sorted() && times.iter().all(|time| (0.0..3600.0).contains(time)), "{times:?}");
}

#[test]
fn what_a_ticket_is_worth_follows_the_clock_that_the_host_has_now() {
    let proxy = proxy();
    drop(proxy.open("/serial/0"));
    let target = format!("/serial/0?token={}", proxy.ticket());
    set(&proxy, "+3d");
    assert_eq!(proxy.refusal(&target, &[]).status, 401);
    set(&proxy, "-3d");
    assert_eq!(proxy.refusal(&target, &[]).status, 401);
    set(&proxy, "+0");
    proxy.try_open(&target, &[]).unwrap();
}
