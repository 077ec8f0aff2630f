//! Text consoles: one client at a time, a backend that is always read, memory that is bounded.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::time::Duration;

use console_proxy::edges::broker_server::wait;
use rustix::event::PollFlags;

use crate::backends::Backend;
use crate::host::{Host, PATIENCE, Proxy, until};

#[test]
fn a_second_client_gets_409_and_hears_who_holds_it() {
    let proxy = Proxy::activated(Host::new().raw("serial/0", &Backend::echo()).raw("serial/1", &Backend::echo()));
    let ticket = proxy.ticket_with(|claims| claims.sub = "bob <b>\n".into());
    let mut first = proxy.try_open(&format!("/serial/0?token={ticket}"), &[]).unwrap();
    let answer = proxy.refusal(&format!("/serial/0?token={}", proxy.ticket()), &[]);
    assert_eq!((answer.status, answer.body.as_str()), (409, "serial/0 is in use by bob <b>\u{fffd} from 127.0.0.1\n"));
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8", "markup in it is text");
    proxy.open("/serial/1").echoes("another port is free");
    first.echoes("undisturbed");
    drop(first);
    proxy.open_when_free("/serial/0").echoes("the next");
}

#[test]
fn two_who_come_at_once_do_not_both_get_it() {
    let proxy = Proxy::activated(Host::new().raw("serial/0", &Backend::silent()));
    proxy.ask("GET", "/", &[]);
    let target = format!("/serial/0?token={}", proxy.ticket());
    for _ in 0..5 {
        let results: Vec<_> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|_| scope.spawn(|| proxy.try_open(&target, &[]))).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        assert!(results.iter().all(|result| result.as_ref().err().is_none_or(|answer| answer.status == 409)));
        drop(results);
        proxy.open_when_free("/serial/0");
        until("it is free again", || {
            proxy.log().matches("opened serial").count() == proxy.log().matches("left serial").count()
        });
    }
}

#[test]
fn a_guest_that_says_50_mb_is_never_held_up_by_a_client_that_does_not_read() {
    const LINE: &[u8] = b"[    1.000000] a line that the guest's kernel prints\r\n";
    let total = 50_000_000 / LINE.len() * LINE.len();
    let (done, is_done) = mpsc::channel();
    let done = std::sync::Mutex::new(done);
    let backend = Backend::serve(move |conversation| {
        let chunk = LINE.repeat(1000);
        for part in 0..total.div_ceil(chunk.len()) {
            conversation.write_all(&chunk[..chunk.len().min(total - part * chunk.len())])?;
        }
        conversation.write_all(b"THE END")?;
        done.lock().unwrap().send(()).unwrap();
        std::io::copy(conversation, &mut std::io::sink()).map(drop)
    });
    let proxy = Proxy::activated(Host::new().raw("serial/0", &backend));
    let mut ws = proxy.open("/serial/0");
    let before = proxy.memory();
    is_done.recv_timeout(PATIENCE).expect("the guest could say it all");
    assert!(proxy.memory() < before + 16_000, "{before} KiB before, {} KiB now", proxy.memory());
    // Now it reads. What it gets is the beginning, one or more gaps that are shown, and the end.
    let mut text = Vec::new();
    while !text.ends_with(b"THE END") {
        let frame = ws.next().unwrap();
        assert!(frame.opcode() != 8, "it was closed");
        if frame.opcode() <= 2 {
            text.extend(frame.payload);
        }
    }
    assert!(text.starts_with(LINE));
    let text = String::from_utf8(text).unwrap();
    let dropped: Vec<usize> = text
        .split("[console-proxy: ")
        .skip(1)
        .map(|rest| rest.split_once(" bytes were dropped here]\r\n").unwrap().0.parse().unwrap())
        .collect();
    assert!(!dropped.is_empty(), "something must be missing of 50 MB");
    let notices: usize =
        dropped.iter().map(|n| format!("\r\n[console-proxy: {n} bytes were dropped here]\r\n").len()).sum();
    assert_eq!(
        text.len() - notices + dropped.iter().sum::<usize>(),
        total + "THE END".len(),
        "every byte is accounted for"
    );
}

#[test]
fn input_for_a_guest_that_reads_nothing_is_bounded_and_the_session_lives_on() {
    let (go, may_read) = mpsc::channel::<()>();
    let may_read = std::sync::Mutex::new(may_read);
    let backend = Backend::serve(move |conversation| {
        conversation.write_all(b"busy")?;
        may_read.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        let mut bytes = vec![0; 1 << 16];
        let mut sum = 0;
        while sum < 100 << 20 {
            sum += conversation.stream.read(&mut bytes)?;
        }
        conversation.write_all(b"all of it")
    });
    let config = "[proxy]\nping-interval = \"1s\"\n";
    let proxy = Proxy::activated(Host::new().raw("serial/0", &backend).config(config));
    let mut ws = proxy.open("/serial/0");
    assert_eq!(ws.read(4), b"busy");
    let before = proxy.memory();
    let pid = &proxy;
    std::thread::scope(|scope| {
        let typing = scope.spawn(move || {
            for _ in 0..100 {
                ws.send(&vec![b'a'; 1 << 20]);
            }
            ws
        });
        // More than two pings that could not be answered: they stand behind what was typed.
        std::thread::sleep(Duration::from_millis(4500));
        assert!(pid.memory() < before + 16_000, "{before} KiB before, {} KiB now", pid.memory());
        go.send(()).unwrap();
        let mut ws = typing.join().unwrap();
        assert_eq!(ws.read(9), b"all of it");
    });
}

#[test]
fn a_console_that_is_a_terminal_is_served_raw_and_under_libvirts_lock() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let number = name.strip_prefix("/dev/pts/").unwrap();
    let host = Host::new().raw("serial/0", &format!("pty:{name}").parse().unwrap());
    let lock = host.path(&format!("var/lock/LCK.._pts_{number}"));
    std::fs::create_dir_all(lock.parent().unwrap()).unwrap();
    // Somebody else has it: this test's own process, as virsh console would.
    std::fs::write(&lock, format!("{:10}\n", std::process::id())).unwrap();
    let proxy = Proxy::by_hand(host);
    let answer = proxy.refusal(&format!("/serial/0?token={}", proxy.ticket()), &[]);
    assert_eq!(answer.status, 409);
    assert!(answer.body.starts_with("the console is in use by "), "{answer:?}");
    std::fs::remove_file(&lock).unwrap();

    let mut ws = proxy.open("/serial/0");
    let held = std::fs::read_to_string(&lock).unwrap();
    assert_ne!(held.trim(), std::process::id().to_string());
    let mut guest = std::fs::File::from(master);
    guest.write_all(b"login:\n\x03\x11").unwrap();
    assert_eq!(ws.read(9), b"login:\n\x03\x11", "no newline is translated");
    ws.send(b"root\r\x03\x04");
    let mut typed = Vec::<u8>::new();
    while typed.len() < 7 {
        assert!(wait(guest.as_fd(), PollFlags::IN, PATIENCE).unwrap(), "{typed:?} and no more");
        let mut bytes = [0; 7];
        let n = guest.read(&mut bytes).unwrap();
        typed.extend(&bytes[..n]);
    }
    assert_eq!(typed, b"root\r\x03\x04", "no key is a signal");
    ws.send_frame(0x88, &1000u16.to_be_bytes());
    assert_eq!(ws.closed().0, 1000);
    until("the lock is given back", || !lock.exists());
    let mut ws = proxy.open_when_free("/serial/0");
    drop(guest);
    assert_eq!(ws.closed().0, 4502, "QEMU has gone");
    until("the lock is given back", || !lock.exists());
}
