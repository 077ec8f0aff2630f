//! The program that asks PAM, as proxies see it: a line out, a line back. It knows nothing of PAM.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::rules::auth::{Answer, LONGEST_ANSWER, Request, VERSION};

/// Asks about a user, over a connection from the broker. An error says why nothing was found out, which is never the
/// person's fault: the program ended or fell silent over this question.
pub async fn ask(connection: OwnedFd, request: &Request, patience: Duration) -> io::Result<Answer> {
    let asking = async {
        let stream = std::os::unix::net::UnixStream::from(connection);
        stream.set_nonblocking(true)?;
        let mut stream = UnixStream::from_std(stream)?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        // One that refuses us may have answered and gone before this arrives.
        let _ = stream.write_all(&line).await;
        line.fill(0);
        receive(stream).await
    };
    let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "console-proxy-auth did not answer in time");
    tokio::time::timeout(patience, asking).await.map_err(silent)?
}

async fn receive(stream: UnixStream) -> io::Result<Answer> {
    let mut line = Vec::new();
    stream.take(LONGEST_ANSWER as u64 + 1).read_to_end(&mut line).await?;
    if line.len() > LONGEST_ANSWER {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "console-proxy-auth answered at too great length"));
    }
    if !line.ends_with(b"\n") {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "console-proxy-auth ended without an answer"));
    }
    let answer: Answer = serde_json::from_slice(&line)?;
    if answer.version != VERSION {
        return Err(io::Error::other("console-proxy-auth speaks another version"));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::auth::{Question, Verdict};

    fn request() -> Request {
        let guest = "b50bdc9f-490b-4b9b-8641-7573c0eba77c".parse().unwrap();
        let question = Question::Password { password: "secret".into(), from: "192.0.2.1".into() };
        Request { version: VERSION, guest, user: "ann".into(), question }
    }

    /// What the client makes of these bytes, sent by whoever it asked.
    async fn hears(bytes: Vec<u8>) -> io::Result<Answer> {
        let (connection, stream) = std::os::unix::net::UnixStream::pair().unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut stream = UnixStream::from_std(stream).unwrap();
        let answering = async move {
            let mut asked = [0; 1024];
            let n = stream.read(&mut asked).await.unwrap();
            assert!(serde_json::from_slice::<Request>(&asked[..n]).unwrap() == request());
            // The other side stops listening to what is too long.
            let _ = stream.write_all(&bytes).await;
        };
        let request = request();
        tokio::join!(ask(connection.into(), &request, Duration::from_secs(20)), answering).0
    }

    #[tokio::test]
    async fn an_answer_is_heard_and_half_of_one_an_endless_one_and_none_are_errors() {
        let mut answer = serde_json::to_vec(&Answer::no(Verdict::Wrong, "no")).unwrap();
        assert!(hears(answer.clone()).await.unwrap_err().to_string().contains("without an answer"));
        answer.push(b'\n');
        assert_eq!(hears(answer).await.unwrap().verdict, Verdict::Wrong);
        assert_eq!(hears(Vec::new()).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(hears(vec![b'a'; LONGEST_ANSWER + 2]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(hears(b"right\n".to_vec()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_is_given_up() {
        let (connection, _silent) = std::os::unix::net::UnixStream::pair().unwrap();
        let why = ask(connection.into(), &request(), Duration::from_secs(30)).await.unwrap_err();
        assert_eq!(why.kind(), io::ErrorKind::TimedOut);
    }
}
