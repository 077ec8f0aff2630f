//! How much of a guest's room one person may take: seats at a console, and sessions. A person who arrives late is not
//! kept out by one who arrived early and took all.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::person::{Voucher, Who};
use super::ticket::Mode;

/// The most sessions of one person's for one guest.
pub const SESSIONS: usize = 16;

/// What tells clients apart: the ticket or session, and the name that the client gave itself.
pub type Client<'a> = (&'a str, Option<&'a str>);

/// A client at a console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat<'a> {
    /// The client.
    pub client: Client<'a>,
    /// The person who has it.
    pub who: &'a Who,
    /// Look on, or type.
    pub mode: Mode,
}

/// What becomes of a client that comes to a console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sitting<'a> {
    /// There is room.
    Room,
    /// This client makes room.
    Instead(Client<'a>),
    /// Their person has as many seats as one may.
    Share,
    /// There is none.
    Full,
}

/// Whether a client may sit down. `taken` has the seats of all sockets, the oldest first. Where all are taken, or all of
/// a person's share, who may type goes before who looks on (of the same person, there); else one goes of a person, or of
/// people of an issuer, who have two more than whoever comes. It is the newest.
#[must_use]
pub fn may_sit<'a>(taken: &[Seat<'a>], comes: &Seat<'_>, most: usize, share: usize) -> Sitting<'a> {
    let mut clients: Vec<Seat<'a>> = Vec::new();
    for seat in taken {
        if !clients.iter().any(|other| other.client == seat.client) {
            clients.push(*seat);
        }
    }
    if clients.iter().any(|seat| seat.client == comes.client) {
        return Sitting::Room;
    }
    let own = clients.iter().filter(|seat| seat.who == comes.who).count();
    // Those whom nobody tells apart are not one person.
    if own >= share && *comes.who != Who::Anyone {
        let mut own = clients.iter().rev().filter(|seat| seat.who == comes.who);
        let looker = own.find(|seat| seat.mode == Mode::View && comes.mode == Mode::Control);
        return looker.map_or(Sitting::Share, |seat| Sitting::Instead(seat.client));
    }
    if clients.len() < most {
        return Sitting::Room;
    }
    let lookers: Vec<_> = clients.iter().filter(|seat| seat.mode == Mode::View).copied().collect();
    let goes_first = comes.mode == Mode::Control && !lookers.is_empty();
    let candidates = if comes.mode == Mode::View || goes_first { &lookers } else { &clients };
    let of = |who: &Who| candidates.iter().filter(|seat| seat.who == who).count();
    let by = |who: &Who| clients.iter().filter(|seat| seat.who.voucher() == who.voucher()).count();
    let own_by = by(comes.who);
    let makes_room = |seat: &Seat<'_>| goes_first || of(seat.who) > own + 1 || by(seat.who) > own_by + 1;
    let candidates = candidates.iter().enumerate().filter(|(_, seat)| makes_room(seat));
    let newest = candidates.max_by_key(|(index, seat)| (of(seat.who), by(seat.who), *index));
    newest.map_or(Sitting::Full, |(_, seat)| Sitting::Instead(seat.client))
}

/// A session that counts.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a> {
    /// The person who has it.
    pub who: &'a Who,
    /// When it was used last, and when it began: the first is in seconds.
    pub last_used: (u64, u64),
    /// Whether a websocket of it is open.
    pub in_use: bool,
}

/// What becomes of somebody who wants one more session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// There is room.
    Room,
    /// The session at this index ends.
    Instead(usize),
    /// There is none.
    Full,
}

/// Whether somebody may have one more session. Beyond their share the one of theirs makes room that was not used for the
/// longest time; where the guest has `most`, one of whoever has two more than they, or of an issuer whose people have: an
/// issuer that makes up people keeps out nobody else's.
#[must_use]
pub fn may_keep(kept: &[Kept<'_>], comes: &Who, most: usize) -> Keeping {
    let (mut counts, mut by) = (BTreeMap::<&Who, usize>::new(), BTreeMap::<Voucher<'_>, usize>::new());
    for one in kept {
        *counts.entry(one.who).or_default() += 1;
        *by.entry(one.who.voucher()).or_default() += 1;
    }
    let own = counts.get(comes).copied().unwrap_or_default();
    let own_by = by.get(&comes.voucher()).copied().unwrap_or_default();
    let unused = kept.iter().enumerate().filter(|(_, one)| !one.in_use);
    let found = if own >= SESSIONS {
        unused.filter(|(_, one)| one.who == comes).min_by_key(|(_, one)| one.last_used)
    } else if kept.len() < most {
        return Keeping::Room;
    } else {
        let of = |one: &Kept<'_>| (counts[one.who], by[&one.who.voucher()]);
        let candidates = unused.filter(|(_, one)| of(one).0 > own + 1 || of(one).1 > own_by + 1);
        candidates.min_by_key(|(_, one)| (Reverse(of(one)), one.last_used))
    };
    found.map_or(Keeping::Full, |(index, _)| Keeping::Instead(index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAMES: [&str; 20] =
        ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17", "18", "19"];

    fn user(name: &str) -> Who {
        Who::User(name.into())
    }

    fn seat(who: &Who, mode: Mode, n: usize) -> Seat<'_> {
        Seat { client: ("ticket", Some(NAMES[n])), who, mode }
    }

    #[test]
    fn who_may_type_goes_before_who_looks_on_and_of_those_the_newest_makes_room() {
        let (ann, bob, root) = (user("ann"), user("bob"), Who::bearer("host", "root"));
        let of_ann: Vec<_> = (0..3).map(|n| seat(&ann, Mode::View, n)).collect();
        let of_bob = seat(&bob, Mode::View, 3);
        let (types, looks) = (seat(&root, Mode::Control, 9), seat(&root, Mode::View, 9));
        let taken = [&of_ann[..], &[of_bob, of_ann[0]]].concat();
        assert_eq!(may_sit(&taken, &types, 5, 4), Sitting::Room);
        assert_eq!(may_sit(&taken, &types, 4, 4), Sitting::Instead(of_ann[2].client), "whoever has the most");
        assert_eq!(
            may_sit(&[of_ann[0], of_bob], &types, 2, 4),
            Sitting::Instead(of_bob.client),
            "of equals the newest"
        );
        assert_eq!(may_sit(&taken, &looks, 4, 4), Sitting::Instead(of_ann[2].client), "who has none comes in, too");
        assert_eq!(may_sit(&taken, &seat(&bob, Mode::View, 9), 4, 4), Sitting::Instead(of_ann[2].client));
        let fewer = [&of_ann[..2], &[of_bob]].concat();
        assert_eq!(may_sit(&fewer, &seat(&bob, Mode::View, 9), 3, 4), Sitting::Full, "two is not two more than one");
        assert_eq!(may_sit(&taken, &seat(&ann, Mode::View, 9), 4, 3), Sitting::Share);
        assert_eq!(may_sit(&taken, &seat(&ann, Mode::View, 1), 4, 3), Sitting::Room, "a client's further sockets");
    }

    #[test]
    fn who_types_makes_room_only_for_others_who_do_and_have_less() {
        let (ann, root, same_name) = (user("ann"), user("root"), Who::bearer("panel", "root"));
        let taken: Vec<_> = (0..4).map(|n| seat(&root, Mode::Control, n)).collect();
        assert_eq!(may_sit(&taken, &seat(&ann, Mode::View, 9), 4, 4), Sitting::Full);
        assert_eq!(may_sit(&taken, &seat(&ann, Mode::Control, 9), 4, 4), Sitting::Instead(taken[3].client));
        assert_eq!(may_sit(&taken[..2], &seat(&root, Mode::Control, 9), 2, 4), Sitting::Full);
        assert_eq!(may_sit(&taken, &seat(&same_name, Mode::Control, 9), 9, 4), Sitting::Room, "somebody else");
    }

    #[test]
    fn within_a_persons_own_share_too_who_may_type_goes_before_who_looks_on() {
        let panel = Who::bearer("panel", "everybody");
        let taken: Vec<_> = (0..3).map(|n| seat(&panel, Mode::View, n)).collect();
        let typing = seat(&panel, Mode::Control, 3);
        assert_eq!(may_sit(&taken, &seat(&panel, Mode::View, 9), 9, 3), Sitting::Share);
        assert_eq!(may_sit(&taken, &seat(&panel, Mode::Control, 9), 9, 3), Sitting::Instead(taken[2].client));
        assert_eq!(may_sit(&[typing; 1], &seat(&panel, Mode::Control, 9), 9, 1), Sitting::Share);
    }

    #[test]
    fn an_issuer_that_makes_up_people_keeps_out_nobody_elses() {
        let made_up: Vec<_> = NAMES.iter().map(|name| Who::bearer("narrow", name)).collect();
        let (ann, root) = (user("ann"), Who::bearer("host", "root"));
        let kept: Vec<_> =
            made_up.iter().enumerate().map(|(n, who)| Kept { who, last_used: (n as u64, 0), in_use: false }).collect();
        for comes in [&ann, &root] {
            assert_eq!(may_keep(&kept, comes, 20), Keeping::Instead(0), "{comes:?}");
        }
        assert_eq!(may_keep(&kept, &Who::bearer("narrow", "one more"), 20), Keeping::Full);
        let taken: Vec<_> = made_up.iter().enumerate().map(|(n, who)| seat(who, Mode::View, n)).collect();
        let ann_looks = Seat { client: ("ann's", None), who: &ann, mode: Mode::View };
        assert_eq!(may_sit(&taken, &ann_looks, 20, 8), Sitting::Instead(taken[19].client));
    }

    #[test]
    fn those_whom_nobody_tells_apart_have_no_share() {
        let taken: Vec<_> = (0..3).map(|n| seat(&Who::Anyone, Mode::Control, n)).collect();
        assert_eq!(may_sit(&taken, &seat(&Who::Anyone, Mode::Control, 9), 4, 2), Sitting::Room);
        assert_eq!(may_sit(&taken, &seat(&Who::Anyone, Mode::Control, 9), 3, 2), Sitting::Full);
    }

    #[test]
    fn a_persons_session_beyond_their_share_ends_the_one_that_was_not_used_for_the_longest_time() {
        let (ann, bob) = (user("ann"), user("bob"));
        let one = |who, last_used, in_use| Kept { who, last_used: (last_used, 0), in_use };
        let mut kept: Vec<_> = (0..16u64).map(|n| one(&ann, 100 - n, n == 15)).collect();
        kept.push(one(&bob, 0, false));
        assert_eq!(may_keep(&kept, &ann, 256), Keeping::Instead(14), "one in use stays");
        assert_eq!(may_keep(&kept, &bob, 256), Keeping::Room);
        let used: Vec<_> = (0..16).map(|_| one(&ann, 0, true)).collect();
        assert_eq!(may_keep(&used, &ann, 256), Keeping::Full);
    }

    proptest! {
        #[test]
        fn full_or_not_nobody_who_has_no_session_is_kept_out_while_one_has_two_unused(
            sessions in prop::collection::vec((0..5usize, 0..100u64, any::<bool>()), 0..60), comes in 0..6usize
        ) {
            let people: Vec<_> = NAMES.iter().map(|name| user(name)).collect();
            let kept: Vec<_> = sessions.iter().map(|(n, last_used, in_use)| Kept { who: &people[*n], last_used: (*last_used, 0), in_use: *in_use }).collect();
            let of = |who: &Who| kept.iter().filter(|one| one.who == who).count();
            let own = of(&people[comes]);
            match may_keep(&kept, &people[comes], 40) {
                Keeping::Room => prop_assert!(kept.len() < 40 && own < SESSIONS),
                Keeping::Instead(index) => {
                    let goes = kept[index];
                    prop_assert!(!goes.in_use);
                    prop_assert!((own >= SESSIONS && *goes.who == people[comes]) || of(goes.who) > own + 1);
                }
                Keeping::Full => {
                    let unused = kept.iter().filter(|one| !one.in_use);
                    prop_assert!(!unused.clone().any(|one| own >= SESSIONS && *one.who == people[comes]));
                    prop_assert!(own >= SESSIONS || !unused.clone().any(|one| of(one.who) > own + 1));
                }
            }
        }
    }
}
