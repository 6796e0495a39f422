//! A reader of HTTP/1 messages that shares no line with the program: RFC 9112 as plainly as it can be written,
//! slow, allocating, and on whole messages only.
//!
//! It is what the program is held against, in both directions: what came in must be read alike by both, and what
//! goes out must be read here as the one message that was meant. [`Taste::Received`] lets pass what the program
//! documents that it takes (empty lines before a request line, blanks behind a chunk's size, chunk extensions);
//! [`Taste::Sent`] lets nothing pass that the program has no business to write.

use std::net::Ipv6Addr;

/// How strict to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Taste {
    /// Bytes that somebody else wrote.
    Received,
    /// Bytes that the program wrote.
    Sent,
}

/// Where a body ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    Nothing,
    Length(u64),
    Chunked,
    UntilClose,
}

/// Names in lower case, values without the blanks around them.
pub type Fields = Vec<(String, Vec<u8>)>;

/// A message, or as much of it as there is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Message {
    pub method: String,
    pub target: Vec<u8>,
    pub status: u16,
    pub is_http_11: bool,
    pub fields: Fields,
    pub framing: Option<Framing>,
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// Whether it is complete (with [`Framing::UntilClose`], never by itself).
    pub whole: bool,
    /// Its length in bytes, as far as it got.
    pub length: usize,
}

impl Message {
    /// The values of all fields called `name`, which is in lower case.
    pub fn all(&self, name: &str) -> Vec<&[u8]> {
        self.fields.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_slice()).collect()
    }

    /// Whether one of the lists called `name` has `member` (in lower case).
    pub fn lists(&self, name: &str, member: &str) -> bool {
        self.all(name).iter().any(|value| list(value).any(|one| one.eq_ignore_ascii_case(member.as_bytes())))
    }

    /// Names that Connection mentions, in lower case.
    pub fn nominated(&self) -> Vec<String> {
        let lists = self.all("connection");
        lists.iter().flat_map(|value| list(value)).map(lower).collect()
    }

    /// Whether the connection may be used again as far as this message says.
    pub fn persists(&self) -> bool {
        !self.lists("connection", "close") && (self.is_http_11 || self.lists("connection", "keep-alive"))
    }
}

/// What a reading came to: a message, nothing yet, or why not.
pub type Reading = Result<Option<Message>, &'static str>;

/// Reads one request at the beginning of `bytes`: `None` if its head is not complete.
pub fn request(bytes: &[u8], taste: Taste) -> Reading {
    let mut start = 0;
    while taste == Taste::Received && bytes[start..].starts_with(b"\r\n") {
        start += 2;
    }
    if start > 8 {
        return Err("empty lines");
    }
    let Some((lines, head)) = head(&bytes[start..])? else { return Ok(None) };
    let (first, lines) = lines.split_first().expect("at least one");
    let parts: Vec<&[u8]> = first.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts[..] else { return Err("request line") };
    if !is_token(method) {
        return Err("method");
    }
    let is_http_11 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" if taste == Taste::Received => false,
        _ => return Err("version"),
    };
    let mut message = Message {
        method: String::from_utf8_lossy(method).into_owned(),
        target: target.to_vec(),
        is_http_11,
        fields: fields(lines)?,
        ..Message::default()
    };
    target_form(method, target)?;
    let hosts = message.all("host");
    if hosts.len() > 1 || (is_http_11 && hosts.is_empty()) {
        return Err("not one Host");
    }
    if hosts.first().is_some_and(|host| !is_authority(host)) {
        return Err("Host");
    }
    message.framing = Some(match coding(&message)? {
        Some(framing) => framing,
        None => Framing::Nothing,
    });
    body(&mut message, bytes, start + head, taste)?;
    Ok(Some(message))
}

/// Reads one response at the beginning of `bytes`, to a HEAD or to another method.
pub fn response(bytes: &[u8], to_head: bool, taste: Taste) -> Reading {
    let Some((lines, head)) = head(bytes)? else { return Ok(None) };
    let (first, lines) = lines.split_first().expect("at least one");
    let is_http_11 = match first.get(..9) {
        Some(b"HTTP/1.1 ") => true,
        Some(b"HTTP/1.0 ") if taste == Taste::Received => false,
        _ => return Err("version"),
    };
    let code = first.get(9..12).filter(|code| code.iter().all(u8::is_ascii_digit)).ok_or("status")?;
    match first.get(12) {
        None if taste == Taste::Received => {}
        Some(b' ') => {}
        _ => return Err("status line"),
    }
    if first.iter().any(|byte| is_control(*byte)) {
        return Err("reason");
    }
    let mut message = Message {
        status: String::from_utf8_lossy(code).parse().expect("three digits"),
        is_http_11,
        fields: fields(lines)?,
        ..Message::default()
    };
    let status = message.status;
    if !(100..600).contains(&status) {
        return Err("status");
    }
    let said = coding(&message)?;
    let is_bare = matches!(said, None | Some(Framing::Length(0)));
    if status < 200 && !is_bare || taste == Taste::Sent && (status < 200 || status == 204) && said.is_some() {
        return Err("a body where none may be");
    }
    message.framing = Some(match said {
        _ if to_head || status < 200 || status == 204 || status == 304 => Framing::Nothing,
        Some(framing) => framing,
        None => Framing::UntilClose,
    });
    body(&mut message, bytes, head, taste)?;
    Ok(Some(message))
}

/// Lines without their ends, up to an empty one, and the length of all.
type Block<'b> = (Vec<&'b [u8]>, usize);

/// The lines of a head, at least one; `None` if its empty line has not come.
fn head(bytes: &[u8]) -> Result<Option<Block<'_>>, &'static str> {
    let mut lines = Vec::new();
    let mut at = 0;
    loop {
        let Some(end) = bytes[at..].iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let Some(line) = bytes[at..at + end].strip_suffix(b"\r") else { return Err("bare LF") };
        if line.contains(&b'\r') {
            return Err("bare CR");
        }
        at += end + 1;
        match line {
            [] if lines.is_empty() => return Err("no first line"),
            [] => return Ok(Some((lines, at))),
            _ => lines.push(line),
        }
    }
}

/// Field lines taken apart.
pub fn fields(lines: &[&[u8]]) -> Result<Fields, &'static str> {
    let mut fields = Vec::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':').ok_or("no colon")?;
        let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
        if !is_token(name) {
            return Err("field name");
        }
        if value.iter().any(|byte| is_control(*byte)) {
            return Err("field value");
        }
        fields.push((lower(name), value.to_vec()));
    }
    Ok(fields)
}

/// What Content-Length and Transfer-Encoding come to: RFC 9112, 6.1 to 6.3, with every doubt an error.
fn coding(message: &Message) -> Result<Option<Framing>, &'static str> {
    let (lengths, codings) = (message.all("content-length"), message.all("transfer-encoding"));
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(None),
        ([length], []) => {
            let digits = std::str::from_utf8(length).map_err(|_| "length")?;
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err("length");
            }
            let length: u64 = digits
                .trim_start_matches('0')
                .parse()
                .or(if digits.bytes().all(|d| d == b'0') { Ok(0) } else { Err("length") })?;
            if length > i64::MAX as u64 { Err("length") } else { Ok(Some(Framing::Length(length))) }
        }
        ([], [coding]) if message.is_http_11 && coding.eq_ignore_ascii_case(b"chunked") => {
            Ok(Some(Framing::Chunked))
        }
        _ => Err("framing"),
    }
}

fn body(message: &mut Message, bytes: &[u8], head: usize, taste: Taste) -> Result<(), &'static str> {
    let rest = &bytes[head..];
    let used = match message.framing {
        None | Some(Framing::Nothing) => {
            message.whole = true;
            0
        }
        Some(Framing::Length(length)) => {
            let used = usize::try_from(length).unwrap_or(usize::MAX).min(rest.len());
            message.body = rest[..used].to_vec();
            message.whole = used as u64 == length;
            used
        }
        Some(Framing::UntilClose) => {
            message.body = rest.to_vec();
            rest.len()
        }
        Some(Framing::Chunked) => {
            let read = chunks(rest, taste)?;
            (message.body, message.trailers, message.whole) = (read.data, read.trailers, read.whole);
            read.length
        }
    };
    message.length = head + used;
    Ok(())
}

/// A chunked body as far as it goes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Chunks {
    pub data: Vec<u8>,
    pub trailers: Fields,
    pub whole: bool,
    /// The input up to the last byte that was understood.
    pub length: usize,
}

/// Reads a chunked body.
pub fn chunks(bytes: &[u8], taste: Taste) -> Result<Chunks, &'static str> {
    let mut read = Chunks::default();
    loop {
        let rest = &bytes[read.length..];
        let Some((size, line)) = size_line(rest, taste)? else { return Ok(read) };
        if size == 0 {
            let Some((lines, end)) = section(&rest[line..])? else { return Ok(read) };
            read.trailers = fields(&lines)?;
            read.length += line + end;
            read.whole = true;
            return Ok(read);
        }
        let data = &rest[line..];
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let here = size.min(data.len());
        read.data.extend_from_slice(&data[..here]);
        read.length += line + here;
        let end = &data[here..];
        if end.len() < 2 {
            if here == size && end == b"\r" || end.is_empty() {
                return Ok(read);
            }
            return Err("chunk end");
        }
        if !end.starts_with(b"\r\n") {
            return Err("chunk end");
        }
        read.length += 2;
    }
}

/// A chunk's size and the length of its line; `None` if that is not complete, though sound so far.
fn size_line(bytes: &[u8], taste: Taste) -> Result<Option<(u64, usize)>, &'static str> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let rest = &bytes[digits..];
    if digits == 0 && !rest.is_empty() {
        return Err("chunk size");
    }
    if digits > 16 {
        return Err("chunk size");
    }
    if taste == Taste::Sent && digits > 1 && bytes[0] == b'0' {
        return Err("a padded chunk size");
    }
    let size = if digits == 0 {
        0
    } else {
        u64::from_str_radix(std::str::from_utf8(&bytes[..digits]).expect("ASCII"), 16).expect("16 digits")
    };
    if size > i64::MAX as u64 {
        return Err("chunk size");
    }
    let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return extension(rest, taste, false).map(|()| None);
    };
    match rest.get(end..end + 2) {
        Some(b"\r\n") => {}
        None if rest[end] == b'\r' => {
            extension(&rest[..end], taste, true)?;
            return Ok(None);
        }
        _ => return Err("bare CR or LF in a chunk's line"),
    }
    extension(&rest[..end], taste, true)?;
    Ok(Some((size, digits + end + 2)))
}

/// What may stand between a chunk's size and its CRLF.
fn extension(text: &[u8], taste: Taste, is_whole: bool) -> Result<(), &'static str> {
    if text.is_empty() {
        return Ok(());
    }
    if taste == Taste::Sent {
        return Err("a chunk extension");
    }
    let blanks = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    if blanks > 10 {
        return Err("blanks behind a chunk size");
    }
    match text.get(blanks) {
        None => return Ok(()),
        Some(b';') => {}
        Some(_) => return Err("chunk size"),
    }
    if text.iter().any(|byte| is_control(*byte)) {
        return Err("chunk extension");
    }
    let (mut quoted, mut escaped) = (false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
    }
    if is_whole && quoted { Err("an open quote") } else { Ok(()) }
}

/// The lines of a trailer section, which may have none.
fn section(bytes: &[u8]) -> Result<Option<Block<'_>>, &'static str> {
    if bytes.starts_with(b"\r\n") { Ok(Some((Vec::new(), 2))) } else { head(bytes) }
}

fn target_form(method: &[u8], target: &[u8]) -> Result<(), &'static str> {
    let is_clean = std::str::from_utf8(target).is_ok()
        && target.iter().all(|byte| *byte > b' ' && *byte != 0x7f && *byte != b'#');
    let text = String::from_utf8_lossy(target);
    let is_fine = match text.as_bytes() {
        _ if method == b"CONNECT" => {
            let (host, port) = text.rsplit_once(':').unwrap_or(("", ""));
            !host.is_empty() && !port.is_empty() && is_authority(target)
        }
        [b'/', ..] => true,
        b"*" => method == b"OPTIONS",
        _ => match text.get(..7) {
            Some(scheme) if scheme.eq_ignore_ascii_case("http://") => {
                let authority = text[7..].split(['/', '?']).next().unwrap_or("");
                !authority.is_empty() && !authority.starts_with(':') && is_authority(authority.as_bytes())
            }
            _ => false,
        },
    };
    if is_clean && is_fine { Ok(()) } else { Err("target") }
}

/// `uri-host [":" port]`, or nothing.
pub fn is_authority(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<Ipv6Addr>().is_ok() => ("ipv6", port),
            _ => return false,
        },
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_port = match port.strip_prefix(':') {
        None => port.is_empty(),
        Some(_) if host.is_empty() => false,
        Some("") => true,
        Some(digits) => {
            digits.bytes().all(|byte| byte.is_ascii_digit())
                && digits.trim_start_matches('0').len() <= 5
                && format!("0{digits}").parse::<u64>().is_ok_and(|port| port < 65536)
        }
    };
    is_port && is_reg_name(host)
}

fn is_reg_name(host: &str) -> bool {
    let mut bytes = host.bytes();
    while let Some(byte) = bytes.next() {
        let is_fine = match byte {
            b'%' => (0..2).all(|_| bytes.next().is_some_and(|digit| digit.is_ascii_hexdigit())),
            _ => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte),
        };
        if !is_fine {
            return false;
        }
    }
    true
}

/// The members of a comma-separated list that are not empty.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim).filter(|member| !member.is_empty())
}

fn lower(name: &[u8]) -> String {
    String::from_utf8_lossy(name).to_ascii_lowercase()
}

fn trim(value: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().take_while(|byte| is_blank(byte)).count();
    let end = value[start..].iter().rev().take_while(|byte| is_blank(byte)).count();
    &value[start..value.len() - end]
}

fn is_token(name: &[u8]) -> bool {
    !name.is_empty()
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn is_control(byte: u8) -> bool {
    byte != b'\t' && (byte < 0x20 || byte == 0x7f)
}
