//! What the rows say about the way of computing: the seed's, habit by habit, against ours with least work.

use crate::figures::points::{is_baseline, quotient, time};
use crate::figures::ways::by_way;
use crate::frame::{Frame, Row};
use crate::habits::Habits;
use crate::sheet::Measured;
use crate::slice::{Slice, WAYS, sizes};
use crate::style::series_key;
use crate::units::Unit;

use super::data::Table;
use super::findings::{Block, Sentence, doubt, interval_of, side, times, within};

/// A block for each workload of whole decoders that ran in the seed's way, with all habits, and fused.
pub(super) fn blocks(frame: &Frame) -> Vec<Block> {
    let slices = Slice::split(frame, WAYS, Row::is_timed_model);
    slices.iter().filter_map(block).collect()
}

fn block(slice: &Slice<'_>) -> Option<Block> {
    let (ways, _) = by_way(slice, time);
    let (seed, before) = ways.iter().find(|(way, _)| way.habits() == Some(Habits::ALL))?;
    let (ours, after) = ways.last().filter(|(way, _)| !way.is_seedlike())?;
    let mut table = Table::new(&[
        "variant",
        ">seed's way",
        ">ours",
        ">times as fast",
        "95 % interval",
        "verdict",
        "trust",
    ]);
    let mut pairs: Vec<(&Row, &Row, Measured)> = Vec::new();
    let mut short = Vec::new();
    for (key, _) in slice.series(after) {
        let of = |rows: &[&'_ Row]| rows.iter().position(|row| series_key(row) == key);
        let (Some(from), Some(to)) = (of(before), of(after)) else {
            continue;
        };
        let (from, to) = (before[from], after[to]);
        let (Some(slow), Some(fast)) = (time(from), time(to)) else {
            continue;
        };
        let ratio = quotient(slow, fast);
        let seconds = |time: Measured| Unit::Seconds.format(time.value, 3, false);
        let told = format!("{} {}", times(ratio.value), within(ratio));
        table.push(vec![
            key.1.clone(),
            seconds(slow),
            seconds(fast),
            times(ratio.value),
            within(ratio),
            side(ratio).word().to_owned(),
            ratio.grade.name().to_owned(),
        ]);
        short.push((key.1.clone(), told.trim_end().to_owned()));
        pairs.push((from, to, ratio));
    }
    let mut sentences = Vec::new();
    if let Some((from, to, ratio)) = pairs.iter().find(|(from, _, _)| is_baseline(from)) {
        sentences.push(sentence(
            format!(
                "The same MHA is {} as fast our way as in the seed's{}: this much is no merit of a variant.",
                times(ratio.value),
                interval_of(*ratio)
            ),
            *ratio,
            [*from, *to],
        ));
        let fastest = pairs.iter().filter(|(_, to, _)| !is_baseline(to));
        let value = |row: &Row| time(row).map_or(f64::INFINITY, |time| time.value);
        if let Some((_, best, _)) = fastest.min_by(|a, b| value(a.1).total_cmp(&value(b.1))) {
            let whole = quotient(time(from)?, time(best)?);
            sentences.push(sentence(
                format!(
                    "From the seed's way with MHA to ours with {}, the fastest variant there: {}{}.",
                    series_key(best).1,
                    times(whole.value),
                    interval_of(whole)
                ),
                whole,
                [*from, *best],
            ));
        }
    }
    (!pairs.is_empty()).then(|| Block {
        title: format!("From the seed's way to ours: {}", sizes(after[0])),
        setting: format!("{} against {}", seed.title(), ours.title()),
        sentences,
        table,
        short,
    })
}

fn sentence(text: String, ratio: Measured, rows: [&Row; 2]) -> Sentence {
    Sentence {
        text,
        state: side(ratio).state(),
        doubt: doubt(rows.into_iter()),
    }
}
