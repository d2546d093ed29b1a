//! `doctor`: what this build can compute on here, what is missing, and how to mend it.

use attn_harness::doctor::{Report, examine};
use serde_json::json;

use crate::cli::{DoctorArgs, Format};
use crate::failure::{Exit, Failure};
use crate::output::{print, print_json, table};

/// Prints what was found; fails where the device asked for cannot be used.
pub fn execute(args: &DoctorArgs) -> Result<Exit, Failure> {
    let report = examine(args.device);
    match args.format.format {
        Format::Table => print(&text(&report, args))?,
        Format::Json => print_json(&json!({
            "usable": report.device.is_ok(),
            "device": {
                "requested": args.device,
                "resolved": report.device.as_ref().ok().map(ToString::to_string),
                "missing": report.device.as_ref().err().map(ToString::to_string),
                "remedy": report.device.as_ref().err().map(attn_harness::device::DeviceError::remedy),
            },
            "findings": report.findings,
        }))?,
    }
    match report.device {
        Ok(_) => Ok(Exit::Done),
        Err(error) => Err(attn_harness::Error::Device {
            device: args.device,
            error,
        }
        .into()),
    }
}

fn text(report: &Report, args: &DoctorArgs) -> String {
    let lines = report.findings.iter().map(|finding| {
        vec![
            finding.what.clone(),
            finding.state.name().to_string(),
            finding.found.clone(),
        ]
    });
    let mut text = table(&["what", "state", "found"], lines.collect());
    // Several libraries of one package lack the same thing.
    let mut said: Vec<(&str, Vec<&str>)> = Vec::new();
    for finding in &report.findings {
        let Some(remedy) = &finding.remedy else { continue };
        match said.iter_mut().find(|(known, _)| known == remedy) {
            Some((_, whats)) => whats.push(&finding.what),
            None => said.push((remedy, vec![&finding.what])),
        }
    }
    if !said.is_empty() {
        text += "\nto mend:\n";
    }
    for (remedy, whats) in said {
        text += &format!("  {}: {remedy}\n", whats.join(", "));
    }
    if let Ok(device) = report.device {
        let (asked, device) = (args.device.to_string(), device.to_string());
        text += &if asked == device {
            format!("\ndevice {device} can be used\n")
        } else {
            format!("\ndevice {asked} can be used, it is {device} here\n")
        };
    }
    text
}
