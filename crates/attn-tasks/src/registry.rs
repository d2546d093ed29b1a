//! Which tasks there are: the only file that names them all.

use std::fmt;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::copy::{CopyConfig, Copying};
use crate::entropy::{Entropy, EntropyConfig};
use crate::error::Result;
use crate::needle::{Needle, NeedleConfig};
use crate::recall::{Recall, RecallConfig};
use crate::speech::{Recognition, SpeechConfig, Translation, Understanding, UnderstandingConfig};
use crate::summarisation::{Summarisation, SummarisationConfig};
use crate::task::Task;

/// What the registry has to know of a task.
pub(crate) trait Registered: Task + Sized + 'static {
    /// Its settings.
    type Config;
    /// What a file calls it.
    const NAME: &'static str;
    /// What it asks of a model, in one sentence.
    const SUMMARY: &'static str;

    /// The task of these settings, where they can be meant.
    fn new(config: &Self::Config) -> Result<Self>;
}

macro_rules! tasks {
    ($($variant:ident: $task:ident = $config:ident, $doc:literal;)+) => {
        /// A task's name and settings. In a file it is the name alone, or a mapping of the name to those settings that
        /// are not the default: `copy`, `{copy: {symbols: 64}}`.
        #[derive(Debug, Clone, PartialEq)]
        pub enum TaskConfig {
            $(#[doc = $doc] $variant($config),)+
        }

        static NAMES: &[(&str, &str)] = &[$(($task::NAME, $task::SUMMARY),)+];
        static KEYS: &[&str] = &[$($task::NAME,)+];

        impl TaskConfig {
            /// The task of that name with default settings.
            pub fn named(name: &str) -> Option<Self> {
                $(if name == $task::NAME {
                    return Some(Self::$variant($config::default()));
                })+
                None
            }

            /// What a file calls it.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $task::NAME,)+
                }
            }

            /// The task.
            ///
            /// # Errors
            /// [`Error::Setting`](crate::Error::Setting) names the key that cannot be meant.
            pub fn build(&self) -> Result<Box<dyn Task>> {
                Ok(match self {
                    $(Self::$variant(config) => Box::new($task::new(config)?),)+
                })
            }
        }

        impl Serialize for TaskConfig {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(Some(1))?;
                match self {
                    $(Self::$variant(config) => map.serialize_entry($task::NAME, config)?,)+
                }
                map.end()
            }
        }

        impl<'de> Visitor<'de> for TaskVisitor {
            type Value = TaskConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a task, or a mapping of it to its settings")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<TaskConfig, E> {
                TaskConfig::named(name).ok_or_else(|| E::unknown_variant(name, KEYS))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TaskConfig, A::Error> {
                let name = map.next_key::<String>()?.ok_or_else(|| A::Error::invalid_length(0, &"one task"))?;
                let task = match name {
                    $(name if name == $task::NAME => TaskConfig::$variant(map.next_value()?),)+
                    name => return Err(A::Error::unknown_variant(&name, KEYS)),
                };
                match map.next_key::<IgnoredAny>()? {
                    None => Ok(task),
                    Some(_) => Err(A::Error::custom("a task is one name with its settings, this has several names")),
                }
            }
        }
    };
}

tasks! {
    Entropy: Entropy = EntropyConfig, "A language of known entropy.";
    Copy: Copying = CopyConfig, "The same tokens again.";
    Recall: Recall = RecallConfig, "Many keys, their values, and questions for them.";
    Needle: Needle = NeedleConfig, "A fact in a long text.";
    SpeechTranslation: Translation = SpeechConfig, "Frames to a text in another language.";
    SpeechRecognition: Recognition = SpeechConfig, "Frames to their words.";
    SpokenUnderstanding: Understanding = UnderstandingConfig, "Frames to an intent and its slots.";
    Summarisation: Summarisation = SummarisationConfig, "Records to those that matter.";
}

struct TaskVisitor;

impl<'de> Deserialize<'de> for TaskConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TaskVisitor)
    }
}

/// Name and one sentence of every task.
pub fn names() -> &'static [(&'static str, &'static str)] {
    NAMES
}
