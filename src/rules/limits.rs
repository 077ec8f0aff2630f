//! What counts as one address, for the limits and for the audit: an IPv4 address, or the network of 64 bits that an
//! IPv6 address is in, because whoever has one address of it has all of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where clients come from, as far as they are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// The first half of an IPv6 address.
    V6([u16; 4]),
    /// A unix socket, without an address that is known: it is not limited.
    Local,
}

impl Source {
    /// Of an address; an IPv4 address in IPv6's mapped form is the IPv4 address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => write!(f, "{address}"),
            Self::V6(network) => {
                let mut segments = [0; 8];
                segments[..4].copy_from_slice(network);
                write!(f, "{}/64", Ipv6Addr::from(segments))
            }
            Self::Local => f.write_str("a unix socket"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(address: &str) -> String {
        Source::of(address.parse().unwrap()).to_string()
    }

    #[test]
    fn an_address_counts_by_itself_or_by_its_network() {
        for (address, counts_as) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("127.1.2.3", "127.1.2.3"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::", "2001:db8:1:2::/64"),
            ("2001:db8:1:3::", "2001:db8:1:3::/64"),
            ("::1", "::/64"),
            // An IPv4 address in a form that is IPv6 after all.
            ("::192.0.2.7", "::/64"),
            ("64:ff9b::192.0.2.7", "64:ff9b::/64"),
        ] {
            assert_eq!(of(address), counts_as, "{address}");
        }
    }

    proptest! {
        #[test]
        fn ipv4_addresses_are_all_different_and_the_same_in_both_forms(a: u32, b: u32) {
            let (one, other) = (Ipv4Addr::from_bits(a), Ipv4Addr::from_bits(b));
            prop_assert_eq!(Source::of(one.into()) == Source::of(other.into()), a == b);
            prop_assert_eq!(Source::of(one.into()), Source::of(one.to_ipv6_mapped().into()));
        }

        #[test]
        fn ipv6_addresses_count_as_one_where_their_first_halves_are_equal(a: u64, b: u64, c: u64, d: u64) {
            let of = |network: u64, host: u64| {
                Source::of(Ipv6Addr::from_bits((u128::from(network) << 64) | u128::from(host)).into())
            };
            // Below ::/64 is where the mapped ones are.
            prop_assume!(a != 0 && b != 0);
            prop_assert_eq!(of(a, c) == of(b, d), a == b);
            prop_assert_eq!(of(a, c), of(a, d));
        }
    }
}
