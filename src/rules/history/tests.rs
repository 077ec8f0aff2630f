//! Tables, and a model of who writes and spoils a log.

use proptest::prelude::*;

use super::*;

fn id(n: u64) -> FileId {
    FileId::new((8, 1), n, Some((0, 0)))
}

fn found(number: u8, n: u64, head: &str, size: u64) -> Found {
    Found { number, id: id(n), head: head.into(), size }
}

fn seen(looks: &[&[Found]]) -> Stream {
    let mut stream = Stream::default();
    for look in looks {
        let read = stream.end();
        stream.look(look.to_vec(), read);
    }
    stream
}

fn told(stream: &Stream) -> Vec<(u64, u64, Option<Break>)> {
    stream.parts().iter().map(|part| (part.start, part.size, part.broken)).collect()
}

#[test]
fn files_make_one_stream_from_the_oldest_to_the_current() {
    let stream = seen(&[&[found(0, 3, "c", 5), found(2, 1, "a", 100), found(1, 2, "b", 100)]]);
    assert_eq!(told(&stream), [(0, 100, None), (100, 100, None), (200, 5, None)]);
    assert_eq!((stream.start(), stream.end()), (0, 205));
    assert_eq!(told(&Stream::default()), []);
}

#[test]
fn what_grows_is_renamed_once_or_often_or_falls_off_is_told() {
    let first = [found(0, 1, "a", 50)];
    for (name, second, expected) in [
        ("grown", vec![found(0, 1, "a", 60)], vec![(0, 60, None)]),
        ("as it was", vec![found(0, 1, "a", 50)], vec![(0, 50, None)]),
        ("renamed", vec![found(1, 1, "a", 100), found(0, 2, "b", 5)], vec![(0, 100, None), (100, 5, None)]),
        (
            "renamed three times",
            vec![found(3, 1, "a", 100), found(2, 2, "b", 100), found(1, 3, "c", 100), found(0, 4, "d", 0)],
            vec![(0, 100, None), (100, 100, None), (200, 100, None), (300, 0, None)],
        ),
        (
            "fallen off",
            vec![found(1, 3, "c", 100), found(0, 4, "d", 7)],
            vec![(0, 50, None), (50, 100, Some(Break::Lost)), (150, 7, None)],
        ),
        ("renamed, and the new one is not there yet", vec![found(1, 1, "a", 100)], vec![(0, 100, None)]),
        ("all gone", vec![], vec![(0, 50, None)]),
        ("another in its place", vec![found(0, 9, "z", 7)], vec![(0, 50, None), (50, 7, Some(Break::Lost))]),
        ("cut to nothing", vec![found(0, 1, "", 0)], vec![(0, 50, None), (50, 0, Some(Break::Cut))]),
        ("cut to less", vec![found(0, 1, "a", 20)], vec![(0, 50, None), (50, 20, Some(Break::Cut))]),
        ("written anew", vec![found(0, 1, "b", 70)], vec![(0, 50, None), (50, 70, Some(Break::Cut))]),
    ] {
        assert_eq!(told(&seen(&[&first, &second])), expected, "{name}");
    }
}

#[test]
fn a_hole_in_the_numbers_is_a_break_and_what_was_known_before_a_removed_file_is_not_told_twice() {
    let stream = seen(&[&[found(3, 1, "a", 10), found(1, 3, "c", 10), found(0, 4, "d", 1)]]);
    assert_eq!(told(&stream), [(0, 10, None), (10, 10, Some(Break::Lost)), (20, 1, None)]);
    // The current one was removed: its place in the row stays empty when its writer goes on.
    let removed = seen(&[
        &[found(1, 1, "a", 10), found(0, 2, "b", 4)],
        &[found(1, 1, "a", 10)],
        &[found(2, 1, "a", 10), found(0, 3, "c", 2)],
    ]);
    assert_eq!(told(&removed), [(0, 10, None), (10, 4, None), (14, 2, Some(Break::Lost))]);
}

#[test]
fn what_was_cut_off_before_it_was_read_is_not_of_the_stream() {
    let mut stream = seen(&[&[found(0, 1, "a", 50)]]);
    stream.grown(80, b"a", 50);
    stream.grown(3, b"x", 60);
    assert_eq!(told(&stream), [(0, 60, None), (60, 3, Some(Break::Cut))]);
}

#[test]
fn a_position_reads_back_as_it_was_told_and_nothing_else_reads() {
    let stream = seen(&[&[found(1, 1, "abc", 100), found(0, 2, "", 0)]]);
    for offset in [0, 1, 99, 100] {
        let position = stream.position(offset).unwrap();
        assert_eq!(position.to_string().parse(), Ok(position));
        assert_eq!(stream.find(&position), Place::At(offset));
    }
    assert_eq!(stream.position(101), None);
    assert_eq!(Stream::default().position(0), None);
    let good = stream.position(5).unwrap().to_string();
    let (id, _) = good.split_once(':').unwrap();
    for text in [
        String::new(),
        ":".into(),
        "5".into(),
        id.to_owned(),
        format!("{id}:"),
        format!("{id}:-1"),
        format!("{id}:+1"),
        format!("{id}:1x"),
        format!("{id}:99999999999999999999"),
        format!("{}:1", &id[1..]),
        format!("+{}:1", &id[1..]),
        format!("{}:1", id.to_uppercase()),
        format!("{}é:1", &id[2..]),
    ] {
        assert_eq!(text.parse::<Position>(), Err(BadPosition), "{text}");
    }
}

#[test]
fn a_position_counts_on_into_newer_files_and_one_from_elsewhere_is_told_apart() {
    let before = seen(&[&[found(0, 1, "abc", 40)]]);
    let position = before.position(30).unwrap();
    let counted = |bytes| Position { offset: position.offset + bytes, ..position };
    let renamed = seen(&[&[found(2, 0, "x", 100), found(1, 1, "abcdef", 100), found(0, 2, "b", 5)]]);
    for (bytes, place) in [
        (0, Place::At(130)),
        (70, Place::At(200)),
        (75, Place::At(205)),
        (76, Place::Beyond(1)),
        (u64::MAX - 30, Place::Beyond(u64::MAX - 205)),
    ] {
        assert_eq!(renamed.find(&counted(bytes)), place, "{bytes}");
    }
    for (name, files, place) in [
        ("fallen off", vec![found(0, 2, "b", 5)], Place::Gone),
        ("no log", vec![], Place::Gone),
        ("cut and grown", vec![found(1, 5, "y", 9), found(0, 1, "xyz", 500)], Place::Cut(9)),
        ("cut to nothing", vec![found(0, 1, "", 0)], Place::Cut(0)),
        ("cut to less", vec![found(0, 1, "abc", 10)], Place::Beyond(20)),
        (
            "its inode is another file's",
            vec![Found { id: FileId::new((8, 1), 1, Some((7, 7))), ..found(0, 1, "abc", 40) }],
            Place::Gone,
        ),
    ] {
        assert_eq!(seen(&[&files]).find(&position), place, "{name}");
    }
}

#[test]
fn who_was_there_before_a_cut_is_found_where_it_was() {
    let mut stream = seen(&[&[found(0, 1, "abc", 50)]]);
    let position = stream.position(30).unwrap();
    stream.grown(10, b"xyz", 50);
    assert_eq!(stream.find(&position), Place::At(30));
    assert_eq!(stream.find(&stream.position(55).unwrap()), Place::At(55));
}

/// A log, its writer, and who spoils it. Each byte is the number of its place in all that was said,
/// modulo a prime.
#[derive(Clone, Debug, Default)]
struct Disk {
    /// Number, identity, content.
    files: Vec<(u8, u64, Vec<u8>)>,
    /// What the writer writes to, whatever became of its name.
    open: u64,
    removed: Option<(u64, Vec<u8>)>,
    said: u64,
    next: u64,
}

#[derive(Clone, Debug)]
enum Deed {
    Say(u16),
    Rename,
    Remove,
    Cut,
    Look,
}

const KEPT: u8 = 3;

impl Disk {
    fn new() -> Self {
        Self { files: vec![(0, 1, Vec::new())], open: 1, next: 2, ..Self::default() }
    }

    fn content(&mut self, id: u64) -> Option<&mut Vec<u8>> {
        let removed = self.removed.iter_mut().map(|(removed, bytes)| (removed, bytes));
        let named = self.files.iter_mut().map(|(_, id, bytes)| (id, bytes));
        named.chain(removed).find(|(other, _)| **other == id).map(|(_, bytes)| bytes)
    }

    fn do_it(&mut self, deed: &Deed) {
        match deed {
            Deed::Say(n) => {
                let bytes: Vec<u8> = (self.said..self.said + u64::from(*n)).map(|place| (place % 251) as u8).collect();
                self.said += u64::from(*n);
                let open = self.open;
                self.content(open).unwrap().extend(bytes);
            }
            Deed::Rename => {
                self.removed = None;
                self.files.retain(|(number, ..)| *number < KEPT);
                self.files.iter_mut().for_each(|(number, ..)| *number += 1);
                self.files.push((0, self.next, Vec::new()));
                self.open = self.next;
                self.next += 1;
            }
            Deed::Remove => {
                if let Some(at) = self.files.iter().position(|(number, ..)| *number == 0) {
                    let (_, id, bytes) = self.files.remove(at);
                    self.removed = Some((id, bytes));
                }
            }
            Deed::Cut => {
                let open = self.open;
                self.content(open).unwrap().clear();
            }
            Deed::Look => {}
        }
    }

    fn look(&self) -> Vec<Found> {
        let head = |bytes: &Vec<u8>| bytes[..bytes.len().min(HEAD)].to_vec();
        let each = self.files.iter();
        each.map(|(number, n, bytes)| Found {
            number: *number,
            id: id(*n),
            head: head(bytes),
            size: bytes.len() as u64,
        })
        .collect()
    }
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        6 => (1u16..400).prop_map(Deed::Say),
        3 => Just(Deed::Rename),
        1 => Just(Deed::Remove),
        1 => Just(Deed::Cut),
        6 => Just(Deed::Look),
    ];
    prop::collection::vec(deed, 0..60)
}

/// Reads the stream on to its end, from files as they are now or as they were held.
fn read_on(
    stream: &Stream,
    disk: &mut Disk,
    held: &mut std::collections::HashMap<u64, Vec<u8>>,
    got: &mut Vec<(u64, u8)>,
) {
    for (_, n, bytes) in &disk.files {
        held.insert(id(*n).0, bytes.clone());
    }
    let mut at = got.len() as u64;
    while at < stream.end() {
        let part = stream.part_at(at).unwrap();
        let bytes = &held[&part.id.0];
        got.push((at, bytes[(at - part.start) as usize]));
        at += 1;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// What is read in the order of the stream is what was said, in its order, each byte once; where some
    /// are missing, a part begins there that says so.
    #[test]
    fn no_byte_comes_twice_and_none_is_missing_where_no_break_is_told(deeds in deeds()) {
        let (mut disk, mut stream) = (Disk::new(), Stream::default());
        let (mut held, mut got) = (std::collections::HashMap::new(), Vec::new());
        for deed in deeds.iter().chain([&Deed::Look]) {
            // What was cut before anybody looked was never there.
            if matches!(deed, Deed::Look | Deed::Cut) {
                let read = got.len() as u64;
                stream.look(disk.look(), read);
                read_on(&stream, &mut disk, &mut held, &mut got);
            }
            disk.do_it(deed);
        }
        let breaks: Vec<u64> = stream.parts().iter().filter(|part| part.broken.is_some()).map(|part| part.start).collect();
        let mut place = None;
        for (offset, byte) in got {
            let next = place.map_or(u64::from(byte), |place: u64| place + 1);
            if breaks.contains(&offset) || place.is_none() {
                // On from a later place; a byte of an earlier one would be a repetition.
                let skip = (u64::from(byte) + 251 - next % 251) % 251;
                place = Some(next + skip);
            } else {
                prop_assert_eq!(u64::from(byte), next % 251, "at {}", offset);
                place = Some(next);
            }
        }
        // As far as that arithmetic tells: no more was read than was said.
        prop_assert!(place.is_none_or(|place| place < disk.said));
    }

    /// Who comes back to another process with what it counted goes on exactly there, as long as the file
    /// that it counts from is kept.
    #[test]
    fn a_position_is_found_by_another_process_after_any_renaming(
        before in 0u16..300, counted in 0u16..300, renamings in 0u8..=KEPT, each in 1u16..300
    ) {
        let mut disk = Disk::new();
        disk.do_it(&Deed::Say(before));
        let first = seen(&[&disk.look()]);
        let position = first.position(first.end()).unwrap();
        for _ in 0..renamings {
            disk.do_it(&Deed::Rename);
            disk.do_it(&Deed::Say(each));
        }
        let second = seen(&[&disk.look()]);
        let there = Position { offset: position.offset + u64::from(counted), ..position };
        let expected = if u64::from(before) + u64::from(counted) <= disk.said {
            Place::At(u64::from(before) + u64::from(counted))
        } else {
            Place::Beyond(u64::from(before) + u64::from(counted) - disk.said)
        };
        prop_assert_eq!(second.find(&there), expected);
        disk.do_it(&Deed::Rename);
        for _ in 0..=KEPT {
            disk.do_it(&Deed::Rename);
        }
        prop_assert_eq!(seen(&[&disk.look()]).find(&there), Place::Gone);
    }

    #[test]
    fn no_text_makes_a_position_panic(text in "\\PC{0,40}") {
        let _ = text.parse::<Position>();
    }
}
