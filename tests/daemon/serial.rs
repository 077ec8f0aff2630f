//! Text consoles: many viewers of one port, a backend that is always read, memory that is bounded.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::time::Duration;

use console_proxy::edges::caller::wait;
use console_proxy::rules::ticket::Mode;
use rustix::event::PollFlags;

use crate::backends::Backend;
use crate::host::{Host, PATIENCE, Proxy, until};

#[test]
fn all_who_open_a_port_see_the_same_and_type_into_it() {
    let proxy = Proxy::activated(Host::new().raw("serial/0", &Backend::echo()).raw("serial/1", &Backend::echo()));
    let mut all: Vec<_> = (0..5).map(|_| proxy.open("/serial/0")).collect();
    for who in 0..all.len() {
        all[who].send(format!("typed by {who}").as_bytes());
        for viewer in &mut all {
            assert_eq!(viewer.read(10), format!("typed by {who}").as_bytes());
        }
    }
    proxy.open("/serial/1").echoes("another port is another");
    let mut late = proxy.open("/serial/0");
    assert_eq!(late.read(50), b"typed by 0typed by 1typed by 2typed by 3typed by 4", "who joins sees what they saw");
    drop(all);
    late.echoes("the last one has it");
    drop(late);
    until("nobody is there", || proxy.log().matches("left serial").count() == 7);
    proxy.open("/serial/0").echoes("who comes to an empty place sees nothing of it");
}

#[test]
fn where_the_configuration_refuses_a_second_who_types_they_hear_who_is_there() {
    let config = "[serial]\nviewers = \"refuse\"\n";
    let proxy = Proxy::activated(Host::new().raw("serial/0", &Backend::echo()).config(config));
    let ticket = proxy.ticket_with(|claims| claims.sub = "bob <b>\n".into());
    let mut first = proxy.try_open(&format!("/serial/0?token={ticket}"), &[]).unwrap();
    let answer = proxy.refusal(&format!("/serial/0?token={}", proxy.ticket()), &[]);
    assert_eq!((answer.status, answer.body.as_str()), (409, "serial/0 is in use by bob <b>\u{fffd} from 127.0.0.1\n"));
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8", "markup in it is text");
    let view = proxy.ticket_with(|claims| claims.mode = Mode::View);
    let mut onlooker = proxy.try_open(&format!("/serial/0?token={view}"), &[]).unwrap();
    onlooker.send(b"an onlooker types nothing");
    first.echoes("undisturbed");
    assert_eq!(onlooker.read(11), b"undisturbed", "and is never refused");
    drop(first);
    let mut next = proxy.open_when_free("/serial/0");
    assert_eq!(next.read(11), b"undisturbed");
    next.echoes("an onlooker is not in the way");
}

#[test]
fn where_the_configuration_says_so_a_second_who_types_takes_over_and_the_first_hears_from_whom() {
    let config = "[serial]\nviewers = \"take-over\"\n";
    let proxy = Proxy::activated(Host::new().raw("serial/0", &Backend::echo()).config(config));
    let mut first = proxy.open("/serial/0");
    first.echoes("mine");
    let view = proxy.ticket_with(|claims| claims.mode = Mode::View);
    let mut onlooker = proxy.try_open(&format!("/serial/0?token={view}"), &[]).unwrap();
    assert_eq!(onlooker.read(4), b"mine");
    let bob = proxy.ticket_with(|claims| claims.sub = "bob".into());
    let mut second = proxy.try_open(&format!("/serial/0?token={bob}"), &[]).unwrap();
    assert_eq!(first.closed(), (4409, "bob from 127.0.0.1 took this console over".to_owned()));
    assert_eq!(second.read(4), b"mine", "it goes on where the first was");
    second.echoes("now bob's");
    assert_eq!(onlooker.read(9), b"now bob's", "onlookers stay");
}

#[test]
fn of_those_who_come_at_once_to_a_port_for_one_just_one_gets_it() {
    let config = "[serial]\nviewers = \"refuse\"\n";
    let proxy = Proxy::activated(Host::new().raw("serial/0", &Backend::silent()).config(config));
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
        .split("\x18\r\n[console-proxy: ")
        .skip(1)
        .map(|rest| rest.split_once(" bytes were dropped here]\r\n").unwrap().0.parse().unwrap())
        .collect();
    assert!(!dropped.is_empty(), "something must be missing of 50 MB");
    let notices: usize =
        dropped.iter().map(|n| format!("\x18\r\n[console-proxy: {n} bytes were dropped here]\r\n").len()).sum();
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
