//! Where the shared libraries of CUDA are, for those who look for what is missing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A library that a build with CUDA is linked to, or that watches GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Library {
    /// Its name without `lib` and version.
    pub name: &'static str,
    /// Where it comes from.
    pub part_of: &'static str,
}

/// The libraries, the driver's own first.
pub const LIBRARIES: [Library; 7] = [
    Library {
        name: "cuda",
        part_of: "driver",
    },
    Library {
        name: "nvidia-ml",
        part_of: "driver",
    },
    Library {
        name: "cudart",
        part_of: "toolkit",
    },
    Library {
        name: "cublas",
        part_of: "toolkit",
    },
    Library {
        name: "cublasLt",
        part_of: "toolkit",
    },
    Library {
        name: "curand",
        part_of: "toolkit",
    },
    Library {
        name: "nvrtc",
        part_of: "toolkit",
    },
];

/// Where the loader took `lib<name>.so` from, or else would find it.
pub fn find(name: &str) -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    loaded(&maps, name).or_else(|| folders().iter().find_map(|folder| within(folder, name)))
}

/// The version of nvcc on the PATH, as `release 13.0` or whatever it prints.
pub fn toolkit() -> Option<String> {
    let output = Command::new("nvcc").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let release = text.split(", ").find(|part| part.starts_with("release "));
    release.map(str::to_string).filter(|_| output.status.success())
}

/// A library that this process has in memory, by the lines of `/proc/self/maps`.
fn loaded(maps: &str, name: &str) -> Option<PathBuf> {
    let paths = maps
        .lines()
        .filter_map(|line| line.find('/').map(|at| &line[at..]));
    paths
        .map(Path::new)
        .find(|path| is(path, name))
        .map(Path::to_path_buf)
}

fn is(path: &Path, name: &str) -> bool {
    let file = path
        .file_name()
        .and_then(|file| file.to_str())
        .unwrap_or_default();
    let rest = file.strip_prefix("lib").and_then(|file| file.strip_prefix(name));
    // A version follows in what is loaded; plain `.so` is for linkers.
    rest.is_some_and(|rest| rest.starts_with(".so."))
}

fn within(folder: &Path, name: &str) -> Option<PathBuf> {
    let files = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    // The shortest name is the one that the loader asks for: libcudart.so.13 is a link to libcudart.so.13.0.96.
    let found: BTreeSet<(usize, PathBuf)> = files
        .filter(|path| is(path, name))
        .map(|path| (path.as_os_str().len(), path))
        .collect();
    found.into_iter().next().map(|(_, path)| path)
}

/// Where the loader looks, and where toolkits usually are.
fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    if let Some(paths) = std::env::var_os("LD_LIBRARY_PATH") {
        folders.extend(std::env::split_paths(&paths).filter(|path| path.is_absolute()));
    }
    let cache = ["ldconfig", "/sbin/ldconfig"]
        .iter()
        .find_map(|program| Command::new(program).arg("-p").output().ok());
    let cache = cache.map_or(String::new(), |out| {
        String::from_utf8_lossy(&out.stdout).into_owned()
    });
    folders.extend(cached(&cache));
    for variable in ["CUDA_HOME", "CUDA_PATH"] {
        if let Some(home) = std::env::var_os(variable).map(PathBuf::from) {
            folders.extend([home.join("lib64"), home.join("lib")]);
        }
    }
    folders.extend(["/usr/local/cuda/lib64", "/usr/lib/wsl/lib"].map(PathBuf::from));
    folders
}

/// The folders in the loader's cache, as `ldconfig -p` prints it.
fn cached(cache: &str) -> BTreeSet<PathBuf> {
    let paths = cache.lines().filter_map(|line| line.split_once(" => "));
    paths
        .filter_map(|(_, path)| Some(Path::new(path.trim()).parent()?.to_path_buf()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loaded_library_is_known_by_its_whole_name() {
        let maps = "\
7f00-7f01 r-xp 00000000 fd:00 12   /opt/cuda/lib/libcublasLt.so.13.0.2
7f02-7f03 r-xp 00000000 fd:00 13   /opt/cuda/lib/libcublas.so.13
7f04-7f05 rw-p 00000000 00:00 0    [heap]
";
        let found = |name| loaded(maps, name).map(|path| path.display().to_string());
        assert_eq!(found("cublas").as_deref(), Some("/opt/cuda/lib/libcublas.so.13"));
        assert_eq!(
            found("cublasLt").as_deref(),
            Some("/opt/cuda/lib/libcublasLt.so.13.0.2")
        );
        assert_eq!(found("cuda"), None);
    }

    #[test]
    fn in_a_folder_the_name_that_the_loader_asks_for_counts() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "libcudart.so",
            "libcudart.so.13.0.96",
            "libcudart.so.13",
            "libcudartx.so.1",
        ] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(
            within(folder.path(), "cudart"),
            Some(folder.path().join("libcudart.so.13"))
        );
        assert_eq!(within(folder.path(), "cuda"), None);
    }

    #[test]
    fn the_loaders_cache_tells_folders() {
        let cache = "2 libs found in cache `/etc/ld.so.cache'\n\
                     \tlibcuda.so.1 (libc6,x86-64) => /usr/lib/x86_64-linux-gnu/libcuda.so.1\n\
                     \tlibz.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libz.so.1\n";
        let folders: Vec<_> = cached(cache).into_iter().collect();
        let expected = ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"].map(PathBuf::from);
        assert_eq!(folders, expected);
    }

    #[test]
    fn the_c_library_of_this_process_is_found() {
        if cfg!(all(target_os = "linux", target_env = "gnu")) {
            assert!(find("c").is_some_and(|path| is(&path, "c")));
        }
    }
}
