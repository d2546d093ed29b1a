//! One look for every figure: sizes, greys, and a colour and a marker for each variant.
//!
//! The colours are Okabe and Ito's, which stay apart for colour-blind readers. MTLA's strides are shades of
//! their blue, because they are points on one curve; every other variant has a hue of its own.

use crate::frame::Row;
use crate::marker::Marker;
use Marker::{Circle, Diamond, Down, Hexagon, Left, Pentagon, Right, Square, Star, Up};
use plotters::style::RGBColor;
use std::collections::{BTreeMap, BTreeSet};

/// The font of every text. The first one is compiled in, the others serve browsers without it.
pub(crate) const FONT_FAMILY: &str = "Roboto, Helvetica, Arial, sans-serif";

pub(crate) const TITLE_SIZE: f64 = 17.0;
pub(crate) const SUBTITLE_SIZE: f64 = 12.5;
pub(crate) const PANEL_TITLE_SIZE: f64 = 12.0;
pub(crate) const AXIS_TITLE_SIZE: f64 = 12.0;
pub(crate) const LABEL_SIZE: f64 = 12.0;
pub(crate) const TICK_SIZE: f64 = 11.0;
pub(crate) const CAPTION_SIZE: f64 = 10.5;

pub(crate) const INK: RGBColor = RGBColor(0x1F, 0x1F, 0x1F);
pub(crate) const GREY: RGBColor = RGBColor(0x55, 0x55, 0x55);
pub(crate) const AXIS: RGBColor = RGBColor(0x77, 0x77, 0x77);
pub(crate) const GRID: RGBColor = RGBColor(0xE3, 0xE3, 0xE3);
pub(crate) const MINOR_GRID: RGBColor = RGBColor(0xF2, 0xF2, 0xF2);
pub(crate) const LEADER: RGBColor = RGBColor(0xB5, 0xB5, 0xB5);
/// Of waterfalls: wholes in legends, what a step saves, and what one costs.
pub(crate) const WHOLE: RGBColor = RGBColor(0x33, 0x33, 0x33);
pub(crate) const SAVED: RGBColor = RGBColor(0xBD, 0xC4, 0xCC);
pub(crate) const WASTED: RGBColor = RGBColor(0xD9, 0x4F, 0x43);

/// How a variant looks wherever it is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) color: RGBColor,
    pub(crate) marker: Marker,
}

impl Look {
    /// The colour, darkened until it can be read as text on white (a contrast of 4.5).
    pub(crate) fn ink(&self) -> RGBColor {
        let mut color = self.color;
        while 1.05 / (luminance(color) + 0.05) < 4.5 {
            let darker = |channel: u8| (f64::from(channel) * 0.93) as u8;
            color = RGBColor(darker(color.0), darker(color.1), darker(color.2));
        }
        color
    }
}

/// The colour of a share: from nearly white to a dark blue, darker in print and for every eye the larger it is.
pub(crate) fn share_color(share: f64) -> RGBColor {
    const STOPS: [(u8, u8, u8); 6] = [
        (0xF4, 0xF7, 0xFB),
        (0xD3, 0xE3, 0xF1),
        (0x9F, 0xC6, 0xE2),
        (0x56, 0x9F, 0xCE),
        (0x1F, 0x6F, 0xB1),
        (0x08, 0x30, 0x6B),
    ];
    let place = share.clamp(0.0, 1.0) * (STOPS.len() - 1) as f64;
    let below = (place as usize).min(STOPS.len() - 2);
    let part = place - below as f64;
    let (a, b) = (STOPS[below], STOPS[below + 1]);
    let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * part).round() as u8;
    RGBColor(mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}

/// White or ink, whichever can be read on the colour.
pub(crate) fn text_on(color: RGBColor) -> RGBColor {
    if luminance(color) < 0.3 {
        RGBColor(0xFF, 0xFF, 0xFF)
    } else {
        INK
    }
}

/// Relative luminance as WCAG 2 defines it.
fn luminance(color: RGBColor) -> f64 {
    let linear = |channel: u8| {
        let c = f64::from(channel) / 255.0;
        if c <= 0.04045 {
            c / 12.92
        } else {
            ((c + 0.055) / 1.055).powf(2.4)
        }
    };
    0.2126 * linear(color.0) + 0.7152 * linear(color.1) + 0.0722 * linear(color.2)
}

/// What tells one series from another: variant and name.
pub(crate) type SeriesKey = (String, String);

/// The series a row belongs to. Its name is the label, and `MHA ÷2` where the encoder's states were made fewer.
pub(crate) fn series_key(row: &Row) -> SeriesKey {
    let name = match row.downsample {
        Some(n @ 2..) => format!("{} ÷{n}", row.label),
        _ => row.label.clone(),
    };
    (row.variant.clone(), name)
}

/// Whether a row is of a variant as it is usually built: only then has a stride the slot that is its own.
fn is_usual(row: &Row) -> bool {
    let is = |setting: &Option<String>, usual: &str| setting.as_deref().is_none_or(|value| value == usual);
    is(&row.merge, "hyper")
        && is(&row.rope_key, "newest")
        && is(&row.train_mask, "strided")
        && row.downsample.is_none_or(|n| n <= 1)
}

const fn look(color: (u8, u8, u8), marker: Marker) -> Look {
    Look {
        color: RGBColor(color.0, color.1, color.2),
        marker,
    }
}

/// The looks of a known variant. The first is the one it nearly always has; the others are for several
/// settings of it in one frame.
fn family(variant: &str) -> Option<&'static [Look]> {
    const MHA: &[Look] = &[look((0x33, 0x33, 0x33), Circle), look((0x8A, 0x8A, 0x8A), Circle)];
    const GQA: &[Look] = &[
        look((0xE6, 0x9F, 0x00), Square),
        look((0xA8, 0x6C, 0x00), Square),
        look((0xF3, 0xC7, 0x66), Square),
        look((0x75, 0x4B, 0x00), Square),
    ];
    const MQA: &[Look] = &[
        look((0xD5, 0x5E, 0x00), Diamond),
        look((0x8F, 0x3F, 0x00), Diamond),
    ];
    const MLA: &[Look] = &[
        look((0x00, 0x9E, 0x73), Up),
        look((0x00, 0x5C, 0x43), Up),
        look((0x66, 0xC5, 0xAB), Up),
        look((0x00, 0x7D, 0x5B), Up),
    ];
    // Shades of blue for strides, then violets and slates for other ways to merge.
    const MTLA: &[Look] = &[
        look((0xA9, 0xD5, 0xF2), Hexagon),
        look((0x56, 0xB4, 0xE9), Down),
        look((0x00, 0x72, 0xB2), Pentagon),
        look((0x00, 0x3D, 0x66), Star),
        look((0x5B, 0x7F, 0xB8), Left),
        look((0x2E, 0x3F, 0x8F), Right),
        look((0x8A, 0x5F, 0xBF), Diamond),
        look((0x5B, 0x2A, 0x86), Up),
        look((0xB9, 0x8F, 0xD9), Square),
        look((0x6B, 0x7F, 0x93), Circle),
        look((0x3B, 0x4A, 0x59), Left),
        look((0x9F, 0xB0, 0xC0), Star),
    ];
    const _: () = assert!(MTLA.len() > UNUSUAL_SLOT);
    match variant {
        "mha" => Some(MHA),
        "gqa" => Some(GQA),
        "mqa" => Some(MQA),
        "mla" => Some(MLA),
        "mtla" => Some(MTLA),
        _ => None,
    }
}

/// For variants this crate has never heard of, given out in the order of their names.
const EXTRA: &[Look] = &[
    look((0xCC, 0x79, 0xA7), Right),
    look((0x88, 0x22, 0x55), Left),
    look((0x99, 0x99, 0x33), Hexagon),
    look((0x7A, 0x5C, 0x3C), Pentagon),
    look((0x66, 0x33, 0xAA), Star),
];

/// Of lines through all strides, which have no look of their own: MTLA's blue, then hues far from it.
pub(crate) fn line_look(at: usize) -> Look {
    const LOOKS: [Look; 6] = [
        look((0x00, 0x72, 0xB2), Pentagon),
        look((0x8A, 0x5F, 0xBF), Diamond),
        look((0x56, 0xB4, 0xE9), Down),
        look((0xCC, 0x79, 0xA7), Square),
        look((0x00, 0x3D, 0x66), Star),
        look((0x6B, 0x7F, 0x93), Circle),
    ];
    LOOKS[at % LOOKS.len()]
}

/// Where a known variant stands in every list; unknown ones follow, by name.
pub(crate) fn rank(variant: &str) -> usize {
    const ORDER: [&str; 5] = ["mha", "gqa", "mqa", "mla", "mtla"];
    ORDER
        .iter()
        .position(|known| *known == variant)
        .unwrap_or(ORDER.len())
}

/// The first slot of what is not MTLA as it is usually built.
const UNUSUAL_SLOT: usize = 6;

/// The slot a stride has wherever it appears, so that `s=2` looks the same in every run.
fn preferred_slot(variant: &str, stride: Option<u64>, is_usual: bool) -> usize {
    match (variant, stride) {
        ("mtla", _) if !is_usual => UNUSUAL_SLOT,
        ("mtla", Some(0 | 1)) => 0,
        ("mtla", Some(2) | None) => 1,
        ("mtla", Some(3)) => 2,
        ("mtla", Some(4)) => 3,
        ("mtla", Some(5..=8)) => 4,
        ("mtla", Some(_)) => 5,
        _ => 0,
    }
}

/// A family's colours, with the markers one further each time round.
fn beyond(slots: &[Look], at: usize) -> Look {
    const MARKERS: [Marker; 10] = [
        Circle, Square, Diamond, Up, Down, Left, Right, Pentagon, Hexagon, Star,
    ];
    let Look { color, marker } = slots[at % slots.len()];
    let own = MARKERS.iter().position(|known| *known == marker).unwrap_or(0);
    Look {
        color,
        marker: MARKERS[(own + 1 + at / slots.len()) % MARKERS.len()],
    }
}

/// The look of every series of a frame, and their order.
#[derive(Debug, Clone)]
pub(crate) struct Palette {
    looks: BTreeMap<SeriesKey, Look>,
    order: Vec<SeriesKey>,
}

impl Palette {
    pub(crate) fn new(rows: &[Row]) -> Self {
        // Stride, heads and whether it is usual, from whichever row of the series knows them.
        let mut parameters: BTreeMap<SeriesKey, (Option<u64>, Option<u64>, bool)> = BTreeMap::new();
        for row in rows {
            let known = parameters.entry(series_key(row)).or_insert((None, None, true));
            *known = (
                known.0.max(row.stride),
                known.1.max(row.n_kv_heads),
                known.2 && is_usual(row),
            );
        }
        let mut order: Vec<SeriesKey> = parameters.keys().cloned().collect();
        // Many KV heads first: from MHA's cache down to MQA's.
        order.sort_by_key(|key| {
            let (stride, heads, _) = parameters[key];
            (
                rank(&key.0),
                key.0.clone(),
                stride,
                heads.map(std::cmp::Reverse),
                key.1.clone(),
            )
        });

        let mut looks = BTreeMap::new();
        let mut taken: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        let mut strangers: Vec<&SeriesKey> = Vec::new();
        // The usual ones choose first, and of several that differ in their labels alone the one with the first.
        let mut chosen: BTreeSet<(&str, Option<u64>, Option<u64>)> = BTreeSet::new();
        let (usual, others): (Vec<&SeriesKey>, Vec<&SeriesKey>) = order.iter().partition(|key| {
            let (stride, heads, is_usual) = parameters[*key];
            is_usual && chosen.insert((key.0.as_str(), stride, heads))
        });
        for key in usual.into_iter().chain(others) {
            let Some(slots) = family(&key.0) else {
                strangers.push(key);
                continue;
            };
            let used = taken.entry(&key.0).or_default();
            let (stride, _, is_usual) = parameters[key];
            let wanted = preferred_slot(&key.0, stride, is_usual);
            let free = (wanted..slots.len())
                .chain(0..wanted)
                .find(|slot| !used.contains(slot));
            // Where all are taken: a colour of the family with a marker that nothing of it has.
            let look = match free {
                Some(slot) => slots[slot],
                None => beyond(slots, used.len() - slots.len()),
            };
            used.insert(free.unwrap_or(used.len()));
            looks.insert(key.clone(), look);
        }
        for (at, key) in strangers.into_iter().enumerate() {
            looks.insert(key.clone(), EXTRA[at % EXTRA.len()]);
        }
        Self { looks, order }
    }

    /// The look of a series; one that is not in the frame looks like MHA's, which cannot happen in a figure.
    pub(crate) fn look(&self, key: &SeriesKey) -> Look {
        self.looks
            .get(key)
            .copied()
            .unwrap_or(look((0x33, 0x33, 0x33), Marker::Circle))
    }

    /// Every series, in the order of legends and bars.
    pub(crate) fn order(&self) -> &[SeriesKey] {
        &self.order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(variant: &str, stride: Option<u64>, label: &str) -> Row {
        Row {
            variant: variant.into(),
            stride,
            label: label.into(),
            ..Row::default()
        }
    }

    #[test]
    fn a_stride_looks_the_same_whatever_else_is_in_the_frame() {
        let alone = Palette::new(&[row("mtla", Some(3), "MTLA s=3")]);
        let rows = [2, 3, 4].map(|s| row("mtla", Some(s), &format!("MTLA s={s}")));
        let among = Palette::new(&rows);
        let key = series_key(&rows[1]);
        assert_eq!(alone.look(&key), among.look(&key));
        let looks: Vec<_> = rows.iter().map(|r| among.look(&series_key(r))).collect();
        assert!(looks[0] != looks[1] && looks[1] != looks[2] && looks[0] != looks[2]);
    }

    #[test]
    fn strides_that_share_a_slot_still_differ() {
        let rows = [5, 6, 7].map(|s| row("mtla", Some(s), &format!("MTLA s={s}")));
        let palette = Palette::new(&rows);
        let looks: Vec<_> = rows.iter().map(|r| palette.look(&series_key(r))).collect();
        assert!(looks[0] != looks[1] && looks[1] != looks[2] && looks[0] != looks[2]);
    }

    #[test]
    fn other_ways_to_merge_leave_the_strides_their_looks() {
        let usual = [2, 3].map(|s| row("mtla", Some(s), &format!("MTLA s={s}")));
        let alone = Palette::new(&usual);
        let other = |merge: &str| Row {
            merge: Some(merge.into()),
            ..row("mtla", Some(2), &format!("MTLA s=2 merge={merge}"))
        };
        let halved = Row {
            downsample: Some(2),
            ..usual[0].clone()
        };
        let mut rows: Vec<Row> = usual.to_vec();
        rows.extend(["constant", "mean", "sum", "last", "a", "b", "c", "d"].map(other));
        rows.push(halved.clone());
        rows.push(row("mtla", Some(2), "MTLA s=2 r=32"));
        let palette = Palette::new(&rows);
        for row in &usual {
            assert_eq!(palette.look(&series_key(row)), alone.look(&series_key(row)));
        }
        let looks: Vec<Look> = rows.iter().map(|row| palette.look(&series_key(row))).collect();
        for (at, look) in looks.iter().enumerate() {
            assert!(!looks[..at].contains(look), "{at}: {look:?}");
        }
        assert_eq!(series_key(&halved).1, "MTLA s=2 ÷2");
    }

    #[test]
    fn known_variants_come_first_and_strangers_by_name() {
        let rows = [
            row("zeta", None, "Z"),
            row("alpha", None, "A"),
            row("mtla", Some(2), "T"),
            row("mha", None, "M"),
        ];
        let order: Vec<String> = Palette::new(&rows)
            .order()
            .iter()
            .map(|key| key.1.clone())
            .collect();
        assert_eq!(order, ["M", "T", "A", "Z"]);
    }

    #[test]
    fn a_larger_share_is_always_darker() {
        let all: Vec<f64> = (0..=100u8)
            .map(|i| luminance(share_color(f64::from(i) / 100.0)))
            .collect();
        assert!(all.windows(2).all(|pair| pair[1] < pair[0]), "{all:?}");
    }

    #[test]
    fn ink_can_be_read_on_white() {
        for slot in ["mha", "gqa", "mqa", "mla", "mtla"]
            .iter()
            .flat_map(|v| family(v).unwrap())
            .chain(EXTRA)
        {
            assert!(1.05 / (luminance(slot.ink()) + 0.05) >= 4.5, "{slot:?}");
        }
    }
}
