//! The word somebody may have meant.

/// The known word nearest to what was written, if any is near enough to be meant.
pub(super) fn nearest<'w>(written: &str, known: &[&'w str]) -> Option<&'w str> {
    // A long word is nobody's typing error, and the distance costs the product of the lengths.
    if written.chars().count() > 40 {
        return None;
    }
    let plain = |word: &str| word.to_lowercase().replace(['-', ' '], "_");
    let written = plain(written);
    known
        .iter()
        .map(|word| (distance_or_swap(&written, &plain(word)), distance(&written, &plain(word)), *word))
        .filter(|(far, _, word)| *far <= (word.len() / 3).clamp(1, 4))
        .min_by_key(|(far, exactly, _)| (*far, *exactly))
        .map(|(.., word)| word)
}

/// The distance, where letters in another order count as one mistake.
fn distance_or_swap(a: &str, b: &str) -> usize {
    let letters = |word: &str| {
        let mut letters: Vec<char> = word.chars().collect();
        letters.sort_unstable();
        letters
    };
    let far = distance(a, b);
    if far > 1 && letters(a) == letters(b) { 1 } else { far }
}

/// How many letters must be put in, taken out or changed to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(b.chars()) {
            let above = *cell;
            let change = diagonal + usize::from(from != to);
            left = change.min(above + 1).min(left + 1);
            diagonal = above;
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_levenshtein() {
        for (a, b, far) in
            [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("port", "prot", 2), ("a", "a", 0)]
        {
            assert_eq!(distance(a, b), far, "{a} {b}");
            assert_eq!(distance(b, a), far, "{b} {a}");
        }
    }

    #[test]
    fn only_near_words_are_suggested() {
        let known = ["port", "protocol", "access_key_http", "access_key_https"];
        assert_eq!(nearest("prot", &known), Some("port"));
        assert_eq!(nearest("ports", &known), Some("port"));
        assert_eq!(nearest("Protocol", &known), Some("protocol"));
        assert_eq!(nearest("acess-key-http", &known), Some("access_key_http"));
        assert_eq!(nearest("banana", &known), None);
        assert_eq!(nearest(&"x".repeat(1_000), &known), None);
    }
}
