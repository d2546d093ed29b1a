//! The devices of a run. Each takes the next group as soon as it is free; what it measured is stored by one at a time,
//! before it goes on.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use super::gpu::Probe;
use super::group::{Done, GroupEnd, measure_group};
use super::session::Crowd;
use super::training::train_group;
use super::{Ledger, RunError, State};
use crate::environment::Environment;
use crate::nvml::{Counter, Gpus};
use crate::plan::{Case, Plan, dominates};
use crate::progress::Observer;
use crate::row::Row;
use crate::status::Status;
use crate::store::RunDir;
use crate::sweep::DeviceRequest;
use crate::worker::{Hired, Plants, Share, Workshop};

/// A build, as every device of a run sees it.
pub(super) struct Build<'a> {
    pub(super) workshop: Mutex<&'a mut dyn Workshop>,
    pub(super) environment: &'a Environment,
    pub(super) plants: &'a Plants,
    /// The run's folder.
    pub(super) folder: PathBuf,
    /// Cases that have a row already.
    pub(super) stored: HashSet<String>,
}

impl Build<'_> {
    /// A fresh worker; devices that want one at the same time wait for each other.
    pub(super) fn hire(&self, share: Share) -> io::Result<Hired> {
        let mut workshop = self.workshop.lock().unwrap_or_else(PoisonError::into_inner);
        workshop.hire(share)
    }
}

/// What all devices of a run share and none changes.
pub(super) struct Hall<'a> {
    pub(super) plan: &'a Plan,
    pub(super) pair: Option<String>,
    pub(super) builds: Vec<Build<'a>>,
    pub(super) gpus: &'a Gpus,
    pub(super) interrupted: &'a AtomicBool,
    /// Every worker of the run: the processors' time they take is not a stranger's.
    pub(super) crowd: Crowd,
}

impl Hall<'_> {
    /// Whether a case has no row of a build yet.
    pub(super) fn is_open(&self, build: usize, case: &Case) -> bool {
        !self.builds[build].stored.contains(&case.id)
    }
}

/// One device and its share of the processors.
pub(super) struct Lane {
    /// Where cases run, if not where they ask to: `cuda` becomes the GPU of the lane.
    pub(super) device: Option<DeviceRequest>,
    pub(super) share: Share,
    /// Its GPU, or why that cannot be watched; none for the processor.
    pub(super) probe: Option<Counter<Probe>>,
}

impl Lane {
    /// One for each of `devices`; one for that of the plan where there are none.
    pub(super) fn all(devices: &[DeviceRequest], plan: &Plan, gpus: &Gpus) -> Vec<Self> {
        let of = devices.len().max(1);
        let lane = |index: usize| {
            let device = devices.get(index).copied();
            Self {
                device,
                share: Share { index, of },
                probe: Probe::of(gpus, device.unwrap_or(plan.device)),
            }
        };
        (0..of).map(lane).collect()
    }
}

impl Lane {
    /// As [`all`](Self::all), and of the processor as many as there is room for trainings beside each other.
    pub(super) fn beside_each_other(
        devices: &[DeviceRequest],
        plan: &Plan,
        gpus: &Gpus,
        trainings: &[&[Case]],
    ) -> Vec<Self> {
        let mut lanes = Self::all(devices, plan, gpus);
        if !devices.is_empty() {
            return lanes;
        }
        let trained = trainings.iter().flat_map(|group| group.iter());
        let qualities = trained.filter_map(|case| case.quality.as_ref());
        let beside = qualities
            .map(|quality| quality.beside_each_other(plan.device))
            .min();
        let of = beside.unwrap_or(1).min(trainings.len()).max(1);
        lanes.extend((1..of).map(|_| Self {
            device: None,
            share: Share::default(),
            probe: None,
        }));
        for (index, lane) in lanes.iter_mut().enumerate() {
            lane.share = Share { index, of };
        }
        lanes
    }
}

/// What the devices of a run change in turns.
pub(super) struct Desk<'a> {
    pub(super) observer: &'a mut dyn Observer,
    /// The run of each build.
    pub(super) dirs: Vec<&'a mut RunDir>,
    pub(super) groups: VecDeque<&'a [Case]>,
    /// By build, what ran out of memory.
    pub(super) out_of_memory: Vec<Vec<&'a Case>>,
    /// By build, how many cases got a row.
    pub(super) cases: Vec<usize>,
    /// Lanes that were given up, by the number of their share.
    pub(super) given_up: Vec<usize>,
    pub(super) interrupted: bool,
    /// What ends the run.
    pub(super) error: Option<RunError>,
    /// Why the last device was given up.
    pub(super) lost: Option<io::Error>,
}

impl<'a> Desk<'a> {
    /// Takes up other groups, where nothing ended the run; whether there is something to do.
    pub(super) fn goes_on_with(&mut self, groups: Vec<&'a [Case]>) -> bool {
        let is_over = self.interrupted || self.error.is_some() || !self.groups.is_empty();
        if is_over || groups.is_empty() {
            return false;
        }
        self.groups = groups.into();
        self.given_up.clear();
        true
    }

    fn next(&mut self) -> Option<&'a [Case]> {
        if self.interrupted || self.error.is_some() {
            return None;
        }
        self.groups.pop_front()
    }

    /// Why a case need not be tried.
    fn skip(&self, build: usize, case: &Case) -> Option<String> {
        let known = &self.out_of_memory[build];
        let smaller = known.iter().find(|smaller| dominates(smaller, case))?;
        Some(format!(
            "not run: {} ({}) ran out of memory and needs no more",
            smaller.label, smaller.id
        ))
    }

    fn store(&mut self, group: &'a [Case], measured: &[Done]) -> Result<(), RunError> {
        for (number, dir) in self.dirs.iter_mut().enumerate() {
            let cases = measured.iter().filter(|done| done.side == number);
            dir.append_all(cases.map(|done| (&done.row, &done.details)))?;
        }
        for done in measured {
            self.observer.case_finished(&done.row);
            if done.row.status == Status::Oom {
                let case = group.iter().find(|case| case.id == done.row.case_id);
                self.out_of_memory[done.side].extend(case);
            }
            self.cases[done.side] += 1;
        }
        Ok(())
    }

    /// Gives a device up: the others do its group too.
    fn lose(&mut self, lane: &Lane, group: &'a [Case], error: io::Error) {
        self.groups.push_front(group);
        self.given_up.push(lane.share.index);
        if let (Some(device), true) = (lane.device, self.given_up.len() < lane.share.of) {
            self.observer.warning(&format!(
                "{device} is given up, the other devices go on: cannot run a worker process: {error}"
            ));
        }
        self.lost = Some(error);
    }
}

/// The desk, for one at a time.
pub(super) fn at<'l, 'a>(desk: &'l Mutex<Desk<'a>>) -> MutexGuard<'l, Desk<'a>> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has the lanes do groups until none is left, or none of them is. Returns where their time went.
pub(super) fn work<'a>(hall: &Hall<'a>, lanes: &[Lane], desk: &Mutex<Desk<'a>>, state: &State) -> Ledger {
    let mut all = Ledger::default();
    loop {
        let given_up = at(desk).given_up.clone();
        let of_use: Vec<&Lane> = lanes
            .iter()
            .filter(|lane| !given_up.contains(&lane.share.index))
            .collect();
        all.add(&work_together(hall, &of_use, desk, state));
        let desk = at(desk);
        // A lane that was given up last leaves a group when all the others are done.
        let goes_on = !desk.groups.is_empty() && desk.given_up.len() < lanes.len();
        if !goes_on || desk.interrupted || desk.error.is_some() {
            return all;
        }
    }
}

/// Each lane on a thread of its own, the first one on this.
fn work_together<'a>(hall: &Hall<'a>, lanes: &[&Lane], desk: &Mutex<Desk<'a>>, state: &State) -> Ledger {
    let lane = |lane: &Lane| {
        let mut state = state.for_lane();
        let began = Instant::now();
        attend(hall, lane, desk, &mut state);
        state.ledger.worked_s += began.elapsed().as_secs_f64();
        state.ledger
    };
    let Some((first, others)) = lanes.split_first() else {
        return Ledger::default();
    };
    thread::scope(|scope| {
        let lane = &lane;
        let others: Vec<_> = others
            .iter()
            .map(|other| scope.spawn(move || lane(other)))
            .collect();
        let mut all = lane(first);
        for other in others {
            match other.join() {
                Ok(ledger) => all.add(&ledger),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    })
}

/// The groups of one lane.
fn attend<'a>(hall: &Hall<'a>, lane: &Lane, desk: &Mutex<Desk<'a>>, state: &mut State) {
    let mut observer = Voice {
        desk,
        is_one_of_many: lane.share.of > 1,
        device: lane.device,
        title: None,
    };
    loop {
        // The guard must not outlive the look: the whole group would be measured under it.
        let next = at(desk).next();
        let Some(group) = next else { return };
        let todo = |build: usize| {
            group
                .iter()
                .filter(move |case| hall.is_open(build, case))
                .collect()
        };
        let todo: Vec<Vec<&Case>> = (0..hall.builds.len()).map(todo).collect();
        let skip = |build: usize, case: &Case| at(desk).skip(build, case);
        let outcome = if super::is_training(&group) {
            train_group(hall, lane, &todo, &mut observer, state)
        } else {
            measure_group(hall, lane, &todo, &skip, &mut observer, state)
        };
        let measured = match outcome {
            Ok(GroupEnd::Measured(measured)) => measured,
            Ok(GroupEnd::Interrupted) => {
                at(desk).interrupted = true;
                return;
            }
            Err(RunError::Worker(error)) => {
                at(desk).lose(lane, group, error);
                return;
            }
            Err(error) => {
                at(desk).error.get_or_insert(error);
                return;
            }
        };
        let began = Instant::now();
        let stored = at(desk).store(group, &measured);
        if let Err(error) = stored {
            at(desk).error.get_or_insert(error);
            return;
        }
        state.ledger.storing_s += began.elapsed().as_secs_f64();
    }
}

/// The observer for one of several lanes: it says which device it speaks of.
struct Voice<'l, 'a> {
    desk: &'l Mutex<Desk<'a>>,
    is_one_of_many: bool,
    /// What it is called among many.
    device: Option<DeviceRequest>,
    title: Option<(String, usize)>,
}

impl Observer for Voice<'_, '_> {
    fn group_started(&mut self, title: &str, n_cases: usize) {
        let title = match self.device.filter(|_| self.is_one_of_many) {
            Some(device) => format!("{device} {title}"),
            None => title.to_string(),
        };
        at(self.desk).observer.group_started(&title, n_cases);
        self.title = Some((title, n_cases));
    }

    fn phase(&mut self, words: &str) {
        let mut desk = at(self.desk);
        // Another lane may have spoken meanwhile.
        if let (true, Some((title, n_cases))) = (self.is_one_of_many, &self.title) {
            desk.observer.group_started(title, *n_cases);
        }
        desk.observer.phase(words);
    }

    fn case_finished(&mut self, row: &Row) {
        at(self.desk).observer.case_finished(row);
    }

    fn warning(&mut self, text: &str) {
        at(self.desk).observer.warning(text);
    }
}
