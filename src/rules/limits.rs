//! Who may have one more connection of a guest's, and who makes room for it.
//!
//! Somebody without any right can open connections as fast as they like, so no place is theirs: where there is no room,
//! one of theirs ends for the one that comes. It is the oldest of the network that has the most of them, so that
//! whoever hammers only throws themselves out. Each limit stands within a wider one: an address's, its networks', that
//! of all from outside this host, and the guest's. The narrowest that is used up is the one in which room is made.

use std::collections::BTreeMap;
use std::time::Duration;

use super::person::Who;
use super::source::Network;

/// A connection on which no right was shown takes no request after this time.
pub const STRANGER_LIFE: Duration = Duration::from_secs(30);
/// And then this much more for the answer that is under way: a page's file on a slow line, a password's check.
pub const STRANGER_REST: Duration = Duration::from_secs(60);
/// A connection on which no right was shown takes so many requests.
pub const STRANGER_REQUESTS: u32 = 20;
/// Of a guest's connections one in so many is for clients of this host alone.
const KEPT: usize = 16;
/// So many networks are named where it is told who holds connections.
const NAMED: usize = 5;

/// What holds a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// No right was shown on it.
    Stranger,
    /// A ticket, a session or a password was accepted on it.
    Known,
    /// A console is open on it, or a reverse proxy has it: it never makes room.
    Fixed,
}

/// A connection as the limits see it.
#[derive(Clone, Copy, Debug)]
pub struct Held<'a> {
    /// Where it comes from.
    pub from: Network,
    /// Whether that is this host.
    pub is_here: bool,
    /// Whether it is a reverse proxy's request: it counts for its address, and its connection for the guest.
    pub is_request: bool,
    /// What holds it.
    pub hold: Hold,
    /// Who has shown a right on it.
    pub who: Option<&'a Who>,
}

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Of the guest's.
    pub most: usize,
    /// Of one address.
    pub of_address: usize,
}

impl Room {
    /// How many a network may have: an address's limit and its multiples, and never all of the guest's where an address
    /// may not have them.
    #[must_use]
    pub fn of(&self, network: Network) -> usize {
        let times = network.times() as usize;
        let third = self.most.saturating_sub(self.of_address) / 3;
        let steps = times.ilog2() as usize;
        self.of_address.saturating_mul(times).min(self.of_address.saturating_add(third * steps))
    }

    /// How many those from outside this host may have.
    #[must_use]
    pub fn of_others(&self) -> usize {
        self.most - self.most / KEPT
    }
}

/// What becomes of one that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// There is room.
    Come,
    /// It comes, and the one at this index ends.
    Instead {
        /// Whose place it gets.
        of: usize,
        /// Whether the guest's port is full, and not only a network's share.
        is_full: bool,
    },
    /// All places are held by those who have a right to them.
    Wait,
    /// A network has as many as it may, all held by those who have a right to them.
    Refused(Network, usize),
}

/// Who may come. `held` has the oldest first; `comes` is the one that is not in it yet.
#[must_use]
pub fn admit(held: &[Held<'_>], comes: &Held<'_>, room: Room) -> Answer {
    for network in comes.from.all().filter(|network| *network != Network::Local) {
        let is_within = |one: &Held<'_>| network.holds(one.from);
        let most = room.of(network);
        if count(held, is_within) >= most {
            let instead = |of| Answer::Instead { of, is_full: false };
            return makes_room(held, comes.from, is_within).map_or(Answer::Refused(network, most), instead);
        }
    }
    if comes.is_request {
        return Answer::Come;
    }
    let instead = |found: Option<usize>| found.map_or(Answer::Wait, |of| Answer::Instead { of, is_full: true });
    let is_other = |one: &Held<'_>| !one.is_request && !one.is_here;
    if !comes.is_here && count(held, is_other) >= room.of_others() {
        return instead(makes_room(held, comes.from, is_other));
    }
    if count(held, |one| !one.is_request) >= room.most {
        return instead(makes_room(held, comes.from, |one| !one.is_request));
    }
    Answer::Come
}

fn count(held: &[Held<'_>], counts: impl Fn(&Held<'_>) -> bool) -> usize {
    held.iter().filter(|one| counts(one)).count()
}

/// Who ends for one that comes from there: somebody without a right; else of whoever keeps the most connections without
/// a console the oldest, which a browser opens again.
fn makes_room(held: &[Held<'_>], comes: Network, is_within: impl Fn(&Held<'_>) -> bool) -> Option<usize> {
    let of = |hold| {
        let some = held.iter().enumerate().filter(move |(_, one)| one.hold == hold && !one.is_request);
        some.filter(|(_, one)| is_within(one)).map(|(index, _)| index).collect::<Vec<_>>()
    };
    let mut strangers = of(Hold::Stranger);
    for width in 0..3 {
        let network = |from: Network| from.all().rev().nth(width).unwrap_or(from);
        strangers = of_most(&strangers, |index| network(held[index].from), Some(network(comes)));
    }
    let known = || of_most(&of(Hold::Known), |index| held[index].who, None);
    strangers.first().copied().or_else(|| known().first().copied())
}

/// Those of the group that has the most members with the one that comes: of its own group before others, else of the one
/// with the oldest.
fn of_most<G: Ord + Copy>(some: &[usize], group: impl Fn(usize) -> G, own: Option<G>) -> Vec<usize> {
    let mut sizes = BTreeMap::new();
    for index in some.iter().copied() {
        *sizes.entry(group(index)).or_insert_with(|| usize::from(own == Some(group(index)))) += 1;
    }
    let oldest = |wanted: G| some.iter().position(|index| group(*index) == wanted);
    let most =
        sizes.into_iter().max_by_key(|(group, size)| (*size, own == Some(*group), std::cmp::Reverse(oldest(*group))));
    most.map_or_else(Vec::new, |(most, _)| some.iter().copied().filter(|index| group(*index) == most).collect())
}

/// Who holds a guest's connections, for people: `48 of 127.0.0.2, 16 of 127.0.0.3`.
#[must_use]
pub fn holders(held: &[Held<'_>]) -> String {
    let mut networks: BTreeMap<Network, (usize, Network)> = BTreeMap::new();
    for one in held.iter().filter(|one| !one.is_request) {
        let widest = one.from.all().next_back().unwrap_or(one.from);
        let (count, around) = networks.entry(widest).or_insert((0, one.from));
        (*count, *around) = (*count + 1, around.around(one.from).unwrap_or(widest));
    }
    let mut networks: Vec<_> = networks.into_values().collect();
    networks.sort_by_key(|(count, network)| (std::cmp::Reverse(*count), *network));
    let rest = networks.split_off(networks.len().min(NAMED));
    let mut words: Vec<_> = networks.iter().map(|(count, network)| format!("{count} of {network}")).collect();
    if !rest.is_empty() {
        let count: usize = rest.iter().map(|(count, _)| count).sum();
        words.push(format!("{count} of {} others", rest.len()));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROOM: Room = Room { most: 64, of_address: 48 };

    fn network(address: &str) -> Network {
        Network::of(address.parse().unwrap())
    }

    fn held<'a>(address: &str, hold: Hold) -> Held<'a> {
        let is_here = address.parse::<std::net::IpAddr>().unwrap().is_loopback();
        Held { from: network(address), is_here, is_request: false, hold, who: None }
    }

    fn strangers<'a>(of: &[(&str, usize)]) -> Vec<Held<'a>> {
        of.iter().flat_map(|(address, n)| std::iter::repeat_n(held(address, Hold::Stranger), *n)).collect()
    }

    fn full(of: usize) -> Answer {
        Answer::Instead { of, is_full: true }
    }

    #[test]
    fn a_network_has_more_than_an_address_and_never_all() {
        for (most, of_address, limits) in [
            (64, 48, [48, 53, 58]),
            (64, 1, [1, 2, 4]),
            (64, 20, [20, 34, 48]),
            (2, 1, [1, 1, 1]),
            (10, 10, [10; 3]),
            (4, 9, [9; 3]),
        ] {
            let found = network("2001:db8::").all().map(|network| Room { most, of_address }.of(network));
            assert_eq!(found.collect::<Vec<_>>(), limits, "{most} {of_address}");
        }
        assert_eq!((ROOM.of_others(), Room { most: 2, of_address: 1 }.of_others()), (60, 2));
    }

    #[test]
    fn who_comes_where_there_is_no_room_gets_a_place_of_those_who_hammer() {
        let hammer = strangers(&[("198.51.100.3", 16), ("198.51.100.2", 48)]);
        for (comes, answer) in [("198.51.100.1", full(16)), ("198.51.100.3", full(16)), ("192.0.2.1", full(16))] {
            assert_eq!(admit(&hammer, &held(comes, Hold::Stranger), ROOM), answer, "{comes}");
        }
        let own = Answer::Instead { of: 16, is_full: false };
        assert_eq!(admit(&hammer, &held("198.51.100.2", Hold::Stranger), ROOM), own, "its own share is used up");
        let equal = strangers(&[("198.51.100.3", 32), ("198.51.100.2", 32)]);
        assert_eq!(admit(&equal, &held("198.51.100.2", Hold::Stranger), ROOM), full(32), "nobody hammers others out");
        assert_eq!(admit(&equal, &held("198.51.100.1", Hold::Stranger), ROOM), full(0), "else the oldest");
    }

    #[test]
    fn whoever_takes_many_addresses_of_loopback_takes_them_from_themselves() {
        let addresses: Vec<String> = (1..=58).map(|n| format!("127.1.2.{n}")).collect();
        let some: Vec<_> = addresses.iter().map(|address| (address.as_str(), 1)).collect();
        let here = strangers(&some);
        let fewer = strangers(&some[..53]);
        let own = Answer::Instead { of: 0, is_full: false };
        assert_eq!(admit(&here, &held("127.9.9.9", Hold::Stranger), ROOM), own, "58 are the most of 127.0.0.0/8");
        let others = [("192.0.2.1", 4), ("192.0.2.2", 3)];
        let all = [&strangers(&others)[..], &fewer, &strangers(&[("192.0.2.3", 4)])].concat();
        assert_eq!(admit(&all, &held("192.0.2.4", Hold::Stranger), ROOM), full(7), "not of a stranger from outside");
    }

    #[test]
    fn within_an_ipv6_network_it_is_the_part_that_has_the_most() {
        let some = strangers(&[
            ("192.0.2.1", 15),
            ("2001:db8:0:1::", 4),
            ("2001:db8:0:2::", 6),
            ("2001:db8:0:100::", 1),
            ("2001:db8:0:1ff::", 8),
            ("192.0.2.2", 15),
            ("192.0.2.3", 11),
        ]);
        assert_eq!(admit(&some, &held("198.51.100.1", Hold::Stranger), ROOM), full(19));
        let wide = strangers(&[("2001:db8:0:1::", 30), ("2001:db8:0:2::", 23), ("192.0.2.1", 2)]);
        let in_56 = Answer::Instead { of: 0, is_full: false };
        assert_eq!(admit(&wide, &held("2001:db8:0:3::", Hold::Stranger), ROOM), in_56, "53 are the most of a /56");
    }

    #[test]
    fn who_has_shown_a_right_makes_room_last_and_an_open_console_never() {
        let fixed = |n| std::iter::repeat_n(held("192.0.2.1", Hold::Fixed), n).collect::<Vec<_>>();
        let (ann, bob) = (Who::User("ann".into()), Who::bearer("host", "ann"));
        let known = |who| Held { who: Some(who), ..held("192.0.2.2", Hold::Known) };
        let of_ann = [known(&bob), known(&ann), known(&ann)];
        let some = [&fixed(30)[..], &of_ann, &strangers(&[("192.0.2.9", 27)])].concat();
        assert_eq!(admit(&some, &held("192.0.2.3", Hold::Stranger), ROOM), full(33));
        let some = [&of_ann[..], &fixed(40), &vec![held("192.0.2.4", Hold::Fixed); 17]].concat();
        assert_eq!(admit(&some, &held("192.0.2.3", Hold::Stranger), ROOM), full(1), "of whoever has the most");
        let some = [&fixed(40)[..], &vec![held("192.0.2.4", Hold::Fixed); 20]].concat();
        assert_eq!(admit(&some, &held("192.0.2.3", Hold::Stranger), ROOM), Answer::Wait);
        assert_eq!(
            admit(&some, &held("127.0.0.1", Hold::Stranger), ROOM),
            Answer::Come,
            "places are kept for this host"
        );
        let some = [&fixed(48)[..], &strangers(&[("192.0.2.7", 2)])].concat();
        assert_eq!(
            admit(&some, &held("192.0.2.1", Hold::Stranger), ROOM),
            Answer::Refused(network("192.0.2.1"), 48),
            "others make no room for more than a share"
        );
    }

    #[test]
    fn a_reverse_proxys_request_counts_for_its_address_alone() {
        let request = Held { is_request: true, ..held("192.0.2.1", Hold::Fixed) };
        let room = Room { most: 2, of_address: 1 };
        let front = Held { from: Network::Local, ..held("192.0.2.9", Hold::Fixed) };
        assert_eq!(admit(&[front, front, front], &request, room), Answer::Come);
        assert_eq!(admit(&[front, request], &request, room), Answer::Refused(network("192.0.2.1"), 1));
        assert_eq!(admit(&[front, request, request], &held("192.0.2.2", Hold::Stranger), room), Answer::Come);
    }

    #[test]
    fn who_holds_how_many_is_told_by_network_the_most_first_and_in_one_line() {
        let some = strangers(&[("192.0.2.1", 1), ("2001:db8::1", 2), ("2001:db8:0:1::1", 1), ("127.0.0.2", 48)]);
        assert_eq!(holders(&some), "48 of 127.0.0.2, 3 of 2001:db8::/56, 1 of 192.0.2.1");
        let many: Vec<_> = (0..60).map(|n| held(&format!("192.0.2.{n}"), Hold::Stranger)).collect();
        assert!(holders(&many).ends_with(", 1 of 192.0.2.4, 55 of 55 others"), "{}", holders(&many));
    }

    fn event() -> impl Strategy<Value = (usize, u8)> {
        (0..12usize, 0..20u8)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Connections come from hostile networks and others, some show a right, some open a console, some leave.
        #[test]
        fn in_whatever_order_they_come_the_limits_hold_and_nobody_is_hurt_by_others(events in prop::collection::vec(event(), 1..250)) {
            let addresses = [
                "127.0.0.1", "127.0.0.2", "192.0.2.1", "192.0.2.2", "198.51.100.1", "203.0.113.7",
                "2001:db8:0:1::", "2001:db8:0:2::", "2001:db8:0:100::", "2001:db8:0:200::", "2001:db8:0:300::", "2001:db8:1::",
            ];
            let room = Room { most: 32, of_address: 12 };
            let mut some: Vec<Held<'_>> = Vec::new();
            for (n, what) in events {
                let from = addresses[n];
                let own = some.iter().position(|one| one.from == network(from) && one.hold == Hold::Stranger);
                match (what, own) {
                    (0, Some(own)) => some[own].hold = Hold::Known,
                    (1, Some(own)) => some[own].hold = Hold::Fixed,
                    (2, _) if !some.is_empty() => drop(some.remove(n % some.len())),
                    _ => {
                        let comes = held(from, Hold::Stranger);
                        match admit(&some, &comes, room) {
                            Answer::Come => some.push(comes),
                            Answer::Instead { of, .. } => {
                                let goes = some.remove(of);
                                prop_assert!(goes.hold != Hold::Fixed);
                                if goes.hold == Hold::Known {
                                    prop_assert!(!some.iter().any(|one| one.hold == Hold::Stranger && one.from == comes.from));
                                } else if goes.from != comes.from {
                                    let widest = |network: Network| network.all().next_back().unwrap();
                                    let of = |network| some.iter().filter(|one| one.hold == Hold::Stranger && widest(one.from) == network).count();
                                    prop_assert!(of(widest(goes.from)) + 1 >= of(widest(comes.from)), "who has more goes first");
                                }
                                some.push(comes);
                            }
                            Answer::Wait => {
                                let free = some.iter().filter(|one| one.hold != Hold::Fixed && (comes.is_here || !one.is_here)).count();
                                prop_assert_eq!(free, 0);
                            }
                            Answer::Refused(network, most) => {
                                let own: Vec<_> = some.iter().filter(|one| network.holds(one.from)).collect();
                                prop_assert!(own.len() >= most && own.iter().all(|one| one.hold == Hold::Fixed));
                            }
                        }
                    }
                }
                prop_assert!(some.len() <= room.most);
                prop_assert!(some.iter().filter(|one| !one.is_here).count() <= room.of_others());
                for network in addresses.iter().flat_map(|address| network(address).all()) {
                    prop_assert!(some.iter().filter(|one| network.holds(one.from)).count() <= room.of(network));
                }
            }
        }

        /// However many come from however many addresses but one, one connection of that one stays if others have two.
        #[test]
        fn a_single_connection_of_an_address_outlives_those_who_hammer(comes in prop::collection::vec(0..20u8, 1..300)) {
            let single = held("198.51.100.1", Hold::Stranger);
            let mut some = vec![single];
            for n in comes {
                let comes = held(&format!("192.0.2.{n}"), Hold::Stranger);
                match admit(&some, &comes, ROOM) {
                    Answer::Come => {}
                    Answer::Instead { of, .. } => drop(some.remove(of)),
                    other => prop_assert!(false, "{other:?}"),
                }
                some.push(comes);
                prop_assert!(some.iter().any(|one| one.from == single.from));
            }
        }
    }
}
