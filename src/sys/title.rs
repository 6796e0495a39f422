//! What `ps` shows for a process.
//!
//! The kernel shows the memory that the arguments were passed in. The environment lies right behind them, so it
//! is moved to the heap once, and both areas together hold a title.

use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Where titles are written: bytes from the kernel's `arg_start` to its `env_end`.
struct Area {
    start: usize,
    length: usize,
}

static AREA: OnceLock<Mutex<Area>> = OnceLock::new();

/// Longest title; `ps` cuts long ones anyway.
const LONGEST: usize = 255;

/// Reserves the memory. To be called once, at the start of `main`, before there is a second thread and before
/// anybody keeps a pointer into the environment. After the first [`set_title`], `std::env::args` is no more.
///
/// # Errors
/// If /proc is not mounted or the kernel does not say where the arguments are; titles are then left alone.
pub fn init_title() -> io::Result<()> {
    if AREA.get().is_some() {
        return Ok(());
    }
    let area = find_area(&std::fs::read_to_string("/proc/self/stat")?).ok_or_else(|| {
        io::Error::new(io::ErrorKind::Unsupported, "the kernel hides where the arguments are")
    })?;
    move_environment();
    let _ = AREA.set(Mutex::new(area));
    Ok(())
}

/// Shows `title` in `ps`, cut to what fits. Without [`init_title`] nothing happens.
pub fn set_title(title: &str) {
    let Some(area) = AREA.get() else { return };
    let area = area.lock().unwrap_or_else(PoisonError::into_inner);
    let room = area.length.saturating_sub(1).min(LONGEST);
    let mut count = title.len().min(room);
    while !title.is_char_boundary(count) {
        count -= 1;
    }
    let start = std::ptr::with_exposed_provenance_mut::<u8>(area.start);
    // SAFETY: `start` and `length` are the area that the kernel set up for arguments and environment; it is
    // mapped writable for the life of the process, no reference into it exists (`init_title` moved the
    // environment and demands that nobody keeps one), and the lock keeps a second writer out.
    unsafe { std::ptr::write_bytes(start, 0, area.length) };
    // SAFETY: as above; `count` is less than `length`, and a title from the heap cannot overlap the area.
    unsafe { std::ptr::copy_nonoverlapping(title.as_ptr(), start, count) };
}

/// Fields 48 to 51 of /proc/self/stat: where arguments and environment begin and end.
fn find_area(stat: &str) -> Option<Area> {
    // The second field is the program's name in parentheses and may hold anything, so count from its end.
    let rest = &stat[stat.rfind(')')? + 1..];
    let mut fields = rest.split_ascii_whitespace().skip(48 - 3).map(|field| field.parse::<usize>().ok());
    let [arg_start, arg_end, env_start, env_end] =
        [fields.next()??, fields.next()??, fields.next()??, fields.next()??];
    if arg_start == 0 || arg_end <= arg_start {
        return None;
    }
    let end = if env_start == arg_end && env_end > env_start { env_end } else { arg_end };
    Some(Area { start: arg_start, length: end - arg_start })
}

unsafe extern "C" {
    static mut environ: *mut *mut libc::c_char;
}

/// Copies the environment's strings and the table of them to the heap, for good.
fn move_environment() {
    let mut table = Vec::new();
    // SAFETY: `environ` is libc's; with one thread (see `init_title`) nobody changes it meanwhile.
    let mut entry = unsafe { environ };
    while !entry.is_null() {
        // SAFETY: the table ends with a null pointer, at which we stop.
        let string = unsafe { *entry };
        if string.is_null() {
            break;
        }
        // SAFETY: entries of the table are strings that end with a zero byte.
        let string = unsafe { std::ffi::CStr::from_ptr(string) };
        table.push(string.to_owned().into_raw());
        // SAFETY: `string` was not the table's end, so the next entry exists.
        entry = unsafe { entry.add(1) };
    }
    table.push(std::ptr::null_mut());
    // SAFETY: the new table is complete, ends with null and is never freed; one thread, as above.
    unsafe { environ = table.leak().as_mut_ptr() };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_is_found_behind_any_program_name() {
        let fields: Vec<String> = (3..=52).map(|field| (field * 100).to_string()).collect();
        let mut fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let index = |field: usize| field - 3;
        fields[index(49)] = "4850";
        fields[index(50)] = "4850";
        let stat = format!("17 (a ) b (c) {}", fields.join(" "));
        let area = find_area(&stat).unwrap();
        assert_eq!((area.start, area.length), (4800, 5100 - 4800));

        fields[index(50)] = "9000";
        let area = find_area(&format!("17 (x) {}", fields.join(" "))).unwrap();
        assert_eq!(
            (area.start, area.length),
            (4800, 50),
            "an environment elsewhere is not ours to overwrite"
        );

        for broken in ["", "17 (x)", "17 (x) R 1 2 3"] {
            assert!(find_area(broken).is_none(), "{broken:?}");
        }
    }

    #[test]
    fn a_title_without_memory_is_no_harm() {
        set_title("ostler: nobody sees this");
    }
}
