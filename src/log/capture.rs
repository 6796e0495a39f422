//! Values that a log line wants and that are gone when it is written: copied, escaped already, while the head
//! they stand in is at hand.

use super::escape;
use super::format::{LogFormat, Source};

/// The copies that one exchange's log lines need. Recycle it: [`Capture::clear`] keeps its memory.
#[derive(Clone, Debug, Default)]
pub struct Capture {
    /// Entries: slot (2 bytes), length (4 bytes), value, escaped for the log.
    bytes: Vec<u8>,
}

const ENTRY_HEAD: usize = 6;

impl Capture {
    /// Without memory until something is copied.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// Forgets everything; ready for the next exchange.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Bytes of memory it holds, for whoever decides what is worth recycling.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    fn put(&mut self, slot: u16, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&slot.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        fill(&mut self.bytes);
        match u32::try_from(self.bytes.len() - start - ENTRY_HEAD) {
            Ok(length) => self.bytes[start + 2..start + ENTRY_HEAD].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => self.bytes.truncate(start),
        }
    }

    /// Copies the values of fields of one name, if there are any: several as the one field that they amount to
    /// (RFC 9110, 5.3).
    fn put_values<'f>(&mut self, slot: u16, values: impl IntoIterator<Item = &'f [u8]>) {
        let mut values = values.into_iter();
        if let Some(first) = values.next() {
            self.put(slot, |bytes| {
                escape::push(bytes, first);
                for value in values {
                    bytes.extend_from_slice(b", ");
                    escape::push(bytes, value);
                }
            });
        }
    }

    /// The value of `slot`. `from` is where the last value ended: lines ask mostly in the order of the entries.
    pub(super) fn value(&self, slot: u16, from: &mut usize) -> Option<&[u8]> {
        self.search(slot, from, self.bytes.len()).or_else(|| {
            let end = *from;
            *from = 0;
            self.search(slot, from, end)
        })
    }

    fn search(&self, slot: u16, from: &mut usize, end: usize) -> Option<&[u8]> {
        let mut at = *from;
        while at < end {
            let head = self.bytes.get(at..at + ENTRY_HEAD)?;
            let length = u32::from_ne_bytes([head[2], head[3], head[4], head[5]]) as usize;
            let start = at + ENTRY_HEAD;
            if u16::from_ne_bytes([head[0], head[1]]) == slot {
                *from = start + length;
                return self.bytes.get(start..start + length);
            }
            at = start + length;
        }
        None
    }
}

/// What a request's head says of itself, as the client wrote it. Of a head that could not be parsed, give what
/// is known and leave the rest empty: it is logged as `-`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestFacts<'a> {
    /// The request line without its end.
    pub line: &'a [u8],
    /// `GET`
    pub method: &'a [u8],
    /// The path, still encoded; `%U` shows it decoded.
    pub path: &'a [u8],
    /// What follows the question mark, if there is one.
    pub query: Option<&'a [u8]>,
    /// `HTTP/1.1`
    pub protocol: &'a [u8],
    /// The host asked for, without port.
    pub host: &'a [u8],
}

impl LogFormat {
    /// Copies what this format wants of a request's head. `fields` gives the values of the request's fields of a name,
    /// any case. Once per exchange.
    pub fn capture_request<'s, 'f, I>(
        &'s self,
        facts: &RequestFacts<'_>,
        fields: impl Fn(&'s str) -> I,
        out: &mut Capture,
    ) where
        I: IntoIterator<Item = &'f [u8]>,
    {
        for (slot, source) in self.slots() {
            let bytes = match source {
                Source::RequestLine => facts.line,
                Source::Method => facts.method,
                Source::Path => {
                    if !facts.path.is_empty() {
                        out.put(slot, |bytes| escape::push_decoded(bytes, facts.path));
                    }
                    continue;
                }
                Source::Query => {
                    // Where there is none, the code prints nothing, not a dash.
                    out.put(slot, |bytes| {
                        if let Some(query) = facts.query {
                            bytes.push(b'?');
                            escape::push(bytes, query);
                        }
                    });
                    continue;
                }
                Source::Protocol => facts.protocol,
                Source::Host => facts.host,
                Source::RequestField(name) => {
                    out.put_values(slot, fields(name));
                    continue;
                }
                Source::Cookie(name) => {
                    fields("Cookie").into_iter().find_map(|line| cookie(line, name)).unwrap_or(b"")
                }
                Source::RequestTrailer(_) | Source::ResponseField(_) | Source::ResponseTrailer(_) => continue,
            };
            if !bytes.is_empty() {
                out.put(slot, |line| escape::push(line, bytes));
            }
        }
    }

    /// Copies what this format wants of the final response's head, as it goes to the client. `fields` as above.
    /// Once per exchange.
    pub fn capture_response<'s, 'f, I>(&'s self, fields: impl Fn(&'s str) -> I, out: &mut Capture)
    where
        I: IntoIterator<Item = &'f [u8]>,
    {
        for (slot, source) in self.slots() {
            let Source::ResponseField(name) = source else { continue };
            if name.eq_ignore_ascii_case("Content-Type") {
                out.put_values(slot, fields(name).into_iter().map(without_parameters));
            } else {
                out.put_values(slot, fields(name));
            }
        }
    }

    /// Copies what this format wants of the trailers of a request; `fields` as above.
    pub fn capture_request_trailers<'s, 'f, I>(&'s self, fields: impl Fn(&'s str) -> I, out: &mut Capture)
    where
        I: IntoIterator<Item = &'f [u8]>,
    {
        for (slot, source) in self.slots() {
            if let Source::RequestTrailer(name) = source {
                out.put_values(slot, fields(name));
            }
        }
    }

    /// Copies what this format wants of the trailers of a response; `fields` as above.
    pub fn capture_response_trailers<'s, 'f, I>(&'s self, fields: impl Fn(&'s str) -> I, out: &mut Capture)
    where
        I: IntoIterator<Item = &'f [u8]>,
    {
        for (slot, source) in self.slots() {
            if let Source::ResponseTrailer(name) = source {
                out.put_values(slot, fields(name));
            }
        }
    }

    fn slots(&self) -> impl Iterator<Item = (u16, &Source)> {
        (self.first_slot..).zip(&self.sources)
    }
}

/// A media type without its parameters, as httpd's `%{Content-Type}o`.
fn without_parameters(value: &[u8]) -> &[u8] {
    let end = memchr::memchr(b';', value).unwrap_or(value.len());
    value[..end].trim_ascii_end()
}

/// The value of a cookie in a Cookie field; names in any case, as httpd's `%C`.
fn cookie<'f>(line: &'f [u8], name: &str) -> Option<&'f [u8]> {
    line.split(|byte| *byte == b';').find_map(|pair| {
        let equals = memchr::memchr(b'=', pair)?;
        let (key, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
        key.eq_ignore_ascii_case(name.as_bytes()).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_found_by_name() {
        for (line, want) in [
            (&b"id=5"[..], Some(&b"5"[..])),
            (b"a=b; ID = 5 ;c=d", Some(b"5")),
            (b"a=b;id=x=y", Some(b"x=y")),
            (b"idx=1; xid=2", None),
            (b"id", None),
            (b"", None),
        ] {
            assert_eq!(cookie(line, "id"), want, "{line:?}");
        }
    }

    #[test]
    fn fields_of_one_name_are_one_value() {
        for (values, want) in [
            (&[][..], None),
            (&[&b"a"[..]], Some("a")),
            (&[b""], Some("")),
            (&[b"a", b"", b"\"b\""], Some("a, , \\\"b\\\"")),
        ] {
            let mut capture = Capture::new();
            capture.put_values(1, values.iter().copied());
            let value = capture.value(1, &mut 0).map(String::from_utf8_lossy);
            assert_eq!(value.as_deref(), want, "{values:?}");
        }
    }

    #[test]
    fn parameters_of_a_type_are_left_out() {
        for (value, want) in [
            (&b"text/html"[..], &b"text/html"[..]),
            (b"text/html;charset=utf-8", b"text/html"),
            (b"text/html \t; charset=utf-8; x", b"text/html"),
            (b";", b""),
            (b"", b""),
        ] {
            assert_eq!(without_parameters(value), want);
        }
    }

    #[test]
    fn values_are_found_in_any_order() {
        let mut capture = Capture::new();
        for slot in 0..5_u16 {
            capture.put(slot, |bytes| bytes.extend_from_slice(slot.to_string().as_bytes()));
        }
        let mut from = 0;
        for slot in [0, 1, 4, 2, 2, 3, 0] {
            assert_eq!(capture.value(slot, &mut from), Some(slot.to_string().as_bytes()), "{slot}");
        }
        assert_eq!(capture.value(5, &mut from), None);
        capture.clear();
        assert_eq!(capture.value(0, &mut from), None);
    }
}
