//! The rows of a manifest: audio and what is said in it.

use std::path::{Path, PathBuf};

use crate::audio::Span;
use crate::error::{Error, Place, Result};
use crate::tsv::Table;

/// A row of a manifest.
pub(super) struct Row {
    pub at: Place,
    pub audio: PathBuf,
    /// Samples of the file that are meant; none means all.
    pub span: Option<Span>,
    pub text: String,
}

/// Reads the rows of a manifest.
pub(super) fn rows(
    manifest: &Path,
    audio_column: &str,
    text_column: &str,
) -> Result<impl Iterator<Item = Result<Row>> + use<>> {
    let folder = manifest.parent().unwrap_or(Path::new("")).to_owned();
    let text_column = text_column.to_owned();
    let table = Table::open(manifest, [audio_column, &text_column])?;
    Ok(table.map(move |row| {
        let (at, [audio, text]) = row?;
        for (field, value) in [("the audio path", &audio), (text_column.as_str(), &text)] {
            if value.is_empty() {
                return Err(Error::EmptyText {
                    at,
                    field: field.to_owned(),
                });
            }
        }
        let (path, span) = split_span(&audio);
        Ok(Row {
            at,
            audio: folder.join(path),
            span,
            text,
        })
    }))
}

/// `talk.wav:16000:8000` is 8000 samples of a file from sample 16000 on, as fairseq writes it.
fn split_span(audio: &str) -> (&str, Option<Span>) {
    let mut fields = audio.rsplitn(3, ':');
    if let (Some(len), Some(start), Some(path)) = (fields.next(), fields.next(), fields.next())
        && let (Ok(start), Ok(len)) = (start.parse(), len.parse())
    {
        return (path, Some(Span { start, len }));
    }
    (audio, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_from_a_path() {
        assert_eq!(
            split_span("a/b.wav:16000:8000"),
            (
                "a/b.wav",
                Some(Span {
                    start: 16_000,
                    len: 8_000
                })
            )
        );
        assert_eq!(split_span("a/b.wav"), ("a/b.wav", None));
        assert_eq!(split_span("a:b:7.wav"), ("a:b:7.wav", None));
        assert_eq!(split_span("a.wav:-1:5"), ("a.wav:-1:5", None));
    }
}
