//! `console-proxy replay` in a real terminal, from a file and from a pipe.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use console_proxy::rules::modes::RESET;
use rustix::process::{Signal, kill_process};

use crate::host::until;
use crate::terminal::Terminal;

const HEADER: &str = "{\"version\":2,\"width\":80,\"height\":24,\"timestamp\":1800000000,\"title\":\"g1 serial/0\"}\n";

struct Recording {
    folder: tempfile::TempDir,
}

impl Recording {
    fn of(text: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("r.cast"), text).unwrap();
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("r.cast")
    }

    fn replay(&self, arguments: &[&str]) -> Output {
        replay(&self.path(), arguments).stdin(Stdio::null()).output().unwrap()
    }
}

fn replay(file: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_console-proxy"));
    command.env("CONSOLE_PROXY_LOG", "error").env("TERM", "dumb").arg("replay").arg(file).args(arguments);
    command
}

#[track_caller]
fn says(output: &Output, code: i32, shown: &str, words: &str) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stdout).as_ref()), (Some(code), shown), "{said}");
    assert!(said.contains(words), "{words:?} is not in {said:?}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn output_is_shown_as_it_was_and_nothing_else_of_the_recording() {
    let events = "[0.1, \"o\", \"\\u001b[1ma\\u0000é\\r\\n\"]\n[0.2, \"i\", \"secret\"]\n[0.3, \"m\", \"mark\"]\n[0.4, \"r\", \"80x24\"]\n[0.2, \"o\", \"b\"]\n";
    says(&Recording::of(HEADER.to_owned() + events).replay(&[]), 0, "\x1b[1ma\0é\r\nb", "");
}

#[test]
fn it_takes_the_time_that_it_took_divided_by_the_speed_and_silences_can_be_cut_short() {
    let recording = Recording::of(HEADER.to_owned() + "[0.5, \"o\", \"a\"]\n[1.0, \"o\", \"b\"]\n");
    let long = Recording::of(HEADER.to_owned() + "[10, \"o\", \"a\"]\n[20, \"o\", \"b\"]\n");
    let timed = |recording: &Recording, arguments: &[&str]| {
        let begun = Instant::now();
        says(&recording.replay(arguments), 0, "ab", "");
        begun.elapsed()
    };
    assert!(timed(&recording, &[]) >= Duration::from_secs(1));
    let quick = timed(&long, &["--speed", "20"]);
    assert!(quick >= Duration::from_secs(1) && quick < Duration::from_secs(15), "{quick:?}");
    let cut = timed(&long, &["--idle-limit", "250ms"]);
    assert!(cut >= Duration::from_millis(500) && cut < Duration::from_secs(15), "{cut:?}");
    assert!(timed(&long, &["--idle-limit", "0s"]) < Duration::from_secs(15));
    // A silence of years is no overflow.
    let ages = Recording::of(HEADER.to_owned() + "[1e18, \"o\", \"a\"]\n[1.8e19, \"o\", \"b\"]\n");
    says(&ages.replay(&["--idle-limit", "0s", "--speed", "0.001"]), 0, "ab", "");
    for speed in ["0", "-1", "fast", "inf", "NaN", "1001"] {
        says(&recording.replay(&[&format!("--speed={speed}")]), 2, "", "is no factor from 0.001 to 1000");
    }
}

#[test]
fn what_is_malformed_is_said_with_its_line_after_what_came_before_it() {
    let good = HEADER.to_owned() + "[0, \"o\", \"good\"]\n";
    for (text, shown, words) in [
        (String::new(), "", "r.cast: line 1: it is empty"),
        ("\n".to_owned(), "", "line 1: it is no recording"),
        ("not JSON".to_owned(), "", "line 1: it is no recording"),
        ("{\"version\": 3}\n".to_owned(), "", "line 1: it is asciicast version 3"),
        (
            good.clone() + "[0, \"o\"]\n[0, \"o\", \"after\"]\n",
            "good",
            "line 3: not [SECONDS, CODE, TEXT]: invalid length 2",
        ),
        (good.clone() + "\n[0, \"o\", \"after\"]\n", "good", "line 3: not [SECONDS, CODE, TEXT]"),
        (good.clone() + "[-1, \"o\", \"x\"]\n", "good", "line 3: -1 s is no time"),
    ] {
        says(&Recording::of(text).replay(&[]), 1, shown, words);
    }
    says(
        &Recording::of([good.as_bytes(), b"[0, \"o\", \"\xff\"]\n"].concat()).replay(&[]),
        1,
        "good",
        "line 3: it cannot be read: it is not UTF-8",
    );
    let long = good + "[0, \"o\", \"" + &"x".repeat(17 << 20) + "\"]\n";
    says(&Recording::of(long).replay(&[]), 1, "good", "line 3: it cannot be read: the line is too long");
    let folder = tempfile::tempdir().unwrap();
    says(&replay(folder.path(), &[]).output().unwrap(), 1, "", "line 1: it cannot be read: Is a directory");
    says(&replay(&folder.path().join("none"), &[]).output().unwrap(), 1, "", "none: No such file");
}

#[test]
fn a_recording_that_is_cut_is_played_to_there_wherever_that_is() {
    let event = "[0.001, \"o\", \"é€😀\\u001b\"]\n".as_bytes();
    let whole = [HEADER.as_bytes(), b"[0, \"o\", \"first\"]\n"].concat();
    for cut in 1..event.len() {
        let output = Recording::of([&whole, &event[..cut]].concat()).replay(&[]);
        if cut == event.len() - 1 {
            says(&output, 0, "firsté€😀\x1b", "");
        } else {
            says(&output, 0, "first", "line 3: the recording ends in the middle of a line");
        }
    }
    says(&Recording::of([&whole, &[0; 4096][..]].concat()).replay(&[]), 0, "first", "line 3: the recording ends");
    says(&Recording::of(HEADER).replay(&[]), 0, "", "");
    says(&Recording::of(&HEADER[..20]).replay(&[]), 1, "", "line 1: it is no recording");
}

#[test]
fn from_a_pipe_it_is_played_as_it_comes() {
    let mut command = replay(Path::new("-"), &["--idle-limit", "0s"]);
    let mut program = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = program.stdin.take().unwrap();
    pipe.write_all(HEADER.as_bytes()).unwrap();
    pipe.write_all(b"[0, \"o\", \"one\"]\n").unwrap();
    let mut shown = [0; 3];
    std::io::Read::read_exact(program.stdout.as_mut().unwrap(), &mut shown).unwrap();
    assert_eq!(&shown, b"one");
    pipe.write_all(b"[0, \"o\", \" two\"]\n").unwrap();
    drop(pipe);
    says(&program.wait_with_output().unwrap(), 0, " two", "");
}

#[test]
fn the_terminal_is_given_back_at_every_end() {
    let slow = Recording::of(HEADER.to_owned() + "[0, \"o\", \"begun\"]\n[1000, \"o\", \"never\"]\n");
    let playing = || {
        let terminal = Terminal::of(&replay(&slow.path(), &[]));
        terminal.shows("begun");
        assert!(terminal.is_raw());
        terminal
    };
    for key in [&b"q"[..], b"\x03", b"\x1d"] {
        let mut terminal = playing();
        terminal.types(key);
        terminal.ends_with(0);
    }
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130), (Signal::QUIT, 131)] {
        let terminal = &mut playing();
        kill_process(terminal.pid(), signal).unwrap();
        terminal.ends_with(code);
    }
    let empty = Recording::of(HEADER);
    let mut terminal = Terminal::of(&replay(&empty.path(), &[]));
    terminal.ends_with(0);
    let bad = Recording::of(HEADER.to_owned() + "[0, \"o\", \"begun\"]\nbad\n");
    let mut terminal = Terminal::of(&replay(&bad.path(), &[]));
    terminal.ends_with(1);
    terminal.shows("line 3: not [SECONDS");
    // From a pipe into a terminal: what is typed is not its input.
    let (reading, writing) = std::io::pipe().unwrap();
    let mut terminal = Terminal::with_input(&replay(Path::new("-"), &[]), Some(reading.into()));
    (&writing).write_all(std::fs::read(slow.path()).unwrap().as_slice()).unwrap();
    terminal.shows("begun");
    assert!(!terminal.is_raw());
    kill_process(terminal.pid(), Signal::INT).unwrap();
    terminal.ends_with(130);
}

/// What a guest can say to a terminal beside text: a title, the clipboard, a question whose answer would be typed at the
/// shell, another screen, another character set, a string without an end.
const HOSTILE: &str = "\\u001b]0;title\\u0007\\u001b]52;c;cm0gLXJm\\u0007\\u001b[6n\\u001bP$q\\u001b\\\\\\u001b[?1049h\\u001b[?1004h\\u001b[5;9r\\u001b(0";

fn in_colour(file: &Path, arguments: &[&str]) -> Command {
    let mut command = replay(file, arguments);
    command.env("TERM", "xterm-256color");
    command
}

#[test]
fn a_terminal_gets_text_and_colours_alone_unless_it_is_asked_for_more() {
    let said = format!("[0, \"o\", \"{HOSTILE}\\u001b[31mred\\r\\n\\u001b]0;cut\"]\n[0, \"o\", \" here\\u0007end\"]\n");
    let recording = Recording::of(HEADER.to_owned() + &said);
    let raw = "\x1b]0;title\x07\x1b]52;c;cm0gLXJm\x07\x1b[6n\x1bP$q\x1b\\\x1b[?1049h\x1b[?1004h\x1b[5;9r\x1b(0\x1b[31mred\r\n\x1b]0;cut here\x07end";
    for (arguments, shown) in [(&[][..], "\x1b[31mred\r\nend"), (&["--raw"][..], raw)] {
        let mut terminal = Terminal::of(&in_colour(&recording.path(), arguments));
        terminal.ends_with(0);
        until("all is shown", || terminal.screen() == shown.to_owned() + RESET);
    }
    says(&recording.replay(&[]), 0, raw, "");
}

#[test]
fn no_mode_is_left_in_the_terminal_at_any_end() {
    let slow =
        Recording::of(HEADER.to_owned() + &format!("[0, \"o\", \"{HOSTILE}begun\"]\n[1000, \"o\", \"never\"]\n"));
    let bad = Recording::of(HEADER.to_owned() + &format!("[0, \"o\", \"{HOSTILE}begun\"]\nbad\n"));
    let is_reset = |terminal: &Terminal| until("the terminal is reset", || terminal.screen().contains(RESET));
    for key in [&b"q"[..], b"\x03"] {
        let mut terminal = Terminal::of(&in_colour(&slow.path(), &["--raw"]));
        terminal.shows("begun");
        terminal.types(key);
        terminal.ends_with(0);
        is_reset(&terminal);
        assert!(terminal.screen().ends_with(RESET), "{:?}", terminal.screen());
    }
    let mut terminal = Terminal::of(&in_colour(&slow.path(), &["--raw"]));
    terminal.shows("begun");
    kill_process(terminal.pid(), Signal::TERM).unwrap();
    terminal.ends_with(143);
    is_reset(&terminal);
    let mut terminal = Terminal::of(&in_colour(&bad.path(), &["--raw"]));
    terminal.ends_with(1);
    is_reset(&terminal);
    // A terminal that cannot do this is sent nothing of it.
    let mut terminal = Terminal::of(&replay(&bad.path(), &["--raw"]));
    terminal.ends_with(1);
    terminal.shows("line 3: not [SECONDS");
    assert!(!terminal.screen().contains("\x1b[?25h"));
}

#[test]
fn the_space_bar_pauses_and_goes_on_where_it_was() {
    let recording = Recording::of(HEADER.to_owned() + "[0, \"o\", \"begun\"]\n[1, \"o\", \" and ended\"]\n");
    let mut terminal = Terminal::of(&replay(&recording.path(), &[]));
    terminal.shows("begun");
    let begun = Instant::now();
    terminal.types(b" ");
    std::thread::sleep(Duration::from_secs(2));
    assert!(!terminal.screen().contains("ended"));
    terminal.types(b" ");
    until("it goes on", || terminal.screen().contains(" and ended"));
    assert!(begun.elapsed() >= Duration::from_millis(2500));
    terminal.ends_with(0);
}
