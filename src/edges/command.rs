//! Running a program of the host's for its answer, with an end: one that hangs holds up nobody.

use std::io::{self, Write};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Runs it with that input and waits for its end, for `patience` at most: then it is killed, and the error, of kind
/// [`io::ErrorKind::TimedOut`], says which program has not answered for how long.
pub fn output(command: &mut Command, input: &[u8], patience: Duration) -> io::Result<Output> {
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    let (done, waiting) = channel::<()>();
    let timer = std::thread::spawn(move || {
        let timed_out = waiting.recv_timeout(patience) == Err(RecvTimeoutError::Timeout);
        if timed_out {
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
        timed_out
    });
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input));
    let output = child.wait_with_output();
    drop(done);
    if timer.join().unwrap_or(false) {
        let name = command.get_program().to_string_lossy().into_owned();
        let why = format!("{name} has not answered for {} s", patience.as_secs());
        return Err(io::Error::new(io::ErrorKind::TimedOut, why));
    }
    match written {
        // A program that refuses its input says why, and that is what counts.
        Err(why) if why.kind() != io::ErrorKind::BrokenPipe => Err(why),
        _ => output,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_program_that_hangs_is_ended_and_named() {
        let begun = Instant::now();
        let why = output(Command::new("sleep").arg("1000"), b"", Duration::from_millis(10)).unwrap_err();
        assert_eq!((why.kind(), why.to_string().as_str()), (io::ErrorKind::TimedOut, "sleep has not answered for 0 s"));
        assert!(begun.elapsed() < LONG);
    }

    #[test]
    fn input_goes_in_and_output_comes_out() {
        let echoed = output(&mut Command::new("cat"), b"text", LONG).unwrap();
        assert_eq!((echoed.stdout.as_slice(), echoed.status.success()), (&b"text"[..], true));
        // More than a pipe takes, to a program that reads nothing.
        let refused = output(&mut Command::new("false"), &vec![b'x'; 1 << 20], LONG).unwrap();
        assert!(!refused.status.success());
        assert_eq!(output(&mut Command::new("/nonexistent"), b"", LONG).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
