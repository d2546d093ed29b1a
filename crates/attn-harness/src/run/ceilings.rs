//! What every device of a run can do: measured once, before its first case.

use std::collections::BTreeMap;
use std::time::Instant;

use super::lanes::Hall;
use super::session::{Session, Stop};
use super::{RunError, State};
use crate::ceilings::Ceilings;
use crate::device::{self, Resolved};
use crate::plan::Case;
use crate::row::Row;
use crate::sweep::{DeviceRequest, Dtype};
use crate::worker::{Reply, Request, Share};

/// Ceilings by device, under the names that rows have for it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Known(BTreeMap<String, Result<Ceilings, String>>);

impl Known {
    /// Those that could be measured.
    pub(super) fn into_measured(self) -> BTreeMap<String, Ceilings> {
        let measured = |(device, ceilings): (_, Result<_, _>)| Some((device, ceilings.ok()?));
        self.0.into_iter().filter_map(measured).collect()
    }

    /// Holds a row against what its device can do; where nobody knows, says why.
    pub(super) fn describe(&self, row: &mut Row, requested: DeviceRequest) {
        let device = row.device_resolved.clone().unwrap_or_else(|| name(requested));
        let reason = match self.0.get(&device) {
            Some(Ok(ceilings)) => return ceilings.describe(row),
            Some(Err(reason)) => format!("not measured: {reason}"),
            None => {
                format!("not measured: measure.ceilings is false, or no case could run on {device}")
            }
        };
        let columns = [
            "ceiling_bytes_per_s",
            "ceiling_flops_per_s",
            "bandwidth_fraction",
            "flops_fraction",
            "floor_s",
            "time_over_floor",
            "launch_overhead_s",
        ];
        row.explain_nulls(&columns.map(|column| (column, reason.as_str())));
    }
}

/// The name of the device that a request means here.
fn name(request: DeviceRequest) -> String {
    let resolved = device::resolve(request);
    resolved.map_or_else(|_| request.to_string(), |device| device.to_string())
}

/// The devices that these cases may run on, those of the run where it has several, each with the dtypes of its cases.
fn devices<'a>(
    cases: impl Iterator<Item = &'a Case>,
    of_run: &[DeviceRequest],
) -> Vec<(Resolved, Vec<Dtype>)> {
    let mut devices: Vec<(Resolved, Vec<Dtype>)> = Vec::new();
    for case in cases.filter(|case| case.runs_here()) {
        let own = [case.device];
        let requests = if of_run.is_empty() { &own[..] } else { of_run };
        for resolved in requests
            .iter()
            .filter_map(|request| device::resolve(*request).ok())
        {
            let at = devices.iter().position(|(device, _)| *device == resolved);
            let at = at.unwrap_or_else(|| {
                devices.push((resolved, Vec::new()));
                devices.len() - 1
            });
            if !devices[at].1.contains(&case.dtype) {
                devices[at].1.push(case.dtype);
            }
        }
    }
    devices
}

/// Measures the ceilings of every device that one of `cases` runs on, which are those of the run where it has several,
/// each in a worker of its own of the first build; false where that was interrupted.
pub(super) fn measure<'a>(
    hall: &Hall<'_>,
    cases: impl Iterator<Item = &'a Case>,
    of_run: &[DeviceRequest],
    state: &mut State,
) -> Result<bool, RunError> {
    let Some(build) = hall.builds.first() else {
        return Ok(true);
    };
    for (device, dtypes) in devices(cases, of_run) {
        let began = Instant::now();
        let worker = build.hire(Share::default()).map_err(RunError::Worker)?;
        state.ledger.starting_s += began.elapsed().as_secs_f64();
        let began = Instant::now();
        let mut session = Session::new(worker, hall.plan.measure.timeout_s, hall.interrupted);
        session.send(&Request::Ceilings {
            device: match device {
                Resolved::Cpu => DeviceRequest::Cpu,
                Resolved::Cuda(ordinal) => DeviceRequest::Cuda(Some(ordinal)),
            },
            dtypes,
        });
        let measured = match session.reply() {
            Ok(Reply::Ceilings(measured)) => measured,
            Ok(other) => Err(format!("the worker answered {other:?}")),
            Err(Stop::Interrupted) => return Ok(false),
            Err(Stop::Incident(incident)) => Err(incident.reason),
        };
        state.ceilings.0.insert(device.to_string(), measured);
        state.ledger.ceilings_s += began.elapsed().as_secs_f64();
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ceilings(read_bytes_per_s: f64) -> Ceilings {
        Ceilings {
            llc_bytes: Some(1 << 20),
            buffer_bytes: 10 << 20,
            read_bytes_per_s,
            copy_bytes_per_s: 1e9,
            flops_per_s: BTreeMap::from([("f32".to_string(), 1e9)]),
            launch_overhead_s: 5e-6,
            passes: 5,
            threads: 2,
            elapsed_s: 1.0,
        }
    }

    #[test]
    fn a_row_is_held_against_the_device_it_ran_on() {
        let known = Known(BTreeMap::from([
            ("cpu".to_string(), Ok(ceilings(1e10))),
            ("cuda:0".to_string(), Ok(ceilings(4e12))),
            ("cuda:1".to_string(), Err("no kernel".to_string())),
        ]));
        let row = |resolved: Option<&str>, requested| {
            let mut row = Row {
                dtype_requested: "f32".to_string(),
                device_resolved: resolved.map(str::to_string),
                null_reasons: "{}".to_string(),
                ..Row::default()
            };
            known.describe(&mut row, requested);
            row
        };
        let auto = DeviceRequest::Auto;
        assert_eq!(row(Some("cpu"), auto).ceiling_bytes_per_s, Some(1e10));
        assert_eq!(row(Some("cuda:0"), auto).ceiling_bytes_per_s, Some(4e12));
        assert_eq!(row(None, DeviceRequest::Cpu).ceiling_bytes_per_s, Some(1e10));
        let reason = |row: Row| row.null_reasons()["ceiling_flops_per_s"].clone();
        assert_eq!(reason(row(Some("cuda:1"), auto)), "not measured: no kernel");
        assert!(reason(row(Some("cuda:2"), auto)).ends_with("no case could run on cuda:2"));
        assert_eq!(known.clone().into_measured().len(), 2);
        let mut row = Row::default();
        Known::default().describe(&mut row, DeviceRequest::Cpu);
        assert!(reason(row).contains("measure.ceilings is false"));
    }
}
