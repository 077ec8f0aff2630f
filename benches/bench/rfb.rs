//! A VNC client that asks for updates as noVNC does and does not look at the pixels: it follows each
//! encoding just far enough to find its end (RFC 6143, and the Tight encoding of the RFB protocol's
//! community specification).

use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::client::Client;

/// How pixels come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As they are.
    Raw,
    /// Tiles of 16 by 16.
    Hextile,
    /// zlib streams, palettes, JPEG.
    Tight,
    /// Tiles of 64 by 64 in a zlib stream.
    Zrle,
}

impl Encoding {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Raw, Self::Hextile, Self::Tight, Self::Zrle];

    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Hextile => "hextile",
            Self::Tight => "tight",
            Self::Zrle => "zrle",
        }
    }

    fn number(self) -> i32 {
        match self {
            Self::Raw => 0,
            Self::Hextile => 5,
            Self::Tight => 7,
            Self::Zrle => 16,
        }
    }
}

const COPY_RECT: i32 = 1;
const DESKTOP_SIZE: i32 = -223;
const LAST_RECT: i32 = -224;
/// noVNC's defaults: JPEG quality 6, compression level 2.
const QUALITY_6: i32 = -26;
const COMPRESSION_2: i32 = -254;
/// Bytes of a pixel, and of one in Tight and ZRLE, where the fourth byte is left out.
const PIXEL: usize = 4;
const SHORT_PIXEL: usize = 3;

/// A session with a display.
pub struct Viewer<'a> {
    client: &'a mut Client,
    waiting: Vec<u8>,
    at: usize,
    size: (u16, u16),
    /// Updates so far.
    pub updates: u64,
}

impl<'a> Viewer<'a> {
    /// Shakes hands without a password, and asks for the first update.
    pub fn open(client: &'a mut Client, encoding: Encoding) -> Result<Self> {
        client.keeps = true;
        let mut viewer = Self { client, waiting: Vec::new(), at: 0, size: (0, 0), updates: 0 };
        let version = viewer.take(12)?.to_vec();
        if !version.starts_with(b"RFB 003.008") {
            bail!("the display does not speak RFB 3.8: {}", String::from_utf8_lossy(&version));
        }
        viewer.client.say(b"RFB 003.008\n")?;
        let count = viewer.u8()?;
        if !viewer.take(usize::from(count))?.contains(&1) {
            bail!("the display wants a password");
        }
        viewer.client.say(&[1])?;
        if viewer.u32()? != 0 {
            bail!("the display refuses");
        }
        viewer.client.say(&[1])?;
        viewer.size = (viewer.u16()?, viewer.u16()?);
        viewer.take(16)?;
        let name = viewer.u32()?;
        viewer.take(name as usize)?;
        // 32 bits, depth 24, little-endian, true colour, blue first: as noVNC asks.
        viewer.client.say(&[0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 0, 8, 16, 0, 0, 0])?;
        let encodings = [COPY_RECT, encoding.number(), 0, QUALITY_6, COMPRESSION_2, DESKTOP_SIZE, LAST_RECT];
        let mut message = vec![2, 0, 0, encodings.len() as u8];
        message.extend(encodings.iter().flat_map(|encoding| encoding.to_be_bytes()));
        viewer.client.say(&message)?;
        viewer.ask(false)?;
        Ok(viewer)
    }

    /// Takes updates, and asks for the next one after each, until then.
    pub fn watch(&mut self, until: Instant) -> Result<()> {
        while Instant::now() < until {
            self.message().with_context(|| format!("after {} updates", self.updates))?;
        }
        Ok(())
    }

    /// Bytes of RFB so far.
    pub fn bytes(&self) -> u64 {
        self.client.count.bytes
    }

    /// Data frames so far.
    pub fn frames(&self) -> u64 {
        self.client.count.frames
    }

    fn ask(&mut self, incremental: bool) -> Result<()> {
        let ((wide, high), mut message) = (self.size, vec![3, u8::from(incremental), 0, 0, 0, 0]);
        message.extend(wide.to_be_bytes());
        message.extend(high.to_be_bytes());
        self.client.say(&message)
    }

    fn message(&mut self) -> Result<()> {
        match self.u8()? {
            0 => self.update(),
            2 => Ok(()),
            3 => {
                self.take(3)?;
                let len = self.u32()?;
                self.take(len as usize).map(drop)
            }
            other => bail!("a message of type {other}, which was not asked for"),
        }
    }

    fn update(&mut self) -> Result<()> {
        self.take(1)?;
        let (rectangles, mut resized) = (self.u16()?, false);
        for _ in 0..rectangles {
            self.take(4)?;
            let (wide, high) = (self.u16()?, self.u16()?);
            let encoding = self.u32()?.cast_signed();
            match encoding {
                LAST_RECT => break,
                DESKTOP_SIZE => {
                    self.size = (wide, high);
                    resized = true;
                }
                COPY_RECT => self.skip(4)?,
                0 => self.skip(usize::from(wide) * usize::from(high) * PIXEL)?,
                5 => self.hextile(usize::from(wide), usize::from(high))?,
                7 => self.tight(usize::from(wide), usize::from(high))?,
                16 => {
                    let len = self.u32()?;
                    self.skip(len as usize)?;
                }
                other => bail!("an encoding that was not asked for: {other}"),
            }
        }
        self.updates += 1;
        self.ask(!resized)
    }

    fn hextile(&mut self, wide: usize, high: usize) -> Result<()> {
        for top in (0..high).step_by(16) {
            for left in (0..wide).step_by(16) {
                let kind = self.u8()?;
                if kind & 1 != 0 {
                    self.skip((wide - left).min(16) * (high - top).min(16) * PIXEL)?;
                    continue;
                }
                let colours = usize::from(kind >> 1 & 1) + usize::from(kind >> 2 & 1);
                self.skip(colours * PIXEL)?;
                if kind & 8 != 0 {
                    let count = usize::from(self.u8()?);
                    self.skip(count * if kind & 16 != 0 { PIXEL + 2 } else { 2 })?;
                }
            }
        }
        Ok(())
    }

    fn tight(&mut self, wide: usize, high: usize) -> Result<()> {
        let control = self.u8()? >> 4;
        match control {
            8 => return self.skip(SHORT_PIXEL),
            9 => {
                let len = self.compact()?;
                return self.skip(len);
            }
            10.. => bail!("a Tight rectangle of kind {control}"),
            _ => {}
        }
        let filter = if control & 4 != 0 { self.u8()? } else { 0 };
        let row = if filter == 1 {
            let colours = usize::from(self.u8()?) + 1;
            self.skip(colours * SHORT_PIXEL)?;
            if colours == 2 { wide.div_ceil(8) } else { wide }
        } else {
            wide * SHORT_PIXEL
        };
        // Less than twelve bytes come as they are.
        let len = if row * high < 12 { row * high } else { self.compact()? };
        self.skip(len)
    }

    fn compact(&mut self) -> Result<usize> {
        let mut len = 0;
        for shift in [0, 7, 14] {
            let byte = usize::from(self.u8()?);
            len |= (byte & if shift == 14 { 0xff } else { 0x7f }) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        Ok(len)
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn skip(&mut self, mut len: usize) -> Result<()> {
        while len > 0 {
            if self.at == self.waiting.len() {
                self.fill()?;
            }
            let n = len.min(self.waiting.len() - self.at);
            self.at += n;
            len -= n;
        }
        Ok(())
    }

    fn take(&mut self, len: usize) -> Result<&[u8]> {
        while self.waiting.len() - self.at < len {
            self.fill()?;
        }
        self.at += len;
        Ok(&self.waiting[self.at - len..self.at])
    }

    fn fill(&mut self) -> Result<()> {
        self.waiting.drain(..self.at);
        self.at = 0;
        self.client.receive()?;
        self.waiting.extend(&self.client.payload);
        Ok(())
    }
}
