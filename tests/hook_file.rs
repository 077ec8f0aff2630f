//! The hook file, called exactly as libvirt calls it, with every fate that its binary can have.
//!
//! libvirt fails a guest's start, or kills the running guest, when a hook ends with anything but 0, and waits
//! without end for its stdout and stderr to be closed. So the file's promise is the same for each fate: it ends
//! with 0 within seconds, reads its input to the end, and prints nothing but a filtered XML.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(missing_docs)]

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const OPERATIONS: [&str; 9] =
    ["prepare", "start", "started", "stopped", "release", "reconnect", "migrate", "restore", "attach"];
/// What the binary prints where it prints: passed on for these operations alone.
const FILTERED: &str = "<domain>\n  <name>g'1 \"ü\" %s \\n</name>\n</domain>\n";
const FILTERS: [&str; 2] = ["migrate", "restore"];
/// The binary's own time, the outer limit around it, and a busy machine.
const LATEST: Duration = Duration::from_secs(12);

/// What one call of the hook file came to, as libvirt sees it.
struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    took: Duration,
    input_taken: bool,
}

/// A copy of the hook file that calls a binary in `dir`.
fn private_copy(dir: &Path) -> std::path::PathBuf {
    let shipped = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/hooks/console-proxy")).unwrap();
    assert_eq!(shipped.matches("/usr/sbin/console-proxy-hook").count(), 1, "the binary's path stands in one place");
    let copy = dir.join("console-proxy");
    let binary = dir.join("binary");
    write_program(&copy, &shipped.replace("/usr/sbin/console-proxy-hook", binary.to_str().unwrap()), 0o755);
    copy
}

/// Writes a program through a process of its own. Written here, a child that another test forks meanwhile would hold
/// it open for writing, and the kernel would refuse to execute it.
fn write_program(path: &Path, content: &str, mode: u32) {
    let mut writer = Command::new("sh")
        .args(["-c", "cat >\"$0\" && chmod \"$1\" \"$0\""])
        .arg(path)
        .arg(format!("{mode:o}"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    writer.stdin.take().unwrap().write_all(content.as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
}

/// Calls it as libvirt's virHookCall does: four arguments, a small environment, `/`, three pipes.
fn call(hook: &Path, operation: &str, xml: &[u8]) -> Outcome {
    let begun = Instant::now();
    let sub_operation = if matches!(operation, "stopped" | "release") { "end" } else { "begin" };
    let mut child = Command::new(hook)
        .args(["g1", operation, sub_operation, "-"])
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("USER", "root")
        .env("LOGNAME", "root")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout, mut stderr) =
        (child.stdin.take().unwrap(), child.stdout.take().unwrap(), child.stderr.take().unwrap());
    thread::scope(|scope| {
        // libvirt, too, writes and reads at the same time, and waits for the end of both outputs.
        let writer = scope.spawn(move || stdin.write_all(xml).is_ok());
        let errors = scope.spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).map(|_| text).unwrap()
        });
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        let stderr = errors.join().unwrap();
        let input_taken = writer.join().unwrap();
        let code = child.wait().unwrap().code();
        Outcome { code, stdout: text, stderr, took: begun.elapsed(), input_taken }
    })
}

/// Calls all operations at once with a binary of this content and mode, checks what holds for every fate, and
/// returns each operation's output.
fn every_operation(binary: Option<(&str, u32)>) -> Vec<(&'static str, Outcome)> {
    let dir = tempfile::tempdir().unwrap();
    let hook = private_copy(dir.path());
    if let Some((content, mode)) = binary {
        let content = content.replace("FILTERED", &FILTERED.replace('\'', "'\\''"));
        write_program(&dir.path().join("binary"), &content, mode);
    }
    // More than a pipe holds: whoever does not read it blocks libvirt.
    let xml = format!("<domain>{}</domain>", "<!-- padding -->".repeat(20_000));
    let outcomes: Vec<_> = thread::scope(|scope| {
        let calls: Vec<_> = OPERATIONS
            .iter()
            .map(|operation| (*operation, scope.spawn(|| call(&hook, operation, xml.as_bytes()))))
            .collect();
        calls.into_iter().map(|(operation, call)| (operation, call.join().unwrap())).collect()
    });
    for (operation, outcome) in &outcomes {
        assert_eq!(outcome.code, Some(0), "{operation}: the exit code");
        assert_eq!(outcome.stderr, "", "{operation}: stderr");
        assert!(outcome.took < LATEST, "{operation}: took {:?}", outcome.took);
    }
    outcomes
}

/// The binary came to a bad end: libvirt reads nothing, for any operation, and has written all of its XML.
fn harmless(binary: Option<(&str, u32)>) {
    for (operation, outcome) in every_operation(binary) {
        assert_eq!(outcome.stdout, "", "{operation}: stdout");
        assert!(outcome.input_taken, "{operation}: libvirt met a broken pipe");
    }
}

#[test]
fn an_absent_binary_is_harmless() {
    harmless(None);
}

#[test]
fn a_binary_that_may_not_be_executed_is_harmless() {
    harmless(Some(("#!/bin/sh\necho no\n", 0o644)));
}

#[test]
fn a_binary_without_its_interpreter_is_harmless() {
    harmless(Some(("#!/nonexistent/interpreter\n", 0o755)));
}

#[test]
fn a_binary_that_is_no_program_is_harmless() {
    harmless(Some(("\u{7f}ELF and nothing else", 0o755)));
}

#[test]
fn a_binary_that_crashes_is_harmless() {
    harmless(Some(("#!/bin/sh\nprintf half; kill -SEGV $$\n", 0o755)));
}

#[test]
fn a_binary_that_is_killed_is_harmless() {
    harmless(Some(("#!/bin/sh\nprintf half; echo bad >&2; kill -KILL $$\n", 0o755)));
}

#[test]
fn a_binary_that_is_stopped_is_harmless() {
    harmless(Some(("#!/bin/sh\nprintf half; kill -STOP $$\n", 0o755)));
}

#[test]
fn a_binary_that_fails_is_harmless_and_its_output_is_not_used() {
    harmless(Some(("#!/bin/sh\ncat >/dev/null; printf '%s' 'FILTERED'; echo bad >&2; exit 1\n", 0o755)));
}

#[test]
fn a_binary_that_never_ends_is_ended() {
    harmless(Some(("#!/bin/sh\ntrap '' TERM INT HUP; cat >/dev/null; printf half; exec sleep 60\n", 0o755)));
}

#[test]
fn a_child_that_holds_the_pipes_does_not_hold_libvirt() {
    for (operation, outcome) in every_operation(Some(("#!/bin/sh\ncat >/dev/null\nsleep 20 &\nexit 0\n", 0o755))) {
        assert_eq!(outcome.stdout, "", "{operation}: stdout");
    }
}

#[test]
fn output_is_passed_on_for_migrate_and_restore_alone() {
    let binary = "#!/bin/sh\ncat >/dev/null; printf '%s' 'FILTERED'; echo chatter >&2\n";
    for (operation, outcome) in every_operation(Some((binary, 0o755))) {
        let expected = if FILTERS.contains(&operation) { FILTERED } else { "" };
        assert_eq!(outcome.stdout, expected, "{operation}: stdout");
    }
}

/// The file with the real binary behind it, on a host of its own below `root`.
fn real_hook(root: &Path) -> std::path::PathBuf {
    let hook = private_copy(root);
    let binary = env!("CARGO_BIN_EXE_console-proxy-hook");
    let script = format!("#!/bin/sh\nCONSOLE_PROXY_ROOT='{}' exec '{binary}' \"$@\"\n", root.display());
    write_program(&root.join("binary"), &script, 0o755);
    hook
}

/// What is published below `root`.
fn published(root: &Path) -> Vec<String> {
    let found = Command::new("find").arg(root.join("run")).args(["-name", "route.toml"]).output();
    let mut all: Vec<_> = String::from_utf8(found.unwrap().stdout).unwrap().lines().map(str::to_owned).collect();
    all.sort();
    all
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().unwrap().stdout == b"0\n"
}

/// What `wire --xml --dry-run` prints of a file, and its exit code and errors.
fn wire_dry(root: &Path, xml: &[u8]) -> (bool, String, String) {
    let file = root.join("guest.xml");
    fs::write(&file, xml).unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_console-proxy"))
        .args(["wire", "--slot", "4", "--dry-run", "--xml"])
        .arg(&file)
        .env("CONSOLE_PROXY_ROOT", root)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (done.status.success(), text(done.stdout), text(done.stderr))
}

#[test]
fn a_guest_whose_settings_close_it_is_not_published_and_left_alone_wherever_their_namespace_is_declared() {
    let cases = ["on-metadata", "on-domain", "default-namespace", "shadowed-prefix"].map(|case| (case, true));
    for (case, closed) in cases.into_iter().chain([("elsewhere", false)]) {
        let root = tempfile::tempdir().unwrap();
        let hook = real_hook(root.path());
        let file = format!("{}/tests/xml/settings/{case}-by-hand.xml", env!("CARGO_MANIFEST_DIR"));
        let xml = fs::read(file).unwrap();
        // The hook serves root's guests alone.
        if is_root() {
            let outcome = call(&hook, "started", &xml);
            assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), ""), "{case}");
            assert_eq!(published(root.path()).is_empty(), closed, "{case}");
        }
        let (done, diff, said) = wire_dry(root.path(), &xml);
        assert!(done && diff.is_empty() == closed && said.contains("wire='no'") == closed, "{case}: {diff}{said}");
    }
}

#[test]
fn a_guest_with_thirty_thousand_serial_ports_leaves_nothing_behind_and_is_passed_on_as_it_is() {
    let root = tempfile::tempdir().unwrap();
    let hook = real_hook(root.path());
    let good = include_str!("xml/started-libvirt-9.0.0.xml");
    let (before, after) = good.split_once("</devices>").unwrap();
    let serials = "<serial type='unix'><source mode='bind' path='/run/s'/></serial>".repeat(30_000);
    let flooded = format!("{before}{serials}</devices>{after}").into_bytes();
    if is_root() {
        for operation in ["started", "stopped"] {
            call(&hook, "started", good.as_bytes());
            assert!(!published(root.path()).is_empty(), "the earlier life");
            assert_eq!(call(&hook, operation, &flooded).code, Some(0));
            assert_eq!(published(root.path()), Vec::<String>::new(), "{operation}");
        }
        for operation in ["prepare", "reconnect", "migrate", "restore"] {
            let outcome = call(&hook, operation, &flooded);
            assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), ""), "{operation}");
        }
        assert_eq!(published(root.path()), Vec::<String>::new());
    }
    let (done, printed, said) = wire_dry(root.path(), &flooded);
    assert!(!done && printed.is_empty(), "{printed}");
    assert!(said.contains("30001 <serial> devices, and guests with more than 256"), "{said}");
}

#[test]
fn no_output_means_no_output() {
    harmless(Some(("#!/bin/sh\ncat >/dev/null\n", 0o755)));
}

#[test]
fn the_binary_gets_libvirts_arguments_and_all_of_the_xml() {
    let binary = "#!/bin/sh\necho \"$#|$1|$2|$3|$4\"; wc -c\n";
    for (operation, outcome) in every_operation(Some((binary, 0o755))) {
        if FILTERS.contains(&operation) {
            assert_eq!(outcome.stdout, format!("4|g1|{operation}|begin|-\n320017\n"));
        }
    }
}
