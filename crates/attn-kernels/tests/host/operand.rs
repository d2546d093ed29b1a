//! Operands of kernels that run here.

use attn_kernels::cuda::{Cache, Memory};
use attn_kernels::{Element, Rows};

/// Bytes before an operand that nobody may read into a result, or write.
const MARGIN: usize = 256;

/// Addresses of operands are multiples of it, and not of more: what kernels ask for.
const ALIGN: usize = 16;

/// An operand behind bytes that make no number of any type, and before a page that nobody may touch.
pub struct Operand {
    pages: *mut u8,
    /// Bytes of the pages that may be touched.
    used: usize,
    guard: usize,
    first: usize,
    len: usize,
}

impl Operand {
    pub fn new<T: Copy>(elements: &[T]) -> Self {
        let len = size_of_val(elements);
        // SAFETY: new pages of this process, the last of which is made unreachable; so many bytes are there from `first`
        // on, and any bytes may be written.
        unsafe {
            let guard = libc::sysconf(libc::_SC_PAGESIZE) as usize;
            let used = (len + MARGIN).next_multiple_of(guard);
            let (rights, kind) = (
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            );
            let pages = libc::mmap(std::ptr::null_mut(), used + guard, rights, kind, -1, 0);
            assert_ne!(pages, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(pages.byte_add(used), guard, libc::PROT_NONE), 0);
            let pages = pages.cast::<u8>();
            pages.write_bytes(0xff, used);
            let first = (used - len) / ALIGN * ALIGN;
            std::ptr::copy_nonoverlapping(elements.as_ptr().cast::<u8>(), pages.add(first), len);
            Self {
                pages,
                used,
                guard,
                first,
                len,
            }
        }
    }

    /// So many elements that are no numbers.
    pub fn unwritten<T: Copy>(n: usize) -> Self {
        Self::new(&vec![0xff_u8; n * size_of::<T>()])
    }

    /// Rows, and where they are.
    pub fn rows<E: Element>(rows: &Rows<'_, E>) -> (Self, Cache) {
        let operand = Self::new(rows.data);
        let cache = Cache {
            memory: operand.memory(),
            batch_stride: rows.batch_stride,
            head_stride: rows.head_stride,
            row_stride: rows.row_stride,
        };
        (operand, cache)
    }

    pub fn memory(&self) -> Memory {
        Memory {
            address: self.pages as u64 + self.first as u64,
            bytes: self.len,
        }
    }

    /// The elements, nothing beside them having been written.
    #[track_caller]
    pub fn read<T: Copy>(&self) -> Vec<T> {
        // SAFETY: the pages may be read, and nobody writes them now.
        let bytes = unsafe { std::slice::from_raw_parts(self.pages, self.used) };
        let (before, rest) = bytes.split_at(self.first);
        assert!(before.iter().chain(&rest[self.len..]).all(|byte| *byte == 0xff));
        let from = rest.as_ptr().cast::<T>();
        // SAFETY: elements of this type lie there, at an address that is aligned to more than any needs.
        (0..self.len / size_of::<T>())
            .map(|i| unsafe { *from.add(i) })
            .collect()
    }
}

impl Drop for Operand {
    fn drop(&mut self) {
        // SAFETY: the pages were mapped by `new`, and nobody has an address in them any more.
        unsafe { libc::munmap(self.pages.cast(), self.used + self.guard) };
    }
}
