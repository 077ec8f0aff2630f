//! The difference of two texts, line by line, in the unified form that `patch` reads and people know.

use std::fmt::Write as _;

/// Lines around a change that are shown with it.
const AROUND: usize = 3;
/// Beyond this many comparisons the middle is shown as replaced as a whole: memory stays bounded.
const MOST: usize = 4 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Line<'t> {
    Both(&'t str),
    Old(&'t str),
    New(&'t str),
}

/// A unified diff; empty where the texts are equal.
#[must_use]
pub fn unified(old_name: &str, old: &str, new_name: &str, new: &str) -> String {
    let lines = compare(&lines(old), &lines(new));
    let changed: Vec<usize> = (0..lines.len()).filter(|at| !matches!(lines[*at], Line::Both(_))).collect();
    let Some((first, _)) = changed.split_first() else { return String::new() };
    let mut hunks = vec![(*first, *first)];
    for at in changed {
        match hunks.last_mut() {
            Some((_, last)) if at <= *last + 2 * AROUND + 1 => *last = at,
            _ => hunks.push((at, at)),
        }
    }
    let mut out = format!("--- {old_name}\n+++ {new_name}\n");
    for (first, last) in hunks {
        let range = first.saturating_sub(AROUND)..(last + 1 + AROUND).min(lines.len());
        let numbers = |lines: &[Line<'_>], old: bool| {
            lines
                .iter()
                .filter(|line| if old { !matches!(line, Line::New(_)) } else { !matches!(line, Line::Old(_)) })
                .count()
        };
        let start = |old| numbers(&lines[..range.start], old) + usize::from(numbers(&lines[range.clone()], old) > 0);
        let count = |old| numbers(&lines[range.clone()], old);
        let _ = writeln!(out, "@@ -{},{} +{},{} @@", start(true), count(true), start(false), count(false));
        for line in &lines[range] {
            let (sign, text) = match line {
                Line::Both(text) => (' ', text),
                Line::Old(text) => ('-', text),
                Line::New(text) => ('+', text),
            };
            out.push(sign);
            out.push_str(text);
            if !text.ends_with('\n') {
                out.push_str("\n\\ No newline at end of file\n");
            }
        }
    }
    out
}

fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

fn compare<'t>(old: &[&'t str], new: &[&'t str]) -> Vec<Line<'t>> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let mut out: Vec<_> = old[..head].iter().map(|line| Line::Both(line)).collect();
    middle(&old[head..old.len() - tail], &new[head..new.len() - tail], &mut out);
    out.extend(old[old.len() - tail..].iter().map(|line| Line::Both(line)));
    out
}

/// The longest common subsequence, by the table that every textbook has.
fn middle<'t>(old: &[&'t str], new: &[&'t str], out: &mut Vec<Line<'t>>) {
    let width = new.len() + 1;
    let (mut a, mut b) = (0, 0);
    if old.len().saturating_mul(width) <= MOST {
        let mut longest = vec![0u32; (old.len() + 1) * width];
        for i in (0..old.len()).rev() {
            for j in (0..new.len()).rev() {
                longest[i * width + j] = if old[i] == new[j] {
                    longest[(i + 1) * width + j + 1] + 1
                } else {
                    longest[(i + 1) * width + j].max(longest[i * width + j + 1])
                };
            }
        }
        while a < old.len() && b < new.len() {
            if old[a] == new[b] {
                out.push(Line::Both(old[a]));
                (a, b) = (a + 1, b + 1);
            } else if longest[(a + 1) * width + b] >= longest[a * width + b + 1] {
                out.push(Line::Old(old[a]));
                a += 1;
            } else {
                out.push(Line::New(new[b]));
                b += 1;
            }
        }
    }
    out.extend(old[a..].iter().map(|line| Line::Old(line)));
    out.extend(new[b..].iter().map(|line| Line::New(line)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn changes_that_are_near_share_a_hunk_and_far_ones_do_not() {
        let old: String = (0..30).map(|n| n.to_string() + "\n").collect();
        let new = old.replace("\n5\n", "\nfive\n").replace("\n8\n", "\n8\n8½\n").replace("\n25\n", "\n");
        let diff = unified("a", &old, "b", &new);
        let expected = "--- a\n+++ b\n@@ -3,10 +3,11 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n+8½\n 9\n 10\n 11\n@@ -23,7 +24,6 @@\n 22\n 23\n 24\n-25\n 26\n 27\n 28\n";
        assert_eq!(diff, expected);
    }

    #[test]
    fn a_last_line_without_its_end_is_said() {
        assert_eq!(
            unified("a", "x", "b", "x\n"),
            "--- a\n+++ b\n@@ -1,1 +1,1 @@\n-x\n\\ No newline at end of file\n+x\n"
        );
        assert_eq!(unified("a", "", "b", "x\n"), "--- a\n+++ b\n@@ -0,0 +1,1 @@\n+x\n");
        assert_eq!(unified("a", "x", "b", "x"), "");
    }

    proptest! {
        #[test]
        fn both_texts_can_be_read_off(old in "([abc]\n){0,12}", new in "([abc]\n){0,12}") {
            let lines = compare(&lines(&old), &lines(&new));
            let of = |keep: fn(&Line<'_>) -> bool| -> String {
                lines.iter().filter(|line| keep(line)).map(|line| match line {
                    Line::Both(text) | Line::Old(text) | Line::New(text) => *text,
                }).collect()
            };
            prop_assert_eq!(&of(|line| !matches!(line, Line::New(_))), &old);
            prop_assert_eq!(&of(|line| !matches!(line, Line::Old(_))), &new);
        }
    }
}
