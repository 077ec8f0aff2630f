//! Failed passwords, counted for the whole host: a table as a value, the time passed in.
//!
//! Counted per user and address, per address, per user, and per guest, each within a window that begins with its first
//! failure. What an address is `rules::source` says: of IPv6 its /64, and the /56 and the /48 around it, each with a larger
//! limit. A user under attack from many addresses can still enter: there a first try from an address that has not failed
//! for them is looked at. Users are kept as salted hashes: people type passwords where the user goes.
//!
//! Whose address it is a guest's proxy says. One that has been taken over could name anybody's, so only half of a limit
//! can be used up at one guest: at another guest its owner is still looked at.

use std::collections::BTreeMap;

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::source::Network;

/// How long a failure counts, in seconds, from the first of its kind.
pub const WINDOW: u64 = 600;
/// Failures of one user from one address; of a wider network its [`Network::times`]. Tries under way count: a SPICE client opens six connections at once.
pub const MOST_OF_BOTH: u32 = 10;
/// Failures from one address, whoever was named; of a wider network likewise.
pub const MOST_OF_ADDRESS: u32 = 30;
/// Failures of one user from anywhere: then only addresses that have not failed for them are looked at.
pub const MOST_OF_USER: u32 = 50;
/// Failures at one guest: what bounds a proxy that has been taken over, which makes up addresses.
pub const MOST_OF_GUEST: u32 = 1000;
/// Of each limit but the guest's own, the part that one guest's failures can use up.
const SHARE: u32 = 2;
/// Counts that are kept: more than what one guest's failures can make, of which each is under 15.
pub const MOST_COUNTS: usize = 16_384;

/// Whose password failed, where, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try<'a> {
    /// The user, as given.
    pub user: &'a str,
    /// The address, as text; empty where there is none.
    pub from: &'a str,
    /// The guest whose proxy asked.
    pub guest: &'a str,
}

/// What one count is of: a hash, so that all are of one size and tell nothing.
type Subject = String;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Count {
    failures: u32,
    /// When the window began, in seconds since the boot.
    since: u64,
}

impl Count {
    fn is_over(self, now: u64) -> bool {
        // A window that begins later than now is of another boot.
        now < self.since || now - self.since >= WINDOW
    }

    /// For how many seconds it counts.
    fn left(self, now: u64) -> u64 {
        (self.since + WINDOW).saturating_sub(now).max(1)
    }
}

/// All counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failures {
    salt: String,
    counts: BTreeMap<Subject, Count>,
}

/// The counts that a try is under.
#[derive(Clone, Debug)]
struct Subjects {
    /// The user from each of the address's networks, the narrowest first; from nowhere where no address is known.
    both: Vec<Both>,
    user: Both,
    guest: Subject,
    /// The address's networks likewise; none where no address is known.
    address: Vec<Both>,
}

/// What is counted for the whole host and at one guest, and the limit of either.
#[derive(Clone, Debug)]
struct Both {
    host: Subject,
    here: Subject,
    most: u32,
}

impl Failures {
    /// None yet. The salt is a secret of this boot.
    #[must_use]
    pub fn new(salt: impl Into<String>) -> Self {
        Self { salt: salt.into(), counts: BTreeMap::new() }
    }

    /// Begins a try: it counts as a failure from now on, so that many at once are not looked at either. The error is
    /// after how many seconds one would be.
    pub fn begin(&mut self, a_try: &Try<'_>, now: u64) -> Result<(), u64> {
        let subjects = self.subjects(a_try);
        let guest = self.left(&subjects.guest, MOST_OF_GUEST, now);
        let networks = subjects.both.iter().chain(&subjects.address);
        let networks = networks.filter_map(|both| self.left_of(both, now)).max();
        let has_failed = subjects.both.first().is_some_and(|both| self.current(&both.host, now).is_some());
        let user = self.left_of(&subjects.user, now).filter(|_| has_failed);
        if let Some(wait) = [networks, guest, user].into_iter().flatten().max() {
            return Err(wait);
        }
        self.count(subjects.guest.clone(), now);
        for both in subjects.shared() {
            let here = self.here(both, now).map_or(0, |count| count.failures);
            if here == 0 {
                self.counts.remove(&both.here);
            }
            self.count(both.here.clone(), now);
            if here < both.most / SHARE {
                self.count(both.host.clone(), now);
            }
        }
        Ok(())
    }

    /// Takes a try back: nothing could be found out.
    pub fn take_back(&mut self, a_try: &Try<'_>, now: u64) {
        let subjects = self.subjects(a_try);
        self.uncount(&subjects.guest, now);
        for both in subjects.shared() {
            let Some(here) = self.here(both, now) else { continue };
            if here.failures <= both.most / SHARE {
                self.uncount(&both.host, now);
            }
            self.uncount(&both.here, now);
        }
    }

    /// The try's password was right: it was no failure, and what this user failed before from this address is
    /// forgotten. What others of that address did is not, nor what came from the wider networks: an attacker in one
    /// would get a new limit with each success of the user.
    pub fn succeed(&mut self, a_try: &Try<'_>, now: u64) {
        self.take_back(a_try, now);
        if let Some(both) = self.subjects(a_try).both.first() {
            self.counts.remove(&both.host);
            self.counts.remove(&both.here);
        }
    }

    /// How many counts are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Whether nothing is counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    fn subjects(&self, a_try: &Try<'_>) -> Subjects {
        let networks = networks(a_try.from);
        let hash = |parts: &[&str]| {
            let mut context = Context::new(&SHA256);
            for part in [&[self.salt.as_str()], parts].concat() {
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part.as_bytes());
            }
            let digest = context.finish();
            digest.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let both = |parts: &[&str], most| Both {
            host: hash(parts),
            here: hash(&[&["at", a_try.guest], parts].concat()),
            most,
        };
        let address = |(name, times): &(String, u32)| both(&["address", name], MOST_OF_ADDRESS * times);
        let of_user = |(name, times): &(String, u32)| both(&["both", a_try.user, name], MOST_OF_BOTH * times);
        let nowhere = [(String::new(), 1)];
        Subjects {
            both: if networks.is_empty() { &nowhere[..] } else { &networks }.iter().map(of_user).collect(),
            user: both(&["user", a_try.user], MOST_OF_USER),
            guest: hash(&["guest", a_try.guest]),
            address: networks.iter().map(address).collect(),
        }
    }

    fn current(&self, subject: &Subject, now: u64) -> Option<Count> {
        self.counts.get(subject).copied().filter(|count| !count.is_over(now))
    }

    /// After how many seconds a count that is full is so no more.
    fn left(&self, subject: &Subject, most: u32, now: u64) -> Option<u64> {
        let count = self.current(subject, now).filter(|count| count.failures >= most)?;
        Some(count.left(now))
    }

    /// What counts at one guest. It does no longer than the host's own count, or its share could be used up twice in
    /// one window of the host's.
    fn here(&self, both: &Both, now: u64) -> Option<Count> {
        let host = self.current(&both.host, now)?;
        self.current(&both.here, now).filter(|here| here.since >= host.since)
    }

    fn left_of(&self, both: &Both, now: u64) -> Option<u64> {
        let here = self.here(both, now).filter(|here| here.failures >= both.most);
        self.left(&both.host, both.most, now).max(here.map(|here| here.left(now)))
    }

    fn count(&mut self, subject: Subject, now: u64) {
        let mut count = self.current(&subject, now).unwrap_or(Count { failures: 0, since: now });
        count.failures = count.failures.saturating_add(1);
        if self.counts.len() >= MOST_COUNTS && !self.counts.contains_key(&subject) {
            self.make_room(now);
        }
        self.counts.insert(subject, count);
    }

    fn uncount(&mut self, subject: &Subject, now: u64) {
        let Some(mut count) = self.current(subject, now) else { return };
        count.failures = count.failures.saturating_sub(1);
        if count.failures == 0 {
            self.counts.remove(subject);
        } else {
            self.counts.insert(subject.clone(), count);
        }
    }

    /// What no longer counts goes; else what has failed least, the oldest of those: a flood of made-up users throws
    /// itself out, and not what holds an attacker back.
    fn make_room(&mut self, now: u64) {
        self.counts.retain(|_, count| !count.is_over(now));
        while self.counts.len() >= MOST_COUNTS {
            let least = self.counts.iter().min_by_key(|(_, count)| (count.failures, count.since));
            let Some(least) = least.map(|(subject, _)| subject.clone()) else { return };
            self.counts.remove(&least);
        }
    }
}

impl Subjects {
    fn shared(&self) -> impl Iterator<Item = &Both> {
        self.both.iter().chain([&self.user]).chain(&self.address)
    }
}

/// The networks that an address counts for, the narrowest first, and their shares. What is no address has none.
fn networks(from: &str) -> Vec<(String, u32)> {
    let address = from.split('%').next().unwrap_or_default();
    let Ok(address) = address.parse() else { return Vec::new() };
    Network::of(address).all().map(|network| (network.to_string(), network.times())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of<'a>(user: &'a str, from: &'a str) -> Try<'a> {
        Try { user, from, guest: "g1" }
    }

    fn none() -> Failures {
        Failures::new("salt")
    }

    #[test]
    fn a_user_is_limited_from_the_address_that_failed_and_enters_from_another() {
        let mut failures = none();
        for _ in 0..MOST_OF_BOTH {
            failures.begin(&of("ann", "192.0.2.1"), 100).unwrap();
        }
        assert_eq!(failures.begin(&of("ann", "192.0.2.1"), 130), Err(WINDOW - 30));
        assert_eq!(failures.begin(&of("ann", "::ffff:192.0.2.1"), 130), Err(WINDOW - 30), "the same, mapped");
        failures.begin(&of("ann", "192.0.2.2"), 130).unwrap();
        failures.begin(&of("bob", "192.0.2.1"), 130).unwrap();
        failures.begin(&of("ann", "192.0.2.1"), 100 + WINDOW).unwrap();
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one() {
        let mut failures = none();
        for i in 0..MOST_OF_BOTH {
            failures.begin(&of("ann", &format!("2001:db8:0:1::{i:x}")), 0).unwrap();
        }
        failures.begin(&of("ann", "2001:db8:0:1:ffff::1"), 0).unwrap_err();
        failures.begin(&of("ann", "2001:db8:0:2::1"), 0).unwrap();
        assert_eq!(networks("fe80::1%eth0")[0], ("fe80::/64".to_owned(), 1));
        assert_eq!(networks("somewhere"), []);
    }

    #[test]
    fn whoever_has_a_wider_ipv6_network_gets_its_limit_in_all_and_others_still_enter() {
        let from = |n: u32| format!("2001:db8:0:{n:x}::1");
        let looked_at = |user: fn(u32) -> String, step: u32| {
            let mut failures = none();
            let looked_at = (0..140).filter(|n| failures.begin(&of(&user(*n), &from(n * step)), 0).is_ok()).count();
            failures.begin(&of(&user(0), "2001:db8:1::1"), 0).unwrap();
            u32::try_from(looked_at).unwrap()
        };
        assert_eq!(looked_at(|_| "ann".into(), 1), 2 * MOST_OF_BOTH, "140 networks of one /56");
        assert_eq!(looked_at(|_| "ann".into(), 256), 4 * MOST_OF_BOTH, "140 networks of one /48");
        assert_eq!(looked_at(|n| format!("user{n}"), 1), 2 * MOST_OF_ADDRESS);
        assert_eq!(looked_at(|n| format!("user{n}"), 256), 4 * MOST_OF_ADDRESS);
    }

    #[test]
    fn a_users_success_gives_an_attacker_of_the_same_wider_network_no_new_limit() {
        let mut failures = none();
        let home = of("ann", "2001:db8:0:ff::1");
        let looked_at = (0..200u32).filter(|n| {
            failures.begin(&home, 0).map(|()| failures.succeed(&home, 0)).ok();
            failures.begin(&of("ann", &format!("2001:db8:0:{n:x}::1")), 0).is_ok()
        });
        assert_eq!(looked_at.count(), 2 * MOST_OF_BOTH as usize);
    }

    #[test]
    fn what_one_guests_failures_make_is_kept_whole() {
        let mut failures = none();
        let counts_of_one = |n: u32| (format!("user{n}"), format!("2001:{n:x}::1"));
        for n in 0..MOST_OF_GUEST {
            let (user, from) = counts_of_one(n);
            failures.begin(&of(&user, &from), 0).unwrap();
        }
        assert_eq!(failures.len(), 14 * MOST_OF_GUEST as usize + 1);
        assert!(failures.len() < MOST_COUNTS);
    }

    #[test]
    fn an_address_that_tries_many_users_is_limited_for_all_of_them() {
        let mut failures = none();
        for i in 0..MOST_OF_ADDRESS {
            failures.begin(&of(&format!("user{i}"), "192.0.2.1"), 0).unwrap();
        }
        failures.begin(&of("ann", "192.0.2.1"), 0).unwrap_err();
        failures.begin(&of("ann", "192.0.2.2"), 0).unwrap();
    }

    #[test]
    fn of_five_thousand_tries_over_fifty_guests_ports_those_of_one_address_are_not_looked_at_and_another_enters() {
        let mut failures = none();
        let guests: Vec<_> = (0..50).map(|n| format!("g{n}")).collect();
        let looked_at = (0..5000).filter(|i| {
            let (user, guest) = (format!("user{}", i % 700), guests[i % 50].as_str());
            failures.begin(&Try { user: &user, from: "192.0.2.1", guest }, 0).is_ok()
        });
        assert_eq!(looked_at.count(), MOST_OF_ADDRESS as usize);
        failures.begin(&Try { user: "ann", from: "192.0.2.2", guest: "g7" }, 0).unwrap();
    }

    #[test]
    fn a_user_under_attack_from_everywhere_enters_from_an_address_that_has_not_failed() {
        let mut failures = none();
        for i in 0..MOST_OF_USER {
            failures.begin(&of("ann", &format!("192.0.2.{i}")), 0).unwrap();
        }
        failures.begin(&of("ann", "192.0.2.0"), 1).unwrap_err();
        let home = of("ann", "198.51.100.1");
        failures.begin(&home, 1).unwrap();
        failures.succeed(&home, 2);
        failures.begin(&home, 3).unwrap();
        failures.begin(&home, 4).unwrap_err();
    }

    #[test]
    fn a_proxy_that_makes_up_addresses_gets_so_far_and_others_are_not_hurt() {
        let mut failures = none();
        let address = |i: u32| format!("10.0.{}.{}", i / 250, i % 250);
        for i in 0..MOST_OF_GUEST {
            failures.begin(&of("ann", &address(i)), 0).unwrap();
        }
        failures.begin(&of("ann", "192.0.2.1"), 0).unwrap_err();
        failures.begin(&Try { guest: "g2", ..of("ann", "192.0.2.1") }, 0).unwrap();
    }

    #[test]
    fn who_goes_from_guest_to_guest_gets_few_tries_more() {
        let mut failures = none();
        let looked_at = |failures: &mut Failures, guest| {
            (0..100).filter(|_| failures.begin(&Try { guest, ..of("ann", "192.0.2.1") }, 0).is_ok()).count()
        };
        let each = ["g1", "g2", "g3", "g4"].map(|guest| looked_at(&mut failures, guest));
        assert_eq!(each, [10, 5, 0, 0]);
    }

    #[test]
    fn one_guests_share_is_used_up_once_in_a_window_of_the_hosts() {
        let mut failures = none();
        let elsewhere = Try { guest: "g2", ..of("ann", "192.0.2.1") };
        failures.begin(&elsewhere, 0).unwrap();
        failures.begin(&of("ann", "192.0.2.1"), 500).unwrap();
        // The host's next window begins in the midst of this guest's.
        failures.begin(&elsewhere, 600).unwrap();
        for now in [610, 1110] {
            for _ in 0..20 {
                let _ = failures.begin(&of("ann", "192.0.2.1"), now);
            }
        }
        for _ in 0..4 {
            failures.begin(&elsewhere, 1111).unwrap();
        }
    }

    #[test]
    fn nobody_can_read_from_the_table_what_was_typed() {
        let mut failures = none();
        failures.begin(&of("my-password", "192.0.2.1"), 0).unwrap();
        let text = serde_json::to_string(&failures).unwrap();
        assert!(!text.contains("my-password") && !text.contains("192.0.2.1"), "{text}");
        assert_eq!(serde_json::from_str::<Failures>(&text).unwrap(), failures);
    }

    #[test]
    fn a_flood_of_made_up_users_does_not_throw_out_what_holds_an_attacker_back() {
        let mut failures = none();
        for _ in 0..MOST_OF_BOTH {
            failures.begin(&of("ann", "192.0.2.1"), 0).unwrap();
        }
        for i in 0..MOST_COUNTS / 12 {
            let (user, from) = (format!("u{i}"), format!("2001:db8:{i:x}::1"));
            let _ = failures.begin(&Try { guest: &format!("g{i}"), ..of(&user, &from) }, 1);
            assert!(failures.len() <= MOST_COUNTS);
        }
        failures.begin(&of("ann", "192.0.2.1"), 2).unwrap_err();
    }

    #[derive(Clone, Debug)]
    enum Event {
        Fails,
        Succeeds,
        Unknown,
        Later(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => Just(Event::Fails),
            1 => Just(Event::Succeeds),
            1 => Just(Event::Unknown),
            2 => (1..WINDOW).prop_map(Event::Later),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Whoever has a /48 changes addresses, users, and guests as they like.
        #[test]
        fn no_order_of_events_from_one_ipv6_network_gives_more_looks_than_its_limit(events in prop::collection::vec((0..4u32, 0..4u32, 0..3usize, 0..3usize, prop_oneof![30 => Just(0u64), 1 => 1..WINDOW], 0..8u8), 100..400)) {
            let (users, guests) = (["ann", "bob", "eve"], ["g1", "g2", "g3"]);
            let mut failures = none();
            let (mut now, mut looks) = (1000, Vec::new());
            for (site, part, user, guest, later, what) in events {
                now += later;
                let from = format!("2001:db8:0:{:x}::1", site * 256 + part);
                let a_try = Try { guest: guests[guest], ..of(users[user], &from) };
                if failures.begin(&a_try, now).is_err() {
                    continue;
                }
                match what {
                    0 => failures.succeed(&a_try, now),
                    1 => failures.take_back(&a_try, now),
                    _ => looks.push((now, site, part, user)),
                }
                let recent = |counts: &dyn Fn(u32, u32, usize) -> bool| {
                    let some = looks.iter().filter(|(when, ..)| now - when < WINDOW);
                    u32::try_from(some.filter(|(_, site, part, user)| counts(*site, *part, *user)).count()).unwrap()
                };
                // Two windows that touch allow twice as many, and never more, in the time of one.
                prop_assert!(recent(&|_, _, _| true) <= 2 * 4 * MOST_OF_ADDRESS);
                prop_assert!(recent(&|s, _, _| s == site) <= 2 * 2 * MOST_OF_ADDRESS);
                prop_assert!(recent(&|s, p, _| (s, p) == (site, part)) <= 2 * MOST_OF_ADDRESS);
                prop_assert!(recent(&|_, _, u| u == user) <= 2 * 4 * MOST_OF_BOTH);
                prop_assert!(recent(&|s, _, u| (s, u) == (site, user)) <= 2 * 2 * MOST_OF_BOTH);
            }
            for user in users {
                for from in ["2001:db8:1::1", "192.0.2.1"] {
                    prop_assert!(failures.clone().begin(&Try { guest: "g4", ..of(user, from) }, now).is_ok(), "others are not hurt");
                }
            }
        }
    }

    proptest! {
        /// Whatever happens and in whatever order, in one window no user is looked at more often than that from one
        /// address with a wrong password, unless the right one came between.
        #[test]
        fn no_order_of_events_gives_more_wrong_tries_than_allowed(events in prop::collection::vec((event(), 0..3usize, 0..3usize), 1..200)) {
            let (users, addresses) = (["ann", "bob", "eve"], ["192.0.2.1", "2001:db8::1", ""]);
            let mut failures = none();
            let mut now = 1000;
            let mut wrong: BTreeMap<(usize, usize), Vec<u64>> = BTreeMap::new();
            for (event, user, address) in events {
                let a_try = of(users[user], addresses[address]);
                let log = wrong.entry((user, address)).or_default();
                match event {
                    Event::Later(seconds) => now += seconds,
                    Event::Fails if failures.begin(&a_try, now).is_ok() => log.push(now),
                    Event::Succeeds if failures.begin(&a_try, now).is_ok() => {
                        failures.succeed(&a_try, now);
                        log.clear();
                    }
                    Event::Unknown if failures.begin(&a_try, now).is_ok() => failures.take_back(&a_try, now),
                    _ => {}
                }
                // Two windows that touch allow twice as many, and never more, in the time of one.
                let recent = log.iter().filter(|when| now - **when < WINDOW).count();
                prop_assert!(recent <= 2 * MOST_OF_BOTH as usize);
            }
        }

        /// A proxy that was taken over names whom it likes, and from where.
        #[test]
        fn whatever_one_guests_proxy_says_nobody_is_kept_out_at_another(mistake in 0..900u64, says in prop::collection::vec((0..3usize, 0..3usize, prop_oneof![9 => 0..2u64, 1 => 0..WINDOW]), 0..400)) {
            let (users, addresses) = (["ann", "bob", "eve"], ["192.0.2.1", "2001:db8::1", ""]);
            let mut failures = none();
            let (mut now, mut mistaken) = (0, false);
            for (user, address, later) in says {
                now += later;
                // Somebody's mistake elsewhere, from where the host's window begins.
                if now >= mistake && !mistaken {
                    mistaken = true;
                    for user in users {
                        let _ = failures.begin(&Try { guest: "g2", ..of(user, addresses[0]) }, now);
                    }
                }
                let _ = failures.begin(&of(users[user], addresses[address]), now);
            }
            for user in users {
                for from in addresses {
                    let elsewhere = Try { user, from, guest: "g2" };
                    let mut after = failures.clone();
                    for _ in 0..3 {
                        prop_assert!(after.begin(&elsewhere, now).is_ok(), "{elsewhere:?}");
                    }
                }
            }
        }

        /// What could not be found out leaves no trace.
        #[test]
        fn a_try_that_is_taken_back_changes_nothing(before in prop::collection::vec((0..3usize, 0..3usize, 0..2000u64), 0..40), user in 0..3usize, address in 0..3usize) {
            let (users, addresses) = (["ann", "bob", "eve"], ["192.0.2.1", "2001:db8::1", ""]);
            let mut failures = none();
            let mut now = 0;
            for (user, address, later) in before {
                now += later;
                let _ = failures.begin(&of(users[user], addresses[address]), now);
            }
            let a_try = of(users[user], addresses[address]);
            let mut after = failures.clone();
            if after.begin(&a_try, now).is_ok() {
                after.take_back(&a_try, now);
            }
            failures.counts.retain(|_, count| !count.is_over(now));
            after.counts.retain(|_, count| !count.is_over(now));
            prop_assert_eq!(after, failures);
        }

        /// A wait that is told is true: before its end the try is not looked at, after it, it is.
        #[test]
        fn who_waits_as_long_as_told_is_looked_at(times in prop::collection::vec(0..200u64, 5..30)) {
            let mut failures = none();
            let mut now = 0;
            for later in times {
                now += later;
                if let Err(wait) = failures.begin(&of("ann", "192.0.2.1"), now) {
                    prop_assert!((1..=WINDOW).contains(&wait));
                    prop_assert!(failures.clone().begin(&of("ann", "192.0.2.1"), now + wait - 1).is_err());
                    prop_assert!(failures.clone().begin(&of("ann", "192.0.2.1"), now + wait).is_ok());
                }
            }
        }
    }
}
