//! What an administrator has ended: a list of orders, each about what began before it. Kicked out: sessions and open
//! consoles, of which nothing is left. Revoked: tickets, too.

use serde::{Deserialize, Serialize};

use super::guest::Uuid;
use super::session::Session;
use super::ticket::{Claims, HOST, LEEWAY};

/// The most orders that are kept.
pub const MOST: usize = 4096;

/// One order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Order {
    /// When it was given, milliseconds since 1970.
    pub at: u64,
    /// What it is about.
    pub whose: Whose,
}

/// What an order is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Whose {
    /// Sessions and consoles of a guest: all, one person's, or one.
    Kick {
        /// The guest.
        guest: Uuid,
        /// The person; absent: everybody.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        person: Option<String>,
        /// The first digits of a session's name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<String>,
    },
    /// Everything that a person has on this host: sessions, consoles, tickets.
    Person(String),
    /// A ticket, by its `jti`, and what it bought; of one issuer, or of any.
    Ticket {
        /// Its `jti`.
        jti: String,
        /// Its issuer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        issuer: Option<String>,
    },
}

/// What may have been ended.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The person.
    pub person: &'a str,
    /// The ticket that it came with or was bought with: issuer and `jti`.
    pub ticket: Option<(&'a str, &'a str)>,
    /// The session's name, where it is or belongs to one.
    pub session: Option<&'a str>,
    /// When it began, milliseconds since 1970. Of a ticket: when it may have been made at the earliest, so that one
    /// of the same second counts as earlier.
    pub began: u64,
    /// Whether it is a ticket by itself: that one can be revoked, not kicked out.
    pub is_ticket: bool,
}

impl<'a> Subject<'a> {
    /// A ticket by itself.
    #[must_use]
    pub fn of_ticket(claims: &'a Claims) -> Self {
        let ticket = Some((claims.iss.as_str(), claims.jti.as_str()));
        // Another issuer's clock may be ahead of this host's, by as much as a ticket is taken with.
        let ahead = if claims.iss == HOST { 0 } else { LEEWAY };
        let began = claims.iat.saturating_sub(ahead).saturating_mul(1000);
        Self { person: &claims.sub, ticket, session: None, began, is_ticket: true }
    }

    /// A session, by its name.
    #[must_use]
    pub fn of_session(id: &'a str, session: &'a Session) -> Self {
        let ticket = session.ticket();
        Self { person: &session.sub, ticket, session: Some(id), began: session.began, is_ticket: false }
    }
}

/// The orders in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Orders {
    /// Oldest first.
    pub orders: Vec<Order>,
}

impl Orders {
    /// Why something has ended, in words; `None` where it has not.
    #[must_use]
    pub fn ended(&self, guest: &Uuid, subject: &Subject<'_>) -> Option<&'static str> {
        self.orders.iter().find_map(|order| order.ends(guest, subject))
    }

    /// Adds one. Those are dropped that end nothing any more: what they are about has ended by its age `life` (ms).
    /// `false`: there are [`MOST`] already.
    pub fn add(&mut self, order: Order, life: u64) -> bool {
        let now = order.at;
        // An older one about the same ends nothing that this one does not.
        self.orders.retain(|old| old.at.saturating_add(life) > now && old.whose != order.whose);
        if self.orders.len() >= MOST {
            return false;
        }
        self.orders.push(order);
        true
    }
}

impl Order {
    fn ends(&self, guest: &Uuid, subject: &Subject<'_>) -> Option<&'static str> {
        let earlier = subject.began <= self.at;
        match &self.whose {
            Whose::Kick { guest: of, person, session } => {
                let one = person.as_deref().is_none_or(|person| person == subject.person)
                    && session.as_deref().is_none_or(|start| subject.session.is_some_and(|id| id.starts_with(start)));
                (of == guest && one && earlier && !subject.is_ticket).then_some("the administrator ended the session")
            }
            Whose::Person(person) => {
                (person == subject.person && earlier).then_some("what this person had was revoked")
            }
            Whose::Ticket { jti, issuer } => {
                let one = subject
                    .ticket
                    .is_some_and(|(iss, id)| id == jti && issuer.as_deref().is_none_or(|issuer| issuer == iss));
                one.then_some("the ticket was revoked")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(n: u32) -> Uuid {
        format!("{n:08x}-0000-4000-8000-000000000000").parse().unwrap()
    }

    const SESSION: Subject<'_> =
        Subject { person: "ann", ticket: Some(("host", "j1")), session: Some("abcd"), began: 1000, is_ticket: false };
    const TICKET: Subject<'_> = Subject { session: None, is_ticket: true, ..SESSION };

    fn ends(whose: Whose, at: u64, subject: &Subject<'_>) -> bool {
        let orders = Orders { orders: vec![Order { at, whose }] };
        orders.ended(&guest(1), subject).is_some()
    }

    #[test]
    fn who_is_kicked_out_may_come_back_and_others_stay() {
        let kick = |n, person: Option<&str>, session: Option<&str>| Whose::Kick {
            guest: guest(n),
            person: person.map(str::to_owned),
            session: session.map(str::to_owned),
        };
        assert!(ends(kick(1, None, None), 1000, &SESSION));
        assert!(ends(kick(1, Some("ann"), Some("ab")), 1001, &SESSION));
        for (whose, at) in [
            (kick(2, None, None), 1001),
            (kick(1, Some("bob"), None), 1001),
            (kick(1, None, Some("b")), 1001),
            (kick(1, None, None), 999),
        ] {
            assert!(!ends(whose.clone(), at, &SESSION), "{whose:?} {at}");
        }
        assert!(!ends(kick(1, None, None), 2000, &TICKET), "that is to be revoked");
        assert!(!ends(kick(1, None, Some("ab")), 2000, &Subject { session: None, ..SESSION }));
    }

    #[test]
    fn a_revoked_person_has_lost_what_they_had_and_not_what_they_get_later() {
        let ann = || Whose::Person("ann".into());
        assert!(ends(ann(), 1000, &SESSION) && ends(ann(), 1000, &TICKET));
        assert!(!ends(ann(), 999, &SESSION) && !ends(ann(), 1000, &Subject { person: "bob", ..SESSION }));
        assert!(ends(ann(), 1700, &TICKET), "made in the same second, perhaps before");
        assert!(!ends(ann(), 1700, &Subject { began: 2000, ..TICKET }));
    }

    #[test]
    fn a_ticket_of_an_issuer_whose_clock_is_ahead_was_not_made_after_the_order() {
        let claims = |iss: &str| Claims {
            iss: iss.into(),
            aud: String::new(),
            sub: "ann".into(),
            guest: guest(1),
            consoles: Vec::new(),
            mode: crate::rules::ticket::Mode::View,
            iat: 1005,
            nbf: 1005,
            exp: 1065,
            jti: "j1".into(),
        };
        let revoked = |iss| ends(Whose::Person("ann".into()), 1_000_500, &Subject::of_ticket(&claims(iss)));
        assert!(revoked("panel") && !revoked("host"));
    }

    #[test]
    fn a_revoked_ticket_ends_what_it_bought_whenever() {
        let ticket =
            |jti: &str, issuer: Option<&str>| Whose::Ticket { jti: jti.into(), issuer: issuer.map(str::to_owned) };
        for subject in [&SESSION, &TICKET] {
            assert!(ends(ticket("j1", None), 0, subject) && ends(ticket("j1", Some("host")), 0, subject));
            assert!(!ends(ticket("j1", Some("panel")), 9000, subject) && !ends(ticket("j2", None), 9000, subject));
        }
        assert!(!ends(ticket("j1", None), 9000, &Subject { ticket: None, ..SESSION }));
    }

    #[test]
    fn old_orders_make_room_and_there_is_an_end_to_it() {
        let mut orders = Orders::default();
        let order = |at| Order { at, whose: Whose::Person(format!("x{at}")) };
        for at in 0..MOST as u64 {
            assert!(orders.add(order(at), 1_000_000));
        }
        assert!(!orders.add(order(5000), 1_000_000));
        let again = Order { at: 5000, whose: Whose::Person("x7".into()) };
        assert!(orders.add(again.clone(), 1_000_000), "what is ordered again takes no more room");
        assert_eq!((orders.orders.len(), orders.orders.last()), (MOST, Some(&again)));
        assert!(orders.add(order(5000), 1000));
        assert_eq!((orders.orders[0].at, orders.orders.len()), (4001, MOST - 4001 + 2));
        let text = serde_json::to_string(&orders).unwrap();
        assert_eq!(serde_json::from_str::<Orders>(&text).unwrap(), orders);
    }
}
