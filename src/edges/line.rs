//! A serial port's two directions, read only when asked to: between two reads its descriptor is in no
//! poll set. tokio's own streams stay in one, edge-triggered, and each few bytes that QEMU writes would
//! wake the process although nobody wants to read them yet.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::FileType;
use tokio::net::unix::pipe;

/// What a serial hub needs of its port.
pub trait Line {
    /// Returns when there is something to read, or the other side has ended.
    fn readable(&self) -> impl Future<Output = io::Result<()>>;
    /// Reads what is there: 0 bytes at the end, [`io::ErrorKind::WouldBlock`] where nothing is.
    fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize>;
    /// Writes all of it, however long the guest takes.
    fn write_all(&self, bytes: &[u8]) -> impl Future<Output = io::Result<()>>;
    /// Bytes that the kernel keeps before the writer on the other side has to wait.
    fn room(&self) -> usize;
}

/// A connected descriptor: a socket's, or a terminal's.
#[derive(Debug)]
pub struct Descriptor {
    descriptor: OwnedFd,
    is_terminal: bool,
}

impl Descriptor {
    /// Takes over a descriptor.
    pub fn new(descriptor: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&descriptor, true)?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&descriptor)?.st_mode);
        Ok(Self { descriptor, is_terminal: kind == FileType::CharacterDevice })
    }
}

impl Line for Descriptor {
    // A twin is in the poll set for just as long as it is waited for: a set takes a number once, and
    // reader and writer may wait at the same time. As a pipe, tokio takes any descriptor that can be polled.
    async fn readable(&self) -> io::Result<()> {
        pipe::Receiver::from_owned_fd_unchecked(self.descriptor.try_clone()?)?.readable().await
    }

    fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.descriptor, &mut *bytes)) {
            // The other side was closed: that is how a terminal says "end".
            Err(rustix::io::Errno::IO) if self.is_terminal => Ok(0),
            result => Ok(result?),
        }
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::io::retry_on_intr(|| rustix::io::write(&self.descriptor, bytes)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => bytes = &bytes[n..],
                Err(rustix::io::Errno::AGAIN) => {
                    pipe::Sender::from_owned_fd_unchecked(self.descriptor.try_clone()?)?.writable().await?;
                }
                Err(why) => return Err(why.into()),
            }
        }
        Ok(())
    }

    fn room(&self) -> usize {
        // N_TTY_BUF_SIZE of the kernel's drivers/tty/n_tty.c; loopback and unix sockets keep over 100 KiB.
        if self.is_terminal { 4096 } else { 64 << 10 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    fn pair() -> (Descriptor, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Descriptor::new(ours.into()).unwrap(), theirs)
    }

    #[tokio::test]
    async fn what_is_there_is_read_and_what_is_not_is_waited_for() {
        let (line, mut guest) = pair();
        let mut bytes = [0; 10];
        assert_eq!(line.try_read(&mut bytes).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let saying = std::thread::spawn(move || {
            guest.write_all(b"one").unwrap();
            guest
        });
        line.readable().await.unwrap();
        let mut guest = saying.join().unwrap();
        assert_eq!(line.try_read(&mut bytes).unwrap(), 3);
        guest.write_all(b"two").unwrap();
        line.readable().await.unwrap();
        assert_eq!(line.try_read(&mut bytes).unwrap(), 3, "it is waited for anew each time");
        drop(guest);
        line.readable().await.unwrap();
        assert_eq!(line.try_read(&mut bytes).unwrap(), 0);
    }

    #[tokio::test]
    async fn a_guest_that_takes_nothing_is_waited_for_while_it_is_read() {
        let (line, mut guest) = pair();
        let typed = vec![b'k'; 1 << 20];
        let typing = async { line.write_all(&typed).await.unwrap() };
        let reading = async {
            let mut bytes = [0; 10];
            guest.write_all(b"hello").unwrap();
            line.readable().await.unwrap();
            assert_eq!(line.try_read(&mut bytes).unwrap(), 5);
            std::thread::spawn(move || {
                let mut got = vec![0; 1 << 20];
                guest.read_exact(&mut got).unwrap();
                assert!(got.iter().all(|byte| *byte == b'k'));
                guest
            })
        };
        let both = async { tokio::join!(typing, reading).1 };
        let guest = tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
        guest.join().unwrap();
    }
}
