//! The merge of training and its gradients. `cuda/merge.cu` has the formula and says what each pass does.

use super::machine::{Dtype, Launch, Machine, Unsupported};
use super::operands::{Memory, apart, int, memory};
use super::specialise::{Kernel, Planned, Specialisation};
use super::streams::copy_bytes;
use crate::error::{Mismatch, at_least, product};

/// The source.
pub static MERGE: Kernel = Kernel {
    name: "merge",
    text: include_str!("../../cuda/merge.cu"),
    is_hot: true,
};

/// Warps of a block, each with a block of tokens.
const WARPS: usize = 4;

/// Elements of a latent that a lane keeps in registers at most, of four rows at once.
const MOST_PER_LANE: usize = 32;

/// What the kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MergeShape {
    /// Of latents, sums and their gradients; tables are f32.
    pub dtype: Dtype,
    /// r.
    pub rank: usize,
    /// Tokens s that are merged.
    pub stride: usize,
}

/// The launches, and what their operands are held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergePlan {
    /// The sums.
    pub forward: Planned,
    /// Gradients of latents, then of the tables: to be launched in this order, on one stream.
    pub backward: [Planned; 2],
    /// What they are compiled for.
    pub shape: MergeShape,
    /// Bytes that a lane loads at once.
    pub vector_bytes: usize,
    /// Sequences B.
    pub batch: usize,
    /// Tokens T.
    pub tokens: usize,
}

/// Operands of the merge, all without gaps.
#[derive(Debug, Clone, Copy)]
pub struct MergeOperands {
    /// `[B, T, r]`.
    pub c: Memory,
    /// `[ceil(T / s), r]` f32.
    pub u: Memory,
    /// `[ceil(T / s)]` f32.
    pub b: Memory,
    /// `[B, T, r]`, of the forward pass.
    pub sums: Option<Memory>,
    /// Of the backward pass.
    pub gradients: Option<MergeGradients>,
}

/// Operands of the backward pass alone.
#[derive(Debug, Clone, Copy)]
pub struct MergeGradients {
    /// Gradient of the sums, `[B, T, r]`.
    pub sums: Memory,
    /// Gradient of the latents, `[B, T, r]`.
    pub c: Memory,
    /// `[ceil(T / s), r]` f32.
    pub u: Memory,
    /// `[ceil(T / s)]` f32.
    pub b: Memory,
    /// `[B, T]` f32, between the two launches.
    pub of_logits: Memory,
}

/// `Merge` of `merge.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct MergeParams {
    c: u64,
    u: u64,
    b: u64,
    sums: u64,
    grad: u64,
    dc: u64,
    du: u64,
    db: u64,
    of_logits: u64,
    batch: i32,
    tokens: i32,
}

// The source asserts the same size.
const _: () = assert!(size_of::<MergeParams>() == 80);

impl MergeShape {
    /// The launches for `batch` sequences of `tokens` tokens from their beginning.
    ///
    /// # Errors
    /// [`Unsupported`] for a stride of 0, no tokens, ranks that are odd in 16-bit elements, and latents that do not fit a
    /// warp's registers.
    pub fn plan(&self, machine: Machine, batch: usize, tokens: usize) -> Result<MergePlan, Unsupported> {
        let refuse = |what, remedy: String| {
            Err(Unsupported {
                kernel: MERGE.name,
                what,
                remedy,
            })
        };
        let (rank, bytes) = (self.rank, self.dtype.bytes());
        if rank == 0 || rank > 32 * MOST_PER_LANE {
            return refuse(
                format!("rank {rank}"),
                format!("a rank of 1 to {}", 32 * MOST_PER_LANE),
            );
        }
        let Some(most) = copy_bytes(&[rank * bytes]) else {
            return refuse(format!("rank {rank}"), "an even rank, or f32".to_string());
        };
        if self.stride == 0 || batch == 0 || tokens == 0 {
            let what = format!("{batch} sequences of {tokens} tokens, {} merged", self.stride);
            return refuse(what, "one of each or more".to_string());
        }
        // Shorter vectors where the longest would leave lanes without any.
        let lengths = [16, 8, 4].into_iter().filter(|vector| *vector <= most);
        let vector_bytes = lengths
            .clone()
            .find(|vector| rank * bytes >= 32 * vector)
            .or(lengths.min())
            .unwrap_or(most);
        let pass = |pass: usize, warps: usize| -> Result<Planned, Unsupported> {
            Ok(Planned {
                specialisation: Specialisation {
                    kernel: &MERGE,
                    dtype: self.dtype,
                    constants: vec![
                        ("PASS", pass),
                        ("RANK", rank),
                        ("STRIDE", self.stride),
                        ("VECTOR_BYTES", vector_bytes),
                        ("WARPS", WARPS),
                    ],
                    arch: machine.arch,
                },
                launch: Launch {
                    grid: [warps.div_ceil(WARPS), 1, 1],
                    threads: 32 * WARPS,
                    shared_bytes: 0,
                }
                .checked(MERGE.name)?,
            })
        };
        let blocks = tokens.div_ceil(self.stride);
        Ok(MergePlan {
            forward: pass(0, product(&[batch, blocks]))?,
            backward: [pass(1, product(&[batch, blocks]))?, pass(2, blocks)?],
            shape: *self,
            vector_bytes,
            batch,
            tokens,
        })
    }
}

impl MergePlan {
    /// What every launch is given; the forward pass needs `sums`, the others need `gradients`.
    ///
    /// # Errors
    /// [`Mismatch`] where memory is shorter than the sizes say, or begins where vectors do not, where an output shares
    /// bytes with another operand, and where there is none. Whether addresses are of a device is not seen here.
    pub fn params(&self, operands: &MergeOperands) -> Result<MergeParams, Mismatch> {
        let op = MERGE.name;
        let (batch, tokens, rank) = (self.batch, self.tokens, self.shape.rank);
        let blocks = tokens.div_ceil(self.shape.stride);
        let rows = |what, of: Memory| {
            let bytes = product(&[batch, tokens, rank, self.shape.dtype.bytes()]);
            let address = memory(op, what, of, bytes, self.vector_bytes)?;
            Ok((what, Memory { address, bytes }))
        };
        let floats = |what, of: Memory, n: &[usize]| {
            let bytes = product(n).saturating_mul(4);
            let address = memory(op, what, of, bytes, 4)?;
            Ok((what, Memory { address, bytes }))
        };
        let mut inputs = vec![
            rows("the latents", operands.c)?,
            floats("the table", operands.u, &[blocks, rank])?,
            floats("the biases", operands.b, &[blocks])?,
        ];
        let mut outputs = Vec::new();
        if let Some(sums) = operands.sums {
            outputs.push(rows("the sums", sums)?);
        }
        if let Some(it) = &operands.gradients {
            inputs.push(rows("the gradient of the sums", it.sums)?);
            outputs.extend([
                rows("the gradient of the latents", it.c)?,
                floats("the gradient of the table", it.u, &[blocks, rank])?,
                floats("the gradient of the biases", it.b, &[blocks])?,
                floats("the gradients of logits", it.of_logits, &[batch, tokens])?,
            ]);
        }
        at_least(op, "the number of outputs", outputs.len(), 1)?;
        apart(op, &outputs, &inputs)?;
        let gradients = operands.gradients.as_ref();
        let address = |of: Option<Memory>| of.map_or(0, |of| of.address);
        Ok(MergeParams {
            c: operands.c.address,
            u: operands.u.address,
            b: operands.b.address,
            sums: address(operands.sums),
            grad: address(gradients.map(|it| it.sums)),
            dc: address(gradients.map(|it| it.c)),
            du: address(gradients.map(|it| it.u)),
            db: address(gradients.map(|it| it.b)),
            of_logits: address(gradients.map(|it| it.of_logits)),
            batch: int(op, "the batch", batch)?,
            tokens: int(op, "the number of tokens", tokens)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Arch;
    use super::*;

    #[test]
    fn operands_of_the_merge_are_held_against_the_plan() {
        let at = |address, bytes| Memory { address, bytes };
        let shape = MergeShape {
            dtype: Dtype::Bf16,
            rank: 256,
            stride: 2,
        };
        let plan = shape.plan(Machine::usual(Arch::Sm80), 3, 5).unwrap();
        assert_eq!((plan.vector_bytes, plan.forward.launch.grid), (16, [3, 1, 1]));
        let good = MergeOperands {
            c: at(16, 15 * 512),
            u: at(20_004, 3 * 1024),
            b: at(30_004, 12),
            sums: Some(at(40_000, 15 * 512)),
            gradients: None,
        };
        assert!(plan.params(&good).is_ok());
        let refused = |operands: MergeOperands| plan.params(&operands).unwrap_err().to_string();
        let u = at(20_004, 2 * 1024);
        assert_eq!(
            refused(MergeOperands { u, ..good }),
            "merge: the table is 2048, expected 3072"
        );
        let c = at(8, 15 * 512);
        assert_eq!(
            refused(MergeOperands { c, ..good }),
            "merge: the latents is 8, expected 0"
        );
        // An operand's memory may be more than its rows, and so reach into the next one.
        let c = at(16, 1 << 20);
        assert!(plan.params(&MergeOperands { c, ..good }).is_ok());
        let sums = Some(at(7680, 15 * 512));
        assert_eq!(
            refused(MergeOperands { sums, ..good }),
            "merge: the sums is 7680, expected 7696"
        );
        let sums = None;
        assert!(refused(MergeOperands { sums, ..good }).contains("number of outputs"));
        let gradients = MergeGradients {
            sums: at(50_000, 15 * 512),
            c: at(60_000, 15 * 512),
            u: at(70_000, 3 * 1024),
            b: at(80_000, 12),
            of_logits: at(80_012, 15 * 4),
        };
        let backwards = |it: MergeGradients| MergeOperands {
            gradients: Some(it),
            sums: None,
            ..good
        };
        assert!(plan.params(&backwards(gradients)).is_ok());
        let c = gradients.sums;
        assert_eq!(
            refused(backwards(MergeGradients { c, ..gradients })),
            "merge: the gradient of the latents is 50000, expected 57680"
        );
        let b = at(80_004, 12);
        assert!(refused(backwards(MergeGradients { b, ..gradients })).contains("of the biases"));
        let of_logits = at(90_000, 14 * 4);
        assert_eq!(
            refused(backwards(MergeGradients {
                of_logits,
                ..gradients
            })),
            "merge: the gradients of logits is 56, expected 60"
        );
        let odd = MergeShape { rank: 33, ..shape };
        assert!(odd.plan(Machine::usual(Arch::Sm80), 1, 5).is_err());
    }
}
