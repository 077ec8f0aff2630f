//! `console-proxy-auth`: asks PAM about one user, for the guest's proxy that the broker gave the connection to. Root, a
//! process per question, and one more below it that asks PAM: modules may hang, print, crash or end it.

use std::io::Write;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::edges::caller;
use crate::edges::pam::{self, Check, No};
use crate::edges::paths::Paths;
use crate::edges::users::{self, User};
use crate::edges::{failures, introduction, journal, sssd};
use crate::rules::auth::{
    Answer, LONGEST_ANSWER, LONGEST_REQUEST, Question, Request, VERSION, Verdict, is_password, is_user,
};
use crate::rules::failures::Try;

/// A whole request must have come by then.
const PATIENCE: Duration = Duration::from_secs(5);
/// PAM must have answered by then: before `RuntimeMaxSec=` of the unit, so that somebody is told.
const CHECK_PATIENCE: Duration = Duration::from_secs(20);
/// What the process below is told to be.
const CHECK: &str = "--check";

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    journal::init("console-proxy-auth");
    let is_check = std::env::args_os().nth(1).is_some_and(|argument| argument == CHECK);
    let done = take_connection().and_then(|stream| if is_check { check(stream) } else { serve(stream) });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tracing::error!("{why:#}");
            ExitCode::FAILURE
        }
    }
}

/// The connection, which came as standard input, moved to where no module of PAM writes by accident.
fn take_connection() -> Result<UnixStream> {
    let stream = std::io::stdin().as_fd().try_clone_to_owned().context("there is no standard input")?;
    let null = std::fs::File::options().read(true).write(true).open("/dev/null").context("cannot open /dev/null")?;
    rustix::stdio::dup2_stdin(&null).context("cannot let go of standard input")?;
    rustix::stdio::dup2_stdout(&null).context("cannot let go of standard output")?;
    let is_socket = rustix::net::sockopt::socket_type(&stream).is_ok();
    if is_socket { Ok(stream.into()) } else { Err(anyhow!("this is run by systemd, with a connection as its input")) }
}

fn serve(mut stream: UnixStream) -> Result<()> {
    // Held to the end: the broker counts a question for as long.
    let (answer, _held) = match identify(&mut stream) {
        Ok((Some(request), held)) => (answer(&Paths::from_environment(), &request), Some(held)),
        Ok((None, _)) => return Ok(()),
        Err(words) => {
            tracing::warn!("refused a caller: {words}");
            (Answer::no(Verdict::Denied, words), None)
        }
    };
    if let Err(why) = write_line(&mut stream, &serde_json::to_vec(&answer)?) {
        // A client that does not wait for its answer takes its proxy's question along: no fault of this host's.
        tracing::debug!("{why:#}");
    }
    Ok(())
}

/// Who calls, and what they ask; `None` where they ask nothing.
fn identify(stream: &mut UnixStream) -> Result<(Option<Request>, OwnedFd), String> {
    let (guest, held) = introduction::hear(stream, PATIENCE)?;
    let request = read_request(stream)?;
    match &request {
        Some(request) if request.guest != guest => {
            Err(format!("the proxy of {guest} asked for guest {}", request.guest))
        }
        _ => Ok((request, held)),
    }
}

fn read_request(stream: &mut UnixStream) -> Result<Option<Request>, String> {
    let Some(line) = caller::read_line(stream, LONGEST_REQUEST, PATIENCE)? else { return Ok(None) };
    let request: Request = serde_json::from_slice(&line).map_err(|_| "the request is malformed".to_owned())?;
    if request.version != VERSION {
        return Err(format!("the request has version {}, this program knows version {VERSION}", request.version));
    }
    Ok(Some(request))
}

fn write_line(stream: &mut UnixStream, json: &[u8]) -> Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&[json, b"\n"].concat()).context("the answer cannot be written")
}

/// A password counts as wrong until it has been found right.
fn answer(paths: &Paths, request: &Request) -> Answer {
    let Question::Password { password, from } = &request.question else {
        return if is_user(&request.user) { ask_below(request) } else { gone() };
    };
    if !is_user(&request.user) || !is_password(password) {
        return wrong();
    }
    let a_try = Try { user: &request.user, from, guest: request.guest.as_str() };
    match failures::begin(paths, &a_try) {
        Ok(Ok(())) => {}
        Ok(Err(seconds)) => {
            let words = format!("too many failed passwords: try again in {seconds} s");
            return Answer { retry_after: seconds, ..Answer::no(Verdict::Limited, words) };
        }
        Err(why) => {
            tracing::error!("failed passwords cannot be counted, so none is looked at: {why:#}");
            return unknown("failed passwords cannot be counted");
        }
    }
    let answer = ask_below(request);
    let counted = match answer.verdict {
        Verdict::Right => failures::succeed(paths, &a_try),
        Verdict::Wrong | Verdict::Unanswerable => Ok(()),
        _ => failures::take_back(paths, &a_try),
    };
    if let Err(why) = counted {
        tracing::error!("a password stays counted as failed, though it was not: {why:#}");
    }
    answer
}

fn wrong() -> Answer {
    Answer::no(Verdict::Wrong, "wrong user or password")
}

fn gone() -> Answer {
    Answer::no(Verdict::Barred, "this host knows no such user any more")
}

fn unknown(why: impl Into<String>) -> Answer {
    Answer::no(Verdict::Unknown, why)
}

/// Has the question answered by a process of its own, and outlives whatever happens to that one.
fn ask_below(request: &Request) -> Answer {
    let mut below = match Below::start(request) {
        Ok(below) => below,
        Err(why) => {
            tracing::error!("cannot start a process that asks PAM: {why:#}");
            return unknown("no process can be started");
        }
    };
    let line = caller::read_line(&mut below.stream, LONGEST_ANSWER, CHECK_PATIENCE);
    let answer = line.ok().flatten().and_then(|line| serde_json::from_slice::<Answer>(&line).ok());
    answer.unwrap_or_else(|| {
        let end = below.end();
        tracing::error!("PAM's modules gave no answer about a user ({end}): see what came before this in the journal");
        unknown("this host's PAM modules gave no answer")
    })
}

/// The process that asks PAM; it ends with this value.
struct Below {
    child: Child,
    stream: UnixStream,
}

impl Below {
    fn start(request: &Request) -> Result<Self> {
        let (mut stream, theirs) = UnixStream::pair()?;
        let child = Command::new("/proc/self/exe")
            // What PAM's modules call us in the journal.
            .arg0("console-proxy-auth")
            .arg(CHECK)
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        let line = serde_json::to_vec(request)?;
        write_line(&mut stream, &line)?;
        stream.shutdown(Shutdown::Write)?;
        Ok(Self { child, stream })
    }

    /// How it ended; it is killed where it has not.
    fn end(&mut self) -> String {
        // One that is about to end by itself says more than one that was killed.
        for _ in 0..20 {
            match self.child.try_wait() {
                Ok(Some(status)) => return status.to_string(),
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                Err(why) => return why.to_string(),
            }
        }
        format!("not in {} s, so it was killed", CHECK_PATIENCE.as_secs())
    }
}

impl Drop for Below {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process below: one question, asked of PAM and of the host's users.
fn check(mut stream: UnixStream) -> Result<()> {
    let request = read_request(&mut stream).map_err(anyhow::Error::msg)?.context("nothing was asked")?;
    let answer = match &request.question {
        Question::Password { password, from } => password_of(&request.user, password, from),
        Question::Still { from, local } => still(&request.user, from, *local),
    };
    write_line(&mut stream, &serde_json::to_vec(&answer)?)
}

fn password_of(name: &str, password: &str, from: &str) -> Answer {
    let known = match users::user(name) {
        Ok(Some(user)) if user.uid == 0 => return root(),
        // PAM is asked about a user who is not there, too: that takes as long.
        Ok(user) => user.is_some(),
        Err(why) => return silent(&why.to_string()),
    };
    let asked = Check::begin(pam::SERVICE, name, password, from).and_then(|mut check| {
        check.authenticate()?;
        check.account()?;
        check.user()
    });
    let name = match asked {
        Ok(name) => name,
        // A host's rules say "no" for those whom they could not ask about, too.
        Err(No::Wrong) if is_silent(name, known, password) => return silent("its PAM module says so"),
        Err(no) => return refusal(no),
    };
    match users::user(&name) {
        Ok(Some(user)) if user.uid == 0 => root(),
        Ok(Some(user)) => right(&user),
        Ok(None) => {
            tracing::warn!("PAM let in a user whom this host does not know (nsswitch.conf): refused");
            wrong()
        }
        Err(why) => silent(&why.to_string()),
    }
}

/// Whether a directory that may know this user does not answer. SSSD says so itself where it can be asked; else the
/// password is tried once more, with those modules alone that ask directories.
fn is_silent(name: &str, known: bool, password: &str) -> bool {
    match sssd::is_online() {
        Some(true) => false,
        Some(false) if !known => true,
        // SSSD may have checked the password of one whom it knows by what it keeps.
        _ => {
            let asked = Check::begin(pam::REACH, name, password, "").and_then(|mut check| check.authenticate());
            matches!(asked, Err(No::Unknown(_)))
        }
    }
}

/// Whether somebody who came in earlier would still be let in, short of the password.
fn still(name: &str, from: &str, local: bool) -> Answer {
    match users::user(name) {
        Ok(Some(user)) if user.uid == 0 => return root(),
        Ok(Some(_)) => {}
        Ok(None) => return gone_or_silent(name, local),
        Err(why) => return silent(&why.to_string()),
    }
    if !pam::has(pam::STILL) {
        tracing::error!("PAM has no service {}: install the package again", pam::STILL);
        return unknown(format!("PAM has no service {}", pam::STILL));
    }
    // Its PAM module takes an SSSD that has no socket for one that does not know the user.
    if sssd::is_configured() && !sssd::is_listening() && !users::is_local(name) {
        return silent("SSSD does not run");
    }
    // This comes first: it makes SSSD look again which groups they are in.
    if let Err(no) = Check::begin(pam::STILL, name, "", from).and_then(|mut check| check.account()) {
        return refusal(no);
    }
    match users::user(name) {
        Ok(Some(user)) => right(&user),
        Ok(None) => gone_or_silent(name, local),
        Err(why) => silent(&why.to_string()),
    }
}

/// Of a user who was there and is not. A directory that does not answer, such as an SSSD that is being restarted, may
/// look like one that has no such user; where SSSD cannot be asked, nothing is certain. The host's own are just gone.
fn gone_or_silent(name: &str, local: bool) -> Answer {
    let is_silent = || sssd::is_online().map_or_else(sssd::is_configured, |online| !online) || users::lack_a_source();
    if !local && is_silent() {
        return silent("nobody says whether the user is gone");
    }
    // It may have come back while it was asked.
    match users::user(name) {
        Ok(None) => gone(),
        Ok(Some(_)) => silent("it does by now"),
        Err(why) => silent(&why.to_string()),
    }
}

fn right(user: &User) -> Answer {
    match users::groups(user) {
        Ok(groups) => {
            let (user, local) = (user.name.clone(), users::is_local(&user.name));
            Answer { user, groups, local, ..Answer::no(Verdict::Right, "") }
        }
        Err(why) => silent(&why.to_string()),
    }
}

fn root() -> Answer {
    Answer::no(Verdict::Barred, "root does not log in here")
}

fn refusal(no: No) -> Answer {
    match no {
        No::Wrong => wrong(),
        No::Barred(words) => Answer::no(Verdict::Barred, words),
        No::Unanswerable => {
            tracing::warn!("a PAM module asks for something that a login here cannot answer");
            Answer::no(Verdict::Unanswerable, "this host asks for something that a login here cannot answer")
        }
        No::Unknown(code) => {
            tracing::error!("PAM cannot say ({code}): see what its modules wrote to the journal before this");
            unknown(format!("PAM says: {code}"))
        }
    }
}

fn silent(why: &str) -> Answer {
    tracing::error!("a directory of users does not answer ({why})");
    unknown("the directory of users does not answer")
}
