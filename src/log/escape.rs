//! Bytes of strangers, made safe for a line of the access log, as httpd escapes them.

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends `bytes`: printable ASCII as it is, `"` and `\` behind a backslash, the usual control characters as
/// letters (`\n`, `\t` …), every other byte as `\xhh`.
pub(super) fn push(line: &mut Vec<u8>, bytes: &[u8]) {
    // Almost every value is plain; the test below is one the compiler turns into vector instructions.
    if bytes.iter().fold(true, |plain, byte| plain & is_plain(*byte)) {
        line.extend_from_slice(bytes);
    } else {
        for byte in bytes {
            push_byte(line, *byte);
        }
    }
}

/// As [`push`], after undoing percent-encoding; a broken triple stays as it is.
pub(super) fn push_decoded(line: &mut Vec<u8>, bytes: &[u8]) {
    if !bytes.contains(&b'%') {
        return push(line, bytes);
    }
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        match (first, after) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                push_byte(line, hex_value(*high) << 4 | hex_value(*low));
                rest = after;
            }
            _ => {
                push_byte(line, first);
                rest = after;
            }
        }
    }
}

const fn is_plain(byte: u8) -> bool {
    (byte >= 0x20) & (byte < 0x7f) & (byte != b'"') & (byte != b'\\')
}

fn push_byte(line: &mut Vec<u8>, byte: u8) {
    let letter = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0b => b'v',
        _ if is_plain(byte) => return line.push(byte),
        _ => {
            let high = HEX[usize::from(byte >> 4)];
            let low = HEX[usize::from(byte & 15)];
            return line.extend_from_slice(&[b'\\', b'x', high, low]);
        }
    };
    line.extend_from_slice(&[b'\\', letter]);
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_escaped_as_httpd_does() {
        for (bytes, want) in [
            (&b"GET / HTTP/1.1"[..], &b"GET / HTTP/1.1"[..]),
            (b"", b""),
            (b"a\"b\\c", b"a\\\"b\\\\c"),
            (b"\n\r\t\x08\x0b", b"\\n\\r\\t\\b\\v"),
            (b"\x00\x1b\x7f\x80\xff", b"\\x00\\x1b\\x7f\\x80\\xff"),
        ] {
            let mut line = Vec::new();
            push(&mut line, bytes);
            assert_eq!(line, want);
        }
    }

    #[test]
    fn decoding_stops_at_what_is_not_encoded() {
        for (bytes, want) in
            [(&b"/a%20b%0A"[..], &b"/a b\\n"[..]), (b"/%", b"/%"), (b"/%4", b"/%4"), (b"/%zz%41", b"/%zzA")]
        {
            let mut line = Vec::new();
            push_decoded(&mut line, bytes);
            assert_eq!(line, want);
        }
    }
}
