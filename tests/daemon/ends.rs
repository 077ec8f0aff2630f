//! How sessions end, and what the client hears: pings unanswered, backends that close, guests and proxies that stop.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::backends::{Backend, FLOOD, accept_websocket};
use crate::client::{Client, Ws};
use crate::host::{Host, PATIENCE, Proxy};

const KINDS: [&str; 3] = ["/vnc", "/serial/0", "/spice"];

fn host() -> (Host, Backend) {
    let (echo, native) = (Backend::echo(), Backend::websocket());
    (Host::new().raw("vnc", &echo).raw("serial/0", &echo).native("spice", &native), native)
}

#[test]
fn a_client_is_pinged_each_interval_and_its_answers_do_not_reach_a_forwarded_backend() {
    let (host, native) = host();
    let proxy = Proxy::activated(host.config("[proxy]\nping-interval = \"1s\"\n"));
    let begun = Instant::now();
    let mut all = KINDS.map(|kind| proxy.open(kind));
    // Longer than two unanswered pings would take.
    std::thread::scope(|scope| {
        for ws in &mut all {
            scope.spawn(|| {
                while ws.pings < 4 {
                    ws.next().expect("it lives");
                }
            });
        }
    });
    assert!(begun.elapsed() > Duration::from_secs(3), "not more often than that");
    for ws in &mut all {
        ws.echoes("still here");
    }
    let received = native.received();
    let head = received.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let message = crate::client::frame(0x82, Some([1, 2, 3, 4]), b"still here");
    assert_eq!(received[head..], message, "and nothing else");
}

#[test]
fn a_client_that_answers_no_ping_is_closed_with_4408() {
    let proxy = Proxy::activated(host().0.config("[proxy]\nping-interval = \"1s\"\n"));
    let begun = Instant::now();
    let mut all = KINDS.map(|kind| proxy.open(kind));
    for (ws, kind) in all.iter_mut().zip(KINDS) {
        ws.answers_pings = false;
        assert_eq!(ws.closed(), (4408, "two pings were not answered".to_owned()), "{kind}");
        assert_eq!(ws.pings, 2, "{kind}");
    }
    assert!(begun.elapsed() >= Duration::from_secs(3));
    for kind in KINDS {
        proxy.open_when_free(kind).echoes("the next client");
    }
}

#[test]
fn a_client_that_sends_anything_is_not_lost() {
    let proxy = Proxy::activated(host().0.config("[proxy]\nping-interval = \"1s\"\n"));
    let mut all = KINDS.map(|kind| proxy.open(kind));
    let begun = Instant::now();
    for ws in &mut all {
        ws.answers_pings = false;
    }
    while begun.elapsed() < Duration::from_millis(4500) {
        for ws in &mut all {
            ws.echoes("typing");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// What a backend says last, and then closes, while the client keeps typing.
const LAST_WORDS: usize = 200_000;

#[test]
fn a_backend_that_closes_is_4502_after_its_last_bytes() {
    let last = || vec![b'z'; LAST_WORDS];
    let raw = Backend::says(last());
    let native = Backend::websocket_that(move |ws| {
        ws.send(0x82, &last())?;
        ws.conversation.stream.shutdown(Shutdown::Write)
    });
    let proxy = Proxy::activated(Host::new().raw("vnc", &raw).raw("serial/0", &raw).native("spice", &native));
    for kind in KINDS {
        let (data, code, reason) = proxy.open(kind).closed_after();
        assert_eq!((data.len(), code, reason.as_str()), (LAST_WORDS, 4502, "the guest closed the console"), "{kind}");
    }
}

/// Has input for the backend wait on its way, so that a write is under way when the backend closes.
fn types_ahead(ws: &mut Ws) {
    for _ in 0..200 {
        let _ = ws.client.try_send(&crate::client::frame(0x82, Some([1; 4]), &[b'k'; 5000]));
    }
}

#[test]
fn a_backends_last_bytes_arrive_also_when_it_takes_no_more() {
    // QEMU's unix sockets: closed with input unread, writes to it fail before all was read from it. This one says as
    // much as there is room for, closes, and tells how much it was.
    let (said, is_said) = mpsc::channel();
    let said = Mutex::new(said);
    let raw = Backend::serve_unix(move |conversation| {
        conversation.read_exact(&mut [0])?;
        conversation.stream.set_write_timeout(Some(Duration::from_millis(500)))?;
        let mut sum = 0;
        while let Ok(n) = conversation.write(&[b'z'; 4096]) {
            sum += n;
        }
        conversation.stream.shutdown(Shutdown::Both)?;
        said.lock().unwrap().send(sum).unwrap();
        Ok(())
    });
    let proxy = Proxy::by_hand(Host::new().raw("vnc", &raw));
    let target = format!("/vnc?token={}", proxy.ticket());
    let mut ws = Ws::open(Client::tls_with_small_buffer(proxy.address), &target, &[]).unwrap();
    types_ahead(&mut ws);
    let sum = is_said.recv_timeout(PATIENCE).unwrap();
    let (data, code, reason) = ws.closed_after();
    assert_eq!((data.len(), code), (sum, 4502), "{reason}");
}

#[test]
fn nor_are_they_lost_where_they_are_forwarded() {
    let native = Backend::serve_unix(move |conversation| {
        accept_websocket(conversation)?;
        conversation.read_exact(&mut [0])?;
        conversation.write_all(&crate::client::frame(0x82, None, &vec![b'z'; LAST_WORDS]))
    });
    let proxy = Proxy::by_hand(Host::new().native("spice", &native));
    // Which of the two ends is seen first is a matter of chance.
    for _ in 0..4 {
        let mut ws = proxy.open("/spice");
        types_ahead(&mut ws);
        let (data, code, reason) = ws.closed_after();
        assert_eq!((data.len(), code), (LAST_WORDS, 4502), "{reason}");
    }
}

#[test]
fn a_guest_that_stops_is_1001_and_said() {
    let (close, closes) = mpsc::channel::<()>();
    let closes = Mutex::new(closes);
    let backend = Backend::serve(move |_| {
        let _ = closes.lock().unwrap().recv_timeout(PATIENCE);
        Ok(())
    });
    let proxy = Proxy::activated(Host::new().raw("vnc", &backend));
    let mut ws = proxy.open("/vnc");
    // QEMU has gone; libvirt's hook comes a moment later.
    close.send(()).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    proxy.withdraw_route();
    assert_eq!(ws.closed(), (1001, "the guest has stopped".to_owned()));
}

#[test]
fn a_proxy_that_is_stopped_after_its_guest_says_so_on_every_console() {
    let proxy = Proxy::activated(host().0);
    let mut all = KINDS.map(|kind| proxy.open(kind));
    proxy.withdraw_route();
    proxy.signal(Signal::TERM);
    for ws in &mut all {
        assert_eq!(ws.closed(), (1001, "the guest has stopped".to_owned()));
    }
    assert!(proxy.ended().success());
}

#[test]
fn a_proxy_that_is_stopped_tells_its_clients_and_ends_well_within_five_seconds() {
    let flood = Backend::serve(|conversation| {
        loop {
            conversation.write_all(&FLOOD)?;
        }
    });
    let host = host().0.raw("console/1", &flood).raw("console/2", &flood);
    let proxy = Proxy::activated(host);
    let mut all = KINDS.map(|kind| proxy.open(kind));
    let never_reads = proxy.open("/console/1");
    let idle_connection = proxy.client();
    let half_a_request = {
        let mut client = proxy.client();
        client.send(b"GET / HTT");
        client
    };
    let begun = Instant::now();
    proxy.signal(Signal::TERM);
    for ws in &mut all {
        assert_eq!(ws.closed(), (1001, "the console proxy is stopping".to_owned()));
    }
    assert_eq!(proxy.ended().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop((never_reads, idle_connection, half_a_request));
}
