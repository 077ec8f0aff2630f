//! History: what a console said before anybody came, from its log; and coming back without losing a byte.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use console_proxy::rules::log::older;
use console_proxy::rules::ticket::Mode;
use console_proxy::rules::told::LIVE;

use crate::backends::Backend;
use crate::client::{Answer, Ws};
use crate::host::{Host, PATIENCE, Proxy, until};

const LOG: &str = "/var/log/libvirt/qemu/b50bdc9f-490b-4b9b-8641-7573c0eba77c-serial0.log";
const QUICK: &str = "[proxy]\nidle-timeout = \"1s\"\n";
const PROTOCOL: (&str, &str) = ("Sec-WebSocket-Protocol", "console-proxy.v1");

/// A guest that echoes, and who writes its log; that one is away where the log is no regular file.
fn logged(past: &str) -> (Host, PathBuf) {
    let host = Host::new();
    let file = host.path(LOG.trim_start_matches('/'));
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    append(&file, past.as_bytes());
    let of_backend = file.clone();
    let backend = Backend::serve(move |conversation| {
        let mut bytes = [0; 4096];
        loop {
            let n = conversation.read(&mut bytes)?;
            if n == 0 {
                return Ok(());
            }
            conversation.write_all(&bytes[..n])?;
            if fs::symlink_metadata(&of_backend).is_ok_and(|about| about.is_file()) {
                append(&of_backend, &bytes[..n]);
            }
        }
    });
    (host.logged("serial/0", &backend, LOG), file)
}

fn append(file: &Path, bytes: &[u8]) {
    OpenOptions::new().create(true).append(true).open(file).unwrap().write_all(bytes).unwrap();
}

fn older_file(file: &Path, number: u8) -> PathBuf {
    older(file.to_str().unwrap(), number).into()
}

fn rename(file: &Path) {
    for number in (0..2).rev() {
        let _ = fs::rename(older_file(file, number), older_file(file, number + 1));
    }
    fs::rename(file, older_file(file, 0)).unwrap();
    append(file, b"");
}

/// A client that listens: what it was told, and how many bytes came since.
struct Listener {
    ws: Ws,
    position: String,
    count: usize,
    told: Vec<serde_json::Value>,
}

impl Listener {
    fn open(proxy: &Proxy, query: &str) -> Self {
        let ticket = proxy.ticket();
        let ws = proxy.try_open(&format!("/serial/0?token={ticket}{query}"), &[PROTOCOL]).unwrap();
        assert_eq!(ws.answer.header("sec-websocket-protocol"), "console-proxy.v1");
        Self { ws, position: String::new(), count: 0, told: Vec::new() }
    }

    /// The next `n` bytes of the console.
    #[track_caller]
    fn read(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let begun = Instant::now();
        while bytes.len() < n || self.position.is_empty() {
            // Pings would keep it waiting for ever.
            assert!(begun.elapsed() < PATIENCE, "it came to {bytes:?}");
            let frame = self.ws.next().expect("the connection ended");
            match frame.opcode() {
                1 => {
                    let told: serde_json::Value = serde_json::from_slice(&frame.payload).unwrap();
                    if let Some(position) = told.get("position") {
                        position.as_str().unwrap_or("none").clone_into(&mut self.position);
                        self.count = 0;
                    } else {
                        self.told.push(told);
                    }
                }
                2 => {
                    self.count += frame.payload.len();
                    bytes.extend(frame.payload);
                }
                _ => {}
            }
        }
        bytes
    }

    /// Where it is, as it would come back to it.
    fn here(&self) -> String {
        let (id, offset) = self.position.split_once(':').unwrap();
        format!("{id}:{}", offset.parse::<usize>().unwrap() + self.count)
    }
}

#[test]
fn who_connects_gets_the_last_of_what_was_said_from_a_lines_start_on_and_then_what_comes() {
    let (host, file) = logged("first line\nsecond line\nthird line\n");
    let proxy = Proxy::activated(host.config("[serial]\nhistory-bytes = 25\n"));
    let mut ws = proxy.open("/serial/0");
    assert_eq!(ws.read(23), b"second line\nthird line\n");
    ws.echoes("typed\n");
    let mut less = proxy.try_open(&format!("/serial/0?token={}&history=20", proxy.ticket()), &[]).unwrap();
    assert_eq!(less.read(17), b"third line\ntyped\n");
    let mut none = proxy.try_open(&format!("/serial/0?history=0&token={}", proxy.ticket()), &[]).unwrap();
    let view = proxy.ticket_with(|claims| claims.mode = Mode::View);
    let mut onlooker = proxy.try_open(&format!("/serial/0?token={view}&history=99999"), &[]).unwrap();
    assert_eq!(onlooker.read(17), b"third line\ntyped\n", "of a host that gives 25 bytes");
    ws.echoes("more");
    assert_eq!(none.read(4), b"more");
    assert_eq!(fs::read_to_string(file).unwrap(), "first line\nsecond line\nthird line\ntyped\nmore");
}

#[test]
fn who_comes_back_to_a_position_gets_what_came_since_whatever_was_renamed_and_whoever_serves_them() {
    let (host, file) = logged("0123456789\n");
    let proxy = Proxy::activated(host.config(QUICK));
    let mut listener = Listener::open(&proxy, "");
    assert_eq!(listener.read(11), b"0123456789\n");
    listener.ws.send(b"while it was there\n");
    listener.read(19);
    rename(&file);
    listener.ws.send(b"in the next file\n");
    assert_eq!(listener.read(17), b"in the next file\n");
    let before_renaming = format!("{}:{}", listener.here().split(':').next().unwrap(), 0);
    let here = listener.here();
    drop(listener);

    append(&file, b"said to nobody ");
    rename(&file);
    append(&file, b"and in yet another file");
    // The same process, and the next one.
    let mut back = Listener::open(&proxy, &format!("&from={here}"));
    assert_eq!(back.read(38), b"said to nobody and in yet another file");
    drop(back);
    until("the proxy has ended", || !proxy.is_running());
    let mut back = Listener::open(&proxy, &format!("&from={}", here.replace(':', "%3A")));
    assert_eq!(back.read(38), b"said to nobody and in yet another file");
    assert!(back.told.is_empty(), "{:?}", back.told);
    back.ws.send(b"!");
    assert_eq!(back.read(1), b"!", "and nothing twice");
    let mut whole = Listener::open(&proxy, &format!("&from={before_renaming}"));
    assert_eq!(whole.read(56), b"in the next file\nsaid to nobody and in yet another file!");
}

#[test]
fn a_position_in_what_is_gone_cut_or_yet_to_come_is_answered_with_what_there_is_and_words() {
    let (host, file) = logged("something long enough to be known by\n");
    let proxy = Proxy::activated(host.config(QUICK));
    let mut first = Listener::open(&proxy, "");
    first.read(37);
    let here = first.here();
    drop(first);
    until("the proxy has ended", || !proxy.is_running());

    let words = |listener: &Listener| listener.told[0]["notice"].as_str().unwrap().to_owned();
    let future = here.replace(":37", ":99999999999999999");
    let mut back = Listener::open(&proxy, &format!("&from={future}"));
    assert_eq!(back.read(37), b"something long enough to be known by\n");
    assert!(words(&back).contains("further than the log is now"), "{:?}", back.told);
    drop(back);

    // Cut, and grown beyond the place.
    until("the proxy has ended", || !proxy.is_running());
    fs::write(&file, "other words, and more of them than there were before\n").unwrap();
    let mut back = Listener::open(&proxy, &format!("&from={here}"));
    assert_eq!(back.read(53), b"other words, and more of them than there were before\n");
    assert!(words(&back).contains("the log was cut"), "{:?}", back.told);
    drop(back);

    // Another start of the guest, whose log begins anew.
    until("the proxy has ended", || !proxy.is_running());
    fs::remove_file(&file).unwrap();
    append(&file, b"something long enough to be known by\n");
    let mut back = Listener::open(&proxy, &format!("&from={here}"));
    assert_eq!(back.read(37), b"something long enough to be known by\n");
    assert!(words(&back).contains("more was said since"), "{:?}", back.told);
    back.ws.send(b"typed");
    assert_eq!(back.read(5), b"typed");
}

#[test]
fn what_is_no_position_and_no_number_is_refused() {
    let (host, _) = logged("");
    let proxy = Proxy::activated(host);
    for query in ["from=", "from=1:1", "from=../x:1", "history=x", "history=-1"] {
        let refused: Answer = proxy.refusal(&format!("/serial/0?token={}&{query}", proxy.ticket()), &[]);
        assert_eq!(refused.status, 400, "{query}: {}", refused.body);
    }
}

#[test]
fn a_log_that_is_a_link_a_fifo_or_gone_is_not_shown_and_the_console_works_all_the_same() {
    for kind in ["link", "fifo", "gone", "hard link"] {
        let (host, file) = logged("");
        fs::remove_file(&file).unwrap();
        let secret = host.path("etc/shadow");
        host.write("etc/shadow", "root:secret");
        match kind {
            "link" => std::os::unix::fs::symlink(&secret, &file).unwrap(),
            "fifo" => {
                let fifo = rustix::fs::FileType::Fifo;
                rustix::fs::mknodat(rustix::fs::CWD, &file, fifo, rustix::fs::Mode::RUSR, 0).unwrap();
            }
            "hard link" => fs::hard_link(&secret, &file).unwrap(),
            _ => {}
        }
        let proxy = Proxy::activated(host);
        let mut listener = Listener::open(&proxy, "");
        listener.ws.send(b"alive");
        assert_eq!(listener.read(5), b"alive", "{kind}");
        assert_eq!(listener.position, "none");
        let notice = listener.told[0]["notice"].as_str().unwrap();
        assert!(notice.starts_with(&format!("there is no history: {LOG}: ")), "{notice}");
        let mut plain = proxy.open("/serial/0");
        let notice = format!("\x18\r\n[console-proxy: {notice}]\r\n");
        assert_eq!(String::from_utf8(plain.read(notice.len())).unwrap(), notice);
        assert_eq!(plain.read(5), b"alive");
    }
}

#[test]
fn a_log_that_nobody_writes_any_more_is_given_up_and_what_is_said_is_shown() {
    let (host, file) = logged("kept\n");
    let proxy = Proxy::activated(host);
    let mut listener = Listener::open(&proxy, "");
    assert_eq!(listener.read(5), b"kept\n");
    let mut plain = proxy.open("/serial/0");
    assert_eq!(plain.read(5), b"kept\n");
    // Its writer does not write to what has another name.
    fs::rename(&file, older_file(&file, 0)).unwrap();
    fs::create_dir(&file).unwrap();
    listener.ws.send(b"said");
    assert_eq!(listener.read(4), b"said");
    assert!(listener.told[0]["notice"].as_str().unwrap().starts_with("the log does not follow"));
    assert_eq!(listener.position, "none");
    let notice = format!("\x18\r\n[console-proxy: {LIVE}]\r\nsaid");
    assert_eq!(String::from_utf8(plain.read(notice.len())).unwrap(), notice);
    listener.ws.send(b"and on");
    assert_eq!(listener.read(6), b"and on");
    let mut late = Listener::open(&proxy, "");
    assert_eq!(late.read(10), b"saidand on", "who comes now is told, too");
    assert!(late.told[0]["notice"].as_str().unwrap().starts_with("the log does not follow"));
}

#[test]
fn a_console_without_a_log_has_no_positions_and_says_so() {
    let proxy = Proxy::activated(Host::new().raw("serial/0", &Backend::echo()));
    let mut listener = Listener::open(&proxy, "");
    listener.ws.send(b"a");
    assert_eq!((listener.read(1).as_slice(), listener.position.as_str()), (&b"a"[..], "none"));
    assert!(listener.told.is_empty());
}

/// What `console-proxy log` prints, and its exit code.
fn printed(host: &Host, arguments: &[&str]) -> (String, String, i32) {
    let done = host.console_proxy().arg("log").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(done.stdout), text(done.stderr), done.status.code().unwrap())
}

#[test]
fn the_log_is_printed_whole_or_its_end_and_what_cannot_be_is_said() {
    let (host, file) = logged("now \x1b]0;title\x07\u{c3}\n");
    append(&older_file(&file, 1), b"oldest\n");
    append(&older_file(&file, 0), b"older\n");
    let host = host.raw("serial/1", &Backend::silent());
    let all = "oldest\nolder\nnow \x1b]0;title\x07\u{c3}\n";
    assert_eq!(printed(&host, &["g1"]), (all.into(), String::new(), 0));
    assert_eq!(printed(&host, &["g1", "serial/0", "--bytes", "22"]).0, "older\nnow \x1b]0;title\x07\u{c3}\n"[6..]);
    for (arguments, words) in [
        (vec!["g1", "serial/1"], "nothing is kept of serial/1 of g1: set serial.history = \"on\""),
        (vec!["g1", "serial/7"], "g1 has no serial/7"),
        (vec!["g2"], "no published guest is called \"g2\""),
    ] {
        let (out, why, code) = printed(&host, &arguments);
        assert_eq!((out.as_str(), code), ("", 1));
        assert!(why.contains(words), "{why}");
    }
    fs::remove_file(older_file(&file, 0)).unwrap();
    let (out, why, code) = printed(&host, &["g1"]);
    assert_eq!((out.len(), code), ("oldest\nnow \x1b]0;title\x07\u{c3}\n".len(), 0));
    assert_eq!(why, "console-proxy: history is not complete: files of the log have gone here\n");
    fs::remove_file(&file).unwrap();
    assert!(printed(&host, &["g1"]).1.contains("the guest has not started with it yet"));
    std::os::unix::fs::symlink(host.path("etc/shadow"), &file).unwrap();
    assert!(printed(&host, &["g1"]).1.contains("there is a symbolic link in its path"));
}

#[test]
fn following_goes_on_over_renamings_cuts_and_new_files_and_ends_when_nobody_reads() {
    let (host, file) = logged("");
    fs::remove_file(&file).unwrap();
    let mut follower = host.console_proxy();
    follower.args(["log", "g1", "-f"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut follower = follower.spawn().unwrap();
    let mut out = follower.stdout.take().unwrap();
    let mut expect = |text: &str| {
        let mut bytes = vec![0; text.len()];
        out.read_exact(&mut bytes).unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes), text);
    };
    append(&file, b"one ");
    expect("one ");
    rename(&file);
    append(&file, b"two ");
    expect("two ");
    for turn in 0..3 {
        append(&file, format!("{turn} ").as_bytes());
        rename(&file);
    }
    append(&file, b"three ");
    expect("0 1 2 three ");
    fs::write(&file, "four ").unwrap();
    expect("four ");
    fs::remove_file(&file).unwrap();
    append(&file, b"five ");
    expect("five ");
    drop(out);
    assert!(follower.wait().unwrap().success());
    let mut said = String::new();
    follower.stderr.unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said.lines().count(), 2, "{said}");
}
