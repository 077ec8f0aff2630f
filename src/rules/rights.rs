//! Rights: who may view or control which consoles of which guests. What the host's configuration gives, and what a
//! guest's own settings leave of it: they may only narrow.

use serde::{Deserialize, Serialize};

use super::config::matches;
use super::guest::{Console, Uuid};
use super::ticket::{Mode, Pattern};

/// A rule of the host's configuration: what those whom it names may.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rule {
    /// Users, by the names that they log in with; `*`: all who can log in.
    #[serde(default)]
    pub users: Vec<String>,
    /// Groups whose members they are.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Which guests: names (`*` and `?` match as in a shell) or UUIDs.
    #[serde(default = "all")]
    pub guests: Vec<String>,
    /// Which of their consoles, by the same patterns: `serial/*`.
    #[serde(default = "all")]
    pub consoles: Vec<String>,
    /// Look on, or type.
    #[serde(default = "control")]
    pub mode: Mode,
}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

fn control() -> Mode {
    Mode::Control
}

impl Rule {
    /// The rule of a configuration that has none of its own: who may use virsh may use the consoles.
    #[must_use]
    pub fn default_rules() -> Vec<Self> {
        let groups = vec!["libvirt".to_owned()];
        vec![Self { users: Vec::new(), groups, guests: all(), consoles: all(), mode: Mode::Control }]
    }

    /// Why a rule makes no sense, in words.
    pub fn check(&self) -> Result<(), String> {
        if self.users.is_empty() && self.groups.is_empty() {
            return Err("a rule names neither users nor groups: nobody would have it".to_owned());
        }
        for (what, list) in [("guests", &self.guests), ("consoles", &self.consoles)] {
            if list.is_empty() {
                return Err(format!("a rule names no {what}: it would give nothing"));
            }
        }
        let of_none = self.consoles.iter().find(|pattern| !names_a_console(pattern));
        of_none.map_or(Ok(()), |pattern| {
            Err(format!("{pattern:?} is no console's name: vnc, spice, serial/N, console/N, with * and ?"))
        })
    }

    fn is_for(&self, user: &str, groups: &[String]) -> bool {
        self.users.iter().any(|name| name == "*" || name == user)
            || self.groups.iter().any(|name| groups.contains(name))
    }

    fn is_about(&self, name: &str, uuid: &Uuid) -> bool {
        names_guest(&self.guests, name, uuid)
    }
}

/// Whether one of the patterns is a guest's name or UUID.
#[must_use]
pub fn names_guest(patterns: &[String], name: &str, uuid: &Uuid) -> bool {
    patterns.iter().any(|pattern| matches(pattern, name) || pattern.parse::<Uuid>().is_ok_and(|one| one == *uuid))
}

/// Whether a pattern could be about some console: a slip would silently give nothing, or shut a guest.
fn names_a_console(pattern: &str) -> bool {
    pattern.contains(['*', '?']) || pattern.parse::<Console>().is_ok()
}

/// A rule of a guest's own settings: nobody gets more of it than some of these leave them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Allow {
    /// Users; with neither users nor groups nor issuers it is about everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<String>,
    /// Groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Those who come with a ticket of these issuers; `*`: of any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<String>,
    /// Which consoles.
    pub consoles: Vec<String>,
    /// Look on, or type.
    pub mode: Mode,
}

impl Allow {
    /// From the attributes of an `<allow>`: lists are separated by spaces. `Err`: what is wrong, in words.
    pub fn from_attributes<'a>(attributes: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, String> {
        let mut allow =
            Self { users: Vec::new(), groups: Vec::new(), issuers: Vec::new(), consoles: all(), mode: Mode::Control };
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for (key, value) in attributes {
            match key {
                "users" => allow.users = list(value),
                "groups" => allow.groups = list(value),
                "issuers" => allow.issuers = list(value),
                "consoles" => allow.consoles = list(value),
                "mode" if value == "view" => allow.mode = Mode::View,
                "mode" if value == "control" => allow.mode = Mode::Control,
                "mode" => return Err(format!("mode is {value:?}: view or control")),
                other if other.starts_with("xmlns") => continue,
                other => return Err(format!("it has an attribute {other:?}, which none has")),
            }
            // An empty list is a slip, and must not widen the rule to everybody.
            if key != "mode" && value.trim().is_empty() {
                return Err(format!("{key} is empty"));
            }
        }
        match allow.consoles.iter().find(|pattern| !names_a_console(pattern)) {
            Some(pattern) => Err(format!("{pattern:?} is no console's name")),
            None => Ok(allow),
        }
    }

    fn is_for(&self, who: &Who<'_>) -> bool {
        if self.users.is_empty() && self.groups.is_empty() && self.issuers.is_empty() {
            return true;
        }
        match who {
            Who::User(name, groups) => {
                self.users.iter().any(|user| user == name) || self.groups.iter().any(|group| groups.contains(group))
            }
            Who::Issuer(issuer) => self.issuers.iter().any(|name| name == "*" || name == issuer),
        }
    }
}

/// Who comes.
#[derive(Clone, Copy, Debug)]
pub enum Who<'a> {
    /// A user of this host, and the groups that they are in.
    User(&'a str, &'a [String]),
    /// The bearer of a ticket of this issuer.
    Issuer(&'a str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Grant {
    consoles: Vec<String>,
    mode: Mode,
}

/// What somebody may at one guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    given: Vec<Grant>,
    /// Absent: the guest has no settings of its own, or they do not count.
    left: Option<Vec<Grant>>,
}

impl Rights {
    /// A user's, by the host's rules.
    #[must_use]
    pub fn of_user(rules: &[Rule], user: &str, groups: &[String], (name, uuid): (&str, &Uuid)) -> Self {
        let own = rules.iter().filter(|rule| rule.is_for(user, groups) && rule.is_about(name, uuid));
        Self { given: own.map(|rule| Grant { consoles: rule.consoles.clone(), mode: rule.mode }).collect(), left: None }
    }

    /// A ticket's.
    #[must_use]
    pub fn of_ticket(consoles: &[Pattern], mode: Mode) -> Self {
        let consoles = consoles.iter().map(|pattern| String::from(*pattern)).collect();
        Self { given: vec![Grant { consoles, mode }], left: None }
    }

    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Self::of_ticket(&[Pattern::All], Mode::Control)
    }

    /// What a guest's own settings leave of them.
    #[must_use]
    pub fn narrowed(self, settings: &[Allow], who: &Who<'_>) -> Self {
        let own = settings.iter().filter(|allow| allow.is_for(who));
        let left = own.map(|allow| Grant { consoles: allow.consoles.clone(), mode: allow.mode }).collect();
        Self { left: Some(left), ..self }
    }

    /// What they allow on a console; `None`: nothing.
    #[must_use]
    pub fn on(&self, console: Console) -> Option<Mode> {
        let given = best(&self.given, console)?;
        match &self.left {
            Some(left) => Some(best(left, console)?.min(given)),
            None => Some(given),
        }
    }

    /// Whether the host's rules or the ticket give something on a console, whatever the guest's own settings say.
    #[must_use]
    pub fn gives(&self, console: Console) -> bool {
        best(&self.given, console).is_some()
    }

    /// The most that they allow on any of these consoles.
    #[must_use]
    pub fn most(&self, consoles: impl IntoIterator<Item = Console>) -> Option<Mode> {
        consoles.into_iter().filter_map(|console| self.on(console)).max()
    }

    /// Whether nothing is allowed, whatever consoles there are.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.given.is_empty() || self.left.as_ref().is_some_and(Vec::is_empty)
    }
}

fn best(grants: &[Grant], console: Console) -> Option<Mode> {
    let name = console.to_string();
    let own = grants.iter().filter(|grant| grant.consoles.iter().any(|pattern| matches(pattern, &name)));
    own.map(|grant| grant.mode).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UUID: &str = "b50bdc9f-490b-4b9b-8641-7573c0eba77c";

    fn rule(text: &str) -> Rule {
        toml::from_str(text).unwrap()
    }

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    fn of(rules: &[Rule], user: &str, groups: &[&str], guest: &str) -> Rights {
        Rights::of_user(rules, user, &strings(groups), (guest, &UUID.parse().unwrap()))
    }

    fn allow(attributes: &[(&str, &str)]) -> Allow {
        Allow::from_attributes(attributes.iter().copied()).unwrap()
    }

    const SERIAL: Console = Console::Serial(0);

    #[test]
    fn by_default_members_of_libvirt_may_everything_and_others_nothing() {
        let rules = Rule::default_rules();
        assert_eq!(of(&rules, "ann", &["users", "libvirt"], "g1").on(SERIAL), Some(Mode::Control));
        assert!(of(&rules, "ann", &["users"], "g1").is_none());
        assert!(of(&rules, "libvirt", &[], "g1").is_none(), "a user of that name is no member");
    }

    #[test]
    fn a_rule_is_for_those_whom_it_names_on_the_guests_and_consoles_that_it_names() {
        let rules = [
            rule("users=[\"ann\"]\nguests=[\"db-*\"]\nconsoles=[\"serial/*\"]"),
            rule("groups=[\"ops\"]\nmode=\"view\""),
            rule(&format!("users=[\"bob\"]\nguests=[\"{}\"]", UUID.to_uppercase())),
        ];
        for (user, groups, guest, console, mode) in [
            ("ann", &[][..], "db-1", SERIAL, Some(Mode::Control)),
            ("ann", &[], "db-1", Console::Vnc, None),
            ("ann", &[], "web", SERIAL, None),
            ("ann", &["ops"], "web", SERIAL, Some(Mode::View)),
            ("ann", &["ops"], "db-1", SERIAL, Some(Mode::Control)),
            ("Ann", &[], "db-1", SERIAL, None),
            ("bob", &[], "any", Console::Vnc, Some(Mode::Control)),
            ("eve", &["op"], "db-1", SERIAL, None),
        ] {
            assert_eq!(of(&rules, user, groups, guest).on(console), mode, "{user} {groups:?} {guest} {console}");
        }
    }

    #[test]
    fn a_guests_settings_narrow_whom_they_name_and_shut_out_everybody_else() {
        let rules = [rule("users=[\"*\"]")];
        let settings = [
            allow(&[("users", "ann bob"), ("consoles", "serial/0")]),
            allow(&[("groups", "ops"), ("mode", "view")]),
            allow(&[("issuers", "panel"), ("consoles", "vnc"), ("mode", "view")]),
        ];
        let user = |name: &str, groups: &[&str]| {
            let groups = strings(groups);
            of(&rules, name, &[], "g1").narrowed(&settings, &Who::User(name, &groups))
        };
        assert_eq!(user("ann", &[]).on(SERIAL), Some(Mode::Control));
        assert_eq!(user("ann", &[]).on(Console::Vnc), None);
        assert_eq!(user("ann", &["ops"]).on(Console::Vnc), Some(Mode::View));
        assert!(user("eve", &[]).is_none());
        let ticket =
            |issuer: &str| Rights::of_ticket(&[Pattern::All], Mode::Control).narrowed(&settings, &Who::Issuer(issuer));
        assert_eq!(ticket("panel").on(Console::Vnc), Some(Mode::View));
        assert_eq!(ticket("panel").on(SERIAL), None);
        assert!(ticket("host").is_none(), "a ticket's person is no user of this host");
        let all = [allow(&[("mode", "view")])];
        assert_eq!(Rights::all().narrowed(&all, &Who::Issuer("host")).on(SERIAL), Some(Mode::View));
        assert!(Rights::all().narrowed(&[], &Who::Issuer("host")).is_none(), "settings that allow nothing");
    }

    #[test]
    fn a_slip_in_a_rule_is_told_and_never_widens_it() {
        for (text, why) in [
            ("guests=[\"*\"]", "neither users nor groups"),
            ("users=[\"a\"]\nguests=[]", "names no guests"),
            ("users=[\"a\"]\nconsoles=[\"serial0\"]", "no console's name"),
        ] {
            assert!(rule(text).check().unwrap_err().contains(why), "{text}");
        }
        assert!(rule("users=[\"a\"]\nconsoles=[\"serial/*\", \"vnc\"]").check().is_ok());
        for attributes in [
            &[("users", " ")][..],
            &[("mode", "write")],
            &[("user", "ann")],
            &[("consoles", "tty")],
            &[("consoles", "")],
        ] {
            assert!(Allow::from_attributes(attributes.iter().copied()).is_err(), "{attributes:?}");
        }
    }

    fn any_names() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec(prop::sample::select(strings(&["ann", "bob", "ops", "*"])), 0..3)
    }

    fn any_consoles() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec(prop::sample::select(strings(&["*", "vnc", "serial/*", "serial/0", "console/?"])), 0..3)
    }

    fn any_mode() -> impl Strategy<Value = Mode> {
        prop::sample::select(vec![Mode::View, Mode::Control])
    }

    prop_compose! {
        fn any_rule()(users in any_names(), groups in any_names(), consoles in any_consoles(), mode in any_mode()) -> Rule {
            Rule { users, groups, guests: all(), consoles, mode }
        }
    }

    prop_compose! {
        fn any_allow()(users in any_names(), groups in any_names(), issuers in any_names(), consoles in any_consoles(), mode in any_mode()) -> Allow {
            Allow { users, groups, issuers, consoles, mode }
        }
    }

    const CONSOLES: [Console; 4] = [Console::Vnc, Console::Spice, SERIAL, Console::Console(1)];

    proptest! {
        #[test]
        fn a_guests_settings_never_give_more_than_the_host_does(
            rules in prop::collection::vec(any_rule(), 0..4), settings in prop::collection::vec(any_allow(), 0..4), groups in any_names()
        ) {
            let rights = Rights::of_user(&rules, "ann", &groups, ("g", &UUID.parse().unwrap()));
            let narrowed = rights.clone().narrowed(&settings, &Who::User("ann", &groups));
            for console in CONSOLES {
                prop_assert!(narrowed.on(console) <= rights.on(console));
            }
            prop_assert!(!rights.is_none() || narrowed.is_none());
        }

        #[test]
        fn whom_no_rule_names_has_nothing_and_a_rule_more_takes_nothing(
            rules in prop::collection::vec(any_rule(), 0..4), more in any_rule(), groups in any_names()
        ) {
            let of = |rules: &[Rule]| Rights::of_user(rules, "ann", &groups, ("g", &UUID.parse().unwrap()));
            let named = rules.iter().any(|rule| rule.users.iter().any(|u| u == "ann" || u == "*") || rule.groups.iter().any(|g| groups.contains(g)));
            prop_assert_eq!(of(&rules).is_none(), !named);
            let with: Vec<_> = rules.iter().cloned().chain([more]).collect();
            for console in CONSOLES {
                prop_assert!(of(&with).on(console) >= of(&rules).on(console));
            }
        }
    }
}
