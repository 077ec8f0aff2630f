//! The guard: loopback ports of the serial range are for root alone, whatever becomes of nftables.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, ipproto};

use crate::host::{
    Configured, Guest, Running, SOON, User, exists, property, sh, state_of, systemctl, try_sh, virsh, wait_for,
    wait_until,
};

/// In the serial range, and no guest's.
const PORT: u16 = 28_999;

fn is_guarded() -> bool {
    try_sh("nft list table inet console_proxy | grep -q 28000-28999").is_ok()
}

fn connects(who: &User) -> bool {
    who.run(&format!("bash -c 'echo </dev/tcp/127.0.0.1/{PORT}'")).is_ok()
}

#[test]
fn an_ordinary_user_is_refused_in_the_serial_range_and_root_and_others_ports_are_not() {
    let user = User::in_groups("e2e-local", "libvirt");
    let (_inside, outside) =
        (TcpListener::bind(("127.0.0.1", PORT)).unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    assert!(!connects(&user), "an ordinary user reaches port {PORT}");
    sh(&format!("echo </dev/tcp/127.0.0.1/{PORT}"));
    let other = outside.local_addr().unwrap().port();
    user.run(&format!("bash -c 'echo </dev/tcp/127.0.0.1/{other}'")).expect("other ports are none of its business");
    // And not by another way round.
    assert!(user.run(&format!("bash -c 'echo </dev/tcp/::1/{PORT}'")).is_err());
    assert!(user.run(&format!("bash -c 'echo </dev/tcp/127.9.9.9/{PORT}'")).is_err());
    let own = sh("hostname -I 2>/dev/null; true");
    for address in own.split_whitespace() {
        assert!(user.run(&format!("bash -c 'echo </dev/tcp/{address}/{PORT}'")).is_err(), "{address}");
    }
}

/// This suite's own binary, where every user may run it.
const PROGRAM: &str = "/usr/local/sbin/e2e-guard";

/// How it is run to act as `ACT` says ([`act`]).
fn program(act: &str) -> String {
    fs::copy(std::env::current_exe().unwrap(), PROGRAM).unwrap();
    format!("/usr/bin/env ACT={act} {PROGRAM} --ignored --exact guard::act --nocapture")
}

/// Packets that a chain of the guard's has counted.
fn counted(chain: &str) -> u64 {
    let text = sh(&format!("nft list chain inet console_proxy {chain}"));
    text.split("counter packets ").skip(1).map(|rest| rest.split(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// The kernel opens further paths of an MPTCP connection by itself: sockets that have no owner whom the guard could
/// know, whoever the connection belongs to.
#[test]
fn a_socket_without_an_owner_is_refused() {
    /// The settings as the host had them.
    struct Restored(String);
    impl Drop for Restored {
        fn drop(&mut self) {
            let _ = try_sh(&format!(
                "ip mptcp endpoint flush; ip mptcp limits set subflow 2 add_addr_accepted 0; sysctl -qw net.mptcp.enabled={}",
                self.0
            ));
        }
    }
    let Ok(before) = try_sh("sysctl -n net.mptcp.enabled") else {
        return println!("this kernel has no MPTCP");
    };
    let _restored = Restored(before);
    sh("sysctl -qw net.mptcp.enabled=1; ip mptcp limits set subflow 4 add_addr_accepted 4");
    let user = User::in_groups("e2e-paths", "");
    let server = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::MPTCP)).unwrap();
    rustix::net::bind(&server, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    rustix::net::listen(&server, 1).unwrap();
    let server = TcpListener::from(server);
    // Who connects is told of a second place, and the client's kernel connects to it.
    sh(&format!("ip mptcp endpoint add 127.0.0.2 port {PORT} signal"));
    let place = server.local_addr().unwrap().port();
    let client = program(&format!("paths PLACE={place}"));
    let refused = counted_or_none("refused");
    std::thread::scope(|scope| {
        let run = scope.spawn(|| user.run(&client));
        let (mut accepted, _) = server.accept().unwrap();
        accepted.write_all(b"hello").unwrap();
        let reached = || !sh(&format!("ss -tnH state established dport = :{PORT}")).is_empty();
        let came_through = wait_for("the second path to be made or refused", SOON, || {
            if reached() { Some(true) } else { (counted_or_none("refused") > refused).then_some(false) }
        });
        drop(accepted);
        run.join().unwrap().expect("the client ends well");
        assert!(!came_through, "an ordinary user's kernel has a connection to port {PORT}");
    });
}

/// As [`counted`]; 0 where there is no such chain.
fn counted_or_none(chain: &str) -> u64 {
    if try_sh(&format!("nft list chain inet console_proxy {chain}")).is_ok() { counted(chain) } else { 0 }
}

#[test]
fn roots_open_connection_goes_on_while_the_guard_is_replaced() {
    let listener = TcpListener::bind(("127.0.0.1", PORT)).unwrap();
    let mut client = TcpStream::connect(("127.0.0.1", PORT)).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let mut word = [0; 4];
    for verb in ["reload", "restart"] {
        systemctl(&format!("{verb} console-proxy-guard"));
        client.write_all(b"ping").unwrap();
        server.read_exact(&mut word).unwrap();
        server.write_all(b"pong").unwrap();
        client.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"pong", "after a {verb}");
    }
    // Closed by root: the rest of the connection has no owner any more, and goes through.
    let refused = counted("refused");
    server.write_all(b"more that nobody reads").unwrap();
    drop(client);
    wait_until("the connection to end", SOON, || server.write_all(b"and more").is_err());
    assert_eq!(counted("refused"), refused);
}

#[test]
fn who_connected_to_a_guests_port_while_the_guard_was_away_is_cut_when_it_is_back() {
    let guest = Guest::define("gap").with_vnc().done();
    let port = wait_for("the guest to be wired", SOON, || serial_port(&guest));
    guest.start();
    guest.port();
    let user = User::in_groups("e2e-gap", "");
    sh("nft delete table inet console_proxy");
    let client = program(&format!("stays PLACE={port}"));
    std::thread::scope(|scope| {
        let run = scope.spawn(|| user.run(&client));
        wait_until("the user to be connected", SOON, || {
            !sh(&format!("ss -tnH state established dport = :{port}")).is_empty()
        });
        sh("touch /run/console-proxy/queue/guard");
        let said = run.join().unwrap().expect("it ends by itself");
        assert!(said.contains("cut: "), "{said}");
    });
}

/// The loopback port that wiring gave a guest.
fn serial_port(guest: &Guest) -> Option<u16> {
    let definition = guest.definition();
    let serial = definition.split("ua-console-proxy").next().filter(|before| before.len() < definition.len())?;
    serial.rsplit("service='").next()?.split('\'').next()?.parse().ok()
}

/// With `route_localnet` and a destination NAT, as container tools have them, loopback is open to other machines.
#[test]
fn another_network_namespace_does_not_reach_guarded_ports_by_loopbacks_address() {
    struct Undone(Running);
    impl Drop for Undone {
        fn drop(&mut self) {
            let _ = try_sh("nft delete table ip e2e_nat; ip link del e2e-out");
        }
    }
    let inside = TcpListener::bind(("127.0.0.1", PORT)).unwrap();
    let outside = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = outside.local_addr().unwrap().port();
    let other = Undone(Running::sh("unshare --net sleep 600"));
    let pid = other.0.0.id();
    wait_until("the namespace", SOON, || {
        fs::read_link(format!("/proc/{pid}/ns/net")).ok() != fs::read_link("/proc/self/ns/net").ok()
    });
    sh(&format!(
        "ip link add e2e-out type veth peer name e2e-in netns {pid}
         ip address add 10.99.0.1/24 dev e2e-out && ip link set e2e-out up
         nsenter -t {pid} -n sh -c 'ip address add 10.99.0.2/24 dev e2e-in && ip link set e2e-in up'
         sysctl -qw net.ipv4.conf.e2e-out.route_localnet=1
         printf 'table ip e2e_nat {{ chain pre {{ type nat hook prerouting priority dstnat; ip daddr 10.99.0.1 dnat to 127.0.0.1; }}; }}' | nft -f -"
    ));
    let connects =
        |port| try_sh(&format!("nsenter -t {pid} -n timeout 3 bash -c 'echo </dev/tcp/10.99.0.1/{port}'")).is_ok();
    assert!(connects(open), "the way there is open");
    assert!(!connects(PORT), "another namespace reaches port {PORT}");
    inside.set_nonblocking(true).unwrap();
    assert!(inside.accept().is_err());
}

/// What systemd and the broker hand to a proxy are root's sockets, whoever has them. The hostile program knows nothing of
/// the means by which a proxy keeps itself from that.
#[test]
fn a_proxy_begins_no_connection_with_the_sockets_that_it_was_handed() {
    let guest = Guest::define("handed").with_vnc().with_pty_serial().started();
    let port = guest.port();
    let vnc = guest.open("vnc");
    let marks = |filter: &str| sh(&format!("ss -tneH {filter}"));
    for (what, filter) in [
        ("its listening socket", format!("state listening sport = :{port}")),
        ("a client's connection", format!("state established sport = :{port}")),
        ("a display's connection", "state established dport = :5900".to_owned()),
    ] {
        assert!(marks(&filter).contains("fwmark:0x1030"), "{what}: {}", marks(&filter));
    }
    drop(vnc);

    let (_inside, outside) =
        (TcpListener::bind(("127.0.0.1", PORT)).unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let other = outside.local_addr().unwrap().port();
    let folder = format!("/run/systemd/system/{}.d", guest.service());
    let report = format!("/run/console-proxy/state/{}/report", guest.uuid());
    let _ = program("");
    fs::write(
        format!("{folder}/99-hostile.conf"),
        format!(
            "[Service]\nType=exec\nWatchdogSec=0\nRestart=no\nExecStart=\nExecStart={PROGRAM} --ignored --exact guard::act --nocapture\n\
             Environment=ACT=handed PLACES={PORT},{other} REPORT={report}\n"
        ),
    )
    .unwrap();
    sh(&format!("systemctl daemon-reload; systemctl stop {}", guest.service()));
    wait_until("the proxy to be gone", SOON, || property(&guest.service(), "MainPID") == "0");
    let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let said = wait_for("the hostile program's report", SOON, || fs::read_to_string(&report).ok());
    sh(&format!(
        "systemctl stop {0}.socket {0}.service; rm {folder}/99-hostile.conf; systemctl daemon-reload",
        guest.service().trim_end_matches(".service")
    ));
    let tries = ["a client's connection", "the listening socket"]
        .map(|socket| [PORT, other].map(|place| format!("{socket} to {place}: Connection refused")));
    assert_eq!(said.lines().collect::<Vec<_>>(), tries.concat());
}

/// The ports at which a running guest's displays listen.
pub fn display_ports(guest: &Guest) -> Vec<u16> {
    let xml = guest.xml();
    let displays = xml.split("<graphics ").skip(1).map(|rest| rest.split('>').next().unwrap());
    let of = |display: &str| {
        let values = display.split_whitespace().filter_map(|word| word.split_once("='"));
        let ports = values.filter(|(key, _)| ["port", "tlsPort", "websocket"].contains(key));
        ports.filter_map(|(_, value)| value.trim_end_matches('\'').parse().ok()).collect::<Vec<u16>>()
    };
    displays.flat_map(of).collect()
}

#[test]
fn displays_on_loopback_are_roots_alone_where_that_is_asked_for_and_their_ports_free_when_they_have_gone() {
    let user = User::in_groups("e2e-viewer", "");
    let reaches = |port: u16| user.run(&format!("bash -c 'echo </dev/tcp/127.0.0.1/{port}'")).is_ok();
    let guest = Guest::define("screens").with_vnc_websocket().with_spice().with_pty_serial().started();
    let locked = Guest::define("locked-screen").with_password("secret").with_vnc().started();
    guest.port();
    let ports = display_ports(&guest);
    assert_eq!(ports.len(), 3, "VNC, its websocket, SPICE: {ports:?}");
    for port in &ports {
        assert!(reaches(*port), "by default {port} is open");
    }
    let doctor = || try_sh("console-proxy doctor").unwrap_or_else(|said| said);
    let open = "note    screens: any local user reaches its";
    let said = doctor();
    assert!(said.matches(open).count() == 2 && said.contains("guard.displays = true"), "{said}");
    assert!(!said.contains("locked-screen: any local user"), "it has a password: {said}");

    let asked_for = Configured::with("[guard]\ndisplays = true\n");
    sh("console-proxy publish --all");
    wait_until("the displays to be guarded", SOON, || !ports.iter().any(|port| reaches(*port)));
    for port in &ports {
        sh(&format!("echo </dev/tcp/127.0.0.1/{port}"));
    }
    assert!(!display_ports(&locked).into_iter().any(reaches));
    guest.open("vnc");
    assert!(!doctor().contains(open));

    // The guest starts again within its QEMU, and as another one.
    virsh("reset screens");
    assert!(!ports.iter().any(|port| reaches(*port)));
    guest.destroy();
    guest.start();
    guest.port();
    wait_until("its displays to be guarded again", SOON, || !display_ports(&guest).into_iter().any(reaches));

    // A slip in the configuration opens nothing.
    drop(asked_for);
    let slip = Configured::with("[guard]\ndisplays = maybe\n");
    sh("touch /run/console-proxy/queue/guard");
    wait_until("the note to be taken", SOON, || !exists("/run/console-proxy/queue/guard"));
    wait_until("sync to be done", SOON, || state_of("console-proxy-sync.service") != "activating");
    assert!(!display_ports(&guest).into_iter().any(reaches));
    drop(slip);

    let _asked_for = Configured::with("[guard]\ndisplays = true\n");
    let ports = display_ports(&guest);
    guest.destroy();
    let others: Vec<_> = ports
        .iter()
        .map(|port| wait_for("the port to be free", SOON, || TcpListener::bind(("127.0.0.1", *port)).ok()))
        .collect();
    wait_until("the ports to be anybody's", SOON, || ports.iter().all(|port| reaches(*port)));
    drop(others);
}

/// A port in no range of ours.
const NOTED: u16 = 8123;

/// The owner of a guest writes into its metadata that wiring gave it its websocket, and takes a port at which another
/// service listens, on another of loopback's addresses.
#[test]
fn a_note_of_an_owners_has_the_guests_own_address_guarded_and_leaves_other_services_of_that_port_alone() {
    let bob = User::in_groups("e2e-bob-noted", "");
    let service = TcpListener::bind(("127.0.0.2", NOTED)).unwrap();
    let client = program(&format!("echoes PLACE=127.0.0.2:{NOTED}"));
    std::thread::scope(|scope| {
        let run = scope.spawn(|| bob.run(&client));
        let (mut open, _) = service.accept().unwrap();
        open.set_read_timeout(Some(SOON)).unwrap();
        let guest = noted();
        guest.port();
        wait_until("the guest's websocket to be guarded", SOON, || {
            try_sh(&format!("nft -n list table inet console_proxy | grep -q {NOTED}")).is_ok()
        });
        let mut word = [0; 4];
        let whole = open.write_all(b"ping").and_then(|()| open.read_exact(&mut word));
        drop(open);
        let said = run.join().unwrap();
        assert!(whole.is_ok() && &word == b"ping", "bob's connection was cut: {whole:?} {said:?}");
        let reaches = |address: &str| bob.run(&format!("bash -c 'echo </dev/tcp/{address}/{NOTED}'")).is_ok();
        assert!(reaches("127.0.0.2"), "bob begins another connection to it");
        assert!(!reaches("127.0.0.1"), "bob reaches the guest's websocket");
        sh(&format!("echo </dev/tcp/127.0.0.1/{NOTED}"));
    });
}

/// As an earlier version wrote it: a display's port says nothing of its address.
#[test]
fn a_route_that_names_displays_by_port_is_refused_in_words_and_publish_mends_it() {
    let guest = Guest::define("old-form").with_vnc().started();
    guest.port();
    let path = format!("/run/console-proxy/guests/{}/route.toml", guest.uuid());
    let displays = || sh(&format!("grep ^displays {path}"));
    assert_eq!(displays(), "displays = [\"127.0.0.1:5900\"]");
    sh(&format!("sed -i 's/^displays = .*/displays = [5900]/' {path}"));
    let said = try_sh("console-proxy url old-form").unwrap_err();
    assert!(said.contains("names its displays by port") && said.contains("`console-proxy publish --all`"), "{said}");
    sh("console-proxy publish --all");
    assert_eq!(displays(), "displays = [\"127.0.0.1:5900\"]");
    guest.port();
    guest.open("vnc");
}

/// A running guest whose owner wrote such a note.
fn noted() -> Guest {
    let guest = Guest::define("noted").with_vnc_websocket().blank().done();
    let mut xml = guest.definition().replace("websocket='-1'", &format!("websocket='{NOTED}'"));
    virsh("undefine noted");
    if let (Some(from), Some(to)) = (xml.find("<metadata>"), xml.find("</metadata>")) {
        xml.replace_range(from..to + "</metadata>".len(), "");
    }
    let note = "<metadata><w:wired xmlns:w='urn:console-proxy:wiring:1' websocket='added'/></metadata>";
    let xml = xml.replace("</uuid>", &format!("</uuid>{note}"));
    assert!(xml.contains(&format!("websocket='{NOTED}'")) && xml.contains(note), "{xml}");
    fs::write("/run/e2e-noted.xml", xml).unwrap();
    // Transient, so that wiring leaves it alone.
    virsh("create /run/e2e-noted.xml");
    guest
}

/// What this binary does in the place of another program.
#[test]
#[ignore = "a program of the tests above"]
fn act() {
    let of = |name: &str| std::env::var(name).unwrap();
    match of("ACT").as_str() {
        "paths" => {
            let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::MPTCP)).unwrap();
            rustix::net::connect(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, of("PLACE").parse().unwrap())))
                .unwrap();
            let mut socket = TcpStream::from(socket);
            socket.write_all(b"data, after which further paths may be made").unwrap();
            let _ = socket.read_to_end(&mut Vec::new());
        }
        "stays" => {
            let mut socket = TcpStream::connect(("127.0.0.1", of("PLACE").parse().unwrap())).unwrap();
            let cut = loop {
                std::thread::sleep(Duration::from_millis(50));
                if let Err(why) = socket.write_all(b"\n") {
                    break why;
                }
            };
            println!("cut: {cut}");
        }
        "echoes" => {
            let mut socket = TcpStream::connect(of("PLACE")).unwrap();
            let mut word = [0; 4];
            while socket.read_exact(&mut word).is_ok() {
                socket.write_all(&word).unwrap();
            }
        }
        "handed" => handed(&of("PLACES"), &of("REPORT")),
        other => panic!("no act {other}"),
    }
}

#[allow(unsafe_code, reason = "the socket that systemd passes has a number alone")]
fn handed(places: &str, report: &str) {
    // SAFETY: systemd passed it, and nothing else in this process has it.
    let listener = TcpListener::from(unsafe { OwnedFd::from_raw_fd(3) });
    listener.set_nonblocking(false).unwrap();
    let (client, _) = listener.accept().unwrap();
    client.set_nonblocking(false).unwrap();
    let mut said = Vec::new();
    for (name, socket) in [("a client's connection", OwnedFd::from(client)), ("the listening socket", listener.into())]
    {
        for place in places.split(',') {
            rustix::net::connect_unspec(&socket).unwrap();
            let to = SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), place.parse().unwrap()));
            let became = match rustix::net::connect(&socket, &to) {
                Ok(()) => "CONNECTED".to_owned(),
                Err(why) => std::io::Error::from(why).to_string().split(" (").next().unwrap_or_default().to_owned(),
            };
            said.push(format!("{name} to {place}: {became}\n"));
        }
    }
    let draft = format!("{report}.new");
    fs::write(&draft, said.concat()).unwrap();
    fs::rename(draft, report).unwrap();
}

#[test]
fn the_guard_is_there_again_after_nftables_was_restarted_reloaded_stopped_and_started() {
    /// nftables is stopped on a host that came without it.
    struct Stopped;
    impl Drop for Stopped {
        fn drop(&mut self) {
            let _ = try_sh("systemctl stop nftables; systemctl restart console-proxy-guard");
        }
    }
    let _stopped = Stopped;
    systemctl("start nftables");
    wait_until("the guard after nftables' start", SOON, is_guarded);
    for verb in ["restart", "reload"] {
        systemctl(&format!("{verb} nftables"));
        wait_until(&format!("the guard after nftables' {verb}"), SOON, is_guarded);
    }
    systemctl("stop nftables");
    systemctl("start nftables");
    wait_until("the guard after nftables was stopped and started", SOON, is_guarded);
}

#[test]
fn after_a_flush_the_guard_is_back_with_the_next_sync() {
    let doctor = wait_for("a flush that no sync has made up for", SOON, || {
        sh("nft flush ruleset");
        try_sh("console-proxy doctor").err()
    });
    assert!(doctor.contains("FAULT   the guard is not in the kernel"), "{doctor}");
    assert_eq!(state_of("console-proxy-guard.service"), "active", "its unit knows nothing of it");
    sh("nft flush ruleset");
    // Whatever a guest does leaves a note; any note will do.
    sh("touch /run/console-proxy/queue/guard");
    wait_until("the guard", SOON, is_guarded);
}

#[test]
fn stopping_nftables_does_not_take_the_guard_away_for_longer_than_it_takes_to_load_it() {
    sh("systemctl start nftables; systemctl stop nftables");
    wait_until("the guard", Duration::from_secs(15), || {
        sh("touch /run/console-proxy/queue/guard");
        is_guarded()
    });
}
