//! Project against its formula, on every level that runs here.

use attn_kernels::{Element, Grouped, Level, Orientation, Output, Project, project};
use half::{bf16, f16};

use crate::common::{assert_close, random};

fn check<E: Element>(groups: usize, rows: usize, inputs: usize, outputs: usize, tolerance: f64) {
    let gap = 3;
    let x: Vec<E> = random(groups * rows * (inputs + gap), 1);
    let bias: Vec<E> = random(outputs, 3);
    for orientation in [Orientation::Outputs, Orientation::Inputs] {
        let (weight_rows, columns) = match orientation {
            Orientation::Outputs => (outputs, inputs),
            Orientation::Inputs => (inputs, outputs),
        };
        let weight: Vec<E> = random(groups * (weight_rows + 1) * columns, 2);
        let input = Project {
            x: Grouped {
                data: &x,
                group_stride: rows * (inputs + gap),
                row_stride: inputs + gap,
            },
            weight: Grouped {
                data: &weight,
                group_stride: (weight_rows + 1) * columns,
                row_stride: columns,
            },
            orientation,
            bias: (outputs % 2 == 0).then_some(bias.as_slice()),
            groups,
            rows,
            inputs,
            outputs,
        };
        let mut expected = Vec::new();
        for g in 0..groups {
            for i in 0..rows {
                for j in 0..outputs {
                    let term = |d: usize| {
                        let w = match orientation {
                            Orientation::Outputs => j * columns + d,
                            Orientation::Inputs => d * columns + j,
                        };
                        let x = x[(g * rows + i) * (inputs + gap) + d].to_f32();
                        f64::from(x) * f64::from(weight[g * (weight_rows + 1) * columns + w].to_f32())
                    };
                    let bias = input.bias.map_or(0.0, |bias| f64::from(bias[j].to_f32()));
                    expected.push((0..inputs).map(term).sum::<f64>() + bias);
                }
            }
        }
        for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
            let mut data = vec![E::from_f32(f32::NAN); groups * rows * outputs];
            let mut out = Output {
                data: &mut data,
                group_stride: rows * outputs,
                row_stride: outputs,
            };
            project(&input, level, &mut out).unwrap();
            assert_close(&data, &expected, tolerance);
        }
    }
}

#[test]
fn rows_inputs_and_outputs_of_every_kind_agree_with_the_formula() {
    for (groups, rows) in [(1, 1), (1, 2), (1, 5), (3, 8), (2, 13), (1, 17), (1, 300)] {
        for (inputs, outputs) in [(1, 1), (16, 16), (63, 111), (64, 256), (300, 40), (17, 1000)] {
            check::<f32>(groups, rows, inputs, outputs, 2e-6);
            check::<bf16>(groups, rows, inputs, outputs, 5e-3);
            check::<f16>(groups, rows, inputs, outputs, 1e-3);
        }
    }
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let x = vec![0.0_f32; 16];
    let all = Grouped {
        data: x.as_slice(),
        group_stride: 0,
        row_stride: 4,
    };
    let input = Project {
        x: all,
        weight: all,
        orientation: Orientation::Outputs,
        bias: None,
        groups: 1,
        rows: 4,
        inputs: 4,
        outputs: 4,
    };
    let run = |input: Project<'_, f32>, len: usize| {
        let mut data = vec![0.0; len];
        let mut out = Output {
            data: &mut data,
            group_stride: 0,
            row_stride: 4,
        };
        project(&input, Level::Portable, &mut out)
    };
    assert_eq!(run(input, 16), Ok(()));
    let refused = |input, len| run(input, len).unwrap_err().to_string();
    assert!(refused(input, 15).contains("output"));
    assert!(refused(Project { rows: 5, ..input }, 32).contains("length of x"));
    assert!(refused(Project { outputs: 5, ..input }, 32).contains("weight"));
    assert!(
        refused(
            Project {
                bias: Some(&x[..3]),
                ..input
            },
            16
        )
        .contains("bias")
    );
}
