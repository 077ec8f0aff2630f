//! Which recordings are kept, and what they are called.

use std::time::Duration;

use super::config::Record;
use super::guest::Console;

/// The most recordings of one guest: a proxy that asks for one after the other fills no disk with names.
const MOST: usize = 1000;

/// A recording's file name: the guest, the console, when it began in UTC, and a number where two began in one second.
/// In the order of their names, those of one console are in the order of their beginnings.
/// Names have the guest's letters and digits; everything else of it becomes `_`.
#[must_use]
pub fn file_name(guest: &str, console: Console, now: u64, turn: u32) -> String {
    let fit = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
    let guest: String = guest.chars().take(100).map(fit).collect();
    // A name that begins with a dot is hidden, one with a dash is an option.
    let guest = if guest.starts_with(['.', '-']) || guest.is_empty() { format!("_{guest}") } else { guest };
    let console = console.to_string().replace('/', "-");
    let (year, month, day) = date(now / 86_400);
    let (hour, minute, second) = (now % 86_400 / 3600, now % 3600 / 60, now % 60);
    let again = if turn > 1 { format!("_{turn:02}") } else { String::new() };
    format!("{guest}_{console}_{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z{again}.cast")
}

/// Year, month and day of a number of days since 1970, by Howard Hinnant's `civil_from_days`.
fn date(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// A recording that lies there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its file name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// The time since it was last written.
    pub age: Duration,
}

/// The names of a guest's recordings that are kept no longer, the oldest first: those that are too old, and then as
/// many as it takes to have no more bytes than may be kept, and no more than [`MOST`]. The newest one may be written to right now and is never
/// among the latter.
#[must_use]
pub fn expired(mut all: Vec<Kept>, record: &Record) -> Vec<String> {
    all.sort_by(|a, b| b.age.cmp(&a.age).then_with(|| a.name.cmp(&b.name)));
    let longest = Duration::from_secs(record.keep_days * 86_400);
    let mut bytes: u64 = all.iter().map(|kept| kept.bytes).sum();
    let newest = all.len().saturating_sub(1);
    let too_many = all.len().saturating_sub(MOST);
    let mut gone = Vec::new();
    for (at, kept) in all.into_iter().enumerate() {
        if at < too_many || kept.age > longest || (bytes > record.keep_bytes && at < newest) {
            bytes -= kept.bytes;
            gone.push(kept.name);
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_called_by_guest_console_and_time_and_is_one_plain_word() {
        let name = |guest: &str, now| file_name(guest, Console::Serial(0), now, 1);
        assert_eq!(name("g1", 0), "g1_serial-0_19700101T000000Z.cast");
        assert_eq!(name("web.01-a", 951_826_830), "web.01-a_serial-0_20000229T122030Z.cast");
        assert_eq!(name("g", 1_798_761_599), "g_serial-0_20261231T235959Z.cast");
        assert_eq!(name("g", 4_107_542_400), "g_serial-0_21000301T000000Z.cast");
        for guest in ["../../etc/x", ".hidden", "-rf", "", "a b\nc", "é/"] {
            let name = name(guest, 0);
            assert!(!name.starts_with(['.', '-']) && !name.contains(['/', '\n', ' ']) && name.is_ascii(), "{name}");
        }
        assert!(name(&"a".repeat(5000), 0).len() < 255);
        assert_eq!(file_name("g", Console::Console(1), 0, 3), "g_console-1_19700101T000000Z_03.cast");
    }

    #[test]
    fn the_old_ones_go_then_the_oldest_until_the_rest_fits_and_never_the_newest_for_its_size() {
        let kept =
            |name: &str, bytes, days: u64| Kept { name: name.into(), bytes, age: Duration::from_secs(days * 86_400) };
        let record = Record { keep_days: 30, keep_bytes: 100, ..Record::default() };
        let all = || vec![kept("new", 60, 1), kept("older", 30, 3), kept("old", 31, 31), kept("mid", 20, 2)];
        assert_eq!(expired(all(), &record), ["old", "older"]);
        assert_eq!(expired(all(), &Record { keep_bytes: 110, ..record.clone() }), ["old"]);
        assert_eq!(expired(all(), &Record { keep_bytes: 0, ..record.clone() }), ["old", "older", "mid"]);
        assert_eq!(expired(vec![kept("new", 1000, 0)], &record), Vec::<String>::new());
        assert_eq!(expired(vec![kept("a", 1, 40)], &record), ["a"]);
        // Exactly as old, and as much, as may be.
        assert_eq!(expired(vec![kept("a", 100, 30)], &record), Vec::<String>::new());
        assert_eq!(expired(Vec::new(), &record), Vec::<String>::new());
        let many = (0..1002).map(|i| Kept { name: i.to_string(), bytes: 0, age: Duration::from_secs(i) }).collect();
        assert_eq!(expired(many, &record), ["1001", "1000"]);
    }
}
