//! What workloads there are, and the sizes each has.

use attn_core::{Scope, Workload};

/// A size of a workload.
#[derive(Debug, Clone, Copy)]
pub struct SizeSpec {
    /// Name in a sweep and in rows.
    pub name: &'static str,
    /// The value where none is given; required where there is none.
    pub default: Option<u64>,
    /// The largest value that is not a slip of the keyboard.
    pub max: u64,
    /// One sentence.
    pub help: &'static str,
}

/// A workload and its sizes.
#[derive(Debug, Clone, Copy)]
pub struct WorkloadSpec {
    /// Name in a sweep and in rows.
    pub name: &'static str,
    /// Its sizes, the outermost axis first.
    pub sizes: &'static [SizeSpec],
}

const BATCH: SizeSpec = SizeSpec {
    name: "batch",
    default: Some(1),
    max: 1 << 20,
    help: "sequences B",
};
const CONTEXT: SizeSpec = SizeSpec {
    name: "context",
    default: None,
    max: 1 << 30,
    help: "entries L that a step reads, its own token included",
};
const TOKENS: SizeSpec = SizeSpec {
    name: "tokens",
    default: None,
    max: 1 << 30,
    help: "tokens T of the call or the prompt",
};
const NEW_TOKENS: SizeSpec = SizeSpec {
    name: "new_tokens",
    default: None,
    max: 1 << 20,
    help: "tokens decoded after the prompt",
};
const FILLED: SizeSpec = SizeSpec {
    name: "tokens",
    default: None,
    max: 1 << 30,
    help: "tokens in the cache before the first step",
};
const STEPS: SizeSpec = SizeSpec {
    name: "new_tokens",
    default: None,
    max: 1 << 20,
    help: "tokens decoded one at a time, each timed",
};
const PREFIX: SizeSpec = SizeSpec {
    name: "tokens",
    default: None,
    max: 1 << 20,
    help: "encoder states of each sentence, or tokens of its prompt",
};
const GENERATED: SizeSpec = SizeSpec {
    name: "new_tokens",
    default: None,
    max: 1 << 20,
    help: "tokens generated after them, to a forced length",
};
const BEAM: SizeSpec = SizeSpec {
    name: "beam",
    default: None,
    max: 1024,
    help: "hypotheses K of each sentence",
};
const SENTENCES: SizeSpec = SizeSpec {
    help: "sentences B",
    ..BATCH
};

/// Every workload, in the order of [`Workload::ALL`].
pub const WORKLOADS: [WorkloadSpec; 6] = [
    WorkloadSpec {
        name: "decode",
        sizes: &[CONTEXT, BATCH],
    },
    WorkloadSpec {
        name: "prefill",
        sizes: &[TOKENS, BATCH],
    },
    WorkloadSpec {
        name: "train_step",
        sizes: &[TOKENS, BATCH],
    },
    WorkloadSpec {
        name: "generate",
        sizes: &[TOKENS, NEW_TOKENS, BATCH],
    },
    WorkloadSpec {
        name: "trajectory",
        sizes: &[FILLED, STEPS, BATCH],
    },
    WorkloadSpec {
        name: "beam",
        sizes: &[PREFIX, GENERATED, BEAM, SENTENCES],
    },
];

impl WorkloadSpec {
    /// The size of that name.
    pub fn size(&self, name: &str) -> Option<&'static SizeSpec> {
        self.sizes.iter().find(|size| size.name == name)
    }

    /// The scopes in which it exists.
    pub fn scopes(&self) -> &'static [Scope] {
        let smallest = vec![1; self.sizes.len()];
        self.build(&smallest).map_or(&[], |workload| workload.scopes())
    }

    pub(super) fn names(&self) -> Vec<&'static str> {
        self.sizes.iter().map(|size| size.name).collect()
    }

    /// The workload over sizes in the order of the spec.
    pub(super) fn build(&self, sizes: &[usize]) -> Option<Workload> {
        Some(match (self.name, sizes) {
            ("decode", &[context, batch]) => Workload::Decode { batch, context },
            ("prefill", &[tokens, batch]) => Workload::Prefill { batch, tokens },
            ("train_step", &[tokens, batch]) => Workload::TrainStep { batch, tokens },
            ("generate", &[tokens, new_tokens, batch]) => Workload::Generate {
                batch,
                tokens,
                new_tokens,
            },
            ("trajectory", &[tokens, new_tokens, batch]) => Workload::Trajectory {
                batch,
                tokens,
                new_tokens,
            },
            ("beam", &[tokens, new_tokens, beam, batch]) => Workload::Beam {
                batch,
                tokens,
                new_tokens,
                beam,
            },
            _ => return None,
        })
    }
}

/// The workload of that name.
pub(super) fn spec(name: &str) -> Option<&'static WorkloadSpec> {
    WORKLOADS.iter().find(|spec| spec.name == name)
}

/// A point in words: `decode with batch 1, context 512`.
pub(super) fn describe(workload: &Workload) -> String {
    match *workload {
        Workload::Decode { batch, context } => format!("decode with context {context}, batch {batch}"),
        Workload::Prefill { batch, tokens } => format!("prefill with tokens {tokens}, batch {batch}"),
        Workload::TrainStep { batch, tokens } => format!("train_step with tokens {tokens}, batch {batch}"),
        Workload::Generate {
            batch,
            tokens,
            new_tokens,
        } => {
            format!("generate with tokens {tokens}, new_tokens {new_tokens}, batch {batch}")
        }
        Workload::Trajectory {
            batch,
            tokens,
            new_tokens,
        } => {
            format!("trajectory with tokens {tokens}, new_tokens {new_tokens}, batch {batch}")
        }
        Workload::Beam {
            batch,
            tokens,
            new_tokens,
            beam,
        } => {
            format!("beam with tokens {tokens}, new_tokens {new_tokens}, beam {beam}, batch {batch}")
        }
    }
}
