//! What a guest's output can leave switched on in a person's terminal, and the sequences that switch it off again
//! (ECMA-48; xterm's "Control Sequences"; the kitty keyboard protocol). Terminals pass over those that they do not know.

/// Brings a terminal back to what a shell expects, whatever was written to it before. What is on the screen stays, and
/// so does the cursor's place; a full reset (`ESC c`) would take both. Palette and title stay as well: the person's
/// own may have been set by sequences, and nobody can ask for them.
pub const RESET: &str = concat!(
    // Out of VT52 mode, in which none of the rest is understood; out of a string that was not ended.
    "\x1b<\x1b\\",
    // Out of a frame that is being held back, or the rest is not seen.
    "\x1b[?2026l",
    // Leaving the alternate screen brings back a saved cursor, also where it was not on: save one.
    "\x1b7\x1b[?1049l",
    // Soft reset: origin mode, margins, character sets, keys. The one way to end origin mode with the cursor in its place.
    "\x1b[!p",
    // The same for terminals without it. Margins and the scroll region move the cursor: it is put back.
    "\x1b7\x1b[?69l\x1b[r\x1b8",
    "\x0f\x1b(B\x1b)B\x1b*B\x1b+B",
    // Keyboard locked, insert, line feed as new line; local echo off.
    "\x1b[2;4;20l\x1b[12h",
    // Keys: cursor and keypad as usual, modifyOtherKeys off, kitty's protocol off.
    "\x1b[?1;66l\x1b>\x1b[>4m\x1b[=0u",
    // Wrapping at the margin and key repeat on; reverse video and reverse wrap off.
    "\x1b[?7;8h\x1b[?5;45l",
    // Reports: mouse in each of its forms, focus, colour scheme, size; pasted text in brackets.
    "\x1b[?9;1000;1001;1002;1003;1005;1006;1015;1016l\x1b[?1004;2004;2031;2048l",
    // No link, no colours, a cursor of the usual form that is seen.
    "\x1b]8;;\x1b\\\x1b[0m\x1b[0 q\x1b[?25h",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_the_terminal_nothing_and_clears_nothing() {
        for asks_or_clears in ["c\x1b", "n\x1b", "J", "\x1bc", "$p", "?\x1b\\", "\x05"] {
            assert!(!RESET.contains(asks_or_clears), "{asks_or_clears:?}");
        }
        assert!(RESET.ends_with("\x1b[?25h"));
    }

    /// The Linux console reads 16 numbers of a sequence.
    #[test]
    fn no_sequence_has_more_numbers_than_a_terminal_reads() {
        assert!(RESET.split('\x1b').all(|sequence| sequence.matches(';').count() < 16));
    }
}
