//! Clients that dawdle, that are too many, or that come and go; and what of it costs memory and descriptors.

use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use console_proxy::rules::ticket::Mode;
use rustix::process::Signal;

use crate::backends::Backend;
use crate::client::{Client, Ws};
use crate::host::{Host, Proxy, until};

fn proxy(config: &str) -> Proxy {
    let echo = Backend::echo();
    Proxy::activated(Host::new().raw("vnc", &echo).raw("serial/0", &echo).config(config))
}

/// Sends bytes so slowly that it would take minutes, until the proxy has had enough.
#[track_caller]
fn is_cut(mut client: Client, bytes: &[u8]) {
    let begun = Instant::now();
    for byte in bytes.iter().cycle() {
        if client.try_send(&[*byte]).is_err() {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "it is still listened to");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(begun.elapsed() >= Duration::from_millis(900), "too early: {:?}", begun.elapsed());
}

#[test]
fn who_sends_a_byte_now_and_then_is_cut_at_the_handshake_timeout() {
    let proxy = proxy("[proxy]\nhandshake-timeout = \"1s\"\n");
    proxy.ask("GET", "/", &[]);
    // A TLS record of 512 bytes that begins as a ClientHello does.
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 500]].concat();
    std::thread::scope(|scope| {
        scope.spawn(|| is_cut(Client::tcp(proxy.address), &hello));
        scope.spawn(|| is_cut(Client::tcp(proxy.address), b"GET / HTTP/1.1\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
        scope.spawn(|| is_cut(proxy.client(), b"GET / HTTP/1.1\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
        // Nothing at all, before and after the handshake, and after a request.
        scope.spawn(|| assert_eq!(Client::tcp(proxy.address).until_closed(), ""));
        scope.spawn(|| assert_eq!(proxy.client().until_closed(), ""));
        scope.spawn(|| {
            let mut client = proxy.client();
            assert_eq!(client.ask("GET", "/", &[]).status, 200);
            assert_eq!(client.until_closed(), "");
        });
        // A session is no handshake.
        scope.spawn(|| {
            let mut ws = proxy.open("/vnc");
            std::thread::sleep(Duration::from_millis(2500));
            ws.echoes("still here");
        });
    });
}

#[test]
fn the_handshake_timeout_is_for_tls_and_the_request_together() {
    let proxy = proxy("[proxy]\nhandshake-timeout = \"3s\"\n");
    let begun = Instant::now();
    let mut client = Client::tls_after(proxy.address, Duration::from_millis(2500));
    client.send(b"GET / HTT");
    client.until_closed();
    assert!(begun.elapsed() < Duration::from_millis(5400), "{:?}", begun.elapsed());
}

#[test]
fn connections_over_the_limit_wait_until_there_is_room() {
    let proxy = proxy("[proxy]\nmax-connections = 2\n");
    let mut first = proxy.open("/vnc");
    let mut second = proxy.open("/serial/0");
    std::thread::scope(|scope| {
        let third = scope.spawn(|| proxy.ask("GET", "/", &[]).status);
        for _ in 0..10 {
            first.echoes("undisturbed");
            second.echoes("undisturbed");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(!third.is_finished());
        drop(first);
        assert_eq!(third.join().unwrap(), 200);
    });
}

#[test]
fn viewers_of_a_display_are_counted_and_not_their_sockets() {
    let proxy = proxy("[proxy]\nmax-viewers = 2\n");
    let target = || format!("/vnc?token={}", proxy.ticket());
    let (one, two) = (target(), target());
    let kept: Vec<Ws> =
        [&one, &one, &one, &two, &two].into_iter().map(|target| proxy.try_open(target, &[]).unwrap()).collect();
    let answer = proxy.refusal(&target(), &[]);
    assert_eq!((answer.status, answer.body.as_str()), (429, "vnc has 2 viewers already\n"));
    drop(kept);
    proxy.open_when_free("/vnc").echoes("room again");
}

/// A plain proxy, which a debug build serves fast enough for tens of thousands.
fn plain(config: &str, level: &str) -> Proxy {
    let mut host = Host::new().raw("serial/0", &Backend::echo()).config(config);
    host.environment.push(("CONSOLE_PROXY_LOG", level.to_owned()));
    Proxy::by_hand_with(host, &["--plain"])
}

/// An address of this machine, one of sixteen million.
fn address(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x7f10_0000 + n)
}

/// An address that is not of loopback, one of those that [`in_a_network_of_its_own`] has.
fn outside(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0xc612_0000 + n)
}

/// Runs the test of that name once more, in a network namespace where 198.18.0.0/15 (RFC 2544) is this machine's: all of
/// loopback's addresses count together. True in there.
fn in_a_network_of_its_own(test: &str) -> bool {
    const INSIDE: &str = "CONSOLE_PROXY_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let network =
        "ip link set lo up && ip route add local 198.18.0.0/15 dev lo && exec \"$0\" --exact --nocapture \"$1\"";
    let mut inside = std::process::Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        inside.args(["--user", "--map-root-user"]);
    }
    inside.args(["--net", "sh", "-c", network]).arg(std::env::current_exe().unwrap()).arg(test).env(INSIDE, "1");
    assert!(inside.status().unwrap().success());
    false
}

/// Whether a connection from there is served, and not closed at once.
fn is_served(proxy: &Proxy, from: Ipv4Addr) -> Option<Client> {
    let mut client = Client::tcp_from(from, proxy.address).unwrap();
    let request = client.request("GET", "/", &[], &[]);
    (client.try_send(request.as_bytes()).is_ok() && client.receive()).then_some(client)
}

#[test]
fn one_address_takes_no_more_connections_than_it_may_and_others_still_come() {
    let proxy = plain("[proxy]\nmax-per-address = 2\n", "info");
    let open = || {
        let client = Client::tcp_from(address(1), proxy.address).unwrap();
        Ws::open(client, &format!("/serial/0?token={}", proxy.ticket()), &[]).unwrap()
    };
    let one = open();
    let two = open();
    assert!(is_served(&proxy, address(1)).is_none());
    let _other = is_served(&proxy, address(2)).unwrap();
    proxy.until_logged("refused 127.16.0.1: limit: 127.16.0.1 has 2 connections already");
    drop(one);
    until("there is room again", || is_served(&proxy, address(1)).is_some());
    drop(two);
}

#[test]
fn strangers_who_hold_all_connections_make_room_and_the_journal_has_a_line_when_it_begins_and_when_it_is_over() {
    if !in_a_network_of_its_own(
        "limits::strangers_who_hold_all_connections_make_room_and_the_journal_has_a_line_when_it_begins_and_when_it_is_over",
    ) {
        return;
    }
    let proxy = plain("[proxy]\nmax-connections = 8\nmax-per-address = 6\n", "info");
    let mut known = Client::tcp_from(outside(1), proxy.address).unwrap();
    let ask = |client: &mut Client| client.ask("GET", &format!("/api/guest?token={}", proxy.ticket()), &[]).status;
    assert_eq!(ask(&mut known), 200);
    let mut console = Ws::open(
        Client::tcp_from(outside(2), proxy.address).unwrap(),
        &format!("/serial/0?token={}", proxy.ticket()),
        &[],
    )
    .unwrap();
    let mut strangers: Vec<_> = (0..6).map(|n| is_served(&proxy, outside(3 + n / 4)).unwrap()).collect();
    let mut late = Client::tcp_from(outside(9), proxy.address).unwrap();
    assert_eq!(late.ask("GET", "/", &[]).status, 200);
    strangers[0].until_closed();
    for n in 0..50 {
        strangers.push(is_served(&proxy, outside(3 + n % 2)).unwrap());
    }
    assert_eq!(late.ask("GET", "/", &[]).status, 200, "those who hammer throw themselves out");
    assert_eq!(ask(&mut known), 200);
    console.echoes("undisturbed");
    proxy.signal(Signal::TERM);
    proxy.ended();
    proxy.until_logged("has room again");
    let log = proxy.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("the port of g1")).collect();
    assert_eq!(lines.len(), 2, "{log}");
    let holders = "is full with 8 connections: 4 of 198.18.0.3, 2 of 198.18.0.4, 1 of 198.18.0.1, 1 of 198.18.0.2; ";
    assert!(lines[0].contains(holders), "{}", lines[0]);
    assert!(lines[1].contains("has room again: 51 connections made room for others"), "{}", lines[1]);
}

#[test]
fn a_connection_without_a_right_ends_with_its_twentieth_request_and_one_with_a_right_does_not() {
    let proxy = plain("", "info");
    let mut client = Client::tcp_from(address(1), proxy.address).unwrap();
    for n in 1..=20 {
        let answer = client.ask("GET", "/x", &[]);
        assert_eq!((answer.status, answer.header("connection")), (404, if n == 20 { "close" } else { "" }), "{n}");
    }
    assert_eq!(client.until_closed(), "");
    let mut known = Client::tcp_from(address(1), proxy.address).unwrap();
    assert_eq!(known.ask("GET", &format!("/api/guest?token={}", proxy.ticket()), &[]).status, 200);
    for _ in 0..30 {
        let answer = known.ask("GET", "/x", &[]);
        assert_eq!((answer.status, answer.header("connection")), (404, ""));
    }
}

#[test]
fn a_connection_without_a_right_ends_though_it_goes_on_asking() {
    let proxy = plain("", "info");
    let begun = Instant::now();
    let mut client = Client::tcp_from(address(1), proxy.address).unwrap();
    let mut known = Client::tcp_from(address(1), proxy.address).unwrap();
    assert_eq!(known.ask("GET", &format!("/api/guest?token={}", proxy.ticket()), &[]).status, 200);
    loop {
        known.ask("GET", "/x", &[]);
        let request = client.request("GET", "/x", &[], &[]);
        if client.try_send(request.as_bytes()).is_err() || !client.receive() {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(100), "it is still answered");
        std::thread::sleep(Duration::from_secs(5));
    }
    assert!(begun.elapsed() >= Duration::from_secs(29), "too early: {:?}", begun.elapsed());
    assert_eq!(known.ask("GET", "/x", &[]).status, 404);
}

#[test]
fn one_ticket_takes_no_more_seats_than_a_persons_share_and_who_may_type_goes_before_who_looks_on() {
    let proxy = proxy("[proxy]\nmax-viewers = 3\nmax-viewers-per-person = 2\n");
    let ticket = |person: &str, mode| proxy.ticket_with(|claims| (claims.sub, claims.mode) = (person.into(), mode));
    let (ann, bob) = (ticket("ann", Mode::View), ticket("bob", Mode::View));
    let open = |ticket: &str, client: &str| proxy.try_open(&format!("/vnc?client={client}&token={ticket}"), &[]);
    let _one = open(&ann, "c1").unwrap();
    let mut two = open(&ann, "c2").unwrap();
    let answer = open(&ann, "c3").err().unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (429, "ann has 2 of the places at vnc already\n"));
    let mut three = open(&bob, "c1").unwrap();
    let answer = open(&ticket("eve", Mode::View), "c1").err();
    assert!(answer.is_none(), "who has none comes before who has two: {answer:?}");
    assert_eq!(two.closed(), (4429, "all places here were taken, and eve goes before you".to_owned()));
    let mut root = open(&ticket("root", Mode::Control), "c1").unwrap();
    root.echoes("root types");
    let mut again = open(&ticket("operator", Mode::Control), "c1").unwrap();
    again.echoes("an operator types, too");
    assert_eq!(three.closed(), (4429, "all places here were taken, and operator goes before you".to_owned()));
}

#[test]
fn an_open_console_counts_for_its_address_until_it_ends() {
    let proxy = plain("[proxy]\nmax-per-address = 1\n", "info");
    let open = || {
        let client = Client::tcp_from(address(1), proxy.address).unwrap();
        Ws::open(client, &format!("/serial/0?token={}", proxy.ticket()), &[]).unwrap()
    };
    let mut ws = open();
    ws.echoes("hello");
    assert!(is_served(&proxy, address(1)).is_none());
    ws.echoes("still here");
    drop(ws);
    until("there is room again", || is_served(&proxy, address(1)).is_some());
}

#[test]
fn behind_a_reverse_proxy_each_request_counts_for_its_own_address() {
    let host = Host::new().raw("serial/0", &Backend::echo()).config("[proxy]\nmax-per-address = 1\n");
    let socket = host.path("front.sock");
    let listen = format!("unix:{}", socket.display());
    let proxy = Proxy::by_hand_on(host, &["--listen", &listen, "--front"], || UnixStream::connect(&socket).is_ok());
    let from = |address: &'static str| [("Host", "h"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-For", address)];
    let target = || format!("/serial/0?token={}", proxy.ticket());
    let mut ws = Ws::open(Client::unix(&socket), &target(), &from("2001:db8::1")).unwrap();
    ws.echoes("hello");
    // The reverse proxy's own connection is nobody's, and goes on.
    let mut pooled = Client::unix(&socket);
    let words = "2001:db8::/64 has 1 connections already";
    for (address, status) in [("2001:db8::2", 429), ("192.0.2.7", 200), ("2001:db8:0:1::1", 200), ("2001:db8::1", 429)]
    {
        let answer = pooled.ask("GET", "/", &from(address));
        assert_eq!((answer.status, status == 429), (status, answer.body.contains(words)), "{address}: {answer:?}");
    }
    let refused = [&from("2001:db8::3")[..], &[("Sec-WebSocket-Protocol", "console-proxy.v1")]].concat();
    let mut told = Ws::open(Client::unix(&socket), &target(), &refused).unwrap();
    assert_eq!(told.closed(), (4429, words.to_owned()));
    proxy.until_logged(&format!("refused 2001:db8::2: limit: {words}"));
    drop(ws);
    until("there is room again", || pooled.ask("GET", "/", &from("2001:db8::1")).status == 200);
}

#[test]
fn one_person_opens_no_more_consoles_than_they_may_by_whatever_tickets_and_others_still_do() {
    let proxy = proxy("[proxy]\nmax-per-person = 2\n");
    let target = |person: &str| format!("/vnc?token={}", proxy.ticket_with(|claims| claims.sub = person.into()));
    let one = proxy.try_open(&target("ann"), &[]).unwrap();
    let _two = proxy.try_open(&target("ann"), &[]).unwrap();
    let words = "ann has 2 consoles of this guest open already";
    let answer = proxy.refusal(&target("ann"), &[]);
    assert_eq!((answer.status, answer.body.trim_end()), (429, words));
    let v1 = [("Sec-WebSocket-Protocol", "console-proxy.v1")];
    assert_eq!(proxy.try_open(&target("ann"), &v1).unwrap().closed(), (4429, words.to_owned()));
    proxy.until_logged(&format!("refused 127.0.0.1: limit: {words} (ann)"));
    proxy.try_open(&target("bob"), &[]).unwrap().echoes("somebody else");
    drop(one);
    until("there is room again", || proxy.try_open(&target("ann"), &[]).is_ok());
}

#[test]
fn thirty_thousand_refusals_of_twenty_thousand_addresses_leave_memory_and_journal_flat() {
    if !in_a_network_of_its_own(
        "limits::thirty_thousand_refusals_of_twenty_thousand_addresses_leave_memory_and_journal_flat",
    ) {
        return;
    }
    let proxy = plain("[proxy]\nmax-per-address = 1\n", "info");
    // A wrong ticket from each, and from every other one another one by a connection too many.
    let attack = |addresses: std::ops::Range<u32>| {
        for n in addresses {
            let mut client = Client::tcp_from(outside(n), proxy.address).unwrap();
            assert_eq!(client.ask("GET", "/api/guest?token=a.b.c", &[]).status, 401);
            if n % 2 == 0 {
                let mut another = Client::tcp_from(outside(n), proxy.address).unwrap();
                assert_eq!(another.ask("GET", "/api/guest?token=a.b.c", &[]).status, 401);
            }
        }
    };
    attack(0..2000);
    let before = proxy.memory();
    attack(2000..22_000);
    assert!(proxy.memory() < before + 1000, "{before} KiB before, {} KiB now", proxy.memory());
    proxy.signal(Signal::TERM);
    proxy.ended();
    proxy.until_logged("refused more from other addresses: ");
    let refused = proxy.log().lines().filter(|line| line.contains("refused")).count();
    // Two of each address that is told apart, ten of the others, and how many more: each minute.
    assert!(refused < 4 * (2 * 256 + 11), "{refused} lines");
}

#[test]
fn two_hundred_sessions_leave_nothing_behind() {
    let echo = Backend::echo();
    let native = Backend::websocket();
    let mut host = Host::new().raw("vnc", &echo).raw("serial/0", &echo).native("spice", &native);
    // A leak of one descriptor in four sessions would show.
    host.descriptors = 64;
    let proxy = Proxy::activated(host);
    let round = |n: usize| {
        for i in 0..n {
            let mut ws = proxy.open_when_free(["/vnc", "/serial/0", "/spice"][i % 3]);
            ws.echoes("hello");
            if i % 2 == 0 {
                ws.send_frame(0x88, &1000u16.to_be_bytes());
                ws.closed();
            }
        }
    };
    round(50);
    let before = proxy.memory();
    round(150);
    assert!(proxy.memory() < before + 1000, "{before} KiB before, {} KiB now", proxy.memory());
    assert_eq!(proxy.starts(), 1);
}

#[test]
fn a_proxy_that_is_out_of_descriptors_goes_on_when_it_has_some() {
    let mut host = Host::new().raw("vnc", &Backend::echo());
    host.descriptors = 24;
    let proxy = Proxy::activated(host);
    let mut ws = proxy.open("/vnc");
    let many: Vec<_> = (0..30).map(|_| std::net::TcpStream::connect(proxy.address).unwrap()).collect();
    proxy.until_logged("cannot accept a connection: ");
    ws.echoes("undisturbed");
    drop(many);
    assert_eq!(proxy.ask("GET", "/", &[]).status, 200);
    assert!(proxy.log().matches("cannot accept").count() < 50, "it does not spin");
}

#[test]
fn a_client_on_a_slow_line_is_not_taken_for_lost_while_it_takes_bytes() {
    let flood = Backend::serve(|conversation| {
        loop {
            std::io::Write::write_all(conversation, &crate::backends::FLOOD)?;
        }
    });
    let host = Host::new().raw("vnc", &flood).config("[proxy]\nping-interval = \"1s\"\n");
    let proxy = Proxy::activated(host);
    let target = format!("/vnc?token={}", proxy.ticket());
    let mut ws = Ws::open(Client::tls_with_small_buffer(proxy.address), &target, &[]).unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(7) {
        // 150 kB a second.
        assert_eq!(ws.read(15_000).len(), 15_000);
        std::thread::sleep(Duration::from_millis(100));
    }
}
