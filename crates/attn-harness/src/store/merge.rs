//! Runs of one sweep joined to one: shards of different machines, finished or not.
//!
//! Nothing is held as a whole but where each row is. The logs pass by once, line by line, and become the new run's
//! log; its tables are then built from that in the order of the plan. A large merge goes from tables to tables
//! (`tables.rs`). A case that several runs have is kept once: a row `ok` goes before one that is not, else the run that
//! was named first.

mod logs;
mod tables;

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use self::logs::Batch;
use super::differences::differences;
use super::files::{rows_in, sync_folder, write_file};
use super::planned::Planned;
use super::texts::{pretty, readme};
use super::{
    CHANGES, COMMANDS, ENVIRONMENT, LOG, MACHINES, MERGED, README, ROWS, Run, SESSIONS, SWEEP, StoreError,
    beside, is_live, parent_of,
};
use crate::digest::Digest;

/// Rows of a row group of a table: few enough for memory, and so many that the groups' own descriptions stay small.
const ROWS_AT_ONCE: usize = 4096;

/// Cases up to which a merged run has a log, and its rows the order of the plan: of more the log alone is gigabytes, and
/// the runs keep theirs.
pub const LOG_UP_TO: usize = 20_000;

/// Duplicates that are told by name.
const TOLD: usize = 100;

/// A run that was merged.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Its folder.
    pub dir: PathBuf,
    /// What it was to do; none where it does not say.
    pub planned: Option<Planned>,
    /// Cases it holds.
    pub cases: usize,
    /// Those of them that were measured.
    pub ok: usize,
    /// Whether its runner is at work; none where the file system knows no locks.
    pub is_live: Option<bool>,
}

/// A case that two runs have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Duplicate {
    /// The case's hash.
    pub case_id: String,
    /// The run whose row was kept, by its place among the sources.
    pub kept: usize,
    /// The run whose row was left out.
    pub left_out: usize,
}

/// A machine with a build, and what came from there.
struct Machine {
    key: [Option<String>; 2],
    environment: Value,
    runs: usize,
}

/// Where a row is in the new log, and what decides whether it stays.
#[derive(Clone, Copy, Default)]
struct Place {
    group: u64,
    offset: u64,
    bytes: u32,
    source: u32,
    is_ok: bool,
}

/// A run on its way: in a folder beside its own until it is complete.
pub struct Merge {
    out: PathBuf,
    temporary: TempDir,
    /// None in a large merge.
    log: Option<File>,
    end: u64,
    /// Which runs have tables that hold all of their rows.
    has_tables: Vec<bool>,
    /// Which runs have cases that were kept from another one.
    lost: Vec<bool>,
    places: Vec<Place>,
    known: HashMap<u128, u32>,
    machines: Vec<Machine>,
    sweep_yaml: String,
    /// The runs, in the order in which they were named.
    pub sources: Vec<Source>,
    /// Some of the cases that several runs have.
    pub duplicates: Vec<Duplicate>,
    /// How many there are.
    pub n_duplicates: usize,
    /// What had to be left out, for the user to see.
    pub warnings: Vec<String>,
}

/// What is read of a run before its rows.
struct Described {
    run: Run,
    table_rows: Option<usize>,
    is_live: Option<bool>,
}

impl Merge {
    /// Reads the rows of all runs.
    ///
    /// # Errors
    /// [`StoreError::MixedSweeps`] where they are not of one sweep, [`StoreError::Exists`] where something is at `out`
    /// that is no earlier merge, [`StoreError::Locked`] or [`StoreError::MergeWentOn`] where a runner goes on or went on with
    /// that, [`StoreError::NotARun`], [`StoreError::Damaged`] or [`StoreError::Io`].
    pub fn read(runs: &[PathBuf], out: &Path) -> Result<Self, StoreError> {
        Self::read_with(runs, out, LOG_UP_TO)
    }

    /// [`read`](Self::read) with a log of up to so many cases.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_with(runs: &[PathBuf], out: &Path, log_up_to: usize) -> Result<Self, StoreError> {
        check_out(out)?;
        let described: Vec<Described> = runs
            .par_iter()
            .map(|dir| describe(dir))
            .collect::<Result<_, _>>()?;
        let sweep_yaml = one_sweep(&described)?;
        let temporary = beside(out)?;
        let sizes = described.iter().map(|described| {
            let planned = || Planned::read(&described.run.environment).map(|planned| planned.cases);
            described.table_rows.or_else(planned).unwrap_or(0)
        });
        let path = temporary.path().join(LOG);
        let log = (sizes.sum::<usize>() <= log_up_to).then(|| File::create_new(&path));
        let mut merge = Self {
            out: out.to_path_buf(),
            log: log.transpose().map_err(StoreError::io("write", &path))?,
            has_tables: described
                .iter()
                .map(|described| described.table_rows.is_some())
                .collect(),
            lost: vec![false; described.len()],
            temporary,
            end: 0,
            places: Vec::new(),
            known: HashMap::new(),
            machines: Vec::new(),
            sweep_yaml,
            sources: Vec::with_capacity(runs.len()),
            duplicates: Vec::new(),
            n_duplicates: 0,
            warnings: Vec::new(),
        };
        for Described { run, .. } in &described {
            merge.note_machines(&run.environment);
        }
        let mut batch = Batch::default();
        for (source, described) in described.into_iter().enumerate() {
            let Described {
                run,
                table_rows,
                is_live,
            } = described;
            merge.sources.push(Source {
                planned: Planned::read(&run.environment),
                dir: run.dir,
                cases: 0,
                ok: 0,
                is_live,
            });
            if merge.log.is_some() {
                merge.take_run(source, table_rows, &mut batch)?;
            }
        }
        if merge.log.is_some() {
            merge.take(&mut batch)?;
        } else {
            merge.take_heads()?;
        }
        merge.known.shrink_to_fit();
        if merge.log.is_some() {
            merge.places.sort_by_key(|place| place.group);
        }
        Ok(merge)
    }

    /// Cases that the new run holds.
    pub fn cases(&self) -> usize {
        self.known.len()
    }

    /// Whether it holds a case.
    pub fn holds(&self, case_id: &str) -> bool {
        self.known.contains_key(&key(case_id))
    }

    /// The sweep of all runs.
    pub fn sweep_yaml(&self) -> &str {
        &self.sweep_yaml
    }

    /// Whether the new run has a log, and its rows the order of the plan.
    pub fn has_log(&self) -> bool {
        self.log.is_some()
    }

    /// Different machines and builds that the rows come from.
    pub fn machines(&self) -> usize {
        self.machines.len()
    }

    /// Builds the tables, and says what is in them.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Damaged`] or [`StoreError::Table`].
    pub fn build_tables(&mut self) -> Result<Digest, StoreError> {
        if self.log.is_none() {
            return self.join_tables();
        }
        self.join_logs()
    }

    /// Writes all else, and gives the folder its name; an earlier merge goes then.
    ///
    /// # Errors
    /// [`StoreError::Io`]; what was there before is still there then.
    pub fn finish(
        self,
        command: &str,
        summary_markdown: &str,
        planned: Option<&Planned>,
    ) -> Result<(), StoreError> {
        let inside = self.temporary.path();
        let path = inside.join(LOG);
        if let Some(log) = &self.log {
            log.sync_all().map_err(StoreError::io("write", &path))?;
        }
        write_file(&inside.join(SWEEP), self.sweep_yaml.as_bytes())?;
        let mut environment = self.environment(command);
        if let Some(planned) = planned {
            planned.write(&mut environment);
        }
        write_file(&inside.join(ENVIRONMENT), pretty(&environment).as_bytes())?;
        let text = readme(&self.sweep_yaml, &[command.to_string()], summary_markdown);
        write_file(&inside.join(README), text.as_bytes())?;
        sync_folder(inside);
        let rename = |from: &Path, to: &Path| fs::rename(from, to).map_err(StoreError::io("rename", from));
        let mut earlier = None;
        if self.out.symlink_metadata().is_ok() {
            let aside = beside(&self.out)?;
            rename(&self.out, &aside.path().join(MERGED))?;
            earlier = Some(aside);
        }
        if let Err(error) = rename(inside, &self.out) {
            if let Some(aside) = &earlier {
                rename(&aside.path().join(MERGED), &self.out)?;
            }
            return Err(error);
        }
        // Nothing is left under the temporary name.
        let _ = self.temporary.keep();
        sync_folder(parent_of(&self.out));
        Ok(())
    }

    /// Every machine once. Where there is one it is also the run's own, so that the run can go on there.
    fn environment(&self, command: &str) -> Value {
        let mut environment = match self.machines.as_slice() {
            [machine] => machine.environment.clone(),
            _ => json!({}),
        };
        let machines = self.machines.iter().map(|machine| {
            let mut entry = machine.environment.clone();
            if let Some(object) = entry.as_object_mut() {
                object.insert("runs".to_string(), json!(machine.runs));
            }
            entry
        });
        if let Some(object) = environment.as_object_mut() {
            object.insert(MACHINES.to_string(), machines.collect());
            object.insert(
                MERGED.to_string(),
                json!({"runs": self.sources.len(), "cases": self.cases(), "duplicates": self.n_duplicates}),
            );
            object.insert(COMMANDS.to_string(), json!([command]));
        }
        environment
    }

    /// Counts where a run comes from; one that went on elsewhere comes from several machines.
    fn note_machines(&mut self, environment: &Value) {
        let own = environment.get("fingerprint").map(|_| environment);
        let more = environment.get(MACHINES).and_then(Value::as_array);
        let mut counted: Vec<usize> = Vec::new();
        for machine in own.into_iter().chain(more.into_iter().flatten()) {
            let word = |entry: &str| machine.pointer(entry).and_then(Value::as_str).map(str::to_string);
            let key = [word("/fingerprint"), word("/build/binary")];
            let at = self.machines.iter().position(|known| known.key == key);
            let at = at.unwrap_or_else(|| {
                self.machines.push(Machine {
                    key,
                    environment: lasting(machine),
                    runs: 0,
                });
                self.machines.len() - 1
            });
            if !counted.contains(&at) {
                counted.push(at);
                let runs = machine.get("runs").and_then(Value::as_u64).unwrap_or(1);
                self.machines[at].runs += usize::try_from(runs).unwrap_or(1);
            }
        }
    }

    fn source_of(&self, case_id: &str) -> Option<usize> {
        let at = self.known.get(&key(case_id))?;
        Some(self.places[*at as usize].source as usize)
    }

    /// Notes where a case is, and says whether it is kept from there.
    fn note(&mut self, case_id: &str, place: Place) -> bool {
        let from = place.source as usize;
        let Some(&at) = self.known.get(&key(case_id)) else {
            let at = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
            self.known.insert(key(case_id), at);
            self.places.push(place);
            self.sources[from].cases += 1;
            self.sources[from].ok += usize::from(place.is_ok);
            return true;
        };
        let earlier = self.places[at as usize];
        let old = earlier.source as usize;
        let source = &mut self.sources[from];
        source.ok += usize::from(place.is_ok);
        if old == from {
            // Written again by its own run, which replaces what it said before.
            source.ok -= usize::from(earlier.is_ok);
            self.places[at as usize] = place;
            return true;
        }
        source.cases += 1;
        let replaces = place.is_ok && !earlier.is_ok;
        let (kept, left_out) = if replaces { (from, old) } else { (old, from) };
        self.lost[left_out] = true;
        self.n_duplicates += 1;
        if self.duplicates.len() < TOLD {
            self.duplicates.push(Duplicate {
                case_id: case_id.to_string(),
                kept,
                left_out,
            });
        }
        if replaces {
            self.places[at as usize] = place;
        }
        replaces
    }
}

/// Cases by a number of their name: a million names would take more memory than all else.
fn key(case_id: &str) -> u128 {
    let hash = blake3::hash(case_id.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_bytes()[..16]);
    u128::from_le_bytes(bytes)
}

fn describe(dir: &Path) -> Result<Described, StoreError> {
    let run = Run::describe(dir)?;
    let is_live = is_live(dir)?;
    let rows = dir.join(ROWS);
    // A runner at work removes its tables and builds them anew.
    let table_rows = match is_live {
        Some(true) => None,
        _ if rows.is_file() => Some(rows_in(&rows)?),
        _ => None,
    };
    Ok(Described {
        run,
        table_rows,
        is_live,
    })
}

/// The sweep of the first run, which must be that of all.
fn one_sweep(described: &[Described]) -> Result<String, StoreError> {
    let Some(first) = described.first() else {
        return Ok(String::new());
    };
    for other in described {
        if other.run.sweep_yaml == first.run.sweep_yaml {
            continue;
        }
        let keys = differences(&first.run.sweep_yaml, &other.run.sweep_yaml);
        if !keys.is_empty() {
            return Err(StoreError::MixedSweeps {
                first: first.run.dir.clone(),
                other: other.run.dir.clone(),
                keys,
            });
        }
    }
    Ok(first.run.sweep_yaml.clone())
}

/// A merge may take the place of an earlier one alone, and not where a runner went on with that.
fn check_out(out: &Path) -> Result<(), StoreError> {
    if out.symlink_metadata().is_err() {
        return Ok(());
    }
    let dir = out.to_path_buf();
    let environment = match Run::describe(out) {
        Ok(run) => run.environment,
        Err(StoreError::NotARun { .. }) => return Err(StoreError::Exists { dir }),
        Err(error) => return Err(error),
    };
    if environment.get(MERGED).is_none() {
        return Err(StoreError::Exists { dir });
    }
    if is_live(out)? == Some(true) {
        return Err(StoreError::Locked { dir });
    }
    match environment.get(SESSIONS) {
        Some(_) => Err(StoreError::MergeWentOn { dir }),
        None => Ok(()),
    }
}

/// A machine and a build, without what a run or a moment has of its own.
fn lasting(environment: &Value) -> Value {
    const PASSING: [&str; 8] = [
        "plan",
        "load",
        "memory_available_bytes",
        "runs",
        MERGED,
        MACHINES,
        SESSIONS,
        CHANGES,
    ];
    let cells = environment.as_object().into_iter().flatten();
    let kept = cells.filter(|(name, _)| *name != COMMANDS && !PASSING.contains(&name.as_str()));
    Value::Object(
        kept.map(|(name, cell)| (name.clone(), cell.clone()))
            .collect::<Map<_, _>>(),
    )
}
