//! Memory that this process may have, and whether the kernel has killed for it.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes this process can hope for: the machine's memory, or less where a control group of it is limited.
/// `None` where the system does not tell.
pub fn memory_budget_bytes() -> Option<u64> {
    let machine = meminfo_bytes(&read(Path::new("/proc/meminfo"))?)?;
    Some(limit_bytes(&groups(), machine))
}

/// Processes that the kernel killed for want of memory so far: those of this control group where it counts, else
/// those of the machine. Rising while a worker dies of SIGKILL, it tells that death from another.
pub fn oom_kills() -> Option<u64> {
    let group = groups().first().and_then(|group| {
        // Version 2 counts in memory.events, version 1 in memory.oom_control.
        ["memory.events", "memory.oom_control"]
            .iter()
            .find_map(|file| counter(&read(&group.join(file))?, "oom_kill"))
    });
    group.or_else(|| counter(&read(Path::new("/proc/vmstat"))?, "oom_kill"))
}

/// Folders of this process's control group for memory, from its own to the root.
fn groups() -> Vec<PathBuf> {
    let memberships = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    group_folders(Path::new("/sys/fs/cgroup"), &memberships)
}

/// The groups that exist of those /proc/self/cgroup names: lines of `number:controllers:path`, where version 2
/// has no controllers. Inside a container the path may be the host's; the root of the mount is then the group.
fn group_folders(mount: &Path, memberships: &str) -> Vec<PathBuf> {
    let group = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?.trim_matches('/').to_string());
        match controllers {
            "" => Some((mount.to_path_buf(), path)),
            names if names.split(',').any(|name| name == "memory") => Some((mount.join("memory"), path)),
            _ => None,
        }
    };
    // Version 1 names the controller, so that its line counts before that of an empty version 2 beside it.
    let mut found: Vec<(PathBuf, String)> = memberships.lines().filter_map(group).collect();
    found.sort_by_key(|(root, _)| root == mount);
    let Some((root, path)) = found.into_iter().next() else {
        return Vec::new();
    };
    let own = root.join(path);
    own.ancestors()
        .take_while(|folder| folder.starts_with(&root))
        .filter(|folder| folder.is_dir())
        .map(Path::to_path_buf)
        .collect()
}

/// The lowest limit of all groups, which hold for their members together, and of the machine.
fn limit_bytes(groups: &[PathBuf], machine: u64) -> u64 {
    let limit = |group: &PathBuf, file: &str| read(&group.join(file))?.trim().parse::<u64>().ok();
    // `max` of version 2 is no number; version 1 has one larger than any machine.
    groups
        .iter()
        .flat_map(|group| ["memory.max", "memory.limit_in_bytes"].map(|file| limit(group, file)))
        .flatten()
        .fold(machine, u64::min)
}

/// `MemTotal:  24689296 kB` in bytes.
fn meminfo_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The number after `name` on a line of its own.
fn counter(text: &str, name: &str) -> Option<u64> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.find(|(key, _)| *key == name)?.1.trim().parse().ok()
}

fn read(file: &Path) -> Option<String> {
    fs::read_to_string(file).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_from_linux() {
        assert_eq!(counter("pgscan 12\noom_kill 3\npswpin 0\n", "oom_kill"), Some(3));
        assert_eq!(
            counter("low 0\nmax 5\noom 2\noom_kill 1\noom_group_kill 0\n", "oom_kill"),
            Some(1)
        );
        assert_eq!(
            counter("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n", "oom_kill"),
            Some(4)
        );
        assert_eq!(counter("oom_kill_disable 0\nunder_oom 0\n", "oom_kill"), None);
        assert_eq!(
            meminfo_bytes("MemTotal:       24689296 kB\nMemFree: 1 kB\n"),
            Some(24_689_296 * 1024)
        );
    }

    #[test]
    fn the_lowest_limit_of_a_group_and_its_parents_counts() {
        let mount = tempfile::tempdir().unwrap();
        let inner = mount.path().join("batch/job");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("memory.max"), "max\n").unwrap();
        fs::write(mount.path().join("batch/memory.max"), "1073741824\n").unwrap();
        let folders = group_folders(mount.path(), "0::/batch/job\n");
        assert_eq!(folders[0], inner);
        assert_eq!(limit_bytes(&folders, 8 << 30), 1 << 30);
        assert_eq!(limit_bytes(&folders, 1 << 20), 1 << 20, "the machine has less");
        // The path is the host's and not there.
        let folders = group_folders(mount.path(), "0::/elsewhere/of/the/host\n");
        assert_eq!(folders, [mount.path()]);
    }

    #[test]
    fn groups_of_the_first_version_are_found_beside_an_empty_second() {
        let mount = tempfile::tempdir().unwrap();
        let group = mount.path().join("memory/job");
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join("memory.limit_in_bytes"), "536870912\n").unwrap();
        let folders = group_folders(mount.path(), "8:pids:/\n4:memory:/job\n1:cpu,cpuacct:/\n0::/\n");
        assert_eq!(folders, [group, mount.path().join("memory")]);
        assert_eq!(limit_bytes(&folders, 8 << 30), 512 << 20);
        assert_eq!(group_folders(mount.path(), "1:cpu:/\n"), Vec::<PathBuf>::new());
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(memory_budget_bytes().is_none_or(|bytes| bytes > 1 << 20));
        assert_eq!(oom_kills().is_some(), Path::new("/proc/vmstat").exists());
    }
}
