use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::config::MAX_BYTES;

/// Whatever the text is, this much is enough, also on a slow and busy machine without optimisation.
const PATIENCE: Duration = Duration::from_secs(20);

fn refused_soon(what: &str, text: &str, part: &str) {
    let start = Instant::now();
    let problems = read(text).expect_err(what);
    assert!(start.elapsed() < PATIENCE, "{what}: {:?}", start.elapsed());
    assert!(problems.to_string().contains(part), "{what}: {problems}");
    assert!(problems.list.len() <= 100, "{what}");
}

#[test]
fn a_file_of_more_than_a_mebibyte_is_not_read() {
    let text = format!("{GLOBAL}#{}", "x".repeat(MAX_BYTES));
    refused_soon("large", &text, "larger than 1 MiB");
}

#[test]
fn alias_bombs_are_refused() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..10 {
        let last = format!("*a{}", n - 1);
        laughs.push_str(&format!("a{n}: &a{n} [{}]\n", [last.as_str(); 10].join(", ")));
    }
    refused_soon("laughs", &laughs, "more than 100000 values");
    let wide = format!("a: &a [{}]\nb: [{}]\n", "x, ".repeat(50_000), "*a, ".repeat(50_000));
    refused_soon("wide", &wide, "more than 100000 values");
    refused_soon("itself", "a: &a [*a]\n", "nested too deeply");
}

#[test]
fn deep_nesting_is_refused() {
    let most = MAX_BYTES / 2;
    for (what, text) in [
        ("lists", "[".repeat(most)),
        ("mappings", "{".repeat(most)),
        ("mappings with keys", "{a: ".repeat(most / 4)),
        ("lists on lines", "[\n".repeat(most / 2)),
        ("dashes", "- ".repeat(most / 2)),
        ("questions", "? ".repeat(most / 2)),
    ] {
        refused_soon(what, &text, "nested too deeply");
    }
}

#[test]
fn very_many_problems_are_counted_not_listed() {
    let many: String = (0..10_000).map(|n| format!("  unknown{n}: 1\n")).collect();
    let text = format!("{GLOBAL}ssh:\n{many}");
    let start = Instant::now();
    let problems = read(&text).unwrap_err();
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    assert_eq!(problems.list.len() + problems.more, 10_004);
}

/// Pieces that configurations are made of, in any order.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("global:\n".to_owned()),
        Just("ssh:\n".to_owned()),
        Just(GLOBAL.to_owned()),
        Just(format!("{APP}}}\n")),
        Just("---\n".to_owned()),
        Just("<<: ".to_owned()),
        Just("&a ".to_owned()),
        Just("*a ".to_owned()),
        Just("  - ".to_owned()),
        Just("? ".to_owned()),
        Just(": ".to_owned()),
        Just("!!int ".to_owned()),
        Just("| \n  x\n".to_owned()),
        "[\\[\\]{},\"' \n\t-]{1,4}",
        "(  )?(port|protocol|duration|max_duration|destination|allow|mark|established|access_key_http|interface_ext|2fa_step): (0|22|-1|1\\.5|\\[\\]|\\[22, a\\]|tcp|keep|fd00::5|~|true|0x10/0xff)\n",
        "\\PC{0,6}",
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn is_sound(text: &str) -> Result<(), TestCaseError> {
    if let Err(problems) = read(text) {
        prop_assert!(problems.errors() > 0);
        let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
        for problem in &problems.list {
            let place = problem.place.unwrap();
            prop_assert!(place.line >= 1 && place.column >= 1 && place.line <= lines + 1, "{}", problem);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        is_sound(&String::from_utf8_lossy(&bytes))?;
    }

    #[test]
    fn no_arrangement_of_pieces_makes_it_panic(text in pieces()) {
        is_sound(&text)?;
    }

    #[test]
    fn no_small_change_of_a_good_file_makes_it_panic(at in 0_usize..600, with in "\\PC{0,3}", cut in 0_usize..8) {
        let good = include_str!("knock_port_example.yaml");
        let mut chars: Vec<char> = good.chars().collect();
        let at = at.min(chars.len());
        let end = (at + cut).min(chars.len());
        chars.splice(at..end, with.chars());
        is_sound(&chars.into_iter().collect::<String>())?;
    }
}
