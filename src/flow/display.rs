//! A bridged display: websocket towards the client, the raw stream towards QEMU. A slow client slows
//! its own display and nothing else: the next bytes are read when the last ones have gone out.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Mutex;

use super::control::Control;
use crate::edges::backends::Stream;
use crate::edges::websocket::{Incoming, Receiver, Sender};
use crate::rules::close::End;

/// The most bytes of one read, and so of one frame.
const CHUNK: usize = 64 << 10;

/// Runs until either side ends.
pub async fn run(sender: &mut Sender, receiver: &mut Receiver, backend: Stream, control: &Control) -> End {
    let (mut from_backend, mut to_backend) = tokio::io::split(backend);
    let sender = Mutex::new(sender);
    let down = async {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        loop {
            buffer.reserve(CHUNK);
            match from_backend.read_buf(&mut buffer).await {
                Ok(0) => return End::BackendGone("the guest closed the console".to_owned()),
                Ok(n) => {
                    let bytes: Bytes = buffer.split().freeze();
                    if let Err(end) = sender.lock().await.send(bytes).await {
                        return end;
                    }
                    control.sent(n);
                }
                Err(why) => return End::BackendGone(format!("the guest's console failed: {why}")),
            }
        }
    };
    let up = async {
        let mut takes_input = true;
        loop {
            let bytes = match receiver.next().await {
                Ok(Incoming::Data(bytes)) => bytes,
                Ok(Incoming::Alive) => Bytes::new(),
                Err(end) => return end,
            };
            control.pulse.alive();
            control.received(bytes.len());
            // A backend that takes no more may have said something before: `down` reads that, and its end.
            takes_input = takes_input && control.pulse.while_deaf(to_backend.write_all(&bytes)).await.is_ok();
        }
    };
    tokio::select! {
        end = down => end,
        end = up => end,
        end = control.send_pings(&sender) => end,
        end = control.pulse.lost(|| sender.try_lock().is_ok()) => end,
        end = control.ended() => end,
    }
}
