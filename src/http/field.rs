//! Which field is this, and where are its name and value?
//!
//! A head's fields are kept as offsets into its bytes, so that one store serves every head of a thread
//! without allocating. Each field is classified once, by length and a comparison that ignores case.

use super::error::Reason;
use std::ops::Range;

/// The fields that some part of the proxy must know by name.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[allow(missing_docs)] // the variants are the field names
pub enum FieldKind {
    Other,
    Connection,
    ContentLength,
    ContentLocation,
    Date,
    Destination,
    Expect,
    Forwarded,
    Host,
    Http2Settings,
    KeepAlive,
    Location,
    MaxForwards,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    Server,
    SetCookie,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    Uri,
    Via,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
    XForwardedServer,
}

impl FieldKind {
    /// What a field of this name is; [`FieldKind::Other`] if nobody here minds.
    #[inline]
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        let Some(first) = name.first() else { return Self::Other };
        // Length and first letter leave one candidate, so that most names cost no comparison at all.
        let (kind, full): (Self, &[u8]) = match (name.len(), first | 0x20) {
            (2, b't') => (Self::Te, b"TE"),
            (3, b'v') => (Self::Via, b"Via"),
            (3, b'u') => (Self::Uri, b"URI"),
            (4, b'h') => (Self::Host, b"Host"),
            (4, b'd') => (Self::Date, b"Date"),
            (6, b's') => (Self::Server, b"Server"),
            (6, b'e') => (Self::Expect, b"Expect"),
            (7, b't') => (Self::Trailer, b"Trailer"),
            (7, b'u') => (Self::Upgrade, b"Upgrade"),
            (8, b'l') => (Self::Location, b"Location"),
            (9, b'f') => (Self::Forwarded, b"Forwarded"),
            (10, b'c') => (Self::Connection, b"Connection"),
            (10, b'k') => (Self::KeepAlive, b"Keep-Alive"),
            (10, b's') => (Self::SetCookie, b"Set-Cookie"),
            (11, b'd') => (Self::Destination, b"Destination"),
            (12, b'm') => (Self::MaxForwards, b"Max-Forwards"),
            (14, b'c') => (Self::ContentLength, b"Content-Length"),
            (14, b'h') => (Self::Http2Settings, b"HTTP2-Settings"),
            (15, b'x') => (Self::XForwardedFor, b"X-Forwarded-For"),
            (16, b'p') => (Self::ProxyConnection, b"Proxy-Connection"),
            (16, b'c') => (Self::ContentLocation, b"Content-Location"),
            (16, b'x') => (Self::XForwardedHost, b"X-Forwarded-Host"),
            (17, b't') => (Self::TransferEncoding, b"Transfer-Encoding"),
            (17, b'x') => (Self::XForwardedProto, b"X-Forwarded-Proto"),
            (18, b'x') => (Self::XForwardedServer, b"X-Forwarded-Server"),
            (18, b'p') => (Self::ProxyAuthenticate, b"Proxy-Authenticate"),
            (19, b'p') => (Self::ProxyAuthorization, b"Proxy-Authorization"),
            _ => return Self::Other,
        };
        // Most are spelt like this; that comparison is the cheaper one.
        let is_it = name == full
            || name.eq_ignore_ascii_case(full)
            || (first | 0x20 == b'x' && is_same_variable(name, full));
        if is_it { kind } else { Self::Other }
    }

    /// Whether fields of this name end at this hop, nominated or not: RFC 9110, 7.6.1, and the framing
    /// fields, which are written anew. Proxy-Authorization is not among them: it is for whoever asked for it,
    /// and we did not.
    #[must_use]
    pub fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::ContentLength
                | Self::Http2Settings
                | Self::KeepAlive
                | Self::ProxyAuthenticate
                | Self::ProxyConnection
                | Self::Te
                | Self::Trailer
                | Self::TransferEncoding
                | Self::Upgrade
        )
    }

    /// Whether a field of this name may never be in a trailer section (RFC 9110, 6.5.1): it would frame,
    /// route or describe the connection when all that is over.
    #[must_use]
    pub fn is_barred_from_trailers(self) -> bool {
        self.is_hop_by_hop()
            || matches!(
                self,
                Self::Date
                    | Self::Expect
                    | Self::Forwarded
                    | Self::Host
                    | Self::Location
                    | Self::MaxForwards
                    | Self::ProxyAuthorization
                    | Self::SetCookie
                    | Self::Via
                    | Self::XForwardedFor
                    | Self::XForwardedHost
                    | Self::XForwardedProto
                    | Self::XForwardedServer
            )
    }
}

/// Whether backends that know fields as environment variables (RFC 3875, 4.1.18) take `name` for `full`: to them,
/// `X_Forwarded_For` and `X-Forwarded-For` are both HTTP_X_FORWARDED_FOR, so that one could forge the other.
#[cold]
fn is_same_variable(name: &[u8], full: &[u8]) -> bool {
    let is_same = |(byte, of_full): (&u8, &u8)| match byte {
        b'_' => *of_full == b'-',
        _ => byte.eq_ignore_ascii_case(of_full),
    };
    name.len() == full.len() && name.iter().zip(full).all(is_same)
}

/// One field line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Field<'b> {
    /// The name as sent; a token, never empty.
    pub name: &'b [u8],
    /// The value without the blanks around it: no control character but HTAB.
    pub value: &'b [u8],
    /// What the name says.
    pub kind: FieldKind,
    /// Whether the field ends here: hop-by-hop by its kind or because Connection named it (Host cannot be
    /// named away); in trailers, whether it may not be there at all.
    pub hop: bool,
}

/// A field as offsets into its head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    name_at: u32,
    name_len: u32,
    value_at: u32,
    value_len: u32,
    pub(super) kind: FieldKind,
    pub(super) hop: bool,
}

impl Slot {
    pub(super) fn name<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        let at = self.name_at as usize;
        &bytes[at..at + self.name_len as usize]
    }

    pub(super) fn value<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        let at = self.value_at as usize;
        &bytes[at..at + self.value_len as usize]
    }
}

/// Room for the fields of one head, used again for the next: one per thread is enough. Grows to the largest
/// head seen, which the limits bound.
#[derive(Clone, Debug, Default)]
pub struct FieldSlots {
    pub(super) slots: Vec<Slot>,
}

impl FieldSlots {
    /// Empty; the first head makes room.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over what `httparse` found in `bytes`, and checks what it lets pass: that every line before a
    /// field and the last one ended in CRLF. `bytes` end with the empty line.
    pub(super) fn fill(&mut self, bytes: &[u8], found: &[httparse::Header<'_>]) -> Result<(), Reason> {
        self.slots.clear();
        if u32::try_from(bytes.len()).is_err() {
            return Err(Reason::HeadTooLarge);
        }
        let mut ends = bytes.ends_with(b"\r\n\r\n");
        self.slots.extend(found.iter().map(|header| {
            let name_at = offset_in(bytes, header.name.as_bytes());
            ends &= name_at == 0 || bytes.get(name_at.wrapping_sub(2)..name_at) == Some(b"\r\n");
            let kind = FieldKind::of(header.name.as_bytes());
            Slot {
                name_at: name_at as u32,
                name_len: header.name.len() as u32,
                value_at: offset_in(bytes, header.value) as u32,
                value_len: header.value.len() as u32,
                kind,
                hop: kind.is_hop_by_hop(),
            }
        }));
        if ends { Ok(()) } else { Err(Reason::BareLf) }
    }

    /// As `fill`, for the lines behind the last chunk, of which any may be barred.
    pub(super) fn fill_trailers(
        &mut self,
        bytes: &[u8],
        found: &[httparse::Header<'_>],
    ) -> Result<(), Reason> {
        self.fill(bytes, found)?;
        for slot in &mut self.slots {
            slot.hop = slot.kind.is_barred_from_trailers();
        }
        Ok(())
    }

    pub(super) fn view<'b, 'h>(&'h self, bytes: &'b [u8]) -> Fields<'b, 'h> {
        Fields { bytes, slots: &self.slots }
    }
}

/// Where `part`, a piece of `whole`, begins in it.
fn offset_in(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr())
}

/// The fields of a head, in the order in which they came.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'b, 'h> {
    bytes: &'b [u8],
    slots: &'h [Slot],
}

impl<'b, 'h> Fields<'b, 'h> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// All, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Field<'b>> + use<'b, 'h> {
        let bytes = self.bytes;
        self.slots.iter().map(move |slot| Field {
            name: slot.name(bytes),
            value: slot.value(bytes),
            kind: slot.kind,
            hop: slot.hop,
        })
    }

    /// The head that they are in.
    #[must_use]
    pub fn head(&self) -> &'b [u8] {
        self.bytes
    }

    /// Where in the head `field`'s line is, CRLF included, if it is spelt as we would spell it: `name: value`.
    #[must_use]
    pub fn line_of(&self, field: &Field<'b>) -> Option<Range<usize>> {
        let at = offset_in(self.bytes, field.name);
        let colon = at + field.name.len();
        let end = colon + 2 + field.value.len() + 2;
        let is_plain = offset_in(self.bytes, field.value) == colon + 2
            && self.bytes.get(colon..colon + 2)? == b": "
            && self.bytes.get(end - 2..end)? == b"\r\n";
        is_plain.then_some(at..end)
    }

    /// The value of the first field called `name`, in any case of letters.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&'b [u8]> {
        self.all(name).next()
    }

    /// The values of all fields called `name`, in any case of letters.
    pub fn all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'b [u8]> + use<'b, 'h, 'n> {
        let bytes = self.bytes;
        self.slots
            .iter()
            .filter(move |slot| {
                slot.name_len as usize == name.len() && slot.name(bytes).eq_ignore_ascii_case(name.as_bytes())
            })
            .map(move |slot| slot.value(bytes))
    }

    /// The value of the first field of `kind`.
    #[must_use]
    pub fn first_of(&self, kind: FieldKind) -> Option<&'b [u8]> {
        self.all_of(kind).next()
    }

    /// The values of all fields of `kind`.
    pub fn all_of(&self, kind: FieldKind) -> impl Iterator<Item = &'b [u8]> + use<'b, 'h> {
        let bytes = self.bytes;
        self.slots.iter().filter(move |slot| slot.kind == kind).map(move |slot| slot.value(bytes))
    }

    /// Reads a trailer section, as [`super::Piece::Trailers`] gave it, in which `hop` marks what may not be there.
    ///
    /// # Errors
    /// If the section is malformed; never for one that came from [`super::Body::next`].
    pub fn of_trailers(section: &'b [u8], slots: &'h mut FieldSlots) -> Result<Self, Reason> {
        with_raw_trailers(section, |found| slots.fill_trailers(section, found))?;
        Ok(slots.view(section))
    }
}

/// The values of the fields called `name`, in any case of letters, in a section of field lines that is sound: a head
/// that we have written (its first line has no field's name before a colon), or what [`super::Piece::Trailers`] gave.
/// The empty line ends it; what is behind does not matter.
pub fn values_in<'b, 'n>(section: &'b [u8], name: &'n str) -> impl Iterator<Item = &'b [u8]> + use<'b, 'n> {
    let mut rest = section;
    let lines = std::iter::from_fn(move || {
        let end = memchr::memchr(b'\n', rest)?;
        let line = &rest[..end];
        rest = &rest[end + 1..];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        (!line.is_empty()).then_some(line)
    });
    lines.filter_map(move |line| {
        let (found, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        found.eq_ignore_ascii_case(name.as_bytes()).then(|| trim(value))
    })
}

/// How many trailer fields there may be.
pub const MAX_TRAILERS: usize = 64;

/// Parses the lines of a trailer section and its empty line and hands them to `take`.
pub(super) fn with_raw_trailers<T>(
    section: &[u8],
    take: impl FnOnce(&[httparse::Header<'_>]) -> Result<T, Reason>,
) -> Result<T, Reason> {
    let mut room = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    match httparse::parse_headers(section, &mut room) {
        Ok(httparse::Status::Complete((end, found))) if end == section.len() => take(found),
        Ok(_) => Err(Reason::Incomplete),
        Err(error) => Err(super::diagnose::fields(section, error)),
    }
}

/// Whether `byte` may be in a token (RFC 9110, 5.6.2).
#[must_use]
pub fn is_token(byte: u8) -> bool {
    TOKEN[byte as usize]
}

static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

/// `value` without blanks (SP and HTAB, nothing else) at its ends.
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The members of a comma-separated list (RFC 9110, 5.6.1) without blanks around them; empty ones are left
/// out. Knows no quotes: it is for lists of tokens.
pub fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim).filter(|member| !member.is_empty())
}

/// `1*DIGIT` of at most 63 bits, as Content-Length and Max-Forwards have it: no sign, no blank, nothing else.
#[must_use]
pub fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let mut number: u64 = 0;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    // Peers that count in signed numbers would take the upper half for negative.
    i64::try_from(number).is_ok().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case_of_letters() {
        for (name, want) in [
            ("host", FieldKind::Host),
            ("HOST", FieldKind::Host),
            ("hOsT", FieldKind::Host),
            ("Hosts", FieldKind::Other),
            ("Te", FieldKind::Te),
            ("TRANSFER-ENCODING", FieldKind::TransferEncoding),
            ("Transfer_Encoding", FieldKind::Other),
            // 0x20 apart from `-` and `H`, which folding by a bit would take for them.
            ("content\rlength", FieldKind::Other),
            ("(ost", FieldKind::Other),
            ("", FieldKind::Other),
            ("Proxy-Connection", FieldKind::ProxyConnection),
            ("X-Forwarded-Server", FieldKind::XForwardedServer),
            ("X-Forwarded-Port", FieldKind::Other),
            ("MAX-forwards", FieldKind::MaxForwards),
            ("HTTP2-Settings", FieldKind::Http2Settings),
        ] {
            assert_eq!(FieldKind::of(name.as_bytes()), want, "{name:?}");
        }
    }

    #[test]
    fn numbers_are_digits_and_nothing_else() {
        for (text, want) in [
            ("0", Some(0)),
            ("5", Some(5)),
            ("00000000000000000000000000000005", Some(5)),
            ("9223372036854775807", Some(i64::MAX as u64)),
            ("9223372036854775808", None),
            ("18446744073709551621", None),
            ("99999999999999999999999999999999999999", None),
            ("", None),
            ("+5", None),
            ("-5", None),
            (" 5", None),
            ("5 ", None),
            ("5.0", None),
            ("0x5", None),
            ("5abc", None),
            ("5, 5", None),
            ("\u{b}5", None),
        ] {
            assert_eq!(number(text.as_bytes()), want, "{text:?}");
        }
    }

    #[test]
    fn values_are_found_in_lines_up_to_the_empty_one() {
        let section = b"HTTP/1.1 200 A: B\r\nA: 1\r\na:\t2 \r\nAB: 3\r\nb:\r\n\r\nA: 4\r\n";
        for (name, want) in
            [("A", &["1", "2"][..]), ("ab", &["3"]), ("B", &[""]), ("C", &[]), ("HTTP/1.1 200 ", &[])]
        {
            let values: Vec<_> = values_in(section, name).map(String::from_utf8_lossy).collect();
            assert_eq!(values, want, "{name}");
        }
        for section in [&b""[..], b"\r\n", b"A: 1", b"\r\nA: 1\r\n"] {
            assert_eq!(values_in(section, "A").count(), 0, "{section:?}");
        }
    }

    #[test]
    fn lists_lose_blanks_and_empty_members() {
        let list: Vec<&[u8]> = members(b" a ,,\tb c\t, ").collect();
        assert_eq!(list, [&b"a"[..], b"b c"]);
        assert_eq!(members(b"").count(), 0);
    }
}
