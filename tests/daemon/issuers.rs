//! Issuers other than the host: docs/tickets.md, line by line as it stands there, with both of its programs.

use std::process::{Command, Output};

use crate::backends::Backend;
use crate::host::{GUEST, Host, Proxy};

const DOCUMENT: &str = include_str!("../../docs/tickets.md");
/// The guest that the document names.
const ITS_GUEST: &str = "48e17e85-1ca1-4573-ba34-f18aba8934e6";

/// A panel's machine, and the host: what the document says is done there.
struct Panel<'a> {
    folder: tempfile::TempDir,
    program: &'static str,
    proxy: &'a Proxy,
}

impl Panel<'_> {
    /// Runs a text of commands as the document has it: what it printed.
    #[track_caller]
    fn does(&self, commands: &str) -> String {
        let output = self.tries(commands);
        assert!(output.status.success(), "{commands}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn tries(&self, commands: &str) -> Output {
        let (program, file) = self.program.split_once(' ').unwrap();
        let program = format!("{program} {}/docs/tickets/{file}", env!("CARGO_MANIFEST_DIR"));
        let issuers = self.proxy.path("etc/console-proxy").display().to_string();
        let commands = commands
            .replace("python3 ticket.py", &program)
            .replace("/etc/console-proxy", &issuers)
            .replace(ITS_GUEST, GUEST);
        Command::new("sh").args(["-euc", &commands]).current_dir(self.folder.path()).output().unwrap()
    }

    /// A ticket, by words behind the person's name.
    fn ticket(&self, key: &str, words: &str) -> String {
        self.does(&format!("python3 ticket.py ticket {key} panel {ITS_GUEST} ann {words}"))
    }

    #[track_caller]
    fn is_refused(&self, token: &str, status: u16, words: &str) {
        let answer = self.proxy.refusal(&format!("/vnc?token={token}"), &[]);
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.body.contains(words), "{words}: {answer:?}");
    }

    #[track_caller]
    fn is_let_in(&self, token: &str) {
        self.proxy.try_open(&format!("/vnc?token={token}"), &[]).unwrap().echoes("let in");
    }
}

fn blocks() -> Vec<&'static str> {
    DOCUMENT.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap()).collect()
}

#[test]
fn what_the_document_says_makes_tickets_that_count_limits_that_hold_and_keys_that_are_exchanged() {
    for program in ["python3 ticket.py", "sh ticket.sh"] {
        let echo = Backend::echo();
        let proxy = Proxy::activated(Host::new().raw("vnc", &echo).raw("serial/0", &echo));
        let panel = Panel { folder: tempfile::tempdir().unwrap(), program, proxy: &proxy };
        let [make, install, tickets, view, both_keys, new_key] = blocks()[..] else { panic!("{:?}", blocks()) };

        panel.does(make);
        let before = panel.ticket("panel.pem", "");
        panel.is_refused(&before, 401, "issuer is not known");
        panel.does(install);
        panel.is_let_in(&before);
        let printed = panel.does(tickets);
        let (ticket, url) = printed.split_once('\n').unwrap();
        panel.is_let_in(ticket);
        panel.is_let_in(url.strip_prefix("https://host.example:23000/#token=").unwrap());
        let mut looking = proxy.try_open(&format!("/vnc?token={}", panel.does(view)), &[]).unwrap();
        looking.send(b"no version of RFB");
        assert_eq!(looking.closed_after().1, 4403, "it only looks on");

        panel.is_refused(&panel.ticket("panel.pem", "control 121"), 401, "lives 121 s, at most 120 s");
        panel.is_refused(&panel.ticket("panel.pem", "control 60 serial/0"), 403, "not for vnc");
        let elsewhere = panel.does("python3 ticket.py ticket panel.pem panel 00000000-1ca1-4573-ba34-f18aba8934e6 ann");
        panel.is_refused(&elsewhere, 403, "not for this guest");
        let other = panel.does("python3 ticket.py ticket panel.pem other 48e17e85-1ca1-4573-ba34-f18aba8934e6 ann");
        panel.is_refused(&other, 401, "issuer is not known");

        panel.does(both_keys);
        panel.is_let_in(&before);
        panel.is_let_in(&panel.ticket("new.pem", ""));
        panel.does(new_key);
        panel.is_refused(&before, 401, "signature is wrong");
        panel.is_let_in(&panel.ticket("new.pem", ""));

        panel.does(&format!("sed -i 's/^modes.*/modes = [\"view\"]/' panel.toml; {install}"));
        panel.is_refused(&panel.ticket("new.pem", ""), 403, "not for this mode");
        panel.does(&format!("sed -i '/^modes/d; s/^guests.*/guests = [\"web-*\"]/' panel.toml; {install}"));
        panel.is_refused(&panel.ticket("new.pem", ""), 403, "not for this guest");
        panel.does(&format!("sed -i 's/^guests.*/guests = [\"?1\"]/' panel.toml; {install}"));
        panel.is_let_in(&panel.ticket("new.pem", ""));
        panel.does(&format!("echo 'slip = 1' >> panel.toml; {install}"));
        panel.is_refused(&panel.ticket("new.pem", ""), 401, "issuer is not known");
    }
}

#[test]
fn the_examples_keep_a_key_for_their_user_and_overwrite_none() {
    let proxy = Proxy::activated(Host::new());
    for program in ["python3 ticket.py", "sh ticket.sh"] {
        let panel = Panel { folder: tempfile::tempdir().unwrap(), program, proxy: &proxy };
        panel.does("umask 022; python3 ticket.py key panel.pem");
        assert_eq!(panel.does("stat -c %a panel.pem"), "600", "{program}");
        let before = panel.does("cat panel.pem");
        assert!(!panel.tries("python3 ticket.py key panel.pem").status.success(), "{program}");
        assert_eq!(panel.does("cat panel.pem"), before);
        let nothing = panel.tries("python3 ticket.py");
        assert!(!nothing.status.success() && String::from_utf8_lossy(&nothing.stderr).contains("issuer KEYFILE..."));
    }
}
