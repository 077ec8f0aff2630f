//! What sshd tells the program that it runs, and the socket between that program and the one that makes its ticket.

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{command, files};
use crate::rules::ssh::{Answer, LONGEST_LINE, Request, USER};

/// How long the other program, or sshd, may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was typed after the host: `SSH_ORIGINAL_COMMAND`, with U+FFFD for what is no text.
#[must_use]
pub fn original_command() -> Option<String> {
    env::var_os("SSH_ORIGINAL_COMMAND").map(|command| command.to_string_lossy().into_owned())
}

/// How the person proved who they are: the text of sshd's `SSH_USER_AUTH` file; `None` where sshd was not told
/// to expose it.
pub fn user_auth() -> io::Result<Option<String>> {
    env::var_os("SSH_USER_AUTH").map_or(Ok(None), |path| files::read(Path::new(&path), 64 << 10))
}

/// The address from which the person came, by `SSH_CONNECTION`.
#[must_use]
pub fn from() -> String {
    let connection = env::var("SSH_CONNECTION").unwrap_or_default();
    connection.split(' ').next().unwrap_or_default().to_owned()
}

/// Whether a terminal was asked for.
#[must_use]
pub fn has_terminal() -> bool {
    env::var_os("SSH_TTY").is_some()
}

/// Asks for a ticket.
pub fn ask(socket: &Path, request: &Request) -> io::Result<Answer> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write_line(&stream, request)?;
    read_line(&stream)
}

/// Reads one line of JSON, at most [`LONGEST_LINE`] bytes.
pub fn read_line<T: DeserializeOwned>(stream: impl Read) -> io::Result<T> {
    let mut line = Vec::new();
    BufReader::new(stream.take(LONGEST_LINE)).read_until(b'\n', &mut line)?;
    if !line.ends_with(b"\n") {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&line)?)
}

/// Writes one line of JSON.
pub fn write_line(mut stream: impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    stream.flush()
}

/// What sshd would do for our user: the settings in force, as `sshd -T` prints them; `None` where there is no sshd.
#[must_use]
pub fn effective_settings() -> Option<Result<String, String>> {
    let who = format!("user={USER},host=localhost,addr=127.0.0.1");
    let asked = command::output(Command::new("/usr/sbin/sshd").args(["-T", "-C", &who]), b"", PATIENCE);
    let output = match asked {
        Ok(output) => output,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return None,
        Err(why) => return Some(Err(why.to_string())),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Some(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back_and_half_a_line_or_one_without_end_is_refused() {
        let request =
            Request { version: 1, guest: "g\n1".into(), key: "ssh-ed25519 AAAA".into(), from: "192.0.2.1".into() };
        let mut bytes = Vec::new();
        write_line(&mut bytes, &request).unwrap();
        assert_eq!(read_line::<Request>(&bytes[..]).unwrap(), request);
        assert!(read_line::<Request>(&bytes[..bytes.len() - 1]).is_err());
        assert!(read_line::<Request>(io::repeat(b'a')).is_err());
    }
}
