//! How large a terminal is.

use std::os::fd::{AsFd, AsRawFd};

/// Rows and columns; `None` if it is none, or does not know.
#[must_use]
pub fn size(terminal: impl AsFd) -> Option<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize, which is ours and outlives the call; of anything but a terminal the
    // kernel answers with an error and writes nothing.
    let answer = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (answer == 0 && size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_file_is_no_terminal() {
        let file = std::fs::File::open("/dev/null").expect("it is there");
        assert_eq!(super::size(&file), None);
    }
}
