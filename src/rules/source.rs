//! Where clients come from, as the limits and the audit count it: connections, failed passwords and lines in the
//! journal all use this one notion.
//!
//! IPv4 counts by address. A /24 would be strangers to each other: providers rent IPv4 addresses one by one, and one
//! attacker would keep 255 neighbours out. But 127.0.0.0/8 is a network around its addresses: every local user has them
//! all. IPv6 counts by the network of 64 bits, which is what one household or one
//! rented machine has at least, and by the /56 and the /48 around it, which many of them have: each wider network has
//! a larger limit, and less than its parts together.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Network {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// The first half of an IPv6 address, with zeros behind so many bits: 64, 56 or 48.
    V6(u64, u8),
    /// All IPv4 addresses of loopback.
    Loopback,
    /// A unix socket, without an address that is known: it is not limited.
    Local,
}

impl Network {
    /// The narrowest network of an address; an IPv4 address in IPv6's mapped form is the IPv4 address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments().map(u64::from);
                Self::V6((a << 48) | (b << 32) | (c << 16) | d, 64)
            }
        }
    }

    /// The next wider network that is counted, too.
    #[must_use]
    pub fn wider(self) -> Option<Self> {
        match self {
            Self::V6(bits, 64) => Some(Self::V6(bits & (!0 << 8), 56)),
            Self::V6(bits, 56) => Some(Self::V6(bits & (!0 << 16), 48)),
            Self::V4(address) if address.is_loopback() => Some(Self::Loopback),
            Self::V4(_) | Self::V6(..) | Self::Loopback | Self::Local => None,
        }
    }

    /// This network and those around it, the narrowest first.
    pub fn all(self) -> impl DoubleEndedIterator<Item = Self> {
        let wider = self.wider();
        let widest = wider.and_then(Self::wider);
        [Some(self), wider, widest].into_iter().flatten()
    }

    /// Whether another network is this one or within it.
    #[must_use]
    pub fn holds(self, other: Self) -> bool {
        other.all().any(|network| network == self)
    }

    /// The narrowest network that is counted and holds both.
    #[must_use]
    pub fn around(self, other: Self) -> Option<Self> {
        self.all().find(|network| network.holds(other))
    }

    /// How many times an address's limit this network has.
    #[must_use]
    pub fn times(self) -> u32 {
        match self {
            Self::V6(_, 56) => 2,
            Self::V6(_, 48) | Self::Loopback => 4,
            Self::V4(_) | Self::V6(..) | Self::Local => 1,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => write!(f, "{address}"),
            Self::V6(bits, length) => write!(f, "{}/{length}", Ipv6Addr::from_bits(u128::from(*bits) << 64)),
            Self::Loopback => f.write_str("127.0.0.0/8"),
            Self::Local => f.write_str("a unix socket"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(address: &str) -> Vec<String> {
        Network::of(address.parse().unwrap()).all().map(|network| network.to_string()).collect()
    }

    #[test]
    fn an_address_counts_by_itself_or_by_its_networks() {
        for (address, counts_as) in [
            ("192.0.2.7", &["192.0.2.7"][..]),
            ("::ffff:192.0.2.7", &["192.0.2.7"]),
            ("127.1.2.3", &["127.1.2.3", "127.0.0.0/8"]),
            ("::ffff:127.255.0.9", &["127.255.0.9", "127.0.0.0/8"]),
            ("2001:db8:1:2a3b:3:4:5:6", &["2001:db8:1:2a3b::/64", "2001:db8:1:2a00::/56", "2001:db8:1::/48"]),
            ("2001:db8:1:2::", &["2001:db8:1:2::/64", "2001:db8:1::/56", "2001:db8:1::/48"]),
            ("::1", &["::/64", "::/56", "::/48"]),
            // An IPv4 address in a form that is IPv6 after all.
            ("::192.0.2.7", &["::/64", "::/56", "::/48"]),
            ("64:ff9b::192.0.2.7", &["64:ff9b::/64", "64:ff9b::/56", "64:ff9b::/48"]),
        ] {
            assert_eq!(all(address), counts_as, "{address}");
        }
        assert_eq!(Network::Local.all().collect::<Vec<_>>(), [Network::Local]);
    }

    #[test]
    fn two_networks_have_the_narrowest_around_both() {
        let of = |address: &str| Network::of(address.parse().unwrap());
        for (one, other, around) in [
            ("2001:db8::1", "2001:db8::2", Some("2001:db8::/64")),
            ("2001:db8::1", "2001:db8:0:1::", Some("2001:db8::/56")),
            ("2001:db8::1", "2001:db8:0:100::", Some("2001:db8::/48")),
            ("2001:db8::1", "2001:db8:1::", None),
            ("192.0.2.1", "192.0.2.1", Some("192.0.2.1")),
            ("192.0.2.1", "192.0.2.2", None),
            ("127.0.0.1", "127.255.0.1", Some("127.0.0.0/8")),
            ("127.0.0.1", "192.0.2.1", None),
        ] {
            let found = of(one).around(of(other)).map(|network| network.to_string());
            assert_eq!(found.as_deref(), around, "{one} {other}");
        }
    }

    proptest! {
        #[test]
        fn ipv4_addresses_are_all_different_and_the_same_in_both_forms(a: u32, b: u32) {
            let (one, other) = (Ipv4Addr::from_bits(a), Ipv4Addr::from_bits(b));
            prop_assert_eq!(Network::of(one.into()) == Network::of(other.into()), a == b);
            prop_assert_eq!(Network::of(one.into()), Network::of(one.to_ipv6_mapped().into()));
        }

        #[test]
        fn ipv6_addresses_share_the_networks_whose_bits_they_share(a: u64, differ in 0u32..64, c: u64, d: u64) {
            let of = |network: u64, host: u64| {
                Network::of(Ipv6Addr::from_bits((u128::from(network) << 64) | u128::from(host)).into())
            };
            let b = a ^ (1 << differ);
            // Below ::/64 is where the mapped ones are.
            prop_assume!(a != 0 && b != 0);
            prop_assert_eq!(of(a, c), of(a, d));
            let shared = of(a, c).all().filter(|network| network.holds(of(b, d))).count();
            prop_assert_eq!(shared, match differ { 0..8 => 2, 8..16 => 1, _ => 0 });
        }
    }
}
