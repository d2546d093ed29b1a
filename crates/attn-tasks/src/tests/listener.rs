//! A listener who knows how words sound: the words that are likeliest to have made the frames.

use crate::speech::sound::Sound;
use crate::task::Source;

/// The words whose phones, each of a length that it can have, are nearest to the frames.
///
/// `best[f]` is the least squared distance of any words that end before frame f, with the last of them and its beginning.
pub(super) fn listen(sound: &Sound, source: &Source) -> Vec<usize> {
    let n = source.len();
    let costs = costs(sound, source);
    let mut best: Vec<(f64, usize, usize)> = vec![(f64::INFINITY, 0, 0); n + 1];
    best[0].0 = 0.0;
    for begin in 0..n {
        let so_far = best[begin].0;
        if so_far.is_infinite() {
            continue;
        }
        for (word, phones) in sound.words.iter().enumerate() {
            for (end, cost) in ends(sound, phones, &costs, begin, n) {
                if so_far + cost < best[end].0 {
                    best[end] = (so_far + cost, word, begin);
                }
            }
        }
    }
    let mut words = Vec::new();
    let mut end = n;
    while end > 0 {
        let (cost, word, begin) = best[end];
        assert!(cost.is_finite(), "no words can have made these frames");
        words.push(word);
        end = begin;
    }
    words.reverse();
    words
}

/// Squared distance of each phone to the frames before each frame, `[phones][n + 1]`.
fn costs(sound: &Sound, source: &Source) -> Vec<Vec<f64>> {
    let Source::Frames { features, dim } = source else {
        panic!("there is nothing to hear");
    };
    let of_phone = |template: &Vec<f32>| {
        let mut sum = 0.0;
        let mut costs = vec![0.0];
        for frame in features.chunks(*dim) {
            sum += frame
                .iter()
                .zip(template)
                .map(|(a, b)| f64::from(a - b).powi(2))
                .sum::<f64>();
            costs.push(sum);
        }
        costs
    };
    sound.templates.iter().map(of_phone).collect()
}

/// Where a word that begins at a frame can end, and what it costs.
fn ends(sound: &Sound, phones: &[usize], costs: &[Vec<f64>], begin: usize, n: usize) -> Vec<(usize, f64)> {
    let frames = sound.config.frames_per_phone;
    let mut reached = vec![(begin, 0.0)];
    for phone in phones {
        let mut then: Vec<(usize, f64)> = Vec::new();
        for (at, cost) in reached {
            for end in (at + frames.min..=at + frames.max).take_while(|end| *end <= n) {
                let cost = cost + costs[*phone][end] - costs[*phone][at];
                match then.iter_mut().find(|(other, _)| *other == end) {
                    Some((_, least)) => *least = least.min(cost),
                    None => then.push((end, cost)),
                }
            }
        }
        reached = then;
    }
    reached
}
