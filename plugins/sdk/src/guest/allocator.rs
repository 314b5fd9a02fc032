//! The guest's memory. Growing it costs the host two system calls per instance, which serialise its threads; so the
//! memory that was linked in is used up first, from the end of the static data to the end of the initial memory.
#![cfg(feature = "allocator")]

use std::{alloc::Layout, arch::wasm32, ptr::NonNull};

use talc::{
    base::{Talc, binning::Binning},
    cell::TalcSyncCell,
    source::Source,
    wasm::WasmBinning,
};

const PAGE: usize = 65_536;
/// Growing is dear, so it is done in steps of 1 MiB, if the memory limit allows.
const STEP: usize = 16;

#[global_allocator]
static ALLOCATOR: TalcSyncCell<Arena, WasmBinning> =
    TalcSyncCell::new_wasm(Arena { claimed: false, end: None });

#[allow(unsafe_code, reason = "the linker's symbol is the only way to know where the static data ends")]
unsafe extern "C" {
    static __heap_base: u8;
}

#[derive(Debug)]
struct Arena {
    /// The initial memory has been handed to the allocator.
    claimed: bool,
    /// Where the newest heap ends, so that grown memory can extend it.
    end: Option<NonNull<u8>>,
}

// SAFETY: `acquire` allocates nothing and touches the allocator only through its argument.
#[allow(unsafe_code, reason = "an allocator hands out raw memory")]
unsafe impl Source for Arena {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        if !talc.source.claimed {
            talc.source.claimed = true;
            let base = (&raw const __heap_base).cast_mut();
            let size = (wasm32::memory_size(0) * PAGE).saturating_sub(base as usize);
            // SAFETY: from `__heap_base` on the memory is nobody's: static data and stack lie below it, and nothing
            // has grown the memory yet, for whatever does so has allocated first.
            talc.source.end = unsafe { talc.claim(base, size) };
            if talc.source.end.is_some() {
                return Ok(());
            }
        }
        // Room for the allocation, its alignment and the allocator's own notes.
        let needed = (layout.size() + layout.align() + 128).div_ceil(PAGE);
        let (before, pages) = [needed.max(STEP), needed]
            .into_iter()
            .map(|pages| (wasm32::memory_grow(0, pages), pages))
            .find(|(before, _)| *before != usize::MAX)
            .ok_or(())?;
        let (base, size) = ((before * PAGE) as *mut u8, pages * PAGE);
        talc.source.end = match talc.source.end.take() {
            // SAFETY: the heap ends where the new memory, which is nobody's else, begins.
            Some(end) if end.as_ptr() == base => Some(unsafe { talc.extend(end, base.wrapping_add(size)) }),
            // SAFETY: the new memory is nobody's else.
            _ => unsafe { talc.claim(base, size) },
        };
        talc.source.end.map(|_| ()).ok_or(())
    }
}
