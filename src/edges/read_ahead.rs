//! Fewer system calls for bulk: rustls asks for 4 KiB at a time, whatever there is. Once a read has filled
//! what was asked for, more is read ahead, and no longer when a read has found little. Knows no TLS.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The bytes of one read ahead: two TLS records of full size, and what belongs to them.
const AHEAD: usize = 36 << 10;

/// A stream that is read ahead of what is asked for, where there is much.
#[derive(Debug)]
pub struct ReadAhead<S> {
    stream: S,
    /// No memory is held while there is little to read.
    bytes: Vec<u8>,
    unread: Range<usize>,
}

impl<S> ReadAhead<S> {
    /// Around a stream.
    pub fn new(stream: S) -> Self {
        Self { stream, bytes: Vec::new(), unread: 0..0 }
    }

    fn take(&mut self, buf: &mut ReadBuf<'_>) {
        let n = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.bytes[self.unread.start..self.unread.start + n]);
        self.unread.start += n;
        // The last read found less than it asked for: there is no more for now.
        if self.unread.is_empty() && self.unread.end < AHEAD {
            self.bytes = Vec::new();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.unread.is_empty() {
            if this.bytes.is_empty() {
                ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
                if buf.remaining() == 0 && buf.filled().len() >= 1024 {
                    this.bytes = vec![0; AHEAD];
                }
                return Poll::Ready(Ok(()));
            }
            let mut ahead = ReadBuf::new(&mut this.bytes);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut ahead))?;
            this.unread = 0..ahead.filled().len();
        }
        this.take(buf);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn much_is_read_ahead_and_the_memory_for_it_is_given_back() {
        let (ours, mut theirs) = duplex(100_000);
        let mut stream = ReadAhead::new(ours);
        let mut four = [0; 4096];
        theirs.write_all(&[1; 100]).await.unwrap();
        assert_eq!(stream.read(&mut four).await.unwrap(), 100);
        assert!(stream.bytes.is_empty());
        theirs.write_all(&vec![2; 4096 + AHEAD + 5000]).await.unwrap();
        for expected in [vec![4096; 10], vec![4096, 904]].concat() {
            assert_eq!(stream.read(&mut four).await.unwrap(), expected);
        }
        assert!(stream.bytes.is_empty());
    }

    proptest! {
        #[test]
        fn every_byte_comes_once_and_in_order(writes in prop::collection::vec(0usize..60_000, 1..6), reads in prop::collection::vec(1usize..9000, 1..20)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (ours, mut theirs) = duplex(50_000);
                let mut stream = ReadAhead::new(ours);
                let all: Vec<u8> = (0..writes.iter().sum()).map(|i: usize| (i % 251) as u8).collect();
                let writing = async {
                    let mut rest = &all[..];
                    for n in writes {
                        let (now, after) = rest.split_at(n);
                        theirs.write_all(now).await.unwrap();
                        rest = after;
                    }
                    drop(theirs);
                };
                let reading = async {
                    let (mut got, mut sizes) = (Vec::<u8>::new(), reads.iter().cycle());
                    loop {
                        let mut bytes = vec![0; *sizes.next().unwrap()];
                        match stream.read(&mut bytes).await.unwrap() {
                            0 => return got,
                            n => got.extend(&bytes[..n]),
                        }
                    }
                };
                let (got, ()) = tokio::join!(reading, writing);
                assert!(got == all);
            });
        }
    }
}
