//! `console-proxy console` in a real terminal, and in a pipe, against the real proxy.

use std::io::{Read, Write};
use std::process::{Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use console_proxy::rules::modes::RESET;
use rustix::process::{Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::backends::Backend;
use crate::host::{Host, PATIENCE, Proxy, until};
use crate::terminal::Terminal;

/// A proxy whose route says where it listens.
fn published(host: Host) -> Proxy {
    let mut proxy = Proxy::activated(host);
    proxy.host.route.port = proxy.address.port();
    proxy.write_route();
    proxy
}

fn echoing() -> Proxy {
    published(Host::new().raw("serial/0", &Backend::echo()))
}

/// `console-proxy console g1 ARGUMENTS` in a terminal.
fn with(host: &Host, arguments: &[&str]) -> Terminal {
    let mut program = host.console_proxy();
    Terminal::of(program.args(["console", "g1", "--user", "ann"]).args(arguments))
}

/// The same, and waits until it is on the console.
fn on_console(host: &Host, arguments: &[&str]) -> Terminal {
    let terminal = with(host, arguments);
    until("the terminal is raw", || terminal.is_raw());
    terminal
}

#[test]
fn every_key_goes_to_the_guest_and_what_it_says_is_shown_as_it_is() {
    let proxy = echoing();
    let mut terminal = on_console(&proxy, &[]);
    terminal.shows("console-proxy: serial/0 of g1; ^] leaves");
    // ^C, ^D, ^Z, ^S, ^Q, ^\, escape, a carriage return alone, and what is no UTF-8.
    let keys = b"\x03\x04\x1a\x13\x11\x1c\x1b[A\rline\nnext\xff\xfe.";
    terminal.types(keys);
    until("they come back", || terminal.bytes().ends_with(keys));
    assert!(proxy.statuses().iter().any(|status| status.starts_with("g1: 1 on serial/0;")));
    terminal.types(b"\x1d");
    terminal.ends_with(0);
    terminal.shows("console-proxy: serial/0 of g1: left");
    proxy.until_logged("left serial/0 of g1 from 127.0.0.1 after ");
    proxy.until_logged(" dropped: the client closed");
}

#[test]
fn a_guest_leaves_no_mode_in_the_terminal_from_a_terminal_and_from_a_pipe() {
    let proxy = echoing();
    let console = || {
        let mut program = proxy.console_proxy();
        program.env("TERM", "xterm-256color").args(["console", "g1", "--user", "ann", "--silence", "200ms"]);
        program
    };
    let modes = b"\x1b[?1049h\x1b[?1004h\x1b[5;9r\x1b(0\x1b]0;no end";
    let mut terminal = Terminal::of(&console());
    until("the terminal is raw", || terminal.is_raw());
    terminal.types(modes);
    until("they come back", || terminal.bytes().ends_with(modes));
    terminal.types(b"\x1d");
    terminal.ends_with(0);
    terminal.shows(&format!("{RESET}console-proxy: serial/0 of g1: left"));

    let (reading, mut writing) = std::io::pipe().unwrap();
    let mut terminal = Terminal::with_input(&console(), Some(reading.into()));
    writing.write_all(modes).unwrap();
    drop(writing);
    terminal.ends_with(0);
    terminal.shows(&format!("no end{RESET}console-proxy: serial/0 of g1: left"));
}

#[test]
fn what_was_typed_before_the_key_that_leaves_reaches_the_guest() {
    let backend = Backend::echo();
    let proxy = published(Host::new().raw("serial/0", &backend));
    let mut terminal = on_console(&proxy, &[]);
    terminal.types(b"exit\r\x1dnot this");
    terminal.ends_with(0);
    until("it has come", || backend.received() == b"exit\r");
}

#[test]
fn another_key_leaves_where_it_is_asked_for_and_none_where_none_is() {
    let proxy = echoing();
    let mut terminal = on_console(&proxy, &["--escape", "^a"]);
    terminal.shows("^A leaves");
    terminal.types(b"\x1d|");
    terminal.shows("\x1d|");
    terminal.types(b"\x01");
    terminal.ends_with(0);
    let mut terminal = on_console(&proxy, &["--escape", "none"]);
    terminal.types(b"\x1d\x01|");
    terminal.shows("\x1d\x01|");
    kill_process(terminal.pid(), Signal::TERM).unwrap();
    terminal.ends_with(143);
}

#[test]
fn the_terminal_is_given_back_at_each_signal_that_ends_a_program() {
    let proxy = echoing();
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130), (Signal::QUIT, 131)] {
        let mut terminal = on_console(&proxy, &[]);
        kill_process(terminal.pid(), signal).unwrap();
        terminal.ends_with(code);
    }
}

#[test]
fn a_program_that_is_stopped_leaves_no_raw_terminal_and_takes_it_again() {
    let proxy = echoing();
    let mut terminal = on_console(&proxy, &[]);
    kill_process(terminal.pid(), Signal::TSTP).unwrap();
    until("it is stopped", || {
        let how = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        waitid(WaitId::Pid(terminal.pid()), how).unwrap().is_some_and(|status| status.stopped())
    });
    assert!(!terminal.is_raw());
    kill_process(terminal.pid(), Signal::CONT).unwrap();
    until("it is raw again", || terminal.is_raw());
    terminal.types(b"still there");
    terminal.shows("still there");
    terminal.types(b"\x1d");
    terminal.ends_with(0);
}

#[test]
fn a_guest_that_stops_is_said_in_words_and_the_terminal_is_given_back() {
    let proxy = published(Host::new().raw("serial/0", &Backend::says("the end")));
    let mut terminal = with(&proxy, &[]);
    terminal.shows("the end");
    proxy.withdraw_route();
    terminal.ends_with(3);
    terminal.shows("console-proxy: serial/0 of g1: the guest has stopped");
}

#[test]
fn what_the_proxy_refuses_is_said_in_its_words_and_the_terminal_was_never_touched() {
    let proxy = published(Host::new().raw("serial/0", &Backend::refuses()));
    let mut terminal = with(&proxy, &[]);
    terminal.ends_with(1);
    terminal.shows("console-proxy: refused: tcp:127.0.0.1:");
    terminal.shows("Connection refused");
}

#[test]
fn a_guest_that_takes_no_input_does_not_keep_anybody() {
    let proxy = published(Host::new().raw("serial/0", &Backend::hangs_after_connecting()));
    let mut terminal = on_console(&proxy, &[]);
    for _ in 0..50 {
        terminal.types(&[b'x'; 4000]);
    }
    terminal.types(b"\x1d");
    terminal.ends_with(0);
}

/// `console-proxy console g1 ARGUMENTS` with this input from a pipe.
fn piped(host: &Host, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = host.console_proxy();
    command.args(["console", "g1", "--user", "ann"]).args(arguments);
    let mut program = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = program.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _ = stdin.write_all(input);
        });
        program.wait_with_output().unwrap()
    })
}

#[test]
fn a_line_from_a_pipe_reaches_the_guest_and_its_answer_comes_back() {
    let proxy = echoing();
    // No key leaves from a pipe.
    let output = piped(&proxy, &["--silence", "1s"], b"reboot\n\x1d\x03\x00\xff");
    assert_eq!(output.stdout, b"reboot\n\x1d\x03\x00\xff");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "console-proxy: serial/0 of g1\nconsole-proxy: serial/0 of g1: left\n"
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn five_megabytes_go_in_while_they_come_back_and_none_is_lost() {
    // Room for all: a slow reader would be shown a gap.
    let config = "[proxy]\nserial-buffer = 16777216\n";
    let proxy = published(Host::new().raw("serial/0", &Backend::echo()).config(config));
    let input: Vec<u8> = (0..5_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let output = piped(&proxy, &["--silence", "1s"], &input);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout == input, "{} bytes came back", output.stdout.len());
}

#[test]
fn a_pipe_waits_for_a_guest_that_is_slow_to_take_what_it_brings() {
    let (done, may_read) = std::sync::mpsc::channel::<()>();
    let may_read = Mutex::new(may_read);
    let backend = Backend::serve(move |conversation| {
        may_read.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        std::io::copy(conversation, &mut std::io::sink()).map(drop)
    });
    let proxy = published(Host::new().raw("serial/0", &backend));
    let input = vec![b'x'; 8 << 20];
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let output = scope.spawn(|| piped(&proxy, &["--silence", "1s"], &input));
        std::thread::sleep(Duration::from_secs(3));
        assert!(!output.is_finished(), "it left after {:?}", begun.elapsed());
        done.send(()).unwrap();
        assert_eq!(output.join().unwrap().status.code(), Some(0));
    });
    assert_eq!(backend.received().len(), input.len());
}

#[test]
fn who_looks_on_sends_nothing_and_stays_until_the_guest_ends_it() {
    let backend = Backend::echo();
    let proxy = published(Host::new().raw("serial/0", &backend));
    let mut terminal = on_console(&proxy, &["--view"]);
    terminal.shows("to look on; ^] leaves");
    terminal.types(b"rm -rf /\r");
    terminal.types(b"\x1d");
    terminal.ends_with(0);
    assert_eq!(backend.received(), b"");

    let proxy = published(Host::new().raw("serial/0", &Backend::says("said")));
    std::thread::scope(|scope| {
        let output = scope.spawn(|| piped(&proxy, &["--view", "--silence", "0s"], b""));
        proxy.until_logged("opened serial/0");
        proxy.withdraw_route();
        let output = output.join().unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), &b"said"[..]));
    });
}

#[test]
fn output_that_nobody_reads_ends_it_quietly() {
    let flood = Backend::serve(|conversation| {
        loop {
            conversation.write_all(&crate::backends::FLOOD)?;
        }
    });
    let proxy = published(Host::new().raw("serial/0", &flood));
    let mut command = proxy.console_proxy();
    command.args(["console", "g1", "--view", "--user", "ann"]);
    let mut program = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    program.stdout.take().unwrap().read_exact(&mut [0; 100]).unwrap();
    until("it ends", || program.try_wait().unwrap().is_some());
    assert_eq!(program.wait().unwrap().code(), Some(0));
}

#[test]
fn a_port_with_another_certificate_gets_no_ticket() {
    let proxy = echoing();
    drop(proxy.client());
    let kept = std::fs::read_to_string(proxy.path("etc/console-proxy/tls/certificate.pem")).unwrap();
    // The proxy keeps the one that it has: the new one does not fit its key.
    let (other, _) = console_proxy::edges::keys::certificate(&["localhost".into()], Duration::from_secs(3600)).unwrap();
    proxy.write("etc/console-proxy/tls/certificate.pem", &other);
    let output = piped(&proxy, &[], b"");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("cannot trust 127.0.0.1:") && said.contains("another certificate than this host's"),
        "{said}"
    );
    assert!(!proxy.log().contains("opened serial/0"));
    proxy.write("etc/console-proxy/tls/certificate.pem", &kept);
    assert_eq!(piped(&proxy, &["--silence", "0s"], b"").status.code(), Some(0));
}

#[test]
fn what_cannot_be_opened_is_said_with_what_to_do() {
    let proxy = published(Host::new().raw("vnc", &Backend::echo()).raw("serial/1", &Backend::echo()));
    for (arguments, code, words) in [
        (&["vnc"][..], 1, "vnc is a screen: `console-proxy url g1` opens it in a browser"),
        (&["serial/0"], 1, "g1 has no serial/0; it has serial/1"),
        (&["tty"], 2, "names no console"),
        (&["--escape", "esc"], 2, "is no key"),
    ] {
        let output = piped(&proxy, arguments, b"");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(words), "{said}");
    }
    proxy.withdraw_route();
    let said = piped(&proxy, &[], b"");
    assert!(String::from_utf8_lossy(&said.stderr).contains("no published guest is called \"g1\""), "{said:?}");
}

#[test]
fn a_port_that_does_not_listen_is_said_with_what_to_do() {
    let mut host = Host::new().raw("serial/0", &Backend::echo());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    host.route.port = taken.local_addr().unwrap().port();
    host.write_route();
    drop(taken);
    let output = piped(&host, &[], b"");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("g1 does not listen at 127.0.0.1:") && said.contains("`console-proxy doctor` says why"),
        "{said}"
    );
}
