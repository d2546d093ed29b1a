//! A kernel's source with the constants of a geometry.

use std::fmt::Write as _;

use super::machine::{Arch, Dtype, Launch};

/// Headers that sources include by name.
const HEADERS: [(&str, &str); 5] = [
    ("attend.cuh", include_str!("../../cuda/attend.cuh")),
    ("common.cuh", include_str!("../../cuda/common.cuh")),
    ("ptx.cuh", include_str!("../../cuda/ptx.cuh")),
    ("combine.cuh", include_str!("../../cuda/combine.cuh")),
    ("streams.cuh", include_str!("../../cuda/streams.cuh")),
];

/// A source file; its one entry point has the name of the file.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// The entry point.
    pub name: &'static str,
    /// The file's text, headers not yet in their places.
    pub text: &'static str,
    /// Whether a step's time goes there, so that a spilled register is a fault.
    pub is_hot: bool,
}

/// A kernel for one geometry, dtype and architecture: what is compiled, and all that the result depends on but the
/// compiler.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Specialisation {
    /// What is compiled.
    pub kernel: &'static Kernel,
    /// Of the operands.
    pub dtype: Dtype,
    /// Macros and their values, `DTYPE` not among them.
    pub constants: Vec<(&'static str, usize)>,
    /// What it is compiled for.
    pub arch: Arch,
}

/// A kernel and how to launch it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// What is compiled.
    pub specialisation: Specialisation,
    /// Its blocks and their memory.
    pub launch: Launch,
}

impl Specialisation {
    /// The whole text, with every header in the place where it is first included: neither compiler needs a folder.
    pub fn source(&self) -> String {
        let mut seen = Vec::new();
        let mut source = String::new();
        include(self.kernel.text, &mut seen, &mut source);
        source
    }

    /// The compiler's options, the same for NVRTC and `nvcc`.
    pub fn options(&self) -> Vec<String> {
        let macros = self.constants.iter().copied();
        let macros = std::iter::once(("DTYPE", self.dtype.constant())).chain(macros);
        [format!("-arch={}", self.arch.name()), "-std=c++17".to_string()]
            .into_iter()
            .chain(macros.map(|(name, value)| format!("-D{name}={value}")))
            .collect()
    }

    /// The name under which what `compiler` makes of it is kept: a hash of all that the result depends on.
    pub fn key(&self, compiler: &str) -> String {
        let mut hasher = blake3::Hasher::new();
        let options = self.options();
        let parts = [compiler, self.kernel.name, &self.source()];
        for part in parts.into_iter().chain(options.iter().map(String::as_str)) {
            // Lengths keep two parts from being taken for others with the same letters.
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        format!("{}-{}", self.kernel.name, &hasher.finalize().to_hex()[..32])
    }

    /// The constants in one line, for tables and errors.
    pub fn describe(&self) -> String {
        let mut text = format!("{} {} {}", self.kernel.name, self.dtype.name(), self.arch.name());
        for (name, value) in &self.constants {
            // Writing to a string does not fail.
            let _ = write!(text, " {name}={value}");
        }
        text
    }
}

/// Copies a text, and in place of `#include "name"` that header, once.
fn include(text: &'static str, seen: &mut Vec<&'static str>, to: &mut String) {
    for line in text.lines() {
        let name = line
            .strip_prefix("#include \"")
            .and_then(|rest| rest.strip_suffix('"'));
        match name.and_then(|name| HEADERS.iter().find(|(header, _)| *header == name)) {
            Some((header, _)) if seen.contains(header) => {}
            Some((header, text)) => {
                seen.push(header);
                include(text, seen, to);
            }
            // A main file warns about it.
            None if line == "#pragma once" => {}
            None => {
                to.push_str(line);
                to.push('\n');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static KERNEL: Kernel = Kernel {
        name: "none",
        text: "#include \"common.cuh\"\n#include \"common.cuh\"\nend\n",
        is_hot: false,
    };

    fn example() -> Specialisation {
        Specialisation {
            kernel: &KERNEL,
            dtype: Dtype::Bf16,
            constants: vec![("RANK", 256), ("ROPE", 32)],
            arch: Arch::Sm90a,
        }
    }

    #[test]
    fn headers_stand_in_the_text_once() {
        let source = example().source();
        assert_eq!(source.matches("typedef unsigned short u16;").count(), 1);
        assert!(!source.contains("#include \"") && source.ends_with("end\n"));
    }

    #[test]
    fn options_name_the_architecture_and_every_constant() {
        let options = [
            "-arch=sm_90a",
            "-std=c++17",
            "-DDTYPE=1",
            "-DRANK=256",
            "-DROPE=32",
        ];
        assert_eq!(example().options(), options);
        assert_eq!(example().describe(), "none bf16 sm_90a RANK=256 ROPE=32");
    }

    #[test]
    fn the_key_changes_with_all_that_the_code_depends_on() {
        let key = example().key("13.0");
        assert_eq!(key, example().key("13.0"));
        let mut others = vec![example().key("13.1")];
        for change in [
            |it: &mut Specialisation| it.arch = Arch::Sm80,
            |it: &mut Specialisation| it.dtype = Dtype::F16,
            |it: &mut Specialisation| it.constants[1].1 = 64,
            |it: &mut Specialisation| it.constants.swap(0, 1),
        ] {
            let mut other = example();
            change(&mut other);
            others.push(other.key("13.0"));
        }
        assert!(others.iter().all(|other| *other != key), "{others:?}");
    }
}
