//! Tiles of AMX: products of bf16 blocks with f32 sums, 16 rows of 64 bytes each.
//!
//! Rust has no stable intrinsics for them, so the instructions are written out. Operands are laid out as the
//! instruction wants them: A has rows of 32 bf16; B, a panel of 16 columns, has for every 32 terms of the sum 16 rows
//! of 16 columns of two neighbouring terms each (1 KiB, "VNNI"); C has rows of 16 f32.
//!
//! # Source
//! Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18, and TDPBF16PS in volume 2.

use std::arch::asm;
use std::arch::x86_64::*;
use std::sync::OnceLock;

use half::bf16;

/// Terms of a sum that one instruction takes, and columns or rows of a tile.
pub(crate) const TERMS: usize = 32;
pub(crate) const SIDE: usize = 16;
/// bf16 in the part of a panel that one instruction takes.
pub(crate) const STEP: usize = TERMS * SIDE;

/// Whether the processor has AMX for bf16, with AVX-512 for bf16 beside it, and the system lets us use it.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(probe)
}

fn probe() -> bool {
    if !(is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl"))
    {
        return false;
    }
    let leaf = __cpuid_count(7, 0);
    let has = |bit: u32| leaf.edx >> bit & 1 == 1;
    // AMX-BF16 and AMX-TILE.
    has(22) && has(24) && may_use_tiles()
}

/// Asks Linux for the state of the tiles; the answer holds for all threads of the process.
#[cfg(target_os = "linux")]
fn may_use_tiles() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const TILE_DATA: i64 = 18;
    let answer: i64;
    // SAFETY: the call changes nothing but what this process may use, and reads and writes no memory.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => answer,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    answer == 0
}

#[cfg(not(target_os = "linux"))]
fn may_use_tiles() -> bool {
    false
}

/// Tiles of this thread, for as long as it lives.
pub(crate) struct Tiles(());

#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Tiles {
    /// All eight tiles, 16 rows of 64 bytes.
    ///
    /// # Safety
    /// [`is_available`] said so.
    #[inline]
    pub(crate) unsafe fn configure() -> Self {
        let mut configuration = Configuration {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        configuration.row_bytes[..8].fill(64);
        configuration.rows[..8].fill(16);
        // SAFETY: 64 bytes in the layout of the manual; no tile is in use by anyone else in this thread.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &configuration, options(nostack, readonly)) };
        Self(())
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: tiles are configured in this thread.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// `C = A B`, or `C += A B` with `ADD`: 32 rows, 32 columns, `steps` times 32 terms.
///
/// # Safety
/// 1. Tiles are configured in this thread.
/// 2. `a` has 32 rows of `steps` times 64 bytes, `a_stride` bytes apart; both panels of `b` have `steps` times 1 KiB;
///    `c` has 32 rows of 32 f32, `c_stride` bytes apart.
#[inline(always)]
pub(crate) unsafe fn product_2_2<const ADD: bool>(
    a: *const bf16,
    a_stride: usize,
    b: [*const bf16; 2],
    steps: usize,
    c: *mut f32,
    c_stride: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        let a_low = a.byte_add(16 * a_stride);
        let c_low = c.byte_add(16 * c_stride);
        if ADD {
            asm!(
                "tileloadd tmm0, [{c} + {s}]",
                "tileloadd tmm1, [{c} + {s} + 64]",
                "tileloadd tmm2, [{d} + {s}]",
                "tileloadd tmm3, [{d} + {s} + 64]",
                c = in(reg) c, d = in(reg) c_low, s = in(reg) c_stride,
                options(nostack, readonly),
            );
        } else {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                options(nostack, nomem)
            );
        }
        for step in 0..steps {
            asm!(
                "tileloadd tmm4, [{a} + {s}]",
                "tileloadd tmm6, [{b} + {p}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{e} + {p}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{d} + {s}]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                a = in(reg) a.add(step * TERMS), d = in(reg) a_low.add(step * TERMS), s = in(reg) a_stride,
                b = in(reg) b[0].add(step * STEP), e = in(reg) b[1].add(step * STEP), p = in(reg) 64_usize,
                options(nostack, readonly),
            );
        }
        asm!(
            "tilestored [{c} + {s}], tmm0",
            "tilestored [{c} + {s} + 64], tmm1",
            "tilestored [{d} + {s}], tmm2",
            "tilestored [{d} + {s} + 64], tmm3",
            c = in(reg) c, d = in(reg) c_low, s = in(reg) c_stride,
            options(nostack),
        );
    }
}

/// The same for 16 rows and 16 columns.
///
/// # Safety
/// As of [`product_2_2`], for 16 rows, one panel and 16 columns.
#[inline(always)]
pub(crate) unsafe fn product_1_1<const ADD: bool>(
    a: *const bf16,
    a_stride: usize,
    b: *const bf16,
    steps: usize,
    c: *mut f32,
    c_stride: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        if ADD {
            asm!("tileloadd tmm0, [{c} + {s}]", c = in(reg) c, s = in(reg) c_stride, options(nostack, readonly));
        } else {
            asm!("tilezero tmm0", options(nostack, nomem));
        }
        for step in 0..steps {
            asm!(
                "tileloadd tmm4, [{a} + {s}]",
                "tileloadd tmm6, [{b} + {p}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                a = in(reg) a.add(step * TERMS), s = in(reg) a_stride,
                b = in(reg) b.add(step * STEP), p = in(reg) 64_usize,
                options(nostack, readonly),
            );
        }
        asm!("tilestored [{c} + {s}], tmm0", c = in(reg) c, s = in(reg) c_stride, options(nostack));
    }
}

/// Lays rows out as the columns of a panel: element d of row j becomes term d of column j. Rows that are not there and
/// terms beyond `width` are zeros.
///
/// # Safety
/// 1. `rows` has `n` rows, at most 16, of `width`, `stride` apart.
/// 2. `panel` is valid for 1 KiB for every 32 of `width`, rounded up; the processor has AVX-512 F, BW and VL.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
pub(crate) unsafe fn rows_to_panel(
    rows: *const bf16,
    stride: usize,
    n: usize,
    width: usize,
    panel: *mut bf16,
) {
    for (step, first) in (0..width).step_by(TERMS).enumerate() {
        // Pairs of terms are words, and a panel is their transpose.
        let there = u32::MAX >> (TERMS - TERMS.min(width - first));
        let mut words = [_mm512_setzero_si512(); SIDE];
        // SAFETY: what is read is there, what is written fits.
        unsafe {
            for (j, word) in words.iter_mut().enumerate().take(n) {
                *word = _mm512_maskz_loadu_epi16(there, rows.add(j * stride + first).cast());
            }
            let columns = transposed(words);
            for (pair, column) in columns.iter().enumerate() {
                _mm512_storeu_si512(panel.add(step * STEP + pair * TERMS).cast(), *column);
            }
        }
    }
}

/// 16 f32 as bf16, rounded to the nearest.
#[target_feature(enable = "avx512f,avx512vl,avx512bf16")]
#[inline]
pub(crate) fn half_of(v: __m512) -> __m256i {
    // SAFETY: both are 32 bytes.
    unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v)) }
}

/// Words of 16 rows of 16, row and column exchanged.
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn transposed(rows: [__m512i; SIDE]) -> [__m512i; SIDE] {
    let mut pairs = rows;
    for i in (0..SIDE).step_by(2) {
        pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    // Now each block of four words holds one column of four rows.
    let mut fours = pairs;
    for i in (0..SIDE).step_by(4) {
        fours[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
        fours[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
        fours[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
        fours[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
    let mut eights = fours;
    for i in 0..4 {
        for half in 0..2 {
            let (a, b) = (fours[8 * half + i], fours[8 * half + 4 + i]);
            eights[8 * half + i] = _mm512_shuffle_i32x4::<0x88>(a, b); // columns i and 8 + i
            eights[8 * half + 4 + i] = _mm512_shuffle_i32x4::<0xdd>(a, b); // columns 4 + i and 12 + i
        }
    }
    let mut columns = eights;
    for i in 0..8 {
        let (a, b) = (eights[i], eights[8 + i]);
        columns[i] = _mm512_shuffle_i32x4::<0x88>(a, b);
        columns[8 + i] = _mm512_shuffle_i32x4::<0xdd>(a, b);
    }
    columns
}

/// Lays 32 rows out as the terms of a panel: element d of row k becomes term k of column d, for 16 columns.
///
/// # Safety
/// 1. `rows` has `n` rows, at most 32, of 16 elements, `stride` apart; those beyond are zeros.
/// 2. `panel` is valid for 1 KiB; the processor has AVX-512 F, BW and VL.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
pub(crate) unsafe fn columns_to_panel(rows: *const bf16, stride: usize, n: usize, panel: *mut bf16) {
    // Words of the first and the second row of a pair, in turns.
    let turns = _mm512_set_epi16(
        31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18,
        2, 17, 1, 16, 0,
    );
    for pair in 0..SIDE {
        // SAFETY: rows below `n` are there.
        unsafe {
            let row = |k: usize| {
                if k < n {
                    _mm256_loadu_si256(rows.add(k * stride).cast())
                } else {
                    _mm256_setzero_si256()
                }
            };
            let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(row(2 * pair)), row(2 * pair + 1));
            _mm512_storeu_si512(
                panel.add(pair * TERMS).cast(),
                _mm512_permutexvar_epi16(turns, both),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_multiply() {
        if !is_available() {
            return;
        }
        let (width, columns) = (64, 32);
        let number = |i: usize| bf16::from_f32((i * 7 % 13) as f32 - 6.0);
        let a: Vec<bf16> = (0..32 * width).map(number).collect();
        let b: Vec<bf16> = (0..columns * width).map(|i| number(3 * i + 1)).collect();
        let mut panels = vec![bf16::ZERO; 2 * 2 * STEP];
        for (j, panel) in panels.chunks_exact_mut(2 * STEP).enumerate() {
            // SAFETY: 16 rows are there, and two steps of a panel.
            unsafe {
                rows_to_panel(
                    b[j * SIDE * width..].as_ptr(),
                    width,
                    SIDE,
                    width,
                    panel.as_mut_ptr(),
                )
            };
        }
        let expected = |row: usize, column: usize| -> f32 {
            (0..width)
                .map(|d| a[row * width + d].to_f32() * b[column * width + d].to_f32())
                .sum()
        };
        let mut c = vec![0.0_f32; 32 * columns];
        // SAFETY: the processor has tiles, and the sizes are those of the slices.
        unsafe {
            let _tiles = Tiles::configure();
            let both = [panels.as_ptr(), panels[2 * STEP..].as_ptr()];
            product_2_2::<false>(a.as_ptr(), 2 * width, both, 2, c.as_mut_ptr(), 4 * columns);
            product_2_2::<true>(a.as_ptr(), 2 * width, both, 2, c.as_mut_ptr(), 4 * columns);
        }
        for (i, sum) in c.iter().enumerate() {
            assert_eq!(*sum, 2.0 * expected(i / columns, i % columns), "{i}");
        }
        // The same panel from rows that are its terms.
        let turned: Vec<bf16> = (0..width * SIDE)
            .map(|i| b[i % SIDE * width + i / SIDE])
            .collect();
        let mut panel = vec![bf16::ONE; 2 * STEP];
        // SAFETY: 64 rows of 16, two panels of 1 KiB.
        unsafe {
            columns_to_panel(turned.as_ptr(), SIDE, 32, panel.as_mut_ptr());
            columns_to_panel(turned[32 * SIDE..].as_ptr(), SIDE, 32, panel[STEP..].as_mut_ptr());
        }
        assert!(panel == panels[..2 * STEP]);
        let mut c = vec![0.0_f32; SIDE * SIDE];
        // SAFETY: as above, for one tile.
        unsafe {
            let _tiles = Tiles::configure();
            product_1_1::<false>(a.as_ptr(), 2 * width, panel.as_ptr(), 2, c.as_mut_ptr(), 4 * SIDE);
        }
        for (i, sum) in c.iter().enumerate() {
            assert_eq!(*sum, expected(i / SIDE, i % SIDE), "{i}");
        }
    }

    #[test]
    fn words_are_transposed() {
        if !is_available() {
            return;
        }
        let words: Vec<i32> = (0..256).collect();
        let mut got = vec![0_i32; 256];
        // SAFETY: the processor has AVX-512, and both have 256 words.
        unsafe {
            let mut rows = [_mm512_setzero_si512(); SIDE];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = _mm512_loadu_si512(words[16 * i..].as_ptr().cast());
            }
            for (i, row) in transposed(rows).into_iter().enumerate() {
                _mm512_storeu_si512(got[16 * i..].as_mut_ptr().cast(), row);
            }
        }
        let expected: Vec<i32> = (0..256).map(|i| i % 16 * 16 + i / 16).collect();
        assert_eq!(got, expected);
    }
}
