use super::*;
use proptest::prelude::*;

const HANDSHAKE: &[u8] = b"RFB 003.008\n\x01\x01";

/// What reaches the guest of a stream in such pieces, and how it ended.
fn pass(stream: &[u8], sizes: &[usize]) -> (Vec<u8>, Option<String>) {
    let (mut filter, mut out, mut rest) = (ViewOnly::default(), Vec::new(), stream);
    let mut sizes = sizes.iter().copied().cycle();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(sizes.next().unwrap_or(usize::MAX).clamp(1, rest.len()));
        if let Err(why) = filter.take(piece, &mut out) {
            return (out, Some(why.to_string()));
        }
        rest = after;
    }
    (out, None)
}

/// The same behind a handshake, without it.
fn messages(stream: &[u8]) -> (Vec<u8>, Option<String>) {
    let (out, end) = pass(&[HANDSHAKE, stream].concat(), &[]);
    (out[HANDSHAKE.len()..].to_vec(), end)
}

fn message(head: &[u8], length: usize) -> Vec<u8> {
    let mut message = head.to_vec();
    message.resize(length, 0xEE);
    message
}

/// One of each kind, with whether it passes.
fn kinds() -> Vec<(Vec<u8>, bool)> {
    vec![
        (message(&[0], 20), true),
        (message(&[2, 0, 0, 0], 4), true),
        (message(&[2, 0, 0, 3], 16), true),
        (message(&[2, 0, 1, 0], 4 + 1024), true),
        (message(&[3], 10), true),
        (message(&[150], 10), true),
        (message(&[248, 0, 0, 0, 0, 0, 0, 0, 0], 9), true),
        (message(&[248, 0, 0, 0, 0, 0, 0, 0, 64], 73), true),
        (message(&[4], 8), false),
        (message(&[5], 6), false),
        (message(&[6, 0, 0, 0, 0, 0, 0, 0], 8), false),
        (message(&[6, 0, 0, 0, 0, 0, 2, 0], 520), false),
        (message(&[6, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFC], 12), false),
        (message(&[250], 4), false),
        (message(&[251, 0, 4, 0, 3, 0, 0, 0], 8), false),
        (message(&[251, 0, 4, 0, 3, 0, 2, 0], 40), false),
        (message(&[255, 0], 12), false),
        (message(&[255, 1, 0, 0], 4), false),
        (message(&[255, 1, 0, 1], 4), false),
        (message(&[255, 1, 0, 2], 10), false),
    ]
}

#[test]
fn each_message_passes_or_is_dropped_whole_and_the_next_one_is_found() {
    let update = message(&[3, 1], 10);
    for (message, passes) in kinds() {
        let expected = if passes { [&message[..], &update].concat() } else { update.clone() };
        assert_eq!(
            messages(&[&message[..], &update].concat()),
            (expected, None),
            "{:?}",
            &message[..message.len().min(9)]
        );
    }
}

#[test]
fn a_type_without_a_known_length_ends_the_session_and_is_named() {
    let (update, prefix) = (message(&[3, 1], 10), "this session is view-only, and the client sent ");
    for (bad, words) in [
        (&[1][..], "an RFB message of a type that is not known: 1"),
        (&[7], "an RFB message of a type that is not known: 7"),
        (&[252], "an RFB message of a type that is not known: 252"),
        (&[255, 2], "a QEMU message that is not known: 255/2"),
        (&[255, 1, 1, 0], "a QEMU audio message that is not known: 256"),
        (&[248, 0, 0, 0, 0, 0, 0, 0, 65], "a Fence with more than 64 bytes"),
    ] {
        let (out, end) = messages(&[&update[..], bad, &update].concat());
        assert_eq!((out, end), (update.clone(), Some(format!("{prefix}{words}"))), "{bad:?}");
    }
    for message in 0..=255u8 {
        let known = kinds().iter().any(|(kind, _)| kind[0] == message);
        assert_eq!(messages(&[message]).1.is_none(), known, "{message}");
    }
}

#[test]
fn the_words_fit_a_close_frame() {
    let streams: [&[u8]; 5] = [
        b"RFB 003.003\n",
        b"RFB 003.889\n",
        b"GET / HTTP/1",
        b"RFB 003.008\n\xFF",
        b"RFB 003.007\n\x01\x01\xFF\x01\xFF\xFF",
    ];
    for stream in streams {
        let words = pass(stream, &[]).1.unwrap();
        assert!(words.len() <= 123, "{}: {words}", words.len());
    }
}

#[test]
fn the_handshake_passes_with_the_shared_flag_set() {
    for (stream, expected) in [
        (&b"RFB 003.008\n\x01\x00"[..], &b"RFB 003.008\n\x01\x01"[..]),
        (b"RFB 003.007\n\x01\x01", b"RFB 003.007\n\x01\x01"),
        (b"RFB 003.008\n\x020123456789abcdef\x07", b"RFB 003.008\n\x020123456789abcdef\x01"),
        (b"RFB 003.00", b""),
    ] {
        assert_eq!(pass(stream, &[]), (expected.to_vec(), None));
        assert_eq!(pass(stream, &[1]), (expected.to_vec(), None));
    }
}

#[test]
fn a_handshake_whose_rest_is_not_in_the_clients_stream_ends_with_words() {
    for (stream, passed, words) in [
        (&b"RFB 003.003\n"[..], 0, "RFB 3.3 cannot be filtered: use a client that speaks 3.8"),
        (b"RFB 003.889\n", 0, "the client speaks no version of RFB that is known here (3.7, 3.8)"),
        (b"REDQ\x02\0\0\0\x02\0\0\0", 0, "the client speaks no version of RFB that is known here (3.7, 3.8)"),
        (b"RFB 003.008\n\x13", 12, "RFB security type 19 cannot be filtered (1 and 2 can)"),
        (b"RFB 003.008\n\x00", 12, "RFB security type 0 cannot be filtered (1 and 2 can)"),
    ] {
        let words = format!("this session is view-only, and {words}");
        assert_eq!(pass(stream, &[5]), (stream[..passed].to_vec(), Some(words)));
    }
}

#[test]
fn a_length_that_is_claimed_costs_nothing_and_hides_nothing() {
    // 2 GiB of extended clipboard, of which a key event's bytes are a part.
    let mut filter = ViewOnly::default();
    let mut out = Vec::new();
    filter.take(HANDSHAKE, &mut out).unwrap();
    filter.take(&[6, 0, 0, 0, 0x80, 0, 0, 0], &mut out).unwrap();
    let piece = vec![4; 1 << 16];
    for _ in 0..(1u64 << 31) / piece.len() as u64 {
        filter.take(&piece, &mut out).unwrap();
    }
    assert_eq!(out, HANDSHAKE);
    filter.take(&message(&[3, 1], 10), &mut out).unwrap();
    assert_eq!(out[HANDSHAKE.len()..], message(&[3, 1], 10), "right behind it");
}

/// All that noVNC 1.7.0 sent to a server with QEMU's extensions and xvp, while somebody pointed, typed,
/// pasted, dragged the window's border and asked for the guest's power to be cut: a message a line.
#[test]
fn of_a_session_of_novnc_the_guest_gets_what_shows_its_screen() {
    let (mut sent, mut expected, mut dropped) = (Vec::new(), Vec::new(), 0);
    for line in include_str!("../../../tests/rfb/novnc-1.7.0.txt").lines() {
        let (what, hex) = line.split_once(": ").unwrap();
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        sent.extend(&bytes);
        if what.starts_with("passes ") {
            expected.extend(bytes);
        } else {
            dropped += 1;
        }
    }
    assert!(dropped > 20, "{dropped}");
    for sizes in [&[][..], &[1], &[2, 7], &[1000]] {
        assert_eq!(pass(&sent, sizes), (expected.clone(), None), "{sizes:?}");
    }
}

/// A message of any kind, with any content, and whether it passes.
fn any_message() -> impl Strategy<Value = (Vec<u8>, bool)> {
    let kinds = kinds();
    (0..kinds.len(), any::<u8>()).prop_map(move |(kind, fill)| {
        let (mut message, passes) = kinds[kind].clone();
        // What follows the bytes that tell the length.
        let head = match message[0] {
            2 | 255 => 4,
            6 => 8,
            251 => 7,
            248 => 9,
            _ => 1,
        };
        let from = head.min(message.len());
        message[from..].fill(fill);
        (message, passes)
    })
}

proptest! {
    #[test]
    fn however_a_stream_is_cut_the_same_passes(
        all in prop::collection::vec(any_message(), 0..30),
        tail in prop::collection::vec(any::<u8>(), 0..20),
        sizes in prop::collection::vec(1usize..40, 1..20),
    ) {
        let stream: Vec<u8> = all.iter().flat_map(|(message, _)| message.clone()).chain(tail).collect();
        let stream = [HANDSHAKE, &stream].concat();
        prop_assert_eq!(pass(&stream, &sizes), pass(&stream, &[]));
    }

    #[test]
    fn nothing_of_a_dropped_message_passes_and_nothing_is_lost_of_the_others(
        all in prop::collection::vec(any_message(), 0..30),
        sizes in prop::collection::vec(1usize..40, 1..20),
    ) {
        let stream: Vec<u8> = all.iter().flat_map(|(message, _)| message.clone()).collect();
        let kept: Vec<u8> = all.iter().filter(|(_, passes)| *passes).flat_map(|(message, _)| message.clone()).collect();
        let got = pass(&[HANDSHAKE, &stream].concat(), &sizes);
        prop_assert_eq!(got, ([HANDSHAKE, &kept].concat(), None));
    }

    #[test]
    fn what_passes_of_anything_at_all_is_made_of_messages_that_pass(
        noise in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(vec![0u8, 1, 2, 3, 4, 5, 6, 150, 248, 255])], 0..400),
        sizes in prop::collection::vec(1usize..40, 1..20),
    ) {
        let (out, _) = pass(&[HANDSHAKE, &noise].concat(), &sizes);
        let mut rest = &out[HANDSHAKE.len()..];
        while let Some(kind) = rest.first() {
            let needs = match kind {
                0 => 20,
                3 | 150 => 10,
                2 if rest.len() < 4 => break,
                2 => 4 + 4 * (usize::from(rest[2]) * 256 + usize::from(rest[3])),
                248 if rest.len() < 9 => break,
                248 => 9 + usize::from(rest[8]),
                other => return Err(TestCaseError::fail(format!("{other} came through"))),
            };
            rest = &rest[needs.min(rest.len())..];
        }
    }
}
