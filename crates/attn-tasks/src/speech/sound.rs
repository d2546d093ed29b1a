//! How words sound: each is a sequence of phones, each phone some frames of its template with noise.
//!
//! Nothing marks where a word begins but its first phone, which is one of those that only begin words. No phone follows
//! itself, so that without noise a change of frame is a change of phone, and the words are known for sure.

use serde::{Deserialize, Serialize};

use crate::check::{Check, MOST, power};
use crate::error::Result;
use crate::rng::{NOISE_UNIT, Rng};
use crate::span::Span;
use crate::task::Source;

/// Sizes of sounds. More noise makes every task over them harder, and so do fewer frames of a phone.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SoundConfig {
    /// Phones there are, a third of which begin words. Default: 12.
    pub phones: usize,
    /// Elements of a frame. Default: 16.
    pub dim: usize,
    /// Phones of a word, at least 2. Default: 2 to 3.
    pub phones_per_word: Span,
    /// Frames of a phone, drawn anew whenever it is spoken. Default: 2 to 4.
    pub frames_per_phone: Span,
    /// Standard deviation of the noise of every element; elements of templates are between -1 and 1. Default: 0.3.
    pub noise: f32,
}

impl Default for SoundConfig {
    fn default() -> Self {
        Self {
            phones: 12,
            dim: 16,
            phones_per_word: Span::new(2, 3),
            frames_per_phone: Span::new(2, 4),
            noise: 0.3,
        }
    }
}

/// Templates' elements are whole multiples of 1 over this.
const LEVELS: i32 = 64;
/// Draws of a template after which those before it leave no room.
const TRIES: usize = 10_000;

/// The sounds of a task's words.
#[derive(Debug)]
pub(crate) struct Sound {
    pub(crate) config: SoundConfig,
    /// Template of every phone, `[phones, dim]`.
    pub(crate) templates: Vec<Vec<f32>>,
    /// Phones of every word.
    pub(crate) words: Vec<Vec<usize>>,
}

impl Sound {
    /// Sounds of `n_words` words, no two alike.
    pub(crate) fn new(config: SoundConfig, n_words: usize, seed: u64, check: Check) -> Result<Self> {
        check.between("sound.phones", config.phones, 3, MOST)?;
        check.between("sound.dim", config.dim, 1, MOST)?;
        check.span("sound.phones_per_word", config.phones_per_word, 2, 64)?;
        check.span("sound.frames_per_phone", config.frames_per_phone, 1, 64)?;
        if !(0.0..=4.0).contains(&config.noise) {
            return check.fail("sound.noise", config.noise, "0 to 4");
        }
        let begin = config.phones / 3;
        let possible = possible_words(begin, config.phones - begin, config.phones_per_word.max);
        if possible < 2 * n_words as u128 {
            let expected = format!("enough for {} words, there are {possible}", 2 * n_words);
            return check.fail("sound.phones_per_word", config.phones_per_word, expected);
        }
        let rng = &mut Rng::world(seed, "sound");
        let Some(templates) = draw_templates(rng, config.phones, config.dim) else {
            return check.fail("sound.dim", config.dim, "enough to tell the phones apart");
        };
        Ok(Self {
            words: draw_words(rng, &config, begin, n_words),
            templates,
            config,
        })
    }

    /// Frames `[n, dim]` of these words.
    pub(crate) fn speak(&self, words: &[usize], rng: &mut Rng) -> Source {
        let step = self.config.noise / NOISE_UNIT;
        let mut features = Vec::new();
        for phone in words.iter().flat_map(|word| &self.words[*word]) {
            for _ in 0..rng.within(self.config.frames_per_phone) {
                let frame = self.templates[*phone].iter();
                features.extend(frame.map(|element| element + rng.noise() as f32 * step));
            }
        }
        Source::Frames {
            features,
            dim: self.config.dim,
        }
    }

    /// Frames of the longest utterance of so many words.
    pub(crate) fn max_frames(&self, words: usize) -> usize {
        words * self.config.phones_per_word.max * self.config.frames_per_phone.max
    }
}

/// Words of exactly so many phones: one of those that begin words, then others, none twice in a row.
fn possible_words(begin: usize, inner: usize, phones: usize) -> u128 {
    (begin as u128 * inner as u128).saturating_mul(power(inner - 1, phones - 2))
}

fn draw_templates(rng: &mut Rng, phones: usize, dim: usize) -> Option<Vec<Vec<f32>>> {
    // Half of the distance that is usual, squared and in levels.
    let apart = dim as i64 * i64::from(LEVELS * LEVELS) / 4;
    let mut drawn: Vec<Vec<i32>> = Vec::with_capacity(phones);
    for _ in 0..phones {
        let template = (0..TRIES).find_map(|_| {
            let template: Vec<i32> = (0..dim)
                .map(|_| rng.below(2 * LEVELS as usize + 1) as i32 - LEVELS)
                .collect();
            let near = drawn
                .iter()
                .any(|other| squared_distance(other, &template) < apart);
            (!near).then_some(template)
        })?;
        drawn.push(template);
    }
    let elements = |template: Vec<i32>| {
        template
            .iter()
            .map(|level| *level as f32 / LEVELS as f32)
            .collect()
    };
    Some(drawn.into_iter().map(elements).collect())
}

fn squared_distance(a: &[i32], b: &[i32]) -> i64 {
    a.iter().zip(b).map(|(a, b)| i64::from((a - b).pow(2))).sum()
}

fn draw_words(rng: &mut Rng, config: &SoundConfig, begin: usize, n_words: usize) -> Vec<Vec<usize>> {
    let inner = config.phones - begin;
    let mut words: Vec<Vec<usize>> = Vec::with_capacity(n_words);
    while words.len() < n_words {
        let mut word = vec![rng.below(begin)];
        for _ in 1..rng.within(config.phones_per_word) {
            word.push(next_phone(rng, &word, begin, inner));
        }
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words
}

/// A phone that begins no word and is not the last one.
fn next_phone(rng: &mut Rng, word: &[usize], begin: usize, inner: usize) -> usize {
    loop {
        let phone = begin + rng.below(inner);
        if word.last() != Some(&phone) {
            return phone;
        }
    }
}
