//! How is a chunk's size written and read (RFC 9112, 7.1)?

use super::error::Reason;

/// What follows the data of every chunk.
pub const CRLF: &[u8] = b"\r\n";

/// The last chunk and an empty trailer section: the end of a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The last chunk alone; field lines and an empty line must follow.
pub const LAST_SIZE_LINE: &[u8] = b"0\r\n";

/// Bytes that a size line may have at most, its extensions and CRLF included.
const MAX_SIZE_LINE: usize = 1024;

/// Digits that a size may have at most, leading zeros included.
const MAX_DIGITS: usize = 16;

/// Blanks that may follow the digits: some old servers pad their sizes.
const MAX_BLANKS: usize = 10;

/// The line before a chunk's data: hexadecimal size and CRLF. Lives on the stack, for a gathering write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SizeLine {
    bytes: [u8; MAX_DIGITS + 2],
    start: u8,
}

impl SizeLine {
    /// For `size` bytes of data, which must not be 0: that would be the last chunk.
    #[must_use]
    pub fn new(size: u64) -> Self {
        debug_assert!(size > 0, "a chunk without data ends the body");
        let mut line = Self { bytes: [0; MAX_DIGITS + 2], start: MAX_DIGITS as u8 };
        line.bytes[MAX_DIGITS..].copy_from_slice(CRLF);
        let mut rest = size;
        loop {
            line.start -= 1;
            line.bytes[line.start as usize] = b"0123456789abcdef"[(rest & 15) as usize];
            rest >>= 4;
            if rest == 0 {
                return line;
            }
        }
    }

    /// The line with its CRLF.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start as usize..]
    }
}

/// Writes the line that goes before `size` bytes of data; `size` must not be 0.
pub fn size_line(size: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(SizeLine::new(size).as_bytes());
}

/// Writes `data` as one chunk, or nothing if it is empty.
pub fn write_chunk(data: &[u8], out: &mut Vec<u8>) {
    if !data.is_empty() {
        size_line(data.len() as u64, out);
        out.extend_from_slice(data);
        out.extend_from_slice(CRLF);
    }
}

/// Reads a size line at the beginning of `input`: how long it is with its CRLF, and the size it tells. `None`
/// if it is not complete. Walks byte by byte, so that a fault shows with its first byte, however the input
/// is cut. Extensions are not kept: nobody has ever registered one.
pub(super) fn read_size_line(input: &[u8]) -> Result<Option<(usize, u64)>, Reason> {
    let mut size: u64 = 0;
    let mut at = 0;
    loop {
        let Some(&byte) = input.get(at) else { return Ok(None) };
        let Some(digit) = (byte as char).to_digit(16) else { break };
        // Leave the sign bit alone: 63 bits are enough for everybody who counts in signed numbers.
        if at == MAX_DIGITS || size >> 59 != 0 {
            return Err(Reason::ChunkTooLarge);
        }
        size = size << 4 | u64::from(digit);
        at += 1;
    }
    if at == 0 {
        return Err(Reason::ChunkSize);
    }
    let digits = at;
    while let Some(b' ' | b'\t') = input.get(at) {
        at += 1;
        if at - digits > MAX_BLANKS {
            return Err(Reason::ChunkSize);
        }
    }
    let mut quoted = false;
    let mut escaped = false;
    if input.get(at) == Some(&b';') {
        loop {
            if at > MAX_SIZE_LINE - 2 {
                return Err(Reason::ChunkOverhead);
            }
            match input.get(at) {
                None => return Ok(None),
                Some(b'\n') => return Err(Reason::BareLf),
                // A reader that honours quotes and one that does not would see the line end elsewhere.
                Some(b'\r') if quoted => return Err(Reason::ChunkExtension),
                Some(b'\r') => break,
                Some(byte) if byte.is_ascii_control() && *byte != b'\t' => {
                    return Err(Reason::ChunkExtension);
                }
                Some(_) if escaped => escaped = false,
                Some(b'\\') => escaped = quoted,
                Some(b'"') => quoted = !quoted,
                Some(_) => {}
            }
            at += 1;
        }
    }
    match (input.get(at), input.get(at + 1)) {
        (None, _) | (Some(b'\r'), None) => Ok(None),
        (Some(b'\r'), Some(b'\n')) => Ok(Some((at + 2, size))),
        (Some(b'\r'), Some(_)) => Err(Reason::BareCr),
        (Some(b'\n'), _) => Err(Reason::BareLf),
        (Some(_), _) => Err(Reason::ChunkSize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_lines_are_lower_case_without_leading_zeros() {
        for (size, want) in [
            (1, "1\r\n"),
            (0xf, "f\r\n"),
            (0x10, "10\r\n"),
            (0xdead_beef, "deadbeef\r\n"),
            (u64::MAX, "ffffffffffffffff\r\n"),
        ] {
            assert_eq!(SizeLine::new(size).as_bytes(), want.as_bytes());
        }
        let mut out = Vec::new();
        write_chunk(b"", &mut out);
        write_chunk(b"hello", &mut out);
        assert_eq!(out, b"5\r\nhello\r\n");
    }

    #[test]
    fn size_lines_are_read_strictly() {
        let long = format!("5;{}\r\n", "a".repeat(MAX_SIZE_LINE));
        let fits = format!("5;{}\r\n", "a".repeat(MAX_SIZE_LINE - 4));
        for (line, want) in [
            ("5\r\n", Ok(Some((3, 5)))),
            ("0\r\n\r\n", Ok(Some((3, 0)))),
            ("aF\r\nx", Ok(Some((4, 0xaf)))),
            ("0000000000000005\r\n", Ok(Some((18, 5)))),
            ("00000000000000005\r\n", Err(Reason::ChunkTooLarge)),
            ("100000005\r\n", Ok(Some((11, 0x1_0000_0005)))),
            ("7fffffffffffffff\r\n", Ok(Some((18, i64::MAX as u64)))),
            ("8000000000000000\r\n", Err(Reason::ChunkTooLarge)),
            ("ffffffffffffffff\r\n", Err(Reason::ChunkTooLarge)),
            ("5          \r\n", Ok(Some((13, 5)))),
            ("5           \r\n", Err(Reason::ChunkSize)),
            ("5 \t;a\r\n", Ok(Some((7, 5)))),
            ("5;a=b;c;d=\"e;\\\"f\"\r\n", Ok(Some((19, 5)))),
            ("5;\r\n", Ok(Some((4, 5)))),
            (&fits, Ok(Some((MAX_SIZE_LINE, 5)))),
            (&long, Err(Reason::ChunkOverhead)),
            ("5;a=\"b\r\n", Err(Reason::ChunkExtension)),
            ("5;a=\"b\\\"\r\n", Err(Reason::ChunkExtension)),
            ("5;a\0b\r\n", Err(Reason::ChunkExtension)),
            ("5;\nxx\r\n", Err(Reason::BareLf)),
            ("5;a\rb\r\n", Err(Reason::BareCr)),
            ("5\n", Err(Reason::BareLf)),
            ("5\rhello", Err(Reason::BareCr)),
            ("5 a\r\n", Err(Reason::ChunkSize)),
            ("5x\r\n", Err(Reason::ChunkSize)),
            ("0x5\r\n", Err(Reason::ChunkSize)),
            ("0_5\r\n", Err(Reason::ChunkSize)),
            ("+5\r\n", Err(Reason::ChunkSize)),
            ("-5\r\n", Err(Reason::ChunkSize)),
            (" 5\r\n", Err(Reason::ChunkSize)),
            ("\r\n", Err(Reason::ChunkSize)),
            ("xyz", Err(Reason::ChunkSize)),
            (";a\r\n", Err(Reason::ChunkSize)),
            ("", Ok(None)),
            ("5", Ok(None)),
            ("5 ", Ok(None)),
            ("5\r", Ok(None)),
            ("5;a", Ok(None)),
            ("5;a\r", Ok(None)),
        ] {
            assert_eq!(read_size_line(line.as_bytes()), want, "{line:?}");
        }
    }
}
