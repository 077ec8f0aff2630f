//! Much at once: guests by the score, notes by the hundred, a sync that is killed again and again. What counts is that
//! all is exact in the end.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::host::{Guest, SOON, property, sh, state_of, systemctl, try_sh, wait_until};
use crate::ws::Ws;

fn blank_guests(prefix: &str, number: usize) -> Vec<Guest> {
    (1..=number).map(|n| Guest::define(&format!("{prefix}{n}")).with_vnc().with_pty_serial().blank().done()).collect()
}

/// virsh's verb for all guests at once.
fn all_at_once(verb: &str, guests: &[Guest]) {
    let commands: Vec<_> = guests.iter().map(|guest| format!("virsh --quiet {verb} {} &", guest.name)).collect();
    sh(&format!("{} wait", commands.join(" ")));
}

fn listening(guests: &[Guest]) -> usize {
    guests.iter().filter(|guest| state_of(&guest.socket()) == "active").count()
}

/// Nothing of a guest is left that does not run.
fn nothing_is_left(guests: &[Guest]) -> bool {
    let routes = guests
        .iter()
        .any(|guest| fs::exists(format!("/run/console-proxy/guests/{}/route.toml", guest.uuid())).unwrap());
    !routes && listening(guests) == 0
}

#[test]
fn twenty_guests_started_at_once_all_get_a_port_of_their_own_and_give_it_back() {
    let guests = blank_guests("many", 20);
    let begun = Instant::now();
    all_at_once("start", &guests);
    let started = begun.elapsed();
    wait_until("twenty sockets", Duration::from_secs(60), || listening(&guests) == 20);
    println!("20 guests: started in {started:?}, all listen after {:?}", begun.elapsed());
    let ports: BTreeSet<u16> = guests.iter().map(Guest::port).collect();
    assert_eq!(ports.len(), 20, "{ports:?}");
    let last = guests.last().unwrap();
    last.open("vnc").read_until("RFB 003.008\n", SOON);
    all_at_once("destroy", &guests);
    wait_until("twenty sockets to go", Duration::from_secs(60), || nothing_is_left(&guests));
    assert_eq!(sh("systemctl list-units --failed --no-legend --plain 'console-proxy*'"), "");
}

#[test]
fn start_and_destroy_one_after_the_other_twenty_times_end_exact() {
    let guest = Guest::define("hasty").with_vnc().blank().done();
    for _ in 0..20 {
        guest.start();
        guest.destroy();
    }
    wait_until("nothing to be left", SOON, || nothing_is_left(std::slice::from_ref(&guest)));
    guest.start();
    let port = guest.port();
    guest.open("vnc").read_until("RFB 003.008\n", SOON);
    guest.destroy();
    guest.start();
    assert_eq!(guest.port(), port);
    // Not the earlier life's listening socket: the new one serves.
    guest.open("vnc").read_until("RFB 003.008\n", SOON);
}

#[test]
fn a_sync_that_is_killed_again_and_again_is_made_up_for() {
    let guests = blank_guests("killed", 6);
    let over = AtomicBool::new(false);
    let kills = std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let mut kills = 0;
            while !over.load(Ordering::Relaxed) {
                kills += u32::from(try_sh("systemctl kill -s KILL console-proxy-sync.service").is_ok());
                std::thread::sleep(Duration::from_millis(20));
            }
            kills
        });
        all_at_once("start", &guests);
        std::thread::sleep(Duration::from_secs(2));
        over.store(true, Ordering::Relaxed);
        killer.join().unwrap()
    });
    assert!(kills > 0);
    wait_until("all sockets", Duration::from_secs(30), || listening(&guests) == 6);
    all_at_once("destroy", &guests);
    wait_until("all to be gone", Duration::from_secs(30), || nothing_is_left(&guests));
}

#[test]
fn hundreds_of_notes_in_any_order_change_nothing_that_is_right() {
    let guest = Guest::define("noted").with_vnc().started();
    let port = guest.port();
    let mut vnc = guest.open("vnc");
    let queue = "/run/console-proxy/queue";
    let begun = Instant::now();
    for n in 0..500 {
        fs::write(format!("{queue}/{n:08x}-0000-4000-8000-000000000000"), "").unwrap();
        if n % 100 == 0 {
            fs::write(format!("{queue}/{}", guest.uuid()), "").unwrap();
        }
    }
    // What is no note at all.
    fs::create_dir_all(format!("{queue}/folder/in it")).unwrap();
    fs::write(format!("{queue}/with\nnewline"), "text").unwrap();
    wait_until("an empty queue", Duration::from_secs(30), || fs::read_dir(queue).unwrap().next().is_none());
    println!("500 notes taken after {:?}", begun.elapsed());
    wait_until("sync to end", SOON, || state_of("console-proxy-sync.service") != "activating");
    assert_eq!(state_of("console-proxy-sync.path"), "active");
    assert_eq!(property("console-proxy-sync.service", "Result"), "success");
    assert_eq!(guest.port(), port);
    vnc.read_until("RFB 003.008\n", SOON);
}

#[test]
fn sync_waits_for_a_busy_system_manager() {
    let guest = Guest::define("queued").with_vnc().blank().done();
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            for _ in 0..5 {
                systemctl("daemon-reload");
            }
        });
        guest.start();
        guest.port();
        busy.join().unwrap();
    });
    let (port, ticket) = (guest.port(), guest.ticket());
    Ws::connect(port, "/vnc", &ticket).unwrap().read_until("RFB 003.008\n", SOON);
}
