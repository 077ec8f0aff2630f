//! Backends that refuse, hang, or close at once; and one client who is slow.

use std::io::Write;
use std::time::{Duration, Instant};

use console_proxy::edges::passing;

use crate::backends::{Backend, FLOOD};
use crate::host::{Host, Proxy, until};

const CONFIG: &str = "[proxy]\nconnect-timeout = \"1s\"\n";

#[test]
fn a_backend_that_refuses_is_502_and_says_which() {
    let backend = Backend::refuses();
    for proxy in [
        Proxy::activated(Host::new().raw("vnc", &backend).native("spice", &backend)),
        Proxy::by_hand(Host::new().raw("vnc", &backend).native("spice", &backend)),
    ] {
        for path in ["/vnc", "/spice"] {
            let answer = proxy.refusal(&format!("{path}?token={}", proxy.ticket()), &[]);
            assert_eq!(answer.status, 502);
            assert!(answer.body.starts_with(&format!("{}: Connection refused", backend.place)), "{answer:?}");
            proxy.until_logged(&format!("{} of g1: {}: Connection refused", &path[1..], backend.place));
        }
    }
}

#[test]
fn a_backend_that_does_not_accept_is_504() {
    let backend = Backend::hangs();
    let by_hand = Proxy::by_hand(Host::new().raw("vnc", &backend).config(CONFIG));
    let answer = by_hand.refusal(&format!("/vnc?token={}", by_hand.ticket()), &[]);
    let words = format!("{} did not accept within 1 s\n", backend.place);
    assert_eq!((answer.status, answer.body), (504, words));
    let activated = Proxy::activated(Host::new().raw("vnc", &backend).config(CONFIG));
    assert_eq!(activated.refusal(&format!("/vnc?token={}", activated.ticket()), &[]).status, 504);
}

#[test]
fn a_backend_that_closes_at_once_is_4502() {
    let closes = Backend::closes_at_once();
    let proxy = Proxy::activated(Host::new().raw("vnc", &closes).raw("serial/0", &closes));
    for path in ["/vnc", "/serial/0"] {
        assert_eq!(proxy.open(path).closed(), (4502, "the guest closed the console".to_owned()), "{path}");
    }
}

#[test]
fn a_console_that_the_host_knows_and_cannot_reach_is_502_with_the_reason() {
    let mut host = Host::new();
    host.route.unreachable.push(
        serde_json::from_value(serde_json::json!({"console": "spice", "reason": "it listens nowhere: add a port"}))
            .unwrap(),
    );
    host.write_route();
    let proxy = Proxy::activated(host);
    let answer = proxy.refusal(&format!("/spice?token={}", proxy.ticket()), &[]);
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (502, "spice cannot be reached: it listens nowhere: add a port\n")
    );
}

#[test]
fn a_broker_that_is_not_there_or_does_not_answer_is_502_or_504_and_the_next_proxy_finds_it_again() {
    let host = Host::new().raw("vnc", &Backend::echo()).config(CONFIG);
    let socket = host.path("run/console-proxy/broker/socket");
    let proxy = Proxy::activated(host);
    std::fs::rename(&socket, socket.with_extension("away")).unwrap();
    let answer = proxy.refusal(&format!("/vnc?token={}", proxy.ticket()), &[]);
    assert_eq!(answer.status, 502);
    assert!(answer.body.starts_with("the console broker does not answer: No such file"), "{answer:?}");
    let ended = |proxy: &Proxy| until("the proxy without a channel to end", || !proxy.is_running());
    ended(&proxy);

    let hangs = passing::listen(&socket).unwrap();
    let answer = proxy.refusal(&format!("/vnc?token={}", proxy.ticket()), &[]);
    assert_eq!((answer.status, answer.body.as_str()), (504, "the console broker did not answer in time\n"));
    drop(hangs);
    ended(&proxy);
    assert!(proxy.ended().success(), "systemd need not start it again");

    std::fs::rename(socket.with_extension("away"), &socket).unwrap();
    proxy.open("/vnc").echoes("with its broker");
}

#[test]
fn a_proxy_whose_broker_has_gone_keeps_what_is_open_says_what_to_do_and_ends_with_its_last_session() {
    let host = Host::new().raw("vnc", &Backend::echo()).raw("serial/0", &Backend::echo()).config(CONFIG);
    let proxy = Proxy::activated(host);
    let (mut vnc, mut serial) = (proxy.open("/vnc"), proxy.open("/serial/0"));
    proxy.broker_hangs_up();
    proxy.until_logged("the console broker has ended");
    let answer = proxy.refusal(&format!("/vnc?token={}", proxy.ticket()), &[]);
    assert_eq!(answer.status, 502);
    assert!(answer.body.contains("close what is open of this guest"), "{answer:?}");
    vnc.echoes("still here");
    serial.echoes("still here");
    drop(vnc);
    drop(serial);
    until("the proxy to end", || !proxy.is_running());
    proxy.open("/vnc").echoes("with a new one");
    assert_eq!(proxy.starts(), 2);
}

#[test]
fn a_slow_client_slows_nobody_else() {
    let flood = Backend::serve(|conversation| {
        loop {
            conversation.write_all(&FLOOD)?;
        }
    });
    let echo = Backend::echo();
    let native_flood = Backend::websocket_that(|ws| {
        loop {
            ws.send(0x82, &FLOOD)?;
        }
    });
    let proxy = Proxy::activated(Host::new().raw("vnc", &flood).native("spice", &native_flood).raw("serial/0", &echo));
    // Neither reads a byte; they are not the last viewers, either.
    let slow = [proxy.open("/vnc"), proxy.open("/spice"), proxy.open("/vnc")];
    let mut quick = proxy.open("/serial/0");
    let mut display = proxy.open("/vnc");
    let begun = Instant::now();
    for _ in 0..50 {
        quick.echoes("a key");
        assert_eq!(display.read(100_000).len(), 100_000);
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(proxy.memory() < 60_000, "{} KiB", proxy.memory());
    drop(slow);
}
