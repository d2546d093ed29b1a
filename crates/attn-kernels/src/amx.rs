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

/// Makes the first four tiles, which hold the sums, zeros.
///
/// # Safety
/// Tiles are configured in this thread.
#[inline(always)]
unsafe fn zero_sums() {
    // SAFETY: the caller's.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            options(nostack, nomem)
        );
    }
}

/// Loads the sums of 32 rows and 32 columns.
///
/// # Safety
/// Tiles are configured in this thread; `c` has 32 rows of 32 f32, `c_stride` bytes apart.
#[inline(always)]
unsafe fn load_2_2(c: *const f32, c_stride: usize) {
    // SAFETY: the caller's.
    unsafe {
        asm!(
            "tileloadd tmm0, [{c} + {s}]",
            "tileloadd tmm1, [{c} + {s} + 64]",
            "tileloadd tmm2, [{d} + {s}]",
            "tileloadd tmm3, [{d} + {s} + 64]",
            c = in(reg) c, d = in(reg) c.byte_add(16 * c_stride), s = in(reg) c_stride,
            options(nostack, readonly),
        );
    }
}

/// Stores them.
///
/// # Safety
/// As of [`load_2_2`].
#[inline(always)]
unsafe fn store_2_2(c: *mut f32, c_stride: usize) {
    // SAFETY: the caller's.
    unsafe {
        asm!(
            "tilestored [{c} + {s}], tmm0",
            "tilestored [{c} + {s} + 64], tmm1",
            "tilestored [{d} + {s}], tmm2",
            "tilestored [{d} + {s} + 64], tmm3",
            c = in(reg) c, d = in(reg) c.byte_add(16 * c_stride), s = in(reg) c_stride,
            options(nostack),
        );
    }
}

/// `C = A B`, or `C += A B` with `ADD`: 32 rows, 32 columns, `steps` times 32 terms. `between` runs before each step:
/// while the tiles are busy there is time to ask memory for more.
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
    mut between: impl FnMut(),
) {
    // SAFETY: the caller's.
    unsafe {
        let a_low = a.byte_add(16 * a_stride);
        if ADD {
            load_2_2(c, c_stride);
        } else {
            zero_sums();
        }
        for step in 0..steps {
            between();
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
        store_2_2(c, c_stride);
    }
}

/// The same for 64 rows and 16 columns: one panel.
///
/// # Safety
/// As of [`product_2_2`], for 64 rows, one panel and 16 columns.
#[inline(always)]
pub(crate) unsafe fn product_4_1(
    a: *const bf16,
    a_stride: usize,
    b: *const bf16,
    steps: usize,
    c: *mut f32,
    c_stride: usize,
    mut between: impl FnMut(),
) {
    // SAFETY: the caller's.
    unsafe {
        zero_sums();
        let low = a.byte_add(32 * a_stride);
        for step in 0..steps {
            between();
            asm!(
                "tileloadd tmm6, [{b} + {p}]",
                "tileloadd tmm4, [{a} + {s}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{d} + {s}]",
                "tdpbf16ps tmm1, tmm5, tmm6",
                "tileloadd tmm4, [{e} + {s}]",
                "tdpbf16ps tmm2, tmm4, tmm6",
                "tileloadd tmm5, [{f} + {s}]",
                "tdpbf16ps tmm3, tmm5, tmm6",
                a = in(reg) a.add(step * TERMS), d = in(reg) a.byte_add(16 * a_stride).add(step * TERMS),
                e = in(reg) low.add(step * TERMS), f = in(reg) low.byte_add(16 * a_stride).add(step * TERMS),
                s = in(reg) a_stride, b = in(reg) b.add(step * STEP), p = in(reg) 64_usize,
                options(nostack, readonly),
            );
        }
        let c_low = c.byte_add(32 * c_stride);
        asm!(
            "tilestored [{c} + {s}], tmm0",
            "tilestored [{d} + {s}], tmm1",
            "tilestored [{e} + {s}], tmm2",
            "tilestored [{f} + {s}], tmm3",
            c = in(reg) c, d = in(reg) c.byte_add(16 * c_stride),
            e = in(reg) c_low, f = in(reg) c_low.byte_add(16 * c_stride), s = in(reg) c_stride,
            options(nostack),
        );
    }
}

/// Adds weighed rows for 16 heads and 64 columns: `C += W V`, V as it lies in memory.
///
/// A tile of V holds rows side by side where the instruction takes pairs of terms: it multiplies neighbours of a row,
/// which are two columns. With every other weight a zero it sums one of the two; twice the work, but V need not be
/// laid out anew. C therefore holds, for every 32 columns, the even ones and then the odd ones.
///
/// # Safety
/// 1. Tiles are configured in this thread.
/// 2. `weights` has for each of `steps` times 16 rows of V the weights of even columns and of odd ones, 1 KiB each;
///    `v` has as many rows of 64 bf16, `v_stride` bytes apart; `c` has 16 rows of 64 f32, `c_stride` bytes apart.
#[inline(always)]
pub(crate) unsafe fn weigh_1_4(
    weights: *const bf16,
    v: *const bf16,
    v_stride: usize,
    steps: usize,
    c: *mut f32,
    c_stride: usize,
    mut between: impl FnMut(),
) {
    // SAFETY: the caller's.
    unsafe {
        asm!(
            "tileloadd tmm0, [{c} + {s}]",
            "tileloadd tmm1, [{c} + {s} + 64]",
            "tileloadd tmm2, [{c} + {s} + 128]",
            "tileloadd tmm3, [{c} + {s} + 192]",
            c = in(reg) c, s = in(reg) c_stride,
            options(nostack, readonly),
        );
        for step in 0..steps {
            between();
            asm!(
                "tileloadd tmm6, [{v} + {s}]",
                "tileloadd tmm4, [{w} + {p}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{w} + {p} + 1024]",
                "tdpbf16ps tmm1, tmm5, tmm6",
                "tileloadd tmm7, [{v} + {s} + 64]",
                "tdpbf16ps tmm2, tmm4, tmm7",
                "tdpbf16ps tmm3, tmm5, tmm7",
                v = in(reg) v.byte_add(step * SIDE * v_stride), s = in(reg) v_stride,
                w = in(reg) weights.add(2 * step * STEP), p = in(reg) 64_usize,
                options(nostack, readonly),
            );
        }
        asm!(
            "tilestored [{c} + {s}], tmm0",
            "tilestored [{c} + {s} + 64], tmm1",
            "tilestored [{c} + {s} + 128], tmm2",
            "tilestored [{c} + {s} + 192], tmm3",
            c = in(reg) c, s = in(reg) c_stride,
            options(nostack),
        );
    }
}

/// The same for 32 heads and 32 columns.
///
/// # Safety
/// As of [`weigh_1_4`], for 32 rows of C of 32 f32, 32 columns of V, and the weights of the second 16 heads.
#[inline(always)]
pub(crate) unsafe fn weigh_2_2(
    weights: [*const bf16; 2],
    v: *const bf16,
    v_stride: usize,
    steps: usize,
    c: *mut f32,
    c_stride: usize,
    mut between: impl FnMut(),
) {
    // SAFETY: the caller's.
    unsafe {
        load_2_2(c, c_stride);
        for step in 0..steps {
            between();
            asm!(
                "tileloadd tmm7, [{v} + {s}]",
                "tileloadd tmm4, [{w} + {p}]",
                "tdpbf16ps tmm0, tmm4, tmm7",
                "tileloadd tmm5, [{w} + {p} + 1024]",
                "tdpbf16ps tmm1, tmm5, tmm7",
                "tileloadd tmm6, [{x} + {p}]",
                "tdpbf16ps tmm2, tmm6, tmm7",
                "tileloadd tmm4, [{x} + {p} + 1024]",
                "tdpbf16ps tmm3, tmm4, tmm7",
                v = in(reg) v.byte_add(step * SIDE * v_stride), s = in(reg) v_stride,
                w = in(reg) weights[0].add(2 * step * STEP), x = in(reg) weights[1].add(2 * step * STEP),
                p = in(reg) 64_usize,
                options(nostack, readonly),
            );
        }
        store_2_2(c, c_stride);
    }
}

/// Puts the columns of rows that [`weigh_1_4`] or [`weigh_2_2`] added to in order.
///
/// # Safety
/// The processor has AVX-512 F, and `row` is of whole groups of 32.
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn in_turns(row: &mut [f32]) {
    // Of the even and the odd columns, in turns; odd ones count from 16 on.
    let low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    let high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    for group in row.chunks_exact_mut(2 * SIDE) {
        let at = group.as_mut_ptr();
        // SAFETY: a group is two vectors.
        unsafe {
            let (even, odd) = (_mm512_loadu_ps(at), _mm512_loadu_ps(at.add(SIDE)));
            _mm512_storeu_ps(at, _mm512_permutex2var_ps(even, low, odd));
            _mm512_storeu_ps(at.add(SIDE), _mm512_permutex2var_ps(even, high, odd));
        }
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

/// Lays 32 rows out as the terms of two panels: element d of row k becomes term k of column d, the first 16 columns in
/// the first panel.
///
/// # Safety
/// 1. `rows` has `n` rows, at most 32, of `columns` elements, at most 32, `stride` apart; what is not there is zeros.
/// 2. Both panels are valid for 1 KiB; the processor has AVX-512 F, BW and VL.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
pub(crate) unsafe fn columns_to_panels(
    rows: *const bf16,
    stride: usize,
    n: usize,
    columns: usize,
    panels: [*mut bf16; 2],
) {
    // Elements of the first and the second row of a pair, in turns; those of the second count from 32 on.
    let low = _mm512_set_epi16(
        47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34,
        2, 33, 1, 32, 0,
    );
    let high = _mm512_add_epi16(low, _mm512_set1_epi16(SIDE as i16));
    let there = u32::MAX >> (TERMS - columns);
    for pair in 0..SIDE {
        // SAFETY: rows below `n` are there, and so are their columns; the panels have a row of 64 bytes for each pair.
        unsafe {
            let row = |k: usize| {
                if k < n {
                    _mm512_maskz_loadu_epi16(there, rows.add(k * stride).cast())
                } else {
                    _mm512_setzero_si512()
                }
            };
            let (a, b) = (row(2 * pair), row(2 * pair + 1));
            let at = pair * TERMS;
            _mm512_storeu_si512(panels[0].add(at).cast(), _mm512_permutex2var_epi16(a, low, b));
            _mm512_storeu_si512(panels[1].add(at).cast(), _mm512_permutex2var_epi16(a, high, b));
        }
    }
}

/// `to = from + bias`, rounded to the nearest.
///
/// # Safety
/// The processor has AVX-512 F, BW, VL and BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
#[inline]
pub(crate) unsafe fn narrow_row(from: &[f32], bias: Option<&[bf16]>, to: &mut [bf16]) {
    let n = to.len().min(from.len());
    let bias = bias.map(|bias| bias[..n].as_ptr());
    for i in (0..n).step_by(SIDE) {
        let there = u16::MAX >> (SIDE - SIDE.min(n - i));
        // SAFETY: what is masked lies within the slices.
        unsafe {
            let mut v = _mm512_maskz_loadu_ps(there, from.as_ptr().add(i));
            if let Some(bias) = bias {
                let words = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(there, bias.add(i).cast()));
                v = _mm512_add_ps(v, _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words)));
            }
            _mm256_mask_storeu_epi16(to.as_mut_ptr().add(i).cast(), there, half_of(v));
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
            product_2_2::<false>(a.as_ptr(), 2 * width, both, 2, c.as_mut_ptr(), 4 * columns, || ());
            product_2_2::<true>(a.as_ptr(), 2 * width, both, 2, c.as_mut_ptr(), 4 * columns, || ());
        }
        for (i, sum) in c.iter().enumerate() {
            assert_eq!(*sum, 2.0 * expected(i / columns, i % columns), "{i}");
        }
        // The same panels from rows that are their terms.
        let turned: Vec<bf16> = (0..width * columns)
            .map(|i| b[i % columns * width + i / columns])
            .collect();
        let mut again = vec![bf16::ONE; 2 * 2 * STEP];
        let (first, second) = again.split_at_mut(2 * STEP);
        for step in 0..2 {
            let to = [
                first[step * STEP..].as_mut_ptr(),
                second[step * STEP..].as_mut_ptr(),
            ];
            // SAFETY: 64 rows of 32, two panels of 2 KiB.
            unsafe { columns_to_panels(turned[32 * step * columns..].as_ptr(), columns, 32, columns, to) };
        }
        assert!(again == panels);
        // 64 rows, the first 32 twice, and one panel.
        let twice = [a.as_slice(), a.as_slice()].concat();
        let mut c = vec![0.0_f32; 4 * SIDE * SIDE];
        // SAFETY: as above, for 64 rows and one panel.
        unsafe {
            let _tiles = Tiles::configure();
            product_4_1(
                twice.as_ptr(),
                2 * width,
                panels.as_ptr(),
                2,
                c.as_mut_ptr(),
                4 * SIDE,
                || (),
            );
        }
        for (i, sum) in c.iter().enumerate() {
            assert_eq!(*sum, expected(i / SIDE % 32, i % SIDE), "{i}");
        }
    }

    #[test]
    fn rows_are_weighed_as_they_lie() {
        if !is_available() {
            return;
        }
        let (heads, entries, columns) = (2 * SIDE, 2 * SIDE, 4 * SIDE);
        let number = |i: usize| bf16::from_f32((i * 7 % 13) as f32 - 6.0);
        let weight = |head: usize, entry: usize| number(head * entries + entry);
        let v: Vec<bf16> = (0..entries * columns).map(|i| number(5 * i + 2)).collect();
        // For each 16 heads and 16 entries the weights of even columns, then of odd ones.
        let laid_out = |tile: usize| -> Vec<bf16> {
            let place = |i: usize| {
                let (step, odd, head) = (i / (2 * STEP), i / STEP % 2, i % STEP / TERMS);
                let (entry, neighbour) = (i % TERMS / 2, i % 2);
                let weight = weight(tile * SIDE + head, step * SIDE + entry);
                if neighbour == odd { weight } else { bf16::ZERO }
            };
            (0..entries / SIDE * 2 * STEP).map(place).collect()
        };
        let weights = [laid_out(0), laid_out(1)];
        let expected = |head: usize, column: usize| -> f32 {
            (0..entries)
                .map(|entry| weight(head, entry).to_f32() * v[entry * columns + column].to_f32())
                .sum()
        };
        let mut c = vec![1.0_f32; heads * columns];
        // SAFETY: the processor has tiles, and the sizes are those of the slices.
        unsafe {
            let _tiles = Tiles::configure();
            let both = [weights[0].as_ptr(), weights[1].as_ptr()];
            for column in [0, 2 * SIDE] {
                let (v, c) = (v.as_ptr().add(column), c.as_mut_ptr().add(column));
                weigh_2_2(both, v, 2 * columns, entries / SIDE, c, 4 * columns, || ());
            }
            let (steps, c) = (entries / SIDE, c.as_mut_ptr());
            weigh_1_4(both[0], v.as_ptr(), 2 * columns, steps, c, 4 * columns, || ());
        }
        for (head, row) in c.chunks_exact_mut(columns).enumerate() {
            // SAFETY: the processor has AVX-512, and a row is two groups.
            unsafe { in_turns(row) };
            let times = if head < SIDE { 2.0 } else { 1.0 };
            for (column, sum) in row.iter().enumerate() {
                assert_eq!(*sum, 1.0 + times * expected(head, column), "{head} {column}");
            }
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
