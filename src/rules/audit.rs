//! What the journal is told of refusals, so that a stranger can neither fill it nor hide in it: of each address ten a
//! minute one by one, of an IPv6 network around it twice or four times as many, and how many more there were when the
//! minute is over. The state is bounded: networks beyond the first [`MOST`] are counted together. Knows no clock: times
//! are counted from any moment.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::guest::printable;
use super::source::Network;

/// So many refusals of an address are told one by one, each minute; of a wider network its [`Network::times`].
pub const SINGLE: u32 = 10;
/// For so long a network's refusals are counted together.
pub const WINDOW: Duration = Duration::from_secs(60);
/// So many networks are told apart at a time.
pub const MOST: usize = 256;
/// The most characters of a text from outside in the journal.
pub const LONGEST: usize = 200;

/// Why somebody was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// A wrong user or password.
    Password,
    /// A ticket that does not count (any more).
    Ticket,
    /// A session's cookie that does not count (any more).
    Session,
    /// A page of another site.
    Origin,
    /// Known, and without a right to that.
    Right,
    /// Too many of something.
    Limit,
}

impl Reason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] = [Self::Password, Self::Ticket, Self::Session, Self::Origin, Self::Right, Self::Limit];

    /// Its word in the journal, which others rely on.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Ticket => "ticket",
            Self::Session => "session",
            Self::Origin => "origin",
            Self::Right => "right",
            Self::Limit => "limit",
        }
    }
}

/// One line for the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The refusal at hand.
    This,
    /// How many were not told in a minute that is over.
    More(More),
}

/// Refusals that were not told one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct More {
    /// Whose; `None` where many networks were counted together.
    pub from: Option<Network>,
    /// How many for each reason, in the order of [`Reason::ALL`].
    counts: [u32; Reason::ALL.len()],
}

impl More {
    /// How many in all.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }

    /// Of what kind: `30 password, 7 ticket`.
    #[must_use]
    pub fn kinds(&self) -> String {
        let some = Reason::ALL.iter().zip(self.counts).filter(|(_, count)| *count > 0);
        some.map(|(reason, count)| format!("{count} {}", reason.word())).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for More {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from {
            Some(network) => write!(f, "{network}"),
            None => f.write_str("other addresses"),
        }
    }
}

/// What is known of one network's minute.
#[derive(Debug)]
struct Minute {
    began: Duration,
    told: u32,
    more: [u32; Reason::ALL.len()],
}

impl Minute {
    fn at(now: Duration) -> Self {
        Self { began: now, told: 0, more: [0; Reason::ALL.len()] }
    }

    fn ends(&self) -> Duration {
        self.began + WINDOW
    }

    fn has_more(&self) -> bool {
        self.more.iter().any(|count| *count > 0)
    }

    /// Counts one that is not told by itself.
    fn count(&mut self, reason: Reason) {
        let counter = &mut self.more[reason as usize];
        *counter = counter.saturating_add(1);
    }

    fn tell(&self, from: Option<Network>) -> Option<Line> {
        self.has_more().then_some(Line::More(More { from, counts: self.more }))
    }
}

/// The refusals of the last minute.
#[derive(Debug, Default)]
pub struct Gathering {
    known: BTreeMap<Network, Minute>,
    others: Option<Minute>,
}

impl Gathering {
    /// Somebody was refused: what the journal is to be told now.
    pub fn refused(&mut self, from: Network, reason: Reason, now: Duration) -> Vec<Line> {
        let mut lines = self.over(now);
        if self.count(from, reason, now) {
            lines.push(Line::This);
        }
        lines
    }

    /// Counts one; whether it is to be told by itself.
    fn count(&mut self, from: Network, reason: Reason, now: Duration) -> bool {
        let most = |network: Network| SINGLE * network.times();
        let known = &mut self.known;
        // Where networks have used up their lines, the refusal is counted for the narrowest of them, which says most.
        let is_full = |network: &Network| known.get(network).is_some_and(|minute| minute.told >= most(*network));
        if let Some(minute) = from.all().find(is_full).and_then(|network| known.get_mut(&network)) {
            minute.count(reason);
            return false;
        }
        let new = from.all().filter(|network| !known.contains_key(network)).count();
        if known.len() + new <= MOST {
            for network in from.all() {
                known.entry(network).or_insert_with(|| Minute::at(now)).told += 1;
            }
            return true;
        }
        let others = self.others.get_or_insert_with(|| Minute::at(now));
        if others.told < SINGLE {
            others.told += 1;
            return true;
        }
        others.count(reason);
        false
    }

    /// When [`Self::over`] has something to tell next, if ever.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.known.values().chain(&self.others).filter(|minute| minute.has_more()).map(Minute::ends).min()
    }

    /// What is to be told of minutes that are over; they are forgotten.
    pub fn over(&mut self, now: Duration) -> Vec<Line> {
        self.forget(|minute| minute.ends() <= now)
    }

    /// What is to be told at the end, whether a minute is over or not.
    pub fn rest(&mut self) -> Vec<Line> {
        self.forget(|_| true)
    }

    fn forget(&mut self, mut is_over: impl FnMut(&Minute) -> bool) -> Vec<Line> {
        let mut lines = Vec::new();
        self.known.retain(|from, minute| {
            let is_over = is_over(minute);
            lines.extend(minute.tell(Some(*from)).filter(|_| is_over));
            !is_over
        });
        lines.extend(self.others.take_if(|minute| is_over(minute)).and_then(|minute| minute.tell(None)));
        lines
    }
}

/// A text from outside as it stands in the journal: fit for a line, and not without end.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut cut: String = text.chars().take(LONGEST).collect();
    if cut.len() < text.len() {
        cut.push_str("...");
    }
    printable(&cut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn source(n: u32) -> Network {
        Network::V4(n.into())
    }

    fn more(line: &Line) -> (String, u64, String) {
        let Line::More(more) = line else { panic!("{line:?}") };
        (more.to_string(), more.count(), more.kinds())
    }

    #[test]
    fn ten_a_minute_are_told_one_by_one_and_then_how_many_more_there_were() {
        let mut gathering = Gathering::default();
        for n in 0..10 {
            assert_eq!(gathering.refused(source(1), Reason::Ticket, n * SECOND), [Line::This], "{n}");
        }
        assert_eq!(gathering.due(), None, "nothing was left out");
        for n in 10..17 {
            assert_eq!(gathering.refused(source(1), Reason::Password, n * SECOND), [], "{n}");
        }
        assert_eq!(gathering.refused(source(1), Reason::Origin, 18 * SECOND), []);
        assert_eq!(gathering.refused(source(2), Reason::Ticket, 18 * SECOND), [Line::This], "somebody else");
        assert_eq!((gathering.due(), gathering.over(59 * SECOND)), (Some(WINDOW), vec![]));
        let lines = gathering.over(WINDOW);
        assert_eq!(more(&lines[0]), ("0.0.0.1".into(), 8, "7 password, 1 origin".into()));
        assert_eq!((lines.len(), gathering.due()), (1, None));
        assert_eq!(gathering.refused(source(1), Reason::Ticket, WINDOW), [Line::This], "the next minute");
    }

    #[test]
    fn who_is_refused_after_his_minute_has_what_was_left_out_told_first() {
        let mut gathering = Gathering::default();
        for _ in 0..12 {
            gathering.refused(source(1), Reason::Limit, Duration::ZERO);
        }
        let lines = gathering.refused(source(1), Reason::Right, 2 * WINDOW);
        assert_eq!(more(&lines[0]), ("0.0.0.1".into(), 2, "2 limit".into()));
        assert_eq!(lines[1..], [Line::This]);
    }

    #[test]
    fn more_addresses_than_are_kept_are_counted_together() {
        let mut gathering = Gathering::default();
        for n in 0..100_000 {
            gathering.refused(source(n), Reason::Ticket, Duration::ZERO);
        }
        assert_eq!(gathering.known.len(), MOST);
        let lines = gathering.rest();
        let left_out = 100_000 - MOST as u64 - u64::from(SINGLE);
        assert_eq!(more(&lines[0]), ("other addresses".into(), left_out, format!("{left_out} ticket")));
        assert_eq!(lines.len(), 1);
        assert!(gathering.known.is_empty() && gathering.others.is_none());
    }

    #[test]
    fn of_an_ipv6_network_as_many_lines_are_told_as_its_width_allows_and_the_rest_in_one() {
        let address = |n: u64| Network::V6(0x2001_0db8_0000_0000 + n, 64);
        for (step, told, network) in [(1, 20, "2001:db8::/56"), (256, 40, "2001:db8::/48")] {
            let mut gathering = Gathering::default();
            let lines = (0..250).flat_map(|n| gathering.refused(address(n * step), Reason::Password, Duration::ZERO));
            assert_eq!(lines.collect::<Vec<_>>(), vec![Line::This; told]);
            assert_eq!(gathering.refused(source(1), Reason::Ticket, Duration::ZERO), [Line::This], "others are told");
            let lines = gathering.rest();
            assert_eq!(
                lines.iter().map(more).collect::<Vec<_>>(),
                [(network.into(), 250 - told as u64, format!("{} password", 250 - told))]
            );
        }
        let mut gathering = Gathering::default();
        for _ in 0..15 {
            gathering.refused(address(0), Reason::Ticket, Duration::ZERO);
        }
        assert_eq!(
            more(&gathering.rest()[0]),
            ("2001:db8::/64".into(), 5, "5 ticket".into()),
            "the narrowest is named"
        );
    }

    #[test]
    fn a_text_from_outside_is_one_line_and_cut() {
        assert_eq!(plain("ann\nrefused 192.0.2.9: ticket"), "ann\u{fffd}refused 192.0.2.9: ticket");
        assert_eq!(plain(&"é".repeat(LONGEST)), "é".repeat(LONGEST));
        assert_eq!(plain(&"é".repeat(10_000)), "é".repeat(LONGEST) + "...");
    }

    #[test]
    fn each_reason_stands_at_its_number() {
        for (n, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, n);
        }
    }

    proptest! {
        #[test]
        fn every_refusal_is_told_or_counted_once_and_the_lines_are_bounded(
            refusals in proptest::collection::vec((0u32..2 * MOST as u32, 0usize..6, 0u64..2000), 0..1500)
        ) {
            let mut gathering = Gathering::default();
            let (mut now, mut told, mut counted, mut lines) = (Duration::ZERO, 0, 0, 0);
            let mut tell = |some: Vec<Line>| {
                lines += some.len() as u64;
                for line in some {
                    match line {
                        Line::This => told += 1,
                        Line::More(more) => counted += more.count(),
                    }
                }
            };
            for (n, reason, pause) in &refusals {
                now += Duration::from_millis(*pause);
                let from = if n % 3 == 0 { Network::V6(u64::from(*n) << 6, 64) } else { source(*n) };
                tell(gathering.refused(from, Reason::ALL[*reason], now));
                prop_assert!(gathering.known.len() <= MOST);
                prop_assert!(gathering.due().is_none_or(|due| due > now));
            }
            tell(gathering.rest());
            prop_assert_eq!(told + counted, refusals.len() as u64);
            let minutes = now.as_secs() / 60 + 2;
            prop_assert!(lines <= minutes * (MOST as u64 + 1) * (u64::from(SINGLE) + 1));
        }

        #[test]
        fn of_one_address_at_most_ten_are_told_in_each_of_its_minutes(pauses in proptest::collection::vec(0u64..30_000, 0..500)) {
            let mut gathering = Gathering::default();
            let (mut now, mut began, mut told) = (Duration::ZERO, None, 0);
            for pause in pauses {
                now += Duration::from_millis(pause);
                if began.is_none_or(|began| now >= began + WINDOW) {
                    (began, told) = (Some(now), 0);
                }
                let is_told = gathering.refused(source(1), Reason::Ticket, now).contains(&Line::This);
                told += u32::from(is_told);
                prop_assert!(told <= SINGLE && (is_told || told == SINGLE));
            }
        }
    }
}
