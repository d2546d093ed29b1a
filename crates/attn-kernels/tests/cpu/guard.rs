//! Kernels read and write nothing beyond their operands: each ends at a page that nobody may touch.

use attn_kernels::{
    Attend, Backward, Decode, Element, Entries, EntryGradients, Factors, Gradients, Grouped, Latents,
    LatentsOut, Level, Norm, Orientation, Output, Place, Project, Rows, Tail, Turn, attend, attend_backward,
    decode, latents, project,
};
use half::bf16;

use crate::common::random;

/// Elements of which the last is the last of its page, before one that is not mapped for reading or writing.
struct Guarded<E> {
    pages: *mut libc::c_void,
    bytes: usize,
    first: *mut E,
    len: usize,
}

impl<E: Element> Guarded<E> {
    fn new(from: &[E]) -> Self {
        // SAFETY: new pages of this process, the last of which is made unreachable; the elements lie before it, at an
        // address that is aligned because pages and their size are.
        unsafe {
            let page = libc::sysconf(libc::_SC_PAGESIZE) as usize;
            let used = size_of_val(from).next_multiple_of(page);
            let bytes = used + page;
            let (rights, kind) = (
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            );
            let pages = libc::mmap(std::ptr::null_mut(), bytes, rights, kind, -1, 0);
            assert_ne!(pages, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(pages.byte_add(used), page, libc::PROT_NONE), 0);
            let first = pages.byte_add(used - size_of_val(from)).cast::<E>();
            std::ptr::copy_nonoverlapping(from.as_ptr(), first, from.len());
            Self {
                pages,
                bytes,
                first,
                len: from.len(),
            }
        }
    }

    fn random(n: usize, seed: u64) -> Self {
        Self::new(&random::<E>(n, seed))
    }

    fn get(&self) -> &[E] {
        // SAFETY: as many elements were written there, and live as long as the pages.
        unsafe { std::slice::from_raw_parts(self.first, self.len) }
    }

    fn get_mut(&mut self) -> &mut [E] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.first, self.len) }
    }
}

impl<E> Drop for Guarded<E> {
    fn drop(&mut self) {
        // SAFETY: the pages are those of `new`, and nothing of them is borrowed any more.
        unsafe { libc::munmap(self.pages, self.bytes) };
    }
}

fn levels() -> impl Iterator<Item = Level> {
    Level::ALL.into_iter().filter(|level| level.is_available())
}

const SIZES: [usize; 5] = [1, 3, 63, 111, 1000];

/// Heads, KV heads, key size, value size: few heads and many, whole vectors and none.
const HEADS: [[usize; 4]; 6] = [
    [2, 2, 16, 16],
    [4, 2, 17, 9],
    [8, 1, 64, 64],
    [12, 1, 96, 64],
    [32, 1, 96, 64],
    [8, 1, 33, 31],
];

fn check_decode<E: Element>() {
    for n in SIZES {
        for [h, h_kv, key_dim, value_dim] in HEADS {
            let q = Guarded::<E>::random(h * key_dim, 1);
            let keys = Guarded::<E>::random(h_kv * n * key_dim, 2);
            let values = Guarded::<E>::random(h_kv * n * value_dim, 3);
            for level in levels() {
                for own in [true, false] {
                    let mut out = Guarded::<E>::random(h * value_dim, 4);
                    let input = Decode {
                        q: q.get(),
                        keys: Rows::head_major(keys.get(), h_kv, n, key_dim),
                        values: own.then(|| Rows::head_major(values.get(), h_kv, n, value_dim)),
                        tail: None,
                        factors: None,
                        n_heads: h,
                        n_kv_heads: h_kv,
                        key_dim,
                        value_dim,
                        slots: &[n],
                        scale: 0.3,
                    };
                    decode(&input, level, out.get_mut()).unwrap();
                    assert!(out.get().iter().all(|x| x.to_f32().is_finite()), "{level}");
                }
            }
        }
    }
}

#[test]
fn decode_stays_within_its_operands() {
    check_decode::<f32>();
    check_decode::<bf16>();
}

fn check_parts<E: Element>() {
    let within = |input: &Decode<'_, E>, value_dim: usize| {
        for level in levels() {
            let mut out = Guarded::<E>::random(input.n_heads * value_dim, 4);
            decode(input, level, out.get_mut()).unwrap();
            assert!(out.get().iter().all(|x| x.to_f32().is_finite()), "{level}");
        }
    };
    for n in SIZES {
        for [h, h_kv, own, tail] in [[4, 2, 17, 6], [8, 1, 64, 32], [3, 3, 9, 2]] {
            let q = Guarded::<E>::random(h * (own + tail), 1);
            let keys = Guarded::<E>::random(h_kv * n * own, 2);
            let tails = Guarded::<E>::random(n * tail, 3);
            let input = Decode {
                q: q.get(),
                keys: Rows::head_major(keys.get(), h_kv, n, own),
                values: None,
                tail: Some(Tail {
                    rows: Rows::head_major(tails.get(), 1, n, tail),
                    dim: tail,
                }),
                factors: None,
                n_heads: h,
                n_kv_heads: h_kv,
                key_dim: own + tail,
                value_dim: own,
                slots: &[n],
                scale: 0.3,
            };
            within(&input, own);
        }
        for [h, key_dim, value_dim, keys, values] in [[3, 9, 17, 2, 1], [8, 64, 64, 2, 2], [5, 16, 7, 1, 3]] {
            let factors = Factors {
                heads: h,
                keys,
                values,
            };
            let (k_width, v_width) = (keys * (key_dim + h), values * (value_dim + h));
            let q = Guarded::<E>::random(h * key_dim, 1);
            let of_keys = Guarded::<E>::random(n * k_width, 2);
            let of_values = Guarded::<E>::random(n * v_width, 3);
            let input = Decode {
                q: q.get(),
                keys: Rows::head_major(of_keys.get(), 1, n, k_width),
                values: Some(Rows::head_major(of_values.get(), 1, n, v_width)),
                tail: None,
                factors: Some(factors),
                n_heads: h,
                n_kv_heads: 1,
                key_dim,
                value_dim,
                slots: &[n],
                scale: 0.3,
            };
            within(&input, value_dim);
        }
    }
}

#[test]
fn decode_over_tails_and_factors_stays_within_them() {
    check_parts::<f32>();
    check_parts::<bf16>();
}

fn check_attend<E: Element>() {
    for tokens in [1, 3, 63, 111, 260] {
        for [h, h_kv, key_dim, value_dim] in [[2, 2, 16, 16], [4, 2, 17, 9], [2, 1, 96, 64], [1, 1, 33, 31]] {
            let q = Guarded::<E>::random(h * tokens * key_dim, 1);
            let k = Guarded::<E>::random(h_kv * tokens * key_dim, 2);
            let v = Guarded::<E>::random(h_kv * tokens * value_dim, 3);
            let grad = Guarded::<E>::random(h * tokens * value_dim, 4);
            for level in levels() {
                for (stride, window) in [(None, usize::MAX), (Some(2), usize::MAX), (None, 70)] {
                    let entries = Entries {
                        k: Rows::head_major(k.get(), h_kv, tokens, key_dim),
                        shared: None,
                        v: Rows::head_major(v.get(), h_kv, tokens, value_dim),
                    };
                    let input = Attend {
                        q: Rows::head_major(q.get(), h, tokens, key_dim),
                        closed: stride.is_none().then_some(entries),
                        own: stride.map(|_| entries),
                        shared_dim: 0,
                        batch: 1,
                        n_heads: h,
                        n_kv_heads: h_kv,
                        tokens,
                        n_keys: tokens / stride.unwrap_or(1),
                        key_dim,
                        value_dim,
                        start: 0,
                        stride: stride.unwrap_or(1),
                        window,
                        scale: 0.3,
                    };
                    let mut out = Guarded::<E>::random(h * tokens * value_dim, 5);
                    let mut lse = Guarded::<f32>::random(h * tokens, 6);
                    attend(&input, level, out.get_mut(), Some(lse.get_mut())).unwrap();
                    assert!(out.get().iter().all(|x| x.to_f32().is_finite()), "{level}");
                    let mut gradients = [(h, key_dim), (h_kv, key_dim), (h_kv, value_dim)]
                        .map(|(heads, dim)| Guarded::<E>::random(heads * tokens * dim, 7));
                    let [dq, dk, dv] = &mut gradients;
                    let backward = Backward {
                        input,
                        out: out.get(),
                        lse: lse.get(),
                        grad: Rows::head_major(grad.get(), h, tokens, value_dim),
                    };
                    let mut gradients = Gradients {
                        q: dq.get_mut(),
                        entries: EntryGradients::Apart {
                            k: dk.get_mut(),
                            v: dv.get_mut(),
                        },
                    };
                    attend_backward(&backward, level, &mut gradients).unwrap();
                    assert!(dv.get().iter().all(|x| x.to_f32().is_finite()), "{level}");
                }
            }
        }
    }
}

#[test]
fn attend_and_its_gradients_stay_within_their_operands() {
    check_attend::<f32>();
    check_attend::<bf16>();
}

fn check_project<E: Element>() {
    for rows in [1, 3, 8, 13, 17, 63] {
        for (inputs, outputs) in [(1, 1), (16, 16), (63, 111), (64, 96), (300, 40)] {
            let x = Guarded::<E>::random(rows * inputs, 1);
            let weight = Guarded::<E>::random(inputs * outputs, 2);
            let bias = Guarded::<E>::random(outputs, 3);
            for level in levels() {
                for orientation in [Orientation::Outputs, Orientation::Inputs] {
                    let grouped = |data, row_stride| Grouped {
                        data,
                        group_stride: 0,
                        row_stride,
                    };
                    let of_weight = match orientation {
                        Orientation::Outputs => inputs,
                        Orientation::Inputs => outputs,
                    };
                    let input = Project {
                        x: grouped(x.get(), inputs),
                        weight: grouped(weight.get(), of_weight),
                        orientation,
                        bias: Some(bias.get()),
                        groups: 1,
                        rows,
                        inputs,
                        outputs,
                    };
                    let mut out = Guarded::<E>::random(rows * outputs, 4);
                    let mut to = Output {
                        data: out.get_mut(),
                        group_stride: 0,
                        row_stride: outputs,
                    };
                    project(&input, level, &mut to).unwrap();
                    assert!(out.get().iter().all(|x| x.to_f32().is_finite()), "{level}");
                }
            }
        }
    }
}

#[test]
fn project_stays_within_its_operands() {
    check_project::<f32>();
    check_project::<bf16>();
}

#[test]
fn latents_stay_within_their_operands() {
    for tokens in SIZES {
        for (rank, rope_dim) in [(1, 2), (63, 6), (256, 32)] {
            let width = rank + rope_dim;
            let x = Guarded::<f32>::random(tokens * width, 1);
            let weight = Guarded::<f32>::random(rank, 2);
            let table = Guarded::<f32>::random(tokens * rope_dim / 2, 3);
            for level in levels() {
                let input = Latents {
                    x: Grouped {
                        data: x.get(),
                        group_stride: 0,
                        row_stride: width,
                    },
                    norm: Norm {
                        weight: weight.get(),
                        bias: Some(weight.get()),
                        eps: 1e-5,
                    },
                    turn: Turn {
                        cos: table.get(),
                        sin: table.get(),
                        halves: false,
                    },
                    gate: None,
                    starts: &[0],
                    tokens,
                    rank,
                    rope_dim,
                };
                let mut out = Guarded::<f32>::random(tokens * width, 4);
                let mut to = LatentsOut {
                    data: out.get_mut(),
                    c: Place {
                        first: &[0],
                        row_stride: width,
                    },
                    k_r: Place {
                        first: &[rank],
                        row_stride: width,
                    },
                    last: None,
                };
                latents(&input, level, &mut to).unwrap();
                assert!(out.get().iter().all(|x| x.is_finite()), "{level}");
            }
        }
    }
}
