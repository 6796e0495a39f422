//! The backend's half of an exchange: its response, from its bytes to the client's.

use super::{Context, Exchange, Expect, Failure, Shown, Stage, WEBSOCKET};
use crate::buf::Gather;
use crate::http::{Asked, Body, FieldSlots, HeadLimits, Piece, ResponseBody, ResponseHead, Version, chunked};
use crate::proxy::outcome::MAX_INTERIMS;
use crate::proxy::rewrite::{self, Encoding, ResponsePlan, body_piece};

impl Exchange {
    /// Takes bytes of the backend; `at` is where `input` begins in this turn's buffer. Returns how many were
    /// consumed; what is for the client goes into `out`. `observe` is shown what may be logged.
    ///
    /// # Errors
    /// The failure that ends the response; the caller hands it to [`Exchange::fail`].
    pub fn response_bytes(
        &mut self,
        input: &[u8],
        at: usize,
        slots: &mut FieldSlots,
        cx: &Context<'_>,
        observe: &mut dyn FnMut(Shown<'_>),
        out: &mut Gather,
    ) -> Result<usize, Failure> {
        let mut used = 0;
        loop {
            match self.stage {
                Stage::Tunnel => {
                    out.push_input(at + used..at + input.len());
                    return Ok(input.len());
                }
                Stage::Over => return Ok(used),
                Stage::Head => {
                    let rest = &input[used..];
                    let limits = &HeadLimits::RESPONSE;
                    let found = match ResponseHead::find(&mut self.scan, rest, slots, limits) {
                        Ok(Some(found)) => found,
                        Ok(None) => return Ok(used),
                        Err(fault) => return Err(Failure::Malformed(fault)),
                    };
                    self.scan.reset();
                    let asked = Asked { method: self.method, upgrade: self.upgrade };
                    let head = ResponseHead::of(&rest[..found.end], found, slots, limits, asked)
                        .map_err(Failure::Malformed)?;
                    self.response_head(&head, cx, observe, out)?;
                    used += found.end;
                }
                Stage::Body => {
                    let (consumed, piece) = self.response.next(&input[used..]).map_err(Failure::Malformed)?;
                    let base = used;
                    used += consumed;
                    match piece {
                        Piece::Data(range) => {
                            self.record.body_sent += range.len() as u64;
                            let range = base + range.start..base + range.end;
                            body_piece(input, range, at, self.encoding == Encoding::Chunked, out);
                        }
                        Piece::Trailers(range) => {
                            let section = &input[base + range.start..base + range.end];
                            observe(Shown::Trailers(section));
                            if self.encoding == Encoding::Chunked && self.wants_trailers {
                                out.push(chunked::LAST_SIZE_LINE);
                                let options = &self.response_options;
                                out.push_with(|owned| rewrite::trailers(section, options, owned));
                                self.stage = Stage::Over;
                            }
                        }
                        Piece::End => self.end_response(out),
                        Piece::More => return Ok(used),
                    }
                    if self.response.is_done() {
                        self.end_response(out);
                    }
                }
            }
        }
    }

    fn end_response(&mut self, out: &mut Gather) {
        if self.stage == Stage::Body {
            if self.encoding == Encoding::Chunked {
                out.push(chunked::LAST_CHUNK);
            }
            self.stage = Stage::Over;
        }
    }

    fn response_head(
        &mut self,
        head: &ResponseHead<'_, '_>,
        cx: &Context<'_>,
        observe: &mut dyn FnMut(Shown<'_>),
        out: &mut Gather,
    ) -> Result<(), Failure> {
        let host = cx.config.host(self.host);
        let via = self.forwarding.via;
        if (100..200).contains(&head.status) && head.status != 101 {
            self.interims += 1;
            if self.interims > MAX_INTERIMS {
                return Err(Failure::TooManyInterims);
            }
            self.keep_backend &= head.persistent;
            let awaited = self.expect == Expect::Waiting;
            if head.status == 100 {
                self.expect = if awaited { Expect::Settled } else { self.expect };
            }
            // A 100 that the client does not wait for (any more) would only confuse it.
            if self.version != Version::Http10 && (head.status != 100 || awaited) {
                out.push_with(|owned| rewrite::interim_head(head, via, &host.name, owned));
            }
            return Ok(());
        }
        if head.status == 101 && !head.upgrade.is_some_and(|name| name.eq_ignore_ascii_case(WEBSOCKET)) {
            return Err(Failure::WrongProtocol);
        }
        if self.expect == Expect::Waiting {
            // Nobody may say 100 behind this. A backend that succeeds without having seen the body may still want
            // it; one that redirects or refuses does not, and the client need not send it (RFC 9110, 10.1.1).
            self.expect = if head.status < 300 { Expect::Settled } else { Expect::Declined };
        }
        self.record.upstream_status = head.status;
        self.record.status = head.status;
        self.head.clear();
        if head.status == 101 {
            self.stage = Stage::Tunnel;
            self.encoding = Encoding::UntilClose;
            self.keep_backend = false;
            self.keep_client = false;
        } else {
            self.response = Body::for_response(head.body);
            self.stage = Stage::Body;
            self.keep_backend &= head.persistent;
            self.encoding = match head.body {
                // A 204 may not tell a length, not even 0 (RFC 9110, 8.6).
                ResponseBody::Empty => Encoding::Empty(head.length.filter(|_| head.status != 204)),
                ResponseBody::Length(length) => Encoding::Length(length),
                ResponseBody::Chunked | ResponseBody::UntilClose if self.version == Version::Http10 => {
                    Encoding::UntilClose
                }
                ResponseBody::Chunked | ResponseBody::UntilClose => Encoding::Chunked,
            };
            // A client that has not sent all of its body gets no second request read from this connection:
            // nobody knows whether it will still send the rest.
            self.keep_client &= self.encoding != Encoding::UntilClose && self.request.is_done();
            self.keep_client &= cx.may_keep;
        }
        let trailers = self.encoding == Encoding::Chunked && self.wants_trailers;
        if trailers {
            rewrite::options(head.fields, &mut self.response_options);
        }
        let reverse = (!self.origin.is_empty()).then_some(|value: &[u8], out: &mut Vec<u8>| {
            cx.router.rewrite_location(cx.config, self.host, &self.reverse, value, &self.origin, out)
        });
        let mut plan = ResponsePlan {
            encoding: self.encoding,
            client: self.version,
            keep: self.keep_client,
            persistence: self.persistence,
            via,
            name: &host.name,
            date: cx.date,
            trailers,
            upgrade: head.upgrade.filter(|_| self.stage == Stage::Tunnel),
            reverse,
        };
        out.push_with(|owned| {
            let start = owned.len();
            rewrite::response_head(head, &mut plan, owned);
            observe(Shown::Head(&owned[start..]));
        });
        if self.response.is_done() {
            self.end_response(out);
        }
        Ok(())
    }

    /// The backend closed its side.
    ///
    /// # Errors
    /// [`Failure::Closed`] unless the response may end so.
    pub fn response_ended(&mut self, out: &mut Gather) -> Result<(), Failure> {
        match self.stage {
            Stage::Over => Ok(()),
            Stage::Tunnel => {
                self.stage = Stage::Over;
                Ok(())
            }
            Stage::Head => Err(Failure::Closed),
            Stage::Body => {
                self.response.end_of_input().map_err(|_| Failure::Closed)?;
                self.keep_backend = false;
                self.end_response(out);
                Ok(())
            }
        }
    }
}
