//! Which cases need at least what another one needs: what is out of reach for that one is so for them too.

use std::collections::HashMap;

use attn_core::Workload;

use super::Case;

/// Whether `b` needs at least the memory that `a` needs: the same layer, or decoder, and the same kind of workload on the
/// same path, dtype and device, and no size of `b` below that of `a`. A case dominates itself.
///
/// ```
/// # use attn_harness::plan::{Case, dominates};
/// fn skipped(failed: &[Case], next: &Case) -> bool {
///     failed.iter().any(|failed| dominates(failed, next))
/// }
/// ```
pub fn dominates(a: &Case, b: &Case) -> bool {
    a.quality.is_none()
        && b.quality.is_none()
        && a.variant.key == b.variant.key
        && a.dims == b.dims
        && a.workload.name() == b.workload.name()
        && (a.scope, a.path, a.dtype, a.device) == (b.scope, b.path, b.dtype, b.device)
        && not_below(sizes(&b.workload), sizes(&a.workload))
        && (a.model, a.habits, a.prefix) == (b.model, b.habits, b.prefix)
        && a.params == b.params
}

/// Every size of a workload; 0 where it has no such size.
fn sizes(workload: &Workload) -> [usize; 4] {
    match *workload {
        Workload::Decode { batch, context } => [batch, context, 0, 0],
        Workload::Prefill { batch, tokens } | Workload::TrainStep { batch, tokens } => [batch, tokens, 0, 0],
        Workload::Generate {
            batch,
            tokens,
            new_tokens,
        }
        | Workload::Trajectory {
            batch,
            tokens,
            new_tokens,
        } => [batch, tokens, new_tokens, 0],
        Workload::Beam {
            batch,
            tokens,
            new_tokens,
            beam,
        } => [batch, tokens, new_tokens, beam],
    }
}

fn not_below(b: [usize; 4], a: [usize; 4]) -> bool {
    b.iter().zip(a).all(|(b, a)| *b >= a)
}

/// Names for every case predicted not to fit a smaller one that does not fit either, where there is one. Of equal
/// cases (they differ in the regime) the first is not dominated.
pub(super) fn mark(cases: &mut [Case]) {
    // Cases of one layer, kind of workload, scope, path and dtype; a plan has one device.
    let mut lines: HashMap<_, Vec<usize>> = HashMap::new();
    let timed = cases
        .iter()
        .enumerate()
        .filter(|(_, case)| case.quality.is_none());
    for (i, case) in timed.filter(|(_, case)| case.predicted_oom) {
        let settings = format!(
            "{:?} {:?} {:?} {:?} {:?}",
            case.params, case.dims, case.model, case.habits, case.prefix
        );
        let key = (
            case.variant.key,
            settings,
            case.workload.name(),
            case.scope,
            case.path,
            case.dtype,
        );
        lines.entry(key).or_default().push(i);
    }
    for mut line in lines.into_values() {
        // What dominates comes first in this order.
        line.sort_by_key(|&i| (sizes(&cases[i].workload), i));
        let mut smallest: Vec<usize> = Vec::new();
        for i in line {
            let own = sizes(&cases[i].workload);
            let found = smallest
                .iter()
                .find(|&&small| not_below(own, sizes(&cases[small].workload)));
            match found {
                Some(&small) => cases[i].dominated_by = Some(cases[small].id.clone()),
                None => smallest.push(i),
            }
        }
    }
}
