//! Folders with small data in them.

#![allow(dead_code, reason = "not every test file uses all of it")]
#![allow(clippy::unwrap_used, reason = "a helper of tests, outside of a test function")]

use std::fs;
use std::path::{Path, PathBuf};

use attn_data::{DataConfig, Dataset};
use hound::{SampleFormat, WavSpec, WavWriter};

/// A temporary folder that data is written to.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.file(name), bytes).unwrap();
    }

    /// Opens what a configuration describes.
    pub fn open(&self, yaml: &str) -> attn_data::Result<Box<dyn Dataset>> {
        let config: DataConfig = serde_yaml::from_str(yaml).unwrap();
        config.open(self.path())
    }

    /// What is wrong with it, with paths from the folder.
    pub fn error(&self, yaml: &str) -> String {
        let Err(error) = self.open(yaml) else {
            panic!("it opened: {yaml}");
        };
        self.without_folder(&error.to_string())
    }

    pub fn without_folder(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.path().display()), "")
    }

    /// A tone of so many samples a channel, 16 bits.
    pub fn wav(&self, name: &str, rate: u32, channels: u16, samples: usize) {
        self.wav_of(name, spec(rate, channels, 16, SampleFormat::Int), |writer| {
            for i in 0..samples {
                for _ in 0..channels {
                    writer.write_sample(tone(i)).unwrap();
                }
            }
        });
    }

    pub fn wav_of(
        &self,
        name: &str,
        spec: WavSpec,
        write: impl FnOnce(&mut WavWriter<std::io::BufWriter<fs::File>>),
    ) {
        let mut writer = WavWriter::create(self.file(name), spec).unwrap();
        write(&mut writer);
        writer.finalize().unwrap();
    }
}

pub fn spec(sample_rate: u32, channels: u16, bits_per_sample: u16, sample_format: SampleFormat) -> WavSpec {
    WavSpec {
        channels,
        sample_rate,
        bits_per_sample,
        sample_format,
    }
}

/// A tone that changes, so that frames differ.
pub fn tone(i: usize) -> i16 {
    let t = i as f32;
    (8_000.0 * (0.05 * t + 0.00001 * t * t).sin()) as i16
}

pub const SENTENCES: [&str; 6] = [
    "the cat sat on the mat",
    "der Hund läuft über die Straße",
    "a bird sang in the tree",
    "the dog ran over the road",
    "naïve façade, 42 tests",
    "the tree is over the mat",
];
