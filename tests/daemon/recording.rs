//! Recordings of text consoles, as the proxy writes them and `console-proxy replay` plays them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use console_proxy::edges::recordings;
use console_proxy::rules::config::{Config, Record};

use crate::backends::Backend;
use crate::client::Ws;
use crate::host::{GUEST, Host, Proxy, until};

const NOTICE: &[u8] = b"\x18\r\n[console-proxy: what this console shows is recorded]\r\n";
const NOTICE_OF_INPUT: &[u8] =
    b"\x18\r\n[console-proxy: what this console shows and what is typed here is recorded]\r\n";

/// The guest's recordings, by name.
fn all(host: &Host) -> Vec<PathBuf> {
    let folder = host.path("var/lib/console-proxy/recordings").join(GUEST);
    let mut paths: Vec<_> = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// What `console-proxy replay` shows of it.
fn played(host: &Host, recording: &PathBuf) -> Vec<u8> {
    let output = host.console_proxy().arg("replay").arg(recording).args(["--idle-limit", "0s"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[track_caller]
fn is_told(ws: &mut Ws, notice: &[u8]) {
    assert_eq!(String::from_utf8_lossy(&ws.read(notice.len())), String::from_utf8_lossy(notice));
}

fn recorded(record: &str) -> Proxy {
    let config = format!("[record]\nguests = [\"g*\"]\n{record}");
    Proxy::activated(Host::new().raw("serial/0", &Backend::echo()).raw("vnc", &Backend::echo()).config(&config))
}

#[test]
fn what_a_console_shows_is_recorded_once_for_all_viewers_and_each_is_told() {
    let proxy = recorded("");
    let mut first = proxy.open("/serial/0");
    is_told(&mut first, NOTICE);
    first.echoes("one é \x1b[31m");
    let mut second = proxy.open("/serial/0");
    is_told(&mut second, NOTICE);
    assert_eq!(second.read(12), "one é \x1b[31m".as_bytes());
    first.echoes("two");
    drop((first, second));
    until("it is written", || all(&proxy).first().is_some_and(|path| played(&proxy, path).ends_with(b"two")));
    let [path] = &all(&proxy)[..] else { panic!("{:?}", all(&proxy)) };
    assert_eq!(String::from_utf8(played(&proxy, path)).unwrap(), "one é \x1b[31mtwo");
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains("\"title\":\"g1 serial/0\"") && !text.contains("\"i\""), "{text}");
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("g1_serial-0_2") && name.ends_with("Z.cast"), "{name}");
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o640);

    // The port was closed with its last viewer: the next one begins another.
    until("the port is closed", || proxy.log().matches("left serial/0").count() == 2);
    proxy.open("/serial/0").read(NOTICE.len());
    until("there is another", || all(&proxy).len() == 2);
    proxy.open("/vnc").echoes("a screen is not recorded");
    assert_eq!(all(&proxy).len(), 2);
}

#[test]
fn what_is_typed_is_recorded_where_that_was_asked_for_and_that_is_said_too() {
    let proxy = recorded("input = true\n");
    let mut ws = proxy.open("/serial/0");
    is_told(&mut ws, NOTICE_OF_INPUT);
    ws.echoes("typed");
    drop(ws);
    until("it is written", || all(&proxy).first().is_some_and(|path| played(&proxy, path) == b"typed"));
    let text = fs::read_to_string(&all(&proxy)[0]).unwrap();
    let input: Vec<_> = text.lines().filter(|line| line.contains(", \"i\", \"typed\"]")).collect();
    assert_eq!(input.len(), 1, "{text}");
}

#[test]
fn other_guests_and_consoles_are_not_recorded_and_nobody_is_told_so() {
    for config in ["", "[record]\nguests = [\"h*\"]\n", "[record]\nguests = [\"*\"]\nconsoles = [\"serial/1\"]\n"] {
        let proxy = Proxy::activated(Host::new().raw("serial/0", &Backend::echo()).config(config));
        proxy.open("/serial/0").echoes("hello");
        assert!(all(&proxy).is_empty());
    }
}

#[test]
fn a_large_recording_goes_on_in_another_file_and_nothing_is_lost() {
    let lines: String = (0..20_000).map(|i| format!("line {i}\r\n")).collect();
    let text = lines.clone();
    let backend = Backend::serve(move |conversation| {
        conversation.write_all(text.as_bytes())?;
        std::io::copy(conversation, &mut std::io::sink()).map(drop)
    });
    let config = "[record]\nguests = [\"*\"]\nfile-bytes = 65536\nkeep-bytes = 100000000\n";
    let proxy = Proxy::activated(Host::new().raw("serial/0", &backend).config(config));
    let mut ws = proxy.open("/serial/0");
    let in_a_row = || -> Vec<u8> {
        let whole = |path: &&PathBuf| fs::read_to_string(path).is_ok_and(|text| text.ends_with('\n'));
        all(&proxy).iter().filter(whole).flat_map(|path| played(&proxy, path)).collect()
    };
    until("it is all written", || {
        ws.read(1);
        in_a_row().len() == lines.len()
    });
    assert!(in_a_row() == lines.as_bytes(), "{:?}", all(&proxy));
    assert!(all(&proxy).len() >= 3, "{:?}", all(&proxy));
}

#[test]
fn where_no_recording_can_be_made_the_console_works_and_the_log_says_why() {
    let proxy = recorded("");
    proxy.write("var/lib/console-proxy/recordings", "a file is in the way");
    let mut ws = proxy.open("/serial/0");
    is_told(&mut ws, NOTICE);
    ws.echoes("it works");
    proxy.until_logged("g1 serial/0 is not recorded: ");
}

#[test]
fn by_hand_it_is_recorded_too() {
    let host = Host::new().raw("serial/0", &Backend::echo()).config("[record]\nguests = [\"g1\"]\n");
    let proxy = Proxy::by_hand(host);
    let mut ws = proxy.open("/serial/0");
    is_told(&mut ws, NOTICE);
    ws.echoes("by hand");
    until("it is written", || all(&proxy).first().is_some_and(|path| played(&proxy, path) == b"by hand"));
}

#[test]
fn prune_takes_what_is_too_old_or_too_much_and_leaves_the_rest() {
    let host = Host::new().config("[record]\nkeep-days = 2\nfile-bytes = 65536\nkeep-bytes = 65536\n");
    let paths = console_proxy::edges::paths::Paths::new(host.path(""));
    let day = std::time::Duration::from_secs(86_400);
    for (age, bytes) in [(3, 10), (2, 40_000), (1, 30_000), (0, 20_000)] {
        let file = recordings::create(&paths, &host.route.uuid, "g1", "serial/0".parse().unwrap(), 1000 + age);
        let mut file = file.unwrap();
        file.write_all(&vec![b'x'; bytes]).unwrap();
        let hour = std::time::Duration::from_secs(3600);
        file.set_modified(std::time::SystemTime::now() - day * u32::try_from(age).unwrap() + hour).unwrap();
    }
    let output = host.console_proxy().args(["prune", "--recordings"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.matches("kept no longer").count(), 2, "{said}");
    let left: Vec<u64> = all(&host).iter().map(|path| fs::metadata(path).unwrap().len()).collect();
    assert_eq!(left, [20_000, 30_000]);
    assert!(Config::default().record == Record::default());
}
