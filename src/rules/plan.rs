//! What sync has to do so that sockets and drop-ins equal the routes. Pure: states in, a plan out.

use std::collections::BTreeMap;

use super::guest::{Uuid, printable};

/// Whether a socket listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Active {
    /// It listens, or its service runs.
    Yes,
    /// It does not.
    No,
    /// It could not.
    Failed,
    /// It is starting or stopping.
    Changing,
}

/// A loaded socket unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Whether it listens.
    pub active: Active,
}

/// What a published guest's socket should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The guest's name; any text.
    pub name: String,
    /// Where to listen: a port, or `ADDRESS:PORT`.
    pub listen: String,
    /// The path of the socket that a reverse proxy connects to, where there is to be one.
    pub front: Option<String>,
}

/// What is to be done, phase by phase, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Sockets of guests that are published no longer, or that listen at another place.
    pub stop: Vec<Uuid>,
    /// Drop-ins to write.
    pub write: Vec<(Uuid, String)>,
    /// Units that are loaded have a new drop-in.
    pub reload: bool,
    /// Sockets that failed before.
    pub reset: Vec<Uuid>,
    /// Sockets to start.
    pub start: Vec<Uuid>,
}

/// The drop-in of a guest's socket.
#[must_use]
pub fn drop_in(wanted: &Wanted) -> String {
    let template = include_str!("../../templates/50-listen.conf");
    let text = template.replace("@LISTEN@", &wanted.listen).replace("@NAME@", &unit_text(&wanted.name));
    let front = wanted.front.as_ref().map(|path| FRONT.replace("@FRONT@", &unit_text(path)));
    text + front.as_deref().unwrap_or_default()
}

/// What a drop-in has besides, for a reverse proxy.
const FRONT: &str = include_str!("../../templates/50-listen-front.conf");

/// The drop-in of a guest's proxy: a user of its own.
///
/// Left to itself, `DynamicUser=` names the user after the unit's prefix, which all guests share
/// (systemd, `user_from_unit_name`; seen: 252). A user's name has at most 31 characters, so it takes
/// 28 of the UUID's 32 digits.
#[must_use]
pub fn user_drop_in(uuid: &Uuid) -> String {
    let digits: String = uuid.as_str().chars().filter(|c| *c != '-').take(28).collect();
    format!("# Written by console-proxy: each guest's proxy is a user of its own.\n[Service]\nUser=cp-{digits}\n")
}

/// A text for a unit file: no specifier, no continued line, no line of its own.
fn unit_text(text: &str) -> String {
    printable(text).replace('%', "%%").replace('\\', "/")
}

/// Where a drop-in says to listen: the port, and the front socket where it has one.
fn listens_at(drop_in: &str) -> Vec<&str> {
    drop_in.lines().filter_map(|line| line.strip_prefix("ListenStream=")).filter(|place| !place.is_empty()).collect()
}

impl Wanted {
    /// As a drop-in has it already: for when the configuration, which would say it anew, cannot be read.
    #[must_use]
    pub fn as_it_is(name: String, drop_in: &str) -> Option<Self> {
        let mut places = listens_at(drop_in).into_iter().map(str::to_owned);
        Some(Self { name, listen: places.next()?, front: places.next() })
    }
}

/// Makes the plan from what should be, which units are loaded, and which drop-ins there are.
#[must_use]
pub fn plan(wanted: &BTreeMap<Uuid, Wanted>, units: &BTreeMap<Uuid, Unit>, drop_ins: &BTreeMap<Uuid, String>) -> Plan {
    let mut plan = Plan::default();
    for (uuid, wanted) in wanted {
        let text = drop_in(wanted);
        let (unit, old) = (units.get(uuid), drop_ins.get(uuid));
        let moved = old.is_some_and(|old| listens_at(old) != listens_at(&text));
        let renamed = old.is_some_and(|old| *old != text) && !moved;
        // A loaded unit keeps what it was loaded with: its drop-in changes for a new port alone, and
        // then with a reload. A new name waits until the unit is not loaded.
        if old.is_none() || moved || (renamed && unit.is_none()) {
            plan.write.push((uuid.clone(), text));
            plan.reload |= unit.is_some();
        }
        match unit.map(|unit| unit.active) {
            Some(Active::Yes) if !moved => continue,
            Some(Active::Yes | Active::Changing) if moved => plan.stop.push(uuid.clone()),
            Some(Active::Failed) => plan.reset.push(uuid.clone()),
            _ => {}
        }
        plan.start.push(uuid.clone());
    }
    for (uuid, unit) in units.iter().filter(|(uuid, _)| !wanted.contains_key(*uuid)) {
        match unit.active {
            Active::Yes | Active::Changing => plan.stop.push(uuid.clone()),
            Active::Failed => plan.reset.push(uuid.clone()),
            Active::No => {}
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn uuid(n: u32) -> Uuid {
        format!("{n:08x}-0000-4000-8000-000000000000").parse().unwrap()
    }

    fn wanted(port: u16) -> Wanted {
        Wanted { name: "g".into(), listen: port.to_string(), front: None }
    }

    fn fronted(port: u16) -> Wanted {
        Wanted { front: Some("/run/console-proxy/front/g.sock".into()), ..wanted(port) }
    }

    fn loaded(active: Active) -> BTreeMap<Uuid, Unit> {
        BTreeMap::from([(uuid(1), Unit { active })])
    }

    #[test]
    fn a_drop_in_holds_the_port_and_a_name_that_cannot_break_out() {
        let text = drop_in(&Wanted { name: "a%n\nListenStream=1\\".into(), ..wanted(23000) });
        assert!(text.contains("\nListenStream=23000\n"), "{text}");
        assert!(text.contains("a%%n\u{fffd}ListenStream=1/"), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("ListenStream=")).count(), 1);
    }

    #[test]
    fn a_proxys_user_has_a_name_that_systemd_takes() {
        let text = user_drop_in(&uuid(0x1234));
        let name = text.lines().find_map(|line| line.strip_prefix("User=")).unwrap();
        assert_eq!((name, name.len()), ("cp-0000123400004000800000000000", 31));
    }

    #[test]
    fn each_state_gets_what_it_needs_and_no_more() {
        let want = BTreeMap::from([(uuid(1), wanted(1))]);
        let have = BTreeMap::from([(uuid(1), drop_in(&wanted(1)))]);
        let other = BTreeMap::from([(uuid(1), drop_in(&wanted(2)))]);
        let none = BTreeMap::new();
        let one = || vec![uuid(1)];
        let write = || vec![(uuid(1), drop_in(&wanted(1)))];

        assert_eq!(plan(&want, &loaded(Active::Yes), &have), Plan::default());
        assert_eq!(plan(&want, &BTreeMap::new(), &none), Plan { write: write(), start: one(), ..Plan::default() });
        assert_eq!(plan(&want, &BTreeMap::new(), &have), Plan { start: one(), ..Plan::default() });
        assert_eq!(plan(&want, &loaded(Active::Failed), &have), Plan { reset: one(), start: one(), ..Plan::default() });
        assert_eq!(plan(&want, &loaded(Active::Changing), &have), Plan { start: one(), ..Plan::default() });
        assert_eq!(
            plan(&want, &loaded(Active::Yes), &other),
            Plan { stop: one(), write: write(), reload: true, start: one(), ..Plan::default() }
        );
        assert_eq!(
            plan(&want, &loaded(Active::No), &none),
            Plan { write: write(), reload: true, start: one(), ..Plan::default() }
        );
        assert_eq!(plan(&BTreeMap::new(), &loaded(Active::Yes), &have), Plan { stop: one(), ..Plan::default() });
        assert_eq!(plan(&BTreeMap::new(), &loaded(Active::Failed), &have), Plan { reset: one(), ..Plan::default() });
        assert_eq!(plan(&BTreeMap::new(), &loaded(Active::No), &have), Plan::default());
    }

    #[test]
    fn a_renamed_guest_keeps_its_drop_in_while_the_unit_is_loaded() {
        let want = BTreeMap::from([(uuid(1), Wanted { name: "new".into(), ..wanted(1) })]);
        let have = BTreeMap::from([(uuid(1), drop_in(&wanted(1)))]);
        assert_eq!(plan(&want, &loaded(Active::Yes), &have), Plan::default());
        assert_eq!(plan(&want, &BTreeMap::new(), &have).write.len(), 1);
    }

    #[test]
    fn a_front_socket_is_for_the_group_alone_and_coming_or_going_moves_the_guest() {
        let text = drop_in(&fronted(1));
        assert_eq!(listens_at(&text), ["1", "/run/console-proxy/front/g.sock"]);
        for line in ["SocketMode=0660", "SocketGroup=console-proxy-front", "RemoveOnStop=yes"] {
            assert!(text.lines().any(|other| other == line), "{line} in {text}");
        }
        assert!(!drop_in(&wanted(1)).contains("front"));
        for (before, after) in [(wanted(1), fronted(1)), (fronted(1), wanted(1))] {
            let have = BTreeMap::from([(uuid(1), drop_in(&before))]);
            let want = BTreeMap::from([(uuid(1), after.clone())]);
            let expected = Plan {
                stop: vec![uuid(1)],
                write: vec![(uuid(1), drop_in(&after))],
                reload: true,
                start: vec![uuid(1)],
                ..Plan::default()
            };
            assert_eq!(plan(&want, &loaded(Active::Yes), &have), expected);
        }
    }

    #[test]
    fn what_listens_can_be_read_back_from_a_drop_in() {
        for wanted in [wanted(1), fronted(2), Wanted { listen: "[::1]:3".into(), ..fronted(3) }] {
            assert_eq!(Wanted::as_it_is("g".into(), &drop_in(&wanted)), Some(wanted));
        }
        assert_eq!(Wanted::as_it_is("g".into(), "[Socket]\n"), None);
    }

    proptest! {
        #[test]
        fn whatever_the_start_a_plan_carried_out_leaves_nothing_to_do(
            guests in prop::collection::vec((any::<bool>(), 0usize..5, 0u16..3), 1..12)
        ) {
            let (mut want, mut units, mut drop_ins) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
            for (n, (published, state, old)) in guests.into_iter().enumerate() {
                let n = n as u32;
                if published { want.insert(uuid(n), wanted(n as u16)); }
                if let Some(active) = [Active::Yes, Active::No, Active::Failed, Active::Changing].get(state) { units.insert(uuid(n), Unit { active: *active }); }
                if old > 0 { drop_ins.insert(uuid(n), drop_in(&wanted(n as u16 + old - 1))); }
            }
            let first = plan(&want, &units, &drop_ins);
            for uuid in &first.stop { units.remove(uuid); }
            drop_ins.extend(first.write.iter().cloned());
            for uuid in &first.reset { units.remove(uuid); }
            for uuid in &first.start { units.insert(uuid.clone(), Unit { active: Active::Yes }); }
            prop_assert_eq!(plan(&want, &units, &drop_ins), Plan::default());
        }
    }
}
