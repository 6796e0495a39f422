//! The daemon with its allocator counted: `counting FILE [...] CONFIG` serves CONFIG in the foreground.
//!
//! FILE has 8 bytes, a number in the machine's order: how often the daemon's processes have asked for memory, all
//! together. A program of its own, since an allocator is a whole program's; tests/it/hot_path.rs reads the number.

// An allocator is unsafe by its nature.
#![allow(unsafe_code)]

use memmap2::MmapRaw;
use ostler::config::{self, Options};
use ostler::master::{self, Heritage, Reader, Startup};
use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// Allocations, or places where an allocation grew.
static COUNT: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());

struct Counting;

fn one_more() {
    let count = COUNT.load(Ordering::Relaxed);
    // SAFETY: it is null, or points to the start of a mapping of 8 bytes that is never unmapped.
    if let Some(count) = unsafe { count.as_ref() } {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        one_more();
        // SAFETY: the caller keeps the promises of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        one_more();
        // SAFETY: the caller keeps the promises of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        one_more();
        // SAFETY: the caller keeps the promises of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the promises of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// From now on this process and those that it forks count in the file at `path`.
fn count_into(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    file.set_len(8)?;
    // Never unmapped.
    let map = Box::leak(Box::new(MmapRaw::map_raw(&file)?));
    COUNT.store(map.as_mut_ptr().cast(), Ordering::Relaxed);
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [count, .., config] = &arguments[..] else {
        eprintln!("usage: counting FILE [...] CONFIG");
        return ExitCode::FAILURE;
    };
    if let Err(fault) = count_into(count) {
        eprintln!("{}: {fault}", count.display());
        return ExitCode::FAILURE;
    }
    let config = config.clone();
    let read = move || config::load(&config, &Options::default());
    let loaded = match read() {
        Ok(loaded) => loaded,
        Err(faults) => {
            eprintln!("{}", faults.render(false));
            return ExitCode::FAILURE;
        }
    };
    let startup = Startup {
        config: loaded.config,
        config_path: None,
        foreground: true,
        notes: Vec::new(),
        greeting: None,
        reader: Reader::new(read),
        invocation: None,
        heritage: Heritage::default(),
    };
    match master::run(startup) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("{}", error.sentence());
            ExitCode::FAILURE
        }
    }
}
