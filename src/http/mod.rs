//! Bytes to messages and back: HTTP/1.1 and 1.0 as RFC 9112 has it, read strictly, written plainly.
//!
//! Pure: no socket, clock, thread or random number. Nothing here keeps a byte of a message: heads are views
//! of the caller's buffer, and a body reader says which bytes of its input are data. Bytes off the network
//! never panic and never make anything grow without bound; every doubt is a [`Fault`], because a proxy that
//! guesses differently from its neighbours is a smuggling hole.
//!
//! | file | its question |
//! |---|---|
//! | `scan` | where does a head end, of which the bytes come bit by bit, and is it within its limits? |
//! | `request`, `response` | what does this head say? |
//! | `target` | which form has this request-target, and is this an authority? |
//! | `field` | which field is this, and where are its name and value? |
//! | `options` | what does Connection want: close, keep-alive, upgrade, and which fields end here? |
//! | `framing` | where does the body end (RFC 9112, 6.3)? |
//! | `chunked` | how is a chunk's size written and read? |
//! | `body` | which of these bytes are body? |
//! | `diagnose` | what was wrong with a head that did not parse? |
//! | `error` | which status does that earn? |
//! | `reply` | what do we say when we answer ourselves? |
//! | `date` | what is the time in a Date field? |
//!
//! A request's way in: [`RequestHead::find`] until it finds the end, [`RequestHead::of`] on those bytes,
//! [`Body::for_request`] and [`Body::next`] until [`Piece::End`]. A response's way back is the same with
//! [`ResponseHead::find`] and [`Body::for_response`].

mod body;
pub mod chunked;
mod date;
mod diagnose;
mod error;
mod field;
mod framing;
mod options;
pub mod reply;
mod request;
mod response;
mod scan;
mod target;

pub use body::{Body, Piece, TRAILER_LIMITS};
pub use date::DateStamp;
pub use error::{Fault, Reason, Side};
pub use field::{Field, FieldKind, FieldSlots, Fields, MAX_TRAILERS, is_token, members, number, values_in};
pub use framing::{RequestBody, ResponseBody};
pub use request::{Expectation, FoundRequest, Method, RequestHead, Version};
pub use response::{Asked, FoundResponse, ResponseHead};
pub use scan::{HeadKind, HeadLimits, HeadScan, MAX_FIELDS, MAX_HEAD};
pub use target::{TargetForm, is_authority, split_authority};
