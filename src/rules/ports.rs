//! Slots and the ports that follow from them. Pure arithmetic: who may have which slot, and whether
//! a port is free, is asked of the caller.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::guest::Uuid;

/// A small number that a guest keeps on this host; its ports are `first port + slot`.
pub type Slot = u16;

/// A range of ports, both ends included, written `23000-23999`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Why a text is no range of ports.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadRange {
    /// Not `FIRST-LAST`.
    #[error("{0:?} is not a range of ports such as \"23000-23999\"")]
    Form(String),
    /// Empty, or in what the kernel keeps for root.
    #[error("the range {0} is not usable: ports must be from 1024 to 65535, the first below the last")]
    Bounds(String),
}

impl PortRange {
    /// A range from known numbers, for constants.
    ///
    /// # Panics
    /// When they are out of order, or below 1024.
    #[must_use]
    pub const fn new(first: u16, last: u16) -> Self {
        assert!(first >= 1024 && first < last);
        Self { first, last }
    }

    /// The first port.
    #[must_use]
    pub fn first(self) -> u16 {
        self.first
    }

    /// The port of a slot, if the range reaches that far.
    #[must_use]
    pub fn port(self, slot: Slot) -> Option<u16> {
        self.first.checked_add(slot).filter(|port| *port <= self.last)
    }

    /// The slot whose port this is.
    #[must_use]
    pub fn slot(self, port: u16) -> Option<Slot> {
        (self.first..=self.last).contains(&port).then(|| port - self.first)
    }

    /// Whether a port lies in the range.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        self.slot(port).is_some()
    }

    /// Whether two ranges share a port.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// How many slots the range has room for.
    #[must_use]
    pub fn len(self) -> u16 {
        self.last - self.first + 1
    }

    /// A range always holds two ports or more.
    #[must_use]
    pub fn is_empty(self) -> bool {
        false
    }
}

impl FromStr for PortRange {
    type Err = BadRange;
    fn from_str(text: &str) -> Result<Self, BadRange> {
        let form = || BadRange::Form(text.to_owned());
        let (first, last) = text.split_once('-').ok_or_else(form)?;
        let port = |digits: &str| digits.trim().parse::<u16>().map_err(|_| form());
        let (first, last) = (port(first)?, port(last)?);
        if first < 1024 || first >= last {
            return Err(BadRange::Bounds(text.to_owned()));
        }
        Ok(Self { first, last })
    }
}

impl TryFrom<String> for PortRange {
    type Error = BadRange;
    fn try_from(text: String) -> Result<Self, BadRange> {
        text.parse()
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        range.to_string()
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// Which guest has which slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotTable(BTreeMap<Slot, Uuid>);

/// Why a guest got no slot.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NoSlot {
    /// Every slot has an owner.
    #[error("all {0} slots are taken; widen the port ranges or run `console-proxy prune`")]
    Full(u16),
    /// Slots are free, but somebody else holds each one's port.
    #[error("the ports of all free slots are held by other programs (the first: {0})")]
    Held(u16),
}

/// A line of the slot file that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line} of the slot file is not \"SLOT UUID\" or repeats a slot or a guest: {text:?}")]
pub struct BadSlotLine {
    /// Counted from 1.
    pub line: usize,
    /// What stands there.
    pub text: String,
}

impl SlotTable {
    /// Reads the file's form: a line `SLOT UUID` each.
    pub fn parse(text: &str) -> Result<Self, BadSlotLine> {
        let mut table = Self::default();
        let mut guests = HashSet::new();
        for (i, line) in text.lines().enumerate() {
            let bad = || BadSlotLine { line: i + 1, text: line.to_owned() };
            let (slot, uuid) = line.split_once(' ').ok_or_else(bad)?;
            let slot: Slot = slot.parse().map_err(|_| bad())?;
            let uuid: Uuid = uuid.parse().map_err(|_| bad())?;
            if !guests.insert(uuid.clone()) || table.0.insert(slot, uuid).is_some() {
                return Err(bad());
            }
        }
        Ok(table)
    }

    /// The file's form, in the order of the slots.
    #[must_use]
    pub fn to_text(&self) -> String {
        let lines: Vec<String> = self.0.iter().map(|(slot, uuid)| format!("{slot} {uuid}\n")).collect();
        lines.concat()
    }

    /// The guest's slot, if it has one.
    #[must_use]
    pub fn slot_of(&self, uuid: &Uuid) -> Option<Slot> {
        self.0.iter().find(|(_, owner)| *owner == uuid).map(|(slot, _)| *slot)
    }

    /// The slot's owner.
    #[must_use]
    pub fn owner(&self, slot: Slot) -> Option<&Uuid> {
        self.0.get(&slot)
    }

    /// All pairs, in the order of the slots.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Uuid)> {
        self.0.iter().map(|(slot, uuid)| (*slot, uuid))
    }

    /// Gives the guest the lowest slot that nobody has and whose ports are free, or the one it has.
    ///
    /// `port_is_held(slot)` answers for both ports of a slot; it is asked of free slots alone, in order.
    /// Returns the slot and those that were passed over because their port was held.
    pub fn take(
        &mut self,
        uuid: &Uuid,
        room: u16,
        mut port_is_held: impl FnMut(Slot) -> bool,
    ) -> Result<(Slot, Vec<Slot>), NoSlot> {
        if let Some(slot) = self.slot_of(uuid) {
            return Ok((slot, Vec::new()));
        }
        let mut held = Vec::new();
        for slot in 0..room {
            if self.0.contains_key(&slot) {
                continue;
            }
            if port_is_held(slot) {
                held.push(slot);
                continue;
            }
            self.0.insert(slot, uuid.clone());
            return Ok((slot, held));
        }
        Err(held.first().map_or(NoSlot::Full(room), |slot| NoSlot::Held(*slot)))
    }

    /// Takes the guest's slot away; true if it had one.
    pub fn free(&mut self, uuid: &Uuid) -> bool {
        let before = self.0.len();
        self.0.retain(|_, owner| owner != uuid);
        self.0.len() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn uuid(n: u32) -> Uuid {
        format!("{n:08x}-0000-4000-8000-000000000000").parse().unwrap()
    }

    #[test]
    fn a_slots_port_is_first_plus_slot_and_nothing_past_the_end() {
        let range: PortRange = "23000-23999".parse().unwrap();
        assert_eq!(range.port(0), Some(23000));
        assert_eq!(range.port(999), Some(23999));
        assert_eq!(range.port(1000), None);
        assert_eq!(range.slot(23007), Some(7));
        assert_eq!(range.slot(24000), None);
        assert_eq!(range.len(), 1000);
    }

    #[test]
    fn a_range_that_is_reversed_or_privileged_or_no_range_is_refused() {
        for text in ["23999-23000", "23000", "80-90", "a-b", "23000-70000", "23000-23000"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_port_that_someone_else_holds_is_passed_over_and_said() {
        let mut table = SlotTable::default();
        assert_eq!(table.take(&uuid(1), 10, |slot| slot < 2), Ok((2, vec![0, 1])));
        assert_eq!(table.take(&uuid(1), 10, |_| true), Ok((2, vec![])), "a slot once taken is kept");
        assert_eq!(table.take(&uuid(2), 2, |_| true), Err(NoSlot::Held(0)));
    }

    #[test]
    fn a_full_table_says_so() {
        let mut table = SlotTable::default();
        table.take(&uuid(1), 1, |_| false).unwrap();
        assert_eq!(table.take(&uuid(2), 1, |_| false), Err(NoSlot::Full(1)));
    }

    #[test]
    fn a_slot_file_with_a_repeated_guest_or_slot_is_refused_with_its_line() {
        let a = uuid(1);
        for text in [format!("0 {a}\n1 {a}\n"), format!("0 {a}\n0 {}\n", uuid(2)), format!("0 {a}\nx\n")] {
            assert_eq!(SlotTable::parse(&text).unwrap_err().line, 2, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_taken_and_freed_no_two_guests_share_a_slot_and_the_file_reads_back(
            steps in prop::collection::vec((0u32..20, any::<bool>()), 0..80)
        ) {
            let mut table = SlotTable::default();
            for (n, take) in steps {
                if take { let _ = table.take(&uuid(n), 12, |slot| slot == 3); } else { table.free(&uuid(n)); }
                prop_assert!(table.owner(3).is_none());
            }
            prop_assert_eq!(SlotTable::parse(&table.to_text()), Ok(table.clone()));
        }
    }
}
