//! A group of comparable cases: built, verified, warmed and measured side by side in one worker, or in one worker of
//! each of two builds; again without the culprit in a fresh one where something happens.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use super::energy::{Bill, Energy};
use super::gpu::{Probe, Watched};
use super::lanes::{Hall, Lane};
use super::measure::{Taken, Task, WallClock, measure};
use super::report::{self, Burst};
use super::session::{Incident, Session, Stop};
use super::{RunError, State, pause};
use crate::conditions::{ClockLooks, Conditions, Watch};
use crate::nvml::{Counter, ENERGY_WINDOW_S};
use crate::plan::{Case, Plan};
use crate::progress::Observer;
use crate::row::{Details, Row};
use crate::status::Status;
use crate::sweep::Regime;
use crate::table::workload_title;
use crate::worker::{Built, CaseMeasured, Fault, JobSpec, Reply, Request, thread_count};

/// Workers that may die in a row before they touch a case.
const IDLE_DEATHS: usize = 3;
/// A sample that takes turns with another process begins with the work once more where it is shorter than this: the
/// caches then hold its own data again.
const LEAD_IN_BELOW_S: f64 = 0.01;

/// How a group ended.
pub(super) enum GroupEnd {
    /// The user wants the run to end: no row of the group is kept.
    Interrupted,
    /// Every case has its row.
    Measured(Vec<Done>),
}

/// A case with its row.
pub(super) struct Done {
    pub(super) side: usize,
    pub(super) row: Row,
    pub(super) details: Details,
}

/// One case of one side on its way to a row.
struct Item<'a> {
    case: &'a Case,
    side: usize,
    row: Row,
    fault: Option<Fault>,
    /// Whether it agreed with the reference: it need not do so again in every replica.
    verified: bool,
    /// Whether the row says how it ended.
    decided: bool,
    /// Whether it has to be measured without the others, because together they need too much memory.
    alone: bool,
    bursts: Vec<Burst>,
    bill: Bill,
}

/// Measures the cases of a group on every side: `todo` has them by side, `skip` says why one need not be tried.
pub(super) fn measure_group<'a>(
    hall: &Hall<'_>,
    lane: &Lane,
    todo: &[Vec<&'a Case>],
    skip: &dyn Fn(usize, &Case) -> Option<String>,
    observer: &mut dyn Observer,
    state: &mut State,
) -> Result<GroupEnd, RunError> {
    let (plan, interrupted) = (hall.plan, hall.interrupted);
    let mut items = Vec::new();
    for (side, cases) in todo.iter().enumerate() {
        let build = &hall.builds[side];
        for case in cases {
            let mut row = report::describe(plan, case, build.environment);
            row.pair = hall.pair.clone();
            row.memory_limit_bytes = state.memory_bytes;
            if lane.share.of > 1 && plan.measure.pin && cfg!(target_os = "linux") {
                let processors = build.environment.cpu.hardware_threads;
                row.threads = Some(thread_count(lane.share.part(processors).len()) as u64);
            }
            let fault = build.plants.of(case);
            row.planted = fault.map(|fault| fault.to_string());
            let decided = report::decide_unrun(&mut row, case, || skip(side, case));
            items.push(Item {
                case,
                side,
                row,
                fault,
                verified: false,
                decided,
                alone: false,
                bursts: Vec::new(),
                bill: Bill::default(),
            });
        }
    }
    if let Some(first) = items.first() {
        observer.group_started(&workload_title(&first.row), items.len());
    }
    if plan.measure.energy_s > 0.0 && items.iter().any(|item| !item.decided) {
        read_idle_power(&mut items, hall, lane, observer, state);
    }
    let replicas = plan.measure.replicas();
    let mut idle_deaths = 0;
    for replica in 0..replicas {
        let cooldown = Duration::from_millis(plan.measure.cooldown_ms);
        if replica > 0 && !cooldown.is_zero() && items.iter().any(|item| !item.decided) {
            observer.phase("cooling down");
            pause(cooldown, interrupted);
            state.ledger.cooldown_s += cooldown.as_secs_f64();
        }
        let mut left: Vec<usize> = (0..items.len()).filter(|&i| !items[i].decided).collect();
        while !left.is_empty() {
            let together: Vec<usize> = left.iter().copied().filter(|&i| !items[i].alone).collect();
            let who = if together.is_empty() {
                vec![left[0]]
            } else {
                together
            };
            let mut attempt = Attempt {
                hall,
                lane,
                plan,
                replica,
                items: &mut items,
                who: &who,
                observer: &mut *observer,
                state: &mut *state,
            };
            match attempt.run() {
                Ok(()) => left.retain(|i| !who.contains(i)),
                Err(Halt::Worker(error)) => return Err(RunError::Worker(error)),
                Err(Halt::Stop(Stop::Interrupted)) => return Ok(GroupEnd::Interrupted),
                Err(Halt::Incident(culprit, incident)) => {
                    let Some(culprit) = culprit else {
                        idle_deaths += 1;
                        if idle_deaths >= IDLE_DEATHS {
                            return Err(RunError::Worker(std::io::Error::other(incident.reason)));
                        }
                        continue;
                    };
                    let item = &mut items[culprit];
                    if incident.status == Status::Oom && who.len() > 1 {
                        item.alone = true;
                    } else {
                        item.decided = true;
                        (item.row.status, item.row.reason) = (incident.status, Some(incident.reason));
                    }
                }
                Err(Halt::Stop(Stop::Incident(incident))) => {
                    return Err(RunError::Worker(std::io::Error::other(incident.reason)));
                }
            }
            left.retain(|&i| !items[i].decided);
        }
    }
    let began = Instant::now();
    let done = items
        .into_iter()
        .map(|item| conclude(item, hall, state))
        .collect();
    state.ledger.statistics_s += began.elapsed().as_secs_f64();
    Ok(GroupEnd::Measured(done))
}

/// Reads the power of a GPU on which nothing runs.
fn read_idle_power(
    items: &mut [Item<'_>],
    hall: &Hall<'_>,
    lane: &Lane,
    observer: &mut dyn Observer,
    state: &mut State,
) {
    let Some(probe) = &lane.probe else { return };
    let began = Instant::now();
    observer.phase("reading idle power");
    let probe = probe.as_ref().map_err(Clone::clone);
    let idle_power_w = probe.and_then(|probe| probe.idle_power_w(hall.interrupted));
    for item in items {
        item.bill.idle_power_w = idle_power_w.clone();
    }
    state.ledger.energy_s += began.elapsed().as_secs_f64();
}

/// The row of an item.
fn conclude(item: Item<'_>, hall: &Hall<'_>, state: &State) -> Done {
    let Item {
        case,
        side,
        mut row,
        decided,
        alone,
        bursts,
        bill,
        ..
    } = item;
    let mut details = Details::default();
    if !decided {
        let best_clock_rate = state.best_clock_rate;
        details = report::conclude(&mut row, case, &bursts, &bill, hall.plan, best_clock_rate);
        if alone {
            report::note(
                &mut row,
                "measured apart from its group: together they need more memory than there is",
            );
        }
    }
    if report::is_on_gpu(&row) {
        report::describe_gpu(&mut row, hall.gpus);
    }
    state.ceilings.describe(&mut row, case.device);
    report::explain_nulls(&mut row);
    Done { side, row, details }
}

/// Why an attempt did not measure its cases.
enum Halt {
    /// No worker can be started.
    Worker(std::io::Error),
    /// The run is over.
    Stop(Stop),
    /// Something happened, to this item where it is known.
    Incident(Option<usize>, Incident),
}

/// One try at measuring some items side by side.
struct Attempt<'a, 'b, 'h> {
    hall: &'a Hall<'h>,
    lane: &'a Lane,
    plan: &'a Plan,
    replica: usize,
    items: &'a mut Vec<Item<'b>>,
    /// The items, by number.
    who: &'a [usize],
    observer: &'a mut dyn Observer,
    state: &'a mut State,
}

/// The worker of a side, and the items it has: a request's case numbers are places in this list.
struct Crew<'a> {
    session: RefCell<Session<'a>>,
    items: Vec<usize>,
    /// Places of the items that can be timed.
    ready: Vec<usize>,
    /// What ended a remote sample.
    stopped: RefCell<Option<Stop>>,
}

impl Crew<'_> {
    fn halt(&self, stop: Stop) -> Halt {
        match stop {
            Stop::Interrupted => Halt::Stop(Stop::Interrupted),
            Stop::Incident(incident) => {
                let culprit = incident.case.and_then(|case| self.items.get(case).copied());
                Halt::Incident(culprit, incident)
            }
        }
    }

    /// A failure that the worker survived and reported.
    fn failed(&self, place: usize, reason: String) -> Halt {
        self.halt(Stop::Incident(Incident {
            case: Some(place),
            status: Status::Crash,
            reason,
        }))
    }

    /// An answer that does not fit its request.
    fn confused(&self, reply: &Reply) -> Halt {
        let mut said = format!("{reply:?}");
        said.truncate(said.floor_char_boundary(200));
        self.halt(Stop::Incident(Incident {
            case: None,
            status: Status::Crash,
            reason: format!("the worker answered something else: {said}"),
        }))
    }

    fn ask(&self, request: &Request) -> Result<Reply, Halt> {
        let mut session = self.session.borrow_mut();
        session.send(request);
        session.reply().map_err(|stop| self.halt(stop))
    }
}

impl<'a> Attempt<'a, '_, '_> {
    fn run(&mut self) -> Result<(), Halt> {
        let (hall, lane) = (self.hall, self.lane);
        let probe = lane
            .probe
            .as_ref()
            .map(|probe| probe.as_ref().map_err(Clone::clone));
        let before_bytes = probe.clone().map(|probe| probe.and_then(Probe::used_bytes));
        let mut crews = Vec::new();
        for (side, build) in hall.builds.iter().enumerate() {
            let items: Vec<usize> = self
                .who
                .iter()
                .copied()
                .filter(|&i| self.items[i].side == side)
                .collect();
            if items.is_empty() {
                continue;
            }
            let began = Instant::now();
            let worker = build.hire(lane.share).map_err(Halt::Worker)?;
            self.state.ledger.starting_s += began.elapsed().as_secs_f64();
            let limit = self.items[items[0]].row.memory_limit_bytes;
            let session = Session::new(worker, self.plan.measure.timeout_s, hall.interrupted)
                .with_limit(limit)
                .within(&hall.crowd);
            crews.push(Crew {
                session: RefCell::new(session),
                items,
                ready: Vec::new(),
                stopped: RefCell::new(None),
            });
        }
        for crew in &mut crews {
            self.build(crew)?;
        }
        crews.retain(|crew| !crew.ready.is_empty());
        if crews.is_empty() {
            return Ok(());
        }
        self.observer.phase("warming up");
        for crew in &crews {
            self.warm(crew)?;
        }
        self.observer.phase("measuring");
        let began = Instant::now();
        let pids: Vec<u32> = crews.iter().map(|crew| crew.session.borrow().pid()).collect();
        let gpu_watch = probe
            .clone()
            .map(|probe| probe.and_then(|probe| probe.watch(&pids)));
        let watch = Watch::start(&hall.crowd.pids());
        let looked_s = began.elapsed().as_secs_f64();
        let (measured, looks) = match crews.as_slice() {
            [crew] => self.measure_alone(crew)?,
            crews => self.measure_together(crews)?,
        };
        let ended = Instant::now();
        let conditions = watch.finish(&hall.crowd.pids(), &looks);
        let gpu = before_bytes.zip(gpu_watch).map(|(before_bytes, watch)| {
            watch.map(|watch| Watched {
                before_bytes,
                conditions: watch.finish(),
            })
        });
        self.state.ledger.watching_s += looked_s + looks.spent_s + ended.elapsed().as_secs_f64();
        let best = looks.rates.iter().copied().fold(0.0, f64::max);
        self.state.best_clock_rate = self.state.best_clock_rate.max(best);
        for (crew, (cases, rss_peak_bytes)) in crews.iter().zip(measured) {
            self.keep(crew, cases, rss_peak_bytes, &conditions, &gpu)?;
        }
        let is_last = self.replica + 1 == self.plan.measure.replicas();
        if let (Some(probe), true) = (probe, is_last && self.plan.measure.energy_s > 0.0) {
            self.observer.phase("counting energy");
            let began = Instant::now();
            for crew in &crews {
                self.burn(crew, probe.clone(), &pids)?;
            }
            self.state.ledger.energy_s += began.elapsed().as_secs_f64();
        }
        Ok(())
    }

    /// Has each case of a crew run by itself while its energy is counted. Its times are there already: whatever goes
    /// wrong costs the energy and nothing else.
    fn burn(&mut self, crew: &Crew<'a>, probe: Counter<&Probe>, pids: &[u32]) -> Result<(), Halt> {
        let mut gone = None;
        for &place in &crew.ready {
            let energy = match (&probe, &gone) {
                (Err(reason), _) | (_, Some(reason)) => Err(reason.clone()),
                (Ok(probe), None) => match self.burn_one(crew, place, probe, pids) {
                    Ok(energy) => energy,
                    Err(Stop::Interrupted) => return Err(Halt::Stop(Stop::Interrupted)),
                    Err(Stop::Incident(incident)) => {
                        let reason = format!("not measured: while energy was counted, {}", incident.reason);
                        gone = Some(reason.clone());
                        Err(reason)
                    }
                },
            };
            self.items[crew.items[place]].bill.energy = energy;
        }
        Ok(())
    }

    fn burn_one(
        &self,
        crew: &Crew<'a>,
        place: usize,
        probe: &Probe,
        pids: &[u32],
    ) -> Result<Counter<Energy>, Stop> {
        let item = &self.items[crew.items[place]];
        if item.row.flush_bytes.is_some() {
            let reason = "not measured: flushing the caches before each sample takes energy too";
            return Ok(Err(reason.to_string()));
        }
        let watch = match probe.watch(pids) {
            Ok(watch) => watch,
            Err(reason) => return Ok(Err(reason)),
        };
        let mut session = crew.session.borrow_mut();
        session.send(&Request::Burn {
            case: place,
            seconds: self.plan.measure.energy_s.max(ENERGY_WINDOW_S),
        });
        let reply = session.reply()?;
        let found = watch.finish();
        let steps = item.case.steps_per_sample;
        Ok(match reply {
            Reply::Burned {
                burned: Ok((samples, spent_s)),
            } => Energy::of(samples, steps, spent_s, &found),
            Reply::Burned { burned: Err(reason) } => Err(format!("not measured: {reason}")),
            _ => Err("not measured: the worker answered something else".to_string()),
        })
    }

    /// Builds and verifies; the rows of those that must not be timed say why.
    fn build(&mut self, crew: &mut Crew<'a>) -> Result<(), Halt> {
        let jobs = crew.items.iter().map(|&i| {
            let item = &self.items[i];
            let job = JobSpec::new(item.case, !item.verified, item.fault);
            JobSpec {
                device: self.lane.device.unwrap_or(job.device),
                ..job
            }
        });
        let jobs: Vec<JobSpec> = jobs.collect();
        let verifies = jobs.iter().any(|job| job.verify);
        self.observer
            .phase(if verifies { "verifying" } else { "building" });
        let request = Request::Build { jobs };
        crew.session.borrow_mut().send(&request);
        for place in 0..crew.items.len() {
            self.items[crew.items[place]].row.started_at = Some(report::now());
            let reply = crew.session.borrow_mut().reply();
            let reply = reply.map_err(|stop| crew.halt(stop))?;
            let Reply::Built { case, built } = reply else {
                return Err(crew.confused(&reply));
            };
            let Some(&i) = crew.items.get(case) else { continue };
            self.state.ledger.building_s += built.build_s;
            self.state.ledger.verifying_s += built.verify_s;
            if let Some(reason) = built.failed {
                return Err(crew.failed(case, reason));
            }
            if self.take(i, *built) {
                crew.ready.push(case);
            }
        }
        Ok(())
    }

    /// Notes what was built; whether it can be timed.
    fn take(&mut self, i: usize, built: Built) -> bool {
        let item = &mut self.items[i];
        report::built(&mut item.row, item.case, &built);
        item.verified |= built.verdict.is_some();
        let wrong = built.verdict.and_then(|verdict| verdict.failure);
        let verdict = match (built.unsupported, wrong) {
            (Some(reason), _) => Some((Status::Unsupported, reason)),
            (None, Some(reason)) => Some((Status::Wrong, reason)),
            (None, None) => None,
        };
        if let Some((status, reason)) = verdict {
            (item.row.status, item.row.reason) = (status, Some(reason));
            item.decided = true;
        }
        !item.decided
    }

    fn warm(&mut self, crew: &Crew<'a>) -> Result<(), Halt> {
        let cases = crew.ready.clone();
        let warmup_ms = self.plan.measure.of_replica().warmup_ms;
        let reply = crew.ask(&Request::Warm { cases, warmup_ms })?;
        let Reply::Warmed { spent_s } = reply else {
            return Err(crew.confused(&reply));
        };
        for (&place, spent) in crew.ready.iter().zip(spent_s) {
            let spent_s = spent.map_err(|reason| crew.failed(place, reason))?;
            let row = &mut self.items[crew.items[place]].row;
            row.warmup_s = Some(row.warmup_s.unwrap_or(0.0) + spent_s);
            self.state.ledger.warmup_s += spent_s;
        }
        Ok(())
    }

    fn seed(&self) -> u64 {
        let group = self.who.first().map_or(0, |&i| self.items[i].case.group as u64);
        self.plan.measure.seed.unwrap_or(self.plan.seed) ^ group ^ ((self.replica as u64) << 32)
    }

    /// The worker takes the samples by itself.
    fn measure_alone(&mut self, crew: &Crew<'a>) -> Result<(Vec<CrewMeasured>, ClockLooks), Halt> {
        let request = Request::Measure {
            cases: crew.ready.clone(),
            settings: self.plan.measure.of_replica(),
            seed: self.seed(),
            now_s: self.state.began.elapsed().as_secs_f64(),
        };
        let (measured, looks) = measured(crew, crew.ask(&request)?)?;
        Ok((vec![measured], looks))
    }

    /// The runner has two workers take samples in turns, those of one case one after the other.
    fn measure_together(&mut self, crews: &[Crew<'a>]) -> Result<(Vec<CrewMeasured>, ClockLooks), Halt> {
        let over = Cell::new(false);
        let mut remotes = Vec::new();
        for crew in crews {
            for &place in &crew.ready {
                let case = self.items[crew.items[place]].case;
                remotes.push(Remote {
                    crew,
                    place,
                    over: &over,
                    last_s: f64::INFINITY,
                    leads_in: case.regime == Regime::Hot,
                    steps: case.steps_per_sample as f64,
                });
            }
        }
        let id = |remote: &Remote<'_, '_>| &self.items[remote.crew.items[remote.place]].case.id;
        let mut turns: Vec<Vec<usize>> = Vec::new();
        for (i, remote) in remotes.iter().enumerate() {
            let same = turns.iter_mut().find(|turn| id(&remotes[turn[0]]) == id(remote));
            match same {
                Some(turn) => turn.push(i),
                None => turns.push(vec![i]),
            }
        }
        let clock = WallClock::starting_at(self.state.began.elapsed().as_secs_f64());
        let mut tasks: Vec<&mut dyn Task> = remotes.iter_mut().map(|task| task as &mut dyn Task).collect();
        let settings = self.plan.measure.of_replica();
        let mut looks = ClockLooks::default();
        let mut times = measure(&mut tasks, &turns, &settings, self.seed(), &clock, &mut || {
            looks.take();
        })
        .into_iter();
        for crew in crews {
            if let Some(stop) = crew.stopped.borrow_mut().take() {
                return Err(crew.halt(stop));
            }
        }
        let mut all = Vec::new();
        for crew in crews {
            let cases = crew.ready.clone();
            let ((mut cases, rss), _) = measured(crew, crew.ask(&Request::Conclude { cases })?)?;
            for (case, times) in cases.iter_mut().zip(times.by_ref()) {
                case.measured = times;
            }
            all.push((cases, rss));
        }
        Ok((all, looks))
    }

    /// Adds the burst of each case to what it has.
    fn keep(
        &mut self,
        crew: &Crew<'a>,
        cases: Vec<CaseMeasured>,
        rss_peak_bytes: Option<u64>,
        conditions: &Conditions,
        gpu: &Option<Counter<Watched>>,
    ) -> Result<(), Halt> {
        for (&place, case) in crew.ready.iter().zip(&cases) {
            if let Some(reason) = &case.measured.failure {
                return Err(crew.failed(place, reason.clone()));
            }
        }
        for (&place, case) in crew.ready.iter().zip(cases) {
            self.state.ledger.sampling_s += case.measured.sampling_s;
            self.state.ledger.resetting_s += case.measured.around_s;
            self.state.ledger.statistics_s += case.measured.deciding_s;
            self.items[crew.items[place]].bursts.push(Burst {
                replica: self.replica as u64,
                case,
                rss_peak_bytes,
                conditions: conditions.clone(),
                gpu: gpu.clone(),
            });
        }
        Ok(())
    }
}

fn measured(crew: &Crew<'_>, reply: Reply) -> Result<(CrewMeasured, ClockLooks), Halt> {
    match reply {
        Reply::Measured {
            cases,
            rss_peak_bytes,
            looks,
        } if cases.len() == crew.ready.len() => Ok(((cases, rss_peak_bytes), looks)),
        other => Err(crew.confused(&other)),
    }
}

/// What the cases of a crew measured, and the peak of its worker's resident memory.
type CrewMeasured = (Vec<CaseMeasured>, Option<u64>);

/// A case in another process, as a task.
struct Remote<'c, 'a> {
    crew: &'c Crew<'a>,
    place: usize,
    /// Set by the first task that lost its worker, so that the others end too.
    over: &'c Cell<bool>,
    last_s: f64,
    leads_in: bool,
    steps: f64,
}

impl Task for Remote<'_, '_> {
    fn sample(&mut self) -> Result<Taken, String> {
        if self.over.get() {
            return Err("the worker of another case is gone".to_string());
        }
        let lead_in = self.leads_in && self.last_s < LEAD_IN_BELOW_S;
        let mut session = self.crew.session.borrow_mut();
        session.send(&Request::Sample {
            case: self.place,
            lead_in,
        });
        let lost = |stop| {
            self.over.set(true);
            *self.crew.stopped.borrow_mut() = Some(stop);
            Err("its worker is gone".to_string())
        };
        match session.reply() {
            Ok(Reply::Sampled { taken: Ok(taken) }) => {
                self.last_s = taken.time_s * self.steps;
                Ok(taken)
            }
            Ok(Reply::Sampled { taken: Err(reason) }) => lost(Stop::Incident(Incident {
                case: Some(self.place),
                status: Status::Crash,
                reason,
            })),
            Ok(other) => lost(Stop::Incident(Incident {
                case: None,
                status: Status::Crash,
                reason: format!("the worker answered something else: {other:?}"),
            })),
            Err(stop) => lost(stop),
        }
    }
}
