//! Byte-level BPE from texts.

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Trainer};

use super::{SPECIALS, Tokenizer};
use crate::error::{Error, Result};

/// What is longer is no word but data or a text without spaces, and every merge goes through all of it. In bytes.
const LONGEST_WORD: usize = 1024;
/// How often a pair must be there to be merged: once is no habit of a language.
const LEAST_COUNT: u64 = 2;

impl Tokenizer {
    /// Trains byte-level BPE of `size` tokens: the special ones, the 256 bytes, and what is merged most often. There are
    /// fewer where no pair is there twice any more. The same texts give the same tokens.
    ///
    /// # Errors
    /// Where a text cannot be read, there are none, or `size` is less than the special tokens and the bytes.
    pub fn train(size: usize, texts: impl Iterator<Item = Result<String>> + Send) -> Result<Self> {
        let alphabet = ByteLevel::alphabet();
        let least = SPECIALS.len() + alphabet.len();
        if size < least {
            return Err(Error::config(
                "tokenizer.train",
                format!("{size} tokens, byte-level BPE has {least} at least"),
            ));
        }
        let mut trainer = BpeTrainer::builder()
            .show_progress(false)
            .vocab_size(size)
            .min_frequency(LEAST_COUNT)
            .initial_alphabet(alphabet.into_iter().collect())
            .special_tokens(specials().into())
            .build();
        let mut failure = None;
        let readable = texts.map_while(|text| text.map_err(|error| failure = Some(error)).ok());
        let fed = trainer.feed(readable, words);
        if let Some(error) = failure {
            return Err(error);
        }
        fed.map_err(Error::tokenizer)?;
        if trainer.get_word_count() == 0 {
            return Err(Error::tokenizer("there is no text to train it on"));
        }
        let mut bpe = BPE::default();
        trainer.train(&mut bpe).map_err(Error::tokenizer)?;
        let mut inner = tokenizers::Tokenizer::new(bpe);
        inner
            .with_pre_tokenizer(Some(byte_level()))
            .with_decoder(Some(byte_level()));
        inner.add_special_tokens(specials()).map_err(Error::tokenizer)?;
        Self::new(inner).map_err(Error::tokenizer)
    }
}

fn specials() -> [AddedToken; 4] {
    SPECIALS.map(|token| AddedToken::from(token, true))
}

/// A space before the first word makes it the token that it is elsewhere.
fn byte_level() -> ByteLevel {
    ByteLevel::new(true, true, true)
}

/// The words of a text, whose characters stand for bytes.
fn words(text: &str) -> tokenizers::Result<Vec<String>> {
    let mut text = PreTokenizedString::from(text);
    byte_level().pre_tokenize(&mut text)?;
    let words = text.get_splits(OffsetReferential::Normalized, OffsetType::None);
    let pieces = words.iter().flat_map(|(word, ..)| pieces(word));
    Ok(pieces.map(str::to_owned).collect())
}

/// A word in pieces of no more than [`LONGEST_WORD`] bytes.
fn pieces(mut word: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let (piece, rest) = word.split_at(word.floor_char_boundary(LONGEST_WORD));
        word = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_word_is_cut_between_characters() {
        let word = format!("a{}", "Ġ".repeat(600));
        let lengths: Vec<usize> = pieces(&word).map(str::len).collect();
        assert_eq!(lengths, [1023, 178]);
        assert_eq!(pieces("short").collect::<Vec<_>>(), ["short"]);
        assert_eq!(pieces("").count(), 0);
    }

    #[test]
    fn a_text_that_cannot_be_read_is_the_error() {
        let texts = [
            Ok("fine".to_owned()),
            Err(Error::config("x", "gone")),
            Ok("y".to_owned()),
        ];
        let error = Tokenizer::train(300, texts.into_iter()).unwrap_err();
        assert_eq!(error.to_string(), "x: gone");
        let error = Tokenizer::train(300, std::iter::empty()).unwrap_err();
        assert!(error.to_string().ends_with("there is no text to train it on"));
    }
}
