//! What must be known to nobody but whose it is: tickets, cookies, passwords, what is typed. They go through a guest's
//! port with everything logged that can be, and then they are searched for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::host::{Guest, SOON, User, journal_cursor, sh, systemctl, try_sh, wait_until};
use crate::ws::{Session, Ws, ask};

/// Everything is logged by what the system manager starts from now on.
struct Loud;

impl Loud {
    fn begin() -> Self {
        systemctl("set-environment CONSOLE_PROXY_LOG=trace");
        // It started before.
        systemctl("stop console-proxy-broker.service");
        Self
    }
}

impl Drop for Loud {
    fn drop(&mut self) {
        let _ = try_sh("systemctl unset-environment CONSOLE_PROXY_LOG; systemctl stop console-proxy-broker.service");
    }
}

/// A secret as it may stand somewhere: as it is, and in base64, wherever in a longer text it begins.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![secret.to_vec()];
    for before in 0..3 {
        let padded = [&b"\0\0"[..before], secret].concat();
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let text = engine.encode(&padded).into_bytes();
            // The first characters depend on what stands before, the last on what comes after.
            let (from, to) = ((before * 4).div_ceil(3), padded.len() * 8 / 6);
            forms.push(text[from..to].to_vec());
        }
    }
    forms
}

/// Everything that is searched: a name for each place, and what is there.
fn places(cursor: &str) -> Vec<(String, Vec<u8>)> {
    sh("journalctl --sync");
    let after = format!("--after-cursor={cursor}");
    let journal = Command::new("journalctl").args(["--no-pager", "-o", "export", &after]).output().unwrap();
    let mut places = vec![("the journal".to_owned(), journal.stdout)];
    for folder in ["/run/console-proxy", "/var/lib/console-proxy", "/run/systemd", "/var/log"] {
        read_all(Path::new(folder), &mut places);
    }
    for process in fs::read_dir("/proc").unwrap().flatten() {
        for file in ["cmdline", "environ"] {
            let path = process.path().join(file);
            let is_process = process.file_name().to_string_lossy().parse::<u32>().is_ok();
            if let Some(text) = is_process.then(|| fs::read(&path).ok()).flatten() {
                places.push((path.display().to_string(), text));
            }
        }
    }
    places
}

fn read_all(folder: &Path, places: &mut Vec<(String, Vec<u8>)>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        places.push((format!("the name {}", path.display()), name_of(&path)));
        let Ok(data) = fs::symlink_metadata(&path) else { continue };
        // Its own files are compressed; what is in them came first.
        if path == Path::new("/var/log/journal") {
            continue;
        }
        if data.is_dir() {
            read_all(&path, places);
        } else if data.is_file()
            && let Ok(text) = fs::read(&path)
        {
            places.push((path.display().to_string(), text));
        }
    }
}

fn name_of(path: &Path) -> Vec<u8> {
    PathBuf::from(path).file_name().unwrap_or_default().as_encoded_bytes().to_vec()
}

fn holds(text: &[u8], form: &[u8]) -> bool {
    text.windows(form.len()).any(|window| window == form)
}

fn found<'p>(places: &'p [(String, Vec<u8>)], secret: &[u8]) -> Vec<&'p str> {
    let forms = forms(secret);
    let holding = places.iter().filter(|(_, text)| forms.iter().any(|form| holds(text, form)));
    holding.map(|(place, _)| place.as_str()).collect()
}

#[test]
fn no_ticket_cookie_password_or_key_that_was_typed_stands_in_any_log_process_list_or_file() {
    let (cursor, _loud) = (journal_cursor(), Loud::begin());
    let user = User::in_groups("secretann", "libvirt");
    let (password, wrong) = ("Quokka-Numbat-4711", "Wombat-Bilby-0815");
    fs::write("/root/password", format!("{}:{password}\n", user.0)).unwrap();
    sh("chpasswd </root/password; rm /root/password");
    let guest = Guest::define("secretive").with_vnc().with_pty_serial().started();
    let port = guest.port();
    guest.wait_to_boot();

    // By URL, by header, and as what buys a session; and one that is refused.
    let (by_url, by_header, refused) = (guest.ticket(), guest.ticket(), guest.ticket_with("--console vnc"));
    let mut serial = Ws::connect(port, "/serial/0", &by_url).unwrap();
    assert_eq!(Ws::connect(port, "/serial/0", &refused).unwrap_err().status(), 403);
    let own = format!("https://localhost:{port}");
    let post = |authorization: &str| {
        let head = format!("POST /api/session HTTP/1.1\r\nHost: localhost:{port}\r\nOrigin: {own}\r\n");
        ask(port, &format!("{head}Content-Length: 0\r\nAuthorization: {authorization}\r\n"))
    };
    let basic = |password: &str| format!("Basic {}", STANDARD_NO_PAD.encode(format!("{}:{password}", user.0)));
    let bought = [format!("Bearer {by_header}"), padded(basic(password))].map(|shown| Session::of(&post(&shown)));
    assert_eq!(post(&padded(basic(wrong))).0, 401);
    let among_protocols = format!("binary, console-proxy.secret.{}", bought[1].secret);
    let [cookie, secret] = bought[1].headers();
    let by_protocol = ("sec-websocket-protocol", among_protocols.as_str());
    let mut vnc = Ws::connect_with(port, "/vnc", "", &[cookie, by_protocol, ("origin", &own)]).unwrap();
    drop(Ws::connect_with(port, "/vnc", "", &[cookie, secret, ("origin", &own)]).unwrap());
    let alone = Ws::connect_with(port, "/vnc", "", &[secret, ("origin", "https://evil.example")]);
    assert_eq!(alone.unwrap_err().status(), 403);

    let (at_serial, at_vnc) = ("marsupial-typed-blind", "monotreme-by-keys");
    serial.command("stty -echo; echo is $((6 * 7))", "is 42");
    serial.send(format!("read x </dev/tty # {at_serial}\n").as_bytes());
    vnc.read_until("RFB 003.008\n", SOON);
    for reply in [&b"RFB 003.008\n"[..], &[1], &[1]] {
        vnc.send(reply);
        vnc.next(SOON).unwrap().expect("an answer");
    }
    for key in at_vnc.bytes() {
        vnc.send(&[4, 1, 0, 0, 0, 0, 0, key]);
        vnc.send(&[4, 0, 0, 0, 0, 0, 0, key]);
    }
    let while_open = places(&cursor);
    drop((serial, vnc));
    wait_until("the sessions' ends", SOON, || {
        sh("journalctl --sync; journalctl CONSOLE_PROXY_EVENT=session-end CONSOLE_PROXY_GUEST_NAME=secretive -o cat")
            .lines()
            .count()
            >= 3
    });
    systemctl(&format!("stop {}", guest.service()));
    let afterwards = places(&cursor);

    assert!(found(&while_open, user.0.as_bytes()).contains(&"the journal"), "what is no secret is found");
    let sessions = format!("/run/console-proxy/state/{}/sessions/", guest.uuid());
    assert!(found(&while_open, user.0.as_bytes()).iter().any(|place| place.starts_with(&sessions)));
    assert!(found(&while_open, b"--guest\0").iter().any(|place| place.starts_with("/proc/")));
    let trace = afterwards[0].1.as_slice();
    assert!(holds(trace, b"TRACE") || holds(trace, b"ending: told to stop"), "everything was logged");
    let signatures = [&by_url, &by_header, &refused].map(|ticket| ticket.rsplit_once('.').unwrap().1.to_owned());
    let halves = bought.map(|session| [session.cookie.split_once('=').unwrap().1.to_owned(), session.secret]).concat();
    let texts = signatures.iter().chain(&halves).map(String::as_str);
    for secret in texts.chain([password, wrong, at_serial, at_vnc]) {
        for (when, places) in [("while it was in use", &while_open), ("afterwards", &afterwards)] {
            assert_eq!(found(places, secret.as_bytes()), Vec::<&str>::new(), "{secret}, {when}");
        }
    }
    for half in &halves {
        let bytes = URL_SAFE_NO_PAD.decode(half).unwrap();
        assert_eq!(found(&afterwards, &bytes), Vec::<&str>::new(), "the bytes of {half}");
    }
}

/// With the padding that programs send.
fn padded(mut basic: String) -> String {
    let text = basic.len() - "Basic ".len();
    basic.extend(std::iter::repeat_n('=', (4 - text % 4) % 4));
    basic
}

#[test]
fn a_secret_is_found_in_base64_wherever_in_a_longer_text_it_stands() {
    for before in ["", "a", "ab", "abc", "user:"] {
        let text = URL_SAFE_NO_PAD.encode(format!("{before}Quokka-Numbat-4711 and more"));
        let place = vec![("here".to_owned(), text.into_bytes())];
        assert_eq!(found(&place, b"Quokka-Numbat-4711"), ["here"], "{before}");
    }
}
