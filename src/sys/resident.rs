//! Pages of the program and its libraries that only the start needed.
//!
//! The kernel maps pages around each one that is needed, and a start needs many: a process that then waits for years
//! keeps megabytes mapped. They are in the page cache anyway, so that giving them back costs little.

#![expect(unsafe_code, reason = "headers of the program and madvise(2)")]

use std::ffi::{CStr, c_int, c_void};
use std::time::Duration;

use nix::libc;

/// `MADV_DONTNEED_LOCKED` of `linux/mman.h`, since Linux 5.18: as `MADV_DONTNEED`, of locked memory too.
const DONTNEED_LOCKED: c_int = 24;

/// What glibc begins with: bytes.
#[cfg(target_env = "gnu")]
const LARGE: c_int = 128 << 10;

/// After which nothing of a start runs any more, as a rule.
const SETTLED: Duration = Duration::from_secs(1);

/// Gives back what is mapped of the program and its libraries and cannot have been changed; what is needed again is
/// mapped again, from the page cache. Where the kernel does not want to, everything stays.
pub fn give_back_start() {
    // SAFETY: the callback reads what it is given for the time of the call, keeps nothing, and does not unwind.
    unsafe { libc::dl_iterate_phdr(Some(give_back_object), std::ptr::null_mut()) };
}

/// [`give_back_start`], and once more when what begins with a start has run for the first time, too. It is for tasks.
pub async fn give_back_start_twice() {
    give_back_start();
    tokio::time::sleep(SETTLED).await;
    give_back_start();
}

/// Has large blocks be mapped each by itself, and be given back as soon as they are free, also once there were some that
/// the allocator would keep from then on. Tables that strangers cannot fill take no memory then, until they are used.
pub fn keep_large_blocks_apart() {
    // Others than glibc do so anyway, or cannot be told.
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) has no requirements but to come before other threads.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// [`give_back_start`] after work that comes seldom and takes memory, such as a reload: also what was allocated for it.
pub fn give_back_work() {
    // Others give it back by themselves.
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) has no requirements.
    unsafe {
        libc::malloc_trim(0);
    }
    give_back_start();
}

/// Of one object: its segments without the right to write (`elf(5)`). A page of such a segment is what the file has.
unsafe extern "C" fn give_back_object(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut c_void,
) -> c_int {
    // SAFETY: dl_iterate_phdr(3) passes a valid structure, whose headers and name stay while the object is loaded.
    let (base, headers, name) = unsafe {
        let info = &*info;
        if info.dlpi_phdr.is_null() {
            return 0;
        }
        let name = if info.dlpi_name.is_null() { c"" } else { CStr::from_ptr(info.dlpi_name) };
        (info.dlpi_addr, std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)), name)
    };
    // The kernel's own, which is no file.
    if name.to_bytes().starts_with(b"linux-") {
        return 0;
    }
    for header in headers {
        if header.p_type == libc::PT_LOAD
            && header.p_flags & libc::PF_W == 0
            && let (Ok(base), Ok(at), Ok(length)) =
                (usize::try_from(base), usize::try_from(header.p_vaddr), usize::try_from(header.p_memsz))
        {
            give_back(base.wrapping_add(at), length);
        }
    }
    0
}

/// The whole pages within: what shares a page with something else stays.
fn give_back(start: usize, length: usize) {
    // SAFETY: sysconf(3) has no requirements.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(0);
    let Some(mask) = page.checked_sub(1) else { return };
    let (first, end) = (start.wrapping_add(mask) & !mask, start.wrapping_add(length) & !mask);
    let Some(bytes) = end.checked_sub(first) else { return };
    let at = std::ptr::without_provenance_mut::<c_void>(first);
    for advice in [DONTNEED_LOCKED, libc::MADV_DONTNEED] {
        // SAFETY: these pages were never writable, so they are as in the file, from where they come back when they
        // are next needed; nothing that a pointer refers to changes.
        if unsafe { libc::madvise(at, bytes, advice) } == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kilobytes of files that are mapped here and now.
    fn of_files() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn what_is_given_back_is_less_and_everything_still_works() {
        let before = of_files();
        give_back_start();
        let after = of_files();
        assert!(after < before, "{before} kB, then {after} kB");
        let text = format!("{:?}", (1..100).map(|n| n.to_string()).collect::<Vec<_>>());
        assert!(text.ends_with("\"99\"]"));
    }
}
