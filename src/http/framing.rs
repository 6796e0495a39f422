//! Where does a message's body end? RFC 9112, section 6.3, rule by rule.
//!
//! Decides; reads nothing. Every doubt is an error, because a proxy that guesses differently from its
//! backend is a smuggling hole: two lengths are refused even if equal, a length beside an encoding is
//! refused in both directions, and the one encoding we take is exactly `chunked`.

use super::error::Reason;
use super::field::{number, trim};

/// How a request's body is delimited.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RequestBody {
    /// No framing field: no body.
    Empty,
    /// Content-Length, in bytes; it may be 0, which is worth saying again to the backend.
    Length(u64),
    /// Transfer-Encoding: chunked.
    Chunked,
}

/// How a response's body is delimited.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ResponseBody {
    /// None, by the status or because the request was HEAD, whatever the fields say.
    Empty,
    /// Content-Length, in bytes.
    Length(u64),
    /// Transfer-Encoding: chunked.
    Chunked,
    /// Everything until the backend closes.
    UntilClose,
}

/// What the framing fields of one head say, gathered field by field.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Framing {
    /// Content-Length.
    pub length: Option<u64>,
    /// Codings named, over all lines.
    codings: u32,
    /// How many of them are `chunked`.
    chunked: u32,
    /// Whether the last one is.
    ends_chunked: bool,
    /// Whether there is a Transfer-Encoding at all, be it empty.
    pub encoded: bool,
    /// Whether a list has an empty member, which readers treat in different ways.
    gap: bool,
}

impl Framing {
    /// Adds a Content-Length line.
    pub fn add_length(&mut self, value: &[u8]) -> Result<(), Reason> {
        if self.length.is_some() {
            return Err(Reason::TwoLengths);
        }
        self.length = Some(number(value).ok_or(Reason::Length)?);
        Ok(())
    }

    /// Adds a Transfer-Encoding line; several are one list.
    pub fn add_encoding(&mut self, value: &[u8]) {
        self.encoded = true;
        for coding in value.split(|byte| *byte == b',').map(trim) {
            self.gap |= coding.is_empty();
            self.codings += 1;
            self.ends_chunked = coding.eq_ignore_ascii_case(b"chunked");
            self.chunked += u32::from(self.ends_chunked);
        }
    }

    /// Rules 3 to 5: whether the fields fit each other at all.
    fn check(&self, is_http_11: bool) -> Result<(), Reason> {
        if !self.encoded {
            return Ok(());
        }
        if self.length.is_some() {
            return Err(Reason::LengthAndEncoding);
        }
        if !is_http_11 {
            return Err(Reason::EncodingInHttp10);
        }
        if self.gap || !self.ends_chunked || self.chunked > 1 {
            return Err(Reason::Encoding);
        }
        if self.codings > 1 {
            return Err(Reason::UnknownEncoding);
        }
        Ok(())
    }

    /// The body of a request.
    pub fn request(&self, is_http_11: bool) -> Result<RequestBody, Reason> {
        self.check(is_http_11)?;
        Ok(match (self.encoded, self.length) {
            (true, _) => RequestBody::Chunked,
            (false, Some(length)) => RequestBody::Length(length),
            (false, None) => RequestBody::Empty,
        })
    }

    /// The body of a response with `status`, to a HEAD request or another one.
    pub fn response(&self, is_http_11: bool, status: u16, to_head: bool) -> Result<ResponseBody, Reason> {
        self.check(is_http_11)?;
        if status < 200 && (self.encoded || self.length.is_some_and(|length| length > 0)) {
            return Err(Reason::FramedInterim);
        }
        Ok(match (self.encoded, self.length) {
            _ if to_head || status < 200 || status == 204 || status == 304 => ResponseBody::Empty,
            (true, _) => ResponseBody::Chunked,
            (false, Some(length)) => ResponseBody::Length(length),
            (false, None) => ResponseBody::UntilClose,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gathers lines that begin with `L:` (a length) or `E:` (an encoding).
    fn gather(lines: &[&str]) -> Result<Framing, Reason> {
        let mut framing = Framing::default();
        for line in lines {
            match line.split_at(2) {
                ("L:", value) => framing.add_length(value.as_bytes())?,
                (_, value) => framing.add_encoding(value.as_bytes()),
            }
        }
        Ok(framing)
    }

    #[test]
    fn a_request_body_is_framed_one_way_or_refused() {
        use RequestBody::{Chunked, Empty, Length};
        for (lines, is_http_11, want) in [
            (&[][..], true, Ok(Empty)),
            (&["L:0"], true, Ok(Length(0))),
            (&["L:5"], false, Ok(Length(5))),
            (&["L:"], true, Err(Reason::Length)),
            (&["L:5, 5"], true, Err(Reason::Length)),
            (&["L:5", "L:5"], true, Err(Reason::TwoLengths)),
            (&["L:5", "L:x"], true, Err(Reason::TwoLengths)),
            (&["E:chunked"], true, Ok(Chunked)),
            (&["E:CHUNKED"], true, Ok(Chunked)),
            (&["E:chunked"], false, Err(Reason::EncodingInHttp10)),
            (&["E:chunked", "L:5"], true, Err(Reason::LengthAndEncoding)),
            (&["L:5", "E:xchunked"], true, Err(Reason::LengthAndEncoding)),
            (&["E:", "L:5"], true, Err(Reason::LengthAndEncoding)),
            (&["E:"], true, Err(Reason::Encoding)),
            (&["E:,chunked"], true, Err(Reason::Encoding)),
            (&["E:chunked,"], true, Err(Reason::Encoding)),
            (&["E:chunked, chunked"], true, Err(Reason::Encoding)),
            (&["E:chunked", "E:chunked"], true, Err(Reason::Encoding)),
            (&["E:chunked, identity"], true, Err(Reason::Encoding)),
            (&["E:chunked", "E:x"], true, Err(Reason::Encoding)),
            (&["E:chunked;a=b"], true, Err(Reason::Encoding)),
            (&["E:chu nked"], true, Err(Reason::Encoding)),
            (&["E:\u{b}chunked"], true, Err(Reason::Encoding)),
            (&["E:identity"], true, Err(Reason::Encoding)),
            (&["E:gzip, chunked"], true, Err(Reason::UnknownEncoding)),
            (&["E:gzip", "E:chunked"], true, Err(Reason::UnknownEncoding)),
        ] {
            let got = gather(lines).and_then(|framing| framing.request(is_http_11));
            assert_eq!(got, want, "{lines:?}");
        }
    }

    #[test]
    fn a_response_body_depends_on_status_and_method_too() {
        use ResponseBody::{Chunked, Empty, Length, UntilClose};
        for (lines, is_http_11, status, to_head, want) in [
            (&[][..], true, 200, false, Ok(UntilClose)),
            (&[], true, 200, true, Ok(Empty)),
            (&[], true, 204, false, Ok(Empty)),
            (&[], true, 304, false, Ok(Empty)),
            (&[], true, 100, false, Ok(Empty)),
            (&["L:0"], true, 200, false, Ok(Length(0))),
            (&["L:5"], true, 200, false, Ok(Length(5))),
            (&["L:5"], true, 200, true, Ok(Empty)),
            (&["L:5"], true, 304, false, Ok(Empty)),
            (&["L:5"], true, 204, false, Ok(Empty)),
            (&["L:five"], true, 200, true, Err(Reason::Length)),
            (&["L:0"], true, 103, false, Ok(Empty)),
            (&["L:5"], true, 103, false, Err(Reason::FramedInterim)),
            (&["E:chunked"], true, 103, false, Err(Reason::FramedInterim)),
            (&["E:chunked"], true, 200, false, Ok(Chunked)),
            (&["E:chunked"], true, 200, true, Ok(Empty)),
            (&["E:chunked"], true, 204, false, Ok(Empty)),
            (&["E:chunked"], false, 200, false, Err(Reason::EncodingInHttp10)),
            (&["E:chunked", "L:5"], true, 200, false, Err(Reason::LengthAndEncoding)),
            (&["E:foo, chunked"], true, 200, false, Err(Reason::UnknownEncoding)),
            (&["E:chunked, identity"], true, 200, false, Err(Reason::Encoding)),
        ] {
            let got = gather(lines).and_then(|framing| framing.response(is_http_11, status, to_head));
            assert_eq!(got, want, "{lines:?} {status}");
        }
    }
}
