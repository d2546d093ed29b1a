//! The Porter stemmer (Porter, 1980) with the extensions nltk has by default. It is not Snowball's English stemmer,
//! which came later and gives other stems.

/// Forms that the rules get wrong.
const IRREGULAR: [(&str, &str); 16] = [
    ("sky", "sky"),
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("innings", "inning"),
    ("inning", "inning"),
    ("outings", "outing"),
    ("outing", "outing"),
    ("cannings", "canning"),
    ("canning", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
    ("exceed", "exceed"),
    ("succeed", "succeed"),
];

/// Step 2, and nltk's two rules at its end.
const STEP_2: [(&str, &str); 22] = [
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("fulli", "ful"),
    ("logi", "log"),
];

const STEP_3: [(&str, &str); 7] = [
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
];

const STEP_4: [&str; 19] = [
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism",
    "ate", "iti", "ous", "ive", "ize",
];

/// The stem of a word of a to z and digits.
pub(super) fn stem(word: &str) -> String {
    if let Some((_, stem)) = IRREGULAR.iter().find(|(form, _)| *form == word) {
        return (*stem).to_owned();
    }
    if word.len() <= 2 {
        return word.to_owned();
    }
    let word = step_1a(word);
    let word = step_1b(&word);
    let word = step_1c(&word);
    let word = step_2(&word);
    let word = first_suffix(&word, &STEP_3, |stem, _| measure(stem) > 0);
    let word = first_suffix(&word, &STEP_4.map(|suffix| (suffix, "")), |stem, suffix| {
        measure(stem) > 1 && (suffix != "ion" || stem.ends_with(['s', 't']))
    });
    step_5(word)
}

/// Plurals.
fn step_1a(word: &str) -> String {
    if word.len() == 4 && word.ends_with("ies") {
        return word[..3].to_owned();
    }
    let rules = [("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")];
    first_suffix(word, &rules, |_, _| true)
}

/// Past participles and gerunds.
fn step_1b(word: &str) -> String {
    if let Some(stem) = word.strip_suffix("ied") {
        return stem.to_owned() + if word.len() == 4 { "ie" } else { "i" };
    }
    if let Some(stem) = word.strip_suffix("eed") {
        return stem.to_owned() + if measure(stem) > 0 { "ee" } else { "eed" };
    }
    let stem = ["ed", "ing"].iter().find_map(|suffix| word.strip_suffix(suffix));
    let Some(stem) = stem.filter(|stem| consonants(stem).contains(&false)) else {
        return word.to_owned();
    };
    if stem.ends_with("at") || stem.ends_with("bl") || stem.ends_with("iz") {
        stem.to_owned() + "e"
    } else if ends_in_double(stem) {
        let is_kept = stem.ends_with(['l', 's', 'z']);
        stem[..stem.len() - usize::from(!is_kept)].to_owned()
    } else if measure(stem) == 1 && ends_short(stem) {
        stem.to_owned() + "e"
    } else {
        stem.to_owned()
    }
}

/// A y after a consonant becomes an i, but not in words of two letters.
fn step_1c(word: &str) -> String {
    match word.strip_suffix('y') {
        Some(stem) if stem.len() > 1 && consonants(stem).ends_with(&[true]) => stem.to_owned() + "i",
        _ => word.to_owned(),
    }
}

fn step_2(word: &str) -> String {
    match word.strip_suffix("alli") {
        Some(stem) if measure(stem) > 0 => step_2(&(stem.to_owned() + "al")),
        // The l of "logi" counts with the stem: "geologi" and "theologi" have short ones.
        _ => first_suffix(word, &STEP_2, |stem, suffix| match suffix {
            "logi" => measure(&word[..stem.len() + 1]) > 0,
            _ => measure(stem) > 0,
        }),
    }
}

/// A final e, then a double l.
fn step_5(mut word: String) -> String {
    let is_silent = |stem| measure(stem) > 1 || (measure(stem) == 1 && !ends_short(stem));
    if word.strip_suffix('e').is_some_and(is_silent) {
        word.truncate(word.len() - 1);
    }
    if word.ends_with("ll") && measure(&word[..word.len() - 1]) > 1 {
        word.truncate(word.len() - 1);
    }
    word
}

/// Replaces the first suffix that the word has, if the rest may be a stem; no other one is tried then.
fn first_suffix(word: &str, rules: &[(&str, &str)], is_stem: impl Fn(&str, &str) -> bool) -> String {
    for (suffix, replacement) in rules {
        if let Some(stem) = word.strip_suffix(suffix) {
            return match is_stem(stem, suffix) {
                true => stem.to_owned() + replacement,
                false => word.to_owned(),
            };
        }
    }
    word.to_owned()
}

/// Whether each letter is a consonant; a y is one where the letter before it is not.
fn consonants(word: &str) -> Vec<bool> {
    let mut flags: Vec<bool> = Vec::with_capacity(word.len());
    for letter in word.bytes() {
        flags.push(match letter {
            b'a' | b'e' | b'i' | b'o' | b'u' => false,
            b'y' => !flags.last().is_some_and(|is_consonant| *is_consonant),
            _ => true,
        });
    }
    flags
}

/// How often a consonant follows a vowel.
fn measure(stem: &str) -> usize {
    consonants(stem)
        .windows(2)
        .filter(|pair| !pair[0] && pair[1])
        .count()
}

fn ends_in_double(word: &str) -> bool {
    let is_double = matches!(word.as_bytes(), [.., a, b] if a == b);
    is_double && consonants(word).ends_with(&[true])
}

/// Whether it ends in consonant, vowel, consonant, the last not w, x or y; or is a vowel and a consonant.
fn ends_short(word: &str) -> bool {
    let flags = consonants(word);
    (flags.ends_with(&[true, false, true]) && !word.ends_with(['w', 'x', 'y'])) || flags == [false, true]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_paper_have_their_stems() {
        for (word, expected) in [
            ("caresses", "caress"),
            ("ponies", "poni"),
            ("agreed", "agre"),
            ("feed", "feed"),
            ("hopping", "hop"),
            ("falling", "fall"),
            ("filing", "file"),
            ("relational", "relat"),
            ("vietnamization", "vietnam"),
            ("adoption", "adopt"),
            ("controll", "control"),
            ("roll", "roll"),
        ] {
            assert_eq!(stem(word), expected, "{word}");
        }
    }

    #[test]
    fn stems_are_those_of_nltk() {
        let fixture: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/fixtures/metrics.json")).unwrap();
        let stems: Vec<(String, String)> = serde_json::from_value(fixture["stems"].clone()).unwrap();
        assert!(stems.len() > 1_000);
        for (word, expected) in stems {
            assert_eq!(stem(&word), expected, "{word}");
        }
    }

    #[test]
    fn nltk_differs_from_the_paper_where_it_says() {
        for (word, expected) in [
            ("dies", "die"),
            ("died", "die"),
            ("spied", "spi"),
            ("enjoy", "enjoy"),
            ("spy", "spi"),
            ("skies", "sky"),
            ("succeed", "succeed"),
            ("geology", "geolog"),
        ] {
            assert_eq!(stem(word), expected, "{word}");
        }
    }
}
