//! What a reverse proxy says of a browser that it speaks for: its address, and how it connected. Only on
//! the front socket is this believed, for only a reverse proxy of this host can connect there; on a port
//! anybody may send these headers.

use std::net::IpAddr;

use super::request::BadRequest;

/// What was said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// The browser's address, where it is one.
    pub from: Option<IpAddr>,
    /// `http` or `https`: how the browser spoke. Unknown where it was not said: then no Origin is the
    /// request's own, so a browser gets in neither by a cookie nor by a ticket. Taking it for `https` would
    /// let pages pass that came over a line where anybody could change them.
    pub scheme: Option<&'static str>,
}

impl Forwarded {
    /// From the values of all `X-Forwarded-For` and all `X-Forwarded-Proto` headers, in their order.
    ///
    /// Each proxy of a chain adds the address that connected to it at the end, and whatever stands before
    /// that may have come from the browser, bytes that are no text included. One proxy is trusted, so the last
    /// address counts.
    pub fn read<'h>(
        addresses: impl Iterator<Item = &'h [u8]>,
        mut schemes: impl Iterator<Item = &'h [u8]>,
    ) -> Result<Self, BadRequest> {
        let last = addresses.last().and_then(|header| header.rsplit(|byte| *byte == b',').next());
        let from = last.and_then(|address| str::from_utf8(address).ok()?.trim().parse().ok());
        let scheme = match (schemes.next(), schemes.next()) {
            (None, _) => None,
            (Some(b"https"), None) => Some("https"),
            (Some(b"http"), None) => Some("http"),
            _ => {
                return Err(BadRequest(
                    "X-Forwarded-Proto is not http or https, once: the reverse proxy has to set it",
                ));
            }
        };
        Ok(Self { from, scheme })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_address_counts_and_nothing_else_is_one() {
        for (headers, from) in [
            (vec!["192.0.2.7"], Some("192.0.2.7")),
            (vec!["10.0.0.1, 192.0.2.7"], Some("192.0.2.7")),
            (vec!["10.0.0.1", "198.51.100.1 ,  2001:db8::7 "], Some("2001:db8::7")),
            (vec!["192.0.2.7", "unix:"], None),
            (vec!["192.0.2.7,"], None),
            (vec!["192.0.2.7:4711"], None),
            (vec!["[2001:db8::7]"], None),
            (vec!["localhost"], None),
            (vec!["192.0.2.7\nroot from 10.0.0.1"], None),
            (vec![""], None),
            (vec![], None),
        ] {
            let addresses = headers.iter().map(|header| header.as_bytes());
            let read = Forwarded::read(addresses, std::iter::empty()).unwrap();
            assert_eq!(read.from, from.map(|from| from.parse().unwrap()), "{headers:?}");
        }
    }

    #[test]
    fn what_is_no_text_hides_no_address_behind_it() {
        let behind: &[&[u8]] = &[b"\xff, 192.0.2.7"];
        let in_another: &[&[u8]] = &[b"\xff", b"\xfe\xff,192.0.2.7"];
        for headers in [behind, in_another] {
            let read = Forwarded::read(headers.iter().copied(), std::iter::empty()).unwrap();
            assert_eq!(read.from, Some([192, 0, 2, 7].into()), "{headers:?}");
        }
        assert_eq!(Forwarded::read([&b"192.0.2.7, \xff"[..]].into_iter(), std::iter::empty()).unwrap().from, None);
    }

    #[test]
    fn the_scheme_is_said_once_and_in_one_of_two_words_or_unknown() {
        let read = |headers: &[&'static str]| {
            Forwarded::read(std::iter::empty(), headers.iter().map(|header| header.as_bytes()))
        };
        assert_eq!(read(&[]).unwrap().scheme, None);
        assert_eq!(read(&["https"]).unwrap().scheme, Some("https"));
        assert_eq!(read(&["http"]).unwrap().scheme, Some("http"));
        for bad in [
            &[""][..],
            &["HTTPS"],
            &["wss"],
            &["https,http"],
            &["https, https"],
            &["https", "https"],
            &["http", "https"],
            &["https://h"],
            &["https", "\u{ff}"],
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
