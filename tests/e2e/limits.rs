//! Nobody takes all of what a guest's port has room for: connections, sessions, places at a console.

use std::fs;
use std::time::Duration;

use crate::host::{Guest, Running, SOON, journal_cursor, journal_since, sh, systemctl, try_sh, wait_for, wait_until};
use crate::ws::{Ws, ask};

/// A ticket for somebody, as a browser sends it for a session.
fn buy_session(port: u16, ticket: &str) -> (u16, String, String) {
    let origin = format!("https://localhost:{port}");
    ask(
        port,
        &format!(
            "POST /api/session HTTP/1.1\r\nHost: localhost:{port}\r\nOrigin: {origin}\r\nAuthorization: Bearer {ticket}\r\n"
        ),
    )
}

fn lines<'j>(journal: &'j str, words: &str) -> Vec<&'j str> {
    journal.lines().filter(|line| line.contains(words)).collect()
}

/// An address of this host that is not of loopback; it goes with the test.
struct Address(&'static str);

impl Address {
    fn added(address: &'static str) -> Self {
        sh(&format!("ip addr add {address}/32 dev lo"));
        Self(address)
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        let _ = try_sh(&format!("ip addr del {}/32 dev lo", self.0));
    }
}

#[test]
fn strangers_who_hold_all_connections_keep_out_nobody_who_has_a_right() {
    let guest = Guest::define("besieged").with_vnc().with_pty_serial().started();
    guest.wait_to_boot();
    let port = guest.port();
    let mut open = guest.open("vnc");
    open.read_until("RFB 003.008\n", SOON);
    let before = journal_cursor();
    fs::write("/root/stranger.py", include_str!("stranger.py")).unwrap();
    // Loopback's own addresses are one network.
    let _elsewhere = ["198.51.100.2", "198.51.100.3"].map(Address::added);
    let strangers = Running::sh(&format!("python3 /root/stranger.py {port} 120 80 198.51.100.2 198.51.100.3"));
    let full = "the port of besieged is full with";
    wait_for("the port to be full", Duration::from_secs(60), || {
        (!lines(&journal_since(&before), full).is_empty()).then_some(())
    });
    for n in 0..5 {
        let said =
            sh(&format!("echo 'echo $(({n} + 40)) is right' | timeout 60 console-proxy console besieged --silence 1s"));
        assert!(said.contains(&format!("{} is right", n + 40)), "{said}");
        guest.open("vnc").read_until("RFB 003.008\n", SOON);
    }
    open.send(b"RFB 003.008\n");
    assert!(open.next(SOON).unwrap().is_some(), "what was open goes on");
    drop(strangers);
    // It ends with its last client, which ends what is to be told.
    drop(open);
    systemctl(&format!("stop {}", guest.service()));
    let journal = journal_since(&before);
    let said = lines(&journal, full);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains(" of 198.51.100.2") && said[0].contains(" of 198.51.100.3"), "{said:?}");
    assert_eq!(lines(&journal, "the port of besieged has room again").len(), 1, "{journal}");
}

#[test]
fn a_person_who_logs_in_without_end_keeps_nobody_elses_link_from_working() {
    let guest = Guest::define("logged-into").with_vnc().started();
    let port = guest.port();
    let before = journal_cursor();
    for n in 0..257 {
        let (status, head, body) = buy_session(port, &guest.ticket_with("--user looker --view"));
        assert_eq!(status, 200, "{n}: {head}{body}");
    }
    let url = sh("console-proxy url logged-into");
    let (_, ticket) = url.split_once("?token=").unwrap();
    let (status, head, body) = buy_session(port, ticket.trim());
    assert_eq!(status, 200, "{head}{body}");
    let sessions = sh("console-proxy sessions logged-into");
    assert_eq!(lines(&sessions, "looker").len(), 16, "{sessions}");
    let dropped = journal_since(&before);
    let dropped = lines(&dropped, "dropped a session of logged-into").len();
    assert_eq!(dropped, 257 - 16);
}

#[test]
fn one_ticket_for_looking_on_takes_no_place_from_who_may_type() {
    let guest = Guest::define("looked-at").with_pty_serial().started();
    guest.wait_to_boot();
    let port = guest.port();
    let bearers: Vec<String> = ["ann", "bob", "cas"]
        .map(|name| format!("Bearer {}", guest.ticket_with(&format!("--user {name} --view"))))
        .into();
    let look = |bearer: &str, n: usize| {
        Ws::connect_with(port, &format!("/serial/0?client=c{n}"), "", &[("authorization", bearer)])
    };
    let mut lookers: Vec<Ws> = Vec::new();
    for n in 0..16 {
        match look(&bearers[0], n) {
            Ok(ws) => lookers.push(ws),
            Err(why) => assert_eq!(why.status(), 429, "{}", why.words()),
        }
    }
    assert_eq!(lookers.len(), 8, "one person's share of the places");
    lookers.extend((0..8).map(|n| look(&bearers[1], n).unwrap()));
    assert_eq!(look(&bearers[0], 20).err().map(|why| why.status()), Some(429), "a share is a share");
    // Root may type: somebody who looks on makes room, and hears why.
    guest.open("serial/0").command("echo $((6 * 7)) is right", "42 is right");
    let mut closed = || {
        let ended = |ws: &mut Ws| loop {
            match ws.next(Duration::from_millis(200)) {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(end) => return Some(end),
            }
        };
        lookers.iter_mut().filter_map(ended).collect::<Vec<_>>()
    };
    let ends = closed();
    assert_eq!(ends.iter().map(|(code, _)| *code).collect::<Vec<_>>(), [4429], "{ends:?}");
    wait_until("the place to be free again", SOON, || look(&bearers[2], 1).is_ok());
}
