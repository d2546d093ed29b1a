//! Figures into files.

use crate::figures::{FigureSpec, figures, find};
use crate::frame::Frame;
use crate::slice::Slice;
use crate::{Error, page, to_png};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Pixels of a PNG to one of its SVG.
const PNG_SCALE: f32 = 2.0;

/// A figure as a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The figure's name; with a suffix where the frame holds rows that must not share an axis.
    pub name: String,
    /// The document.
    pub svg: String,
}

/// A figure in files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    /// The files' common stem.
    pub name: String,
    /// The vector file.
    pub svg: PathBuf,
    /// The pixel file, at twice the size.
    pub png: PathBuf,
}

/// A figure for which the frame has no data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The figure's name, with its suffix.
    pub name: String,
    /// What is missing.
    pub reason: String,
}

/// What became of a figure.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It was drawn.
    Drawn(Drawn),
    /// It would have been empty.
    Skipped(Skipped),
}

/// Draws one figure without touching a file: a document, or the reason why not, for each set of rows that
/// may share an axis.
///
/// # Errors
/// [`Error::Draw`] where the drawing itself fails.
pub fn render(frame: &Frame, figure: &FigureSpec) -> Result<Vec<Result<Rendered, Skipped>>, Error> {
    let slices = Slice::split(frame, figure.dimensions, figure.uses);
    if slices.is_empty() {
        let n_failed = frame.rows().iter().filter(|row| (figure.uses)(row)).count();
        let reason = match n_failed {
            0 => format!("no {} rows", figure.needs),
            n => format!("none of the {n} {} rows has the status ok", figure.needs),
        };
        return Ok(vec![Err(Skipped {
            name: figure.name.to_owned(),
            reason,
        })]);
    }
    let draw = |slice: &Slice<'_>| {
        let name = format!("{}{}", figure.name, slice.suffix);
        match (figure.sheet)(slice) {
            Err(reason) => Ok(Err(Skipped { name, reason })),
            Ok(sheet) => match page::draw(&sheet, slice) {
                Ok(svg) => Ok(Ok(Rendered { name, svg })),
                Err(message) => Err(Error::Draw {
                    figure: name,
                    message,
                }),
            },
        }
    };
    slices.iter().map(draw).collect()
}

/// Draws the named figures (all of them where none is named) and writes `<name>.svg` and `<name>.png` into
/// `out_dir`, which is created. A file appears whole or not at all, and replaces one of its name.
///
/// # Errors
/// [`Error::UnknownFigure`] before anything is written; [`Error::Write`], [`Error::Draw`], [`Error::Png`].
pub fn draw_all(frame: &Frame, names: &[String], out_dir: &Path) -> Result<Vec<Outcome>, Error> {
    let wanted: Vec<&FigureSpec> = if names.is_empty() {
        figures().iter().collect()
    } else {
        names
            .iter()
            .map(|name| find(name).ok_or_else(|| unknown(name)))
            .collect::<Result<_, _>>()?
    };
    fs::create_dir_all(out_dir).map_err(|source| Error::Write {
        path: out_dir.to_owned(),
        source,
    })?;
    let mut outcomes = Vec::new();
    for figure in wanted {
        for rendered in render(frame, figure)? {
            outcomes.push(match rendered {
                Err(skipped) => Outcome::Skipped(skipped),
                Ok(Rendered { name, svg }) => {
                    let png = to_png(&svg, PNG_SCALE)?;
                    let svg_path = write_whole(out_dir, &format!("{name}.svg"), svg.as_bytes())?;
                    let png_path = write_whole(out_dir, &format!("{name}.png"), &png)?;
                    Outcome::Drawn(Drawn {
                        name,
                        svg: svg_path,
                        png: png_path,
                    })
                }
            });
        }
    }
    Ok(outcomes)
}

pub(crate) fn unknown(name: &str) -> Error {
    let known: Vec<&str> = figures().iter().map(|figure| figure.name).collect();
    Error::UnknownFigure {
        name: name.to_owned(),
        known: known.join(", "),
    }
}

/// Writes beside the target and renames, so that no reader ever sees half a file.
fn write_whole(dir: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf, Error> {
    let path = dir.join(name);
    let partial = dir.join(format!(".{}-{name}.tmp", std::process::id()));
    let written = fs::File::create(&partial)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&partial, &path));
    match written {
        Ok(()) => Ok(path),
        Err(source) => {
            fs::remove_file(&partial).ok();
            Err(Error::Write { path, source })
        }
    }
}
