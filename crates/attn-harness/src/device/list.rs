//! `--devices cuda:0,cuda:1`: GPUs that share a sweep.

use std::fmt;
use std::str::FromStr;

use super::{Resolved, require};
use crate::error::Error;
use crate::sweep::DeviceRequest;

/// GPUs by their numbers, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceList(Vec<usize>);

impl DeviceList {
    /// The GPUs, each as a request.
    pub fn requests(&self) -> Vec<DeviceRequest> {
        let requests = self.0.iter().map(|ordinal| DeviceRequest::Cuda(Some(*ordinal)));
        requests.collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The GPUs, where all of them are there.
    ///
    /// # Errors
    /// [`Error::Device`] for the first one that is not.
    pub fn require(&self) -> Result<Vec<Resolved>, Error> {
        self.requests().into_iter().map(require).collect()
    }
}

impl fmt::Display for DeviceList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.requests().iter().map(ToString::to_string).collect();
        f.write_str(&words.join(","))
    }
}

impl FromStr for DeviceList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut ordinals = Vec::new();
        for word in text.split(',').map(str::trim) {
            let ordinal = match word.parse() {
                Ok(DeviceRequest::Cuda(Some(ordinal))) => ordinal,
                Ok(DeviceRequest::Cpu) => {
                    return Err(
                        "cpu cannot share a sweep with GPUs: its times are another question's".to_string(),
                    );
                }
                Ok(_) => return Err(format!("`{word}` does not say which GPU, expected cuda:N")),
                Err(_) => return Err(format!("unknown device `{word}`, expected cuda:N")),
            };
            if ordinals.contains(&ordinal) {
                return Err(format!("cuda:{ordinal} is named twice"));
            }
            ordinals.push(ordinal);
        }
        Ok(Self(ordinals))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_gpus_and_each_once() {
        let list: DeviceList = "cuda:0, cuda:3".parse().unwrap();
        assert_eq!((list.count(), list.to_string().as_str()), (2, "cuda:0,cuda:3"));
        assert_eq!(list.requests()[1], DeviceRequest::Cuda(Some(3)));
        for (text, words) in [
            ("", "unknown device ``"),
            ("cuda:0,", "unknown device ``"),
            ("cuda:0,cpu", "cpu cannot share"),
            ("cuda", "does not say which GPU"),
            ("auto,cuda:1", "`auto` does not say which"),
            ("cuda:1,cuda:0,cuda:1", "cuda:1 is named twice"),
            ("cuda:1,cuda:01", "cuda:1 is named twice"),
            ("gpu:0", "unknown device `gpu:0`"),
        ] {
            let error = text.parse::<DeviceList>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
