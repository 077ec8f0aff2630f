//! SPICE displays: spice-servers of several kinds, several sockets of one client, and one client after the other.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, Mutex};

use console_proxy::rules::ticket::Claims;

use crate::backends::{Backend, Conversation, TlsKeys, accept_websocket};
use crate::client::{Ws, read_frame};
use crate::host::{Host, Proxy, until};

/// What spice-server before 0.14.3 answers to what is no SPICE: a link message with an error, and it closes.
const NO_SPICE: &[u8] = b"REDQ\x02\0\0\0\x02\0\0\0\x04\0\0\0\x02\0\0\0";

/// Speaks SPICE as far as the first bytes go, and then sends back what it gets.
fn speak(stream: &mut (impl Read + Write)) -> io::Result<()> {
    let mut head = [0; 16];
    stream.read_exact(&mut head)?;
    if !head.starts_with(b"REDQ") {
        return stream.write_all(NO_SPICE);
    }
    stream.write_all(&head)?;
    let mut bytes = [0; 4096];
    loop {
        let n = stream.read(&mut bytes)?;
        if n == 0 {
            return Ok(());
        }
        stream.write_all(&bytes[..n])?;
    }
}

/// The line of `systemctl status` says how each console is reached.
const NAMES: &str = "[proxy]\nstatus = \"names\"\n";

fn old_server() -> Backend {
    Backend::serve(|conversation| {
        let spoke = speak(conversation);
        conversation.stream.shutdown(Shutdown::Both)?;
        spoke
    })
}

fn opens(proxy: &Proxy, target: &str) -> Ws {
    let headers = [("Sec-WebSocket-Protocol", "binary")];
    let mut ws = proxy.try_open(target, &headers).unwrap_or_else(|why| panic!("{why:?}\n{}", proxy.log()));
    assert_eq!(ws.answer.header("sec-websocket-protocol"), "binary");
    ws.echoes("REDQ\x02\0\0\0\x02\0\0\0\x12\0\0\0");
    ws
}

fn target(proxy: &Proxy, person: &str, client: &str) -> String {
    let ticket = proxy.ticket_with(|claims: &mut Claims| person.clone_into(&mut claims.sub));
    format!("/spice?client={client}&token={ticket}")
}

fn both(server: &Backend) -> Host {
    Host::new().raw("spice", server).native("spice", server)
}

#[test]
fn a_clients_channels_share_one_ticket_and_go_to_the_servers_own_websocket() {
    let server = Backend::websocket();
    let proxy = Proxy::activated(both(&server).config(NAMES));
    let target = target(&proxy, "ann", "tab");
    let mut all: Vec<_> = (0..6).map(|_| opens(&proxy, &target)).collect();
    for ws in &mut all {
        ws.echoes("still here");
    }
    assert_eq!(server.received_text().matches("GET / HTTP/1.1").count(), 6);
    until("the status says how", || proxy.statuses().iter().any(|line| line.contains("on spice (native, ")));
}

#[test]
fn a_server_without_a_websocket_is_bridged_and_is_asked_once() {
    let closes = Backend::serve(|conversation| {
        let mut first = [0];
        conversation.stream.peek(&mut first)?;
        if first == *b"G" { Ok(()) } else { speak(conversation) }
    });
    for server in [old_server(), closes] {
        let proxy = Proxy::activated(both(&server).config(NAMES));
        let target = target(&proxy, "ann", "tab");
        let mut all: Vec<_> = (0..5).map(|_| opens(&proxy, &target)).collect();
        for ws in &mut all {
            ws.echoes("still here");
        }
        assert!(server.received_text().matches("GET").count() <= 1);
        proxy.until_logged("spice is bridged, as spice-server answers no websocket");
        let is_told = |line: &String| line.matches("on spice (bridged, ").count() == 5;
        until("the status says how", || proxy.statuses().iter().any(is_told));
    }
}

#[test]
fn a_server_that_does_not_answer_is_504_and_one_that_refuses_is_502() {
    let config = "[proxy]\nconnect-timeout = \"1s\"\n";
    let proxy = Proxy::activated(both(&Backend::silent()).config(config));
    let answer = proxy.refusal(&target(&proxy, "ann", "tab"), &[]);
    assert_eq!((answer.status, answer.body.as_str()), (504, "spice's own websocket did not answer within 1 s\n"));
    let proxy = Proxy::activated(both(&Backend::refuses()));
    assert_eq!(proxy.refusal(&target(&proxy, "ann", "tab"), &[]).status, 502);
}

#[test]
fn a_tls_port_is_bridged_by_configuration_and_where_it_has_no_websocket() {
    let keys = TlsKeys::new();
    let bridged = Backend::tls(&keys, &["localhost"], |stream| speak(stream));
    let native = Backend::websocket_tls(&keys, &["localhost"]);
    let ca = keys.authority();
    for (host, how) in [
        (Host::new().raw_tls("spice", &bridged, &ca), "bridged"),
        (Host::new().raw_tls("spice", &bridged, &ca).native_tls("spice", &bridged, &ca), "bridged"),
        (Host::new().raw_tls("spice", &native, &ca).native_tls("spice", &native, &ca), "native"),
    ] {
        let proxy = Proxy::activated(host.config(NAMES));
        let target = target(&proxy, "ann", "tab");
        let mut all: Vec<_> = (0..4).map(|_| opens(&proxy, &target)).collect();
        for ws in &mut all {
            ws.echoes("over TLS");
        }
        let told = format!("on spice ({how}, ");
        until("the status says how", || proxy.statuses().iter().any(|line| line.contains(&told)));
    }
    let other = TlsKeys::new().authority();
    let proxy = Proxy::activated(Host::new().raw_tls("spice", &bridged, &other));
    let answer = proxy.refusal(&target(&proxy, "ann", "tab"), &[]);
    assert_eq!(answer.status, 502);
    assert!(answer.body.starts_with("spice's TLS port refuses: "), "{answer:?}");
}

/// A server that notes who comes and goes.
fn noting(
    speak: impl Fn(&mut Conversation) -> io::Result<()> + Send + Sync + 'static,
) -> (Backend, Arc<Mutex<String>>) {
    let notes = Arc::<Mutex<String>>::default();
    let noted = Arc::clone(&notes);
    let talk = move |conversation: &mut Conversation| {
        noted.lock().unwrap().push('+');
        let spoke = speak(conversation);
        noted.lock().unwrap().push('-');
        spoke
    };
    (Backend::serve(talk), notes)
}

/// The same with a websocket.
fn speak_websocket(conversation: &mut Conversation) -> io::Result<()> {
    accept_websocket(conversation)?;
    loop {
        let frame = read_frame(conversation)?;
        if frame.opcode() <= 2 {
            conversation.write_all(&crate::client::frame(frame.first, None, &frame.payload))?;
        }
    }
}

#[test]
fn a_second_client_takes_the_display_over_and_the_first_hears_from_whom_before_the_server_does() {
    let (raw, native) = (noting(speak), noting(speak_websocket));
    let (bridged, forwarded) = (Host::new().raw("spice", &raw.0), Host::new().native("spice", &native.0));
    for (host, notes) in [(bridged, raw.1), (forwarded, native.1)] {
        is_taken_over(&Proxy::activated(host), &notes);
    }
}

fn is_taken_over(proxy: &Proxy, notes: &Mutex<String>) {
    let (anns, bobs) = (target(proxy, "ann", "tab"), target(proxy, "bob", "tab"));
    let mut first: Vec<_> = (0..4).map(|_| opens(proxy, &anns)).collect();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| opens(proxy, &bobs));
        for ws in &mut first {
            assert_eq!(ws.closed(), (4409, "bob from 127.0.0.1 took this console over".to_owned()));
            ws.send_frame(0x88, &4409u16.to_be_bytes());
        }
        let mut second = second.join().unwrap();
        opens(proxy, &bobs).echoes("another channel of his");
        second.echoes("undisturbed");
    });
    let notes = notes.lock().unwrap().clone();
    assert!(notes.starts_with("++++----+"), "{notes}");
    let answer = proxy.refusal(&anns, &[]);
    let words = "bob from 127.0.0.1 took this console over\n";
    assert_eq!((answer.status, answer.body.as_str()), (409, words), "a channel of hers that was under way");
}

#[test]
fn another_tab_of_the_same_session_is_another_client() {
    let (server, _) = noting(speak);
    let proxy = Proxy::activated(Host::new().raw("spice", &server));
    let one = target(&proxy, "ann", "one");
    let mut first = opens(&proxy, &one);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| opens(&proxy, &one.replace("client=one", "client=two")));
        assert_eq!(first.closed(), (4409, "ann from 127.0.0.1 took this console over".to_owned()));
        drop(first);
        second.join().unwrap().echoes("here now");
    });
}

#[test]
fn where_the_configuration_says_so_a_second_client_is_refused_and_hears_who_has_the_display() {
    let (server, _) = noting(speak);
    let proxy = Proxy::activated(Host::new().raw("spice", &server).config("[spice]\nviewers = \"refuse\"\n"));
    let anns = target(&proxy, "ann", "tab");
    let mut first: Vec<_> = (0..4).map(|_| opens(&proxy, &anns)).collect();
    let answer = proxy.refusal(&target(&proxy, "bob", "tab"), &[]);
    assert_eq!((answer.status, answer.body.as_str()), (409, "spice is in use by ann from 127.0.0.1\n"));
    for ws in &mut first {
        ws.echoes("undisturbed");
    }
    drop(first);
    proxy.open_when_free("/spice").echoes("REDQ\x02\0\0\0\x02\0\0\0\x12\0\0\0");
}
