//! Bytes of bodies that pass without being looked at: how many may, and that they did.
//!
//! Only where what comes in is what goes out: a length that was told on both sides. `mpm::splice` moves them; an
//! exchange that is told of them stands where it would if they had been handed in.

use super::{Exchange, Expect, Stage};
use crate::proxy::rewrite::Encoding;

impl Exchange {
    /// How many bytes of the backend's, from the next one on, may go to the client unseen.
    #[must_use]
    pub fn response_unseen(&self) -> u64 {
        match (self.stage, &self.encoding) {
            (Stage::Body, Encoding::Length(_)) => self.response.plain(),
            _ => 0,
        }
    }

    /// `count` bytes of the response, at most [`Exchange::response_unseen`], are on their way to the client.
    pub fn response_passed(&mut self, count: u64) {
        debug_assert!(count <= self.response_unseen(), "no more than may pass");
        self.response.pass(count);
        self.record.body_sent += count;
        if self.response.is_done() {
            // Told by its length: nothing is to be said at its end.
            self.stage = Stage::Over;
        }
    }

    /// How many bytes of the client's, from the next one on, may go to the backend unseen.
    #[must_use]
    pub fn request_unseen(&self) -> u64 {
        if !matches!(self.stage, Stage::Head | Stage::Body)
            || self.request_chunked
            || matches!(self.expect, Expect::Waiting | Expect::Declined)
        {
            return 0;
        }
        // A length above LimitRequestBody has been refused with its head; should one get here, it is looked at.
        let plain = self.request.plain();
        if self.body_limit.is_some_and(|limit| self.body_seen.saturating_add(plain) > limit) {
            0
        } else {
            plain
        }
    }

    /// `count` bytes of the request's body, at most [`Exchange::request_unseen`], are on their way to the backend.
    pub fn request_passed(&mut self, count: u64) {
        debug_assert!(count <= self.request_unseen(), "no more than may pass");
        self.request.pass(count);
        self.body_seen += count;
    }
}
