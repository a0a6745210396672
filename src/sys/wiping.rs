//! Memory that is given back is wiped, whoever had it.
//!
//! What this program keeps of a secret it wipes itself. But what a client sends passes through buffers of libraries,
//! TLS' above all, which give them back as they are: whoever takes over the process that hears strangers would find
//! there what those before had sent.

#![expect(unsafe_code, reason = "an allocator, and explicit_bzero(3)")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;

use nix::libc;

/// The system's allocator, which gets memory back without what was in it.
///
/// C libraries have their own ways to it, and are not concerned.
#[derive(Clone, Copy, Debug)]
pub struct Wiping;

// SAFETY: all memory is the system allocator's, with the layouts that it was asked for.
unsafe impl GlobalAlloc for Wiping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps what the trait demands of him.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the block is that long and the caller's, who does not use it any more. No compiler leaves this call
        // out, as it may what is written to memory just before it is given back.
        unsafe { libc::explicit_bzero(at.cast(), layout.size()) };
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that this size, rounded up to the alignment, is a legal one.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // The system's own would leave a copy behind where it moves the block.
        // SAFETY: the caller promises that it is not zero.
        let moved = unsafe { System.alloc(wanted) };
        if !moved.is_null() {
            // SAFETY: both blocks are at least that long, and one is new.
            unsafe { ptr::copy_nonoverlapping(at, moved, layout.size().min(size)) };
            // SAFETY: the block is the caller's, who uses the other one from now on.
            unsafe { self.dealloc(at, layout) };
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_is_moved_keeps_what_is_in_it() {
        let layout = Layout::from_size_align(100, 8).unwrap();
        // SAFETY: the layouts are those of the blocks, which nobody else has, and end with the last lines.
        unsafe {
            let at = Wiping.alloc(layout);
            for offset in 0..100_u8 {
                at.add(offset.into()).write(offset);
            }
            let larger = Wiping.realloc(at, layout, 5_000);
            assert!((0..100_u8).all(|offset| larger.add(offset.into()).read() == offset));
            let layout = Layout::from_size_align(5_000, 8).unwrap();
            let smaller = Wiping.realloc(larger, layout, 50);
            assert!((0..50_u8).all(|offset| smaller.add(offset.into()).read() == offset));
            Wiping.dealloc(smaller, Layout::from_size_align(50, 8).unwrap());
        }
    }
}
