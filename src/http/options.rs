//! What does Connection want: close, keep-alive, upgrade, and which fields end here (RFC 9110, 7.6.1)?

use super::error::Reason;
use super::field::{FieldKind, Slot, members};

/// How many fields Connection may name before we doubt its good will: each one is looked for among all.
const MAX_NOMINATED: usize = 64;

/// The connection options that mean something to us.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Options {
    pub close: bool,
    pub keep_alive: bool,
    pub upgrade: bool,
}

impl Options {
    /// Reads every Connection field among `slots` and marks the fields they name as ending here. Host cannot
    /// be named away: what is forwarded needs one.
    pub fn read(bytes: &[u8], slots: &mut [Slot]) -> Result<Self, Reason> {
        let mut options = Self::default();
        let mut nominated = 0;
        for at in 0..slots.len() {
            if slots[at].kind != FieldKind::Connection {
                continue;
            }
            // Most say one thing, which need not be looked for commas.
            let value = slots[at].value(bytes);
            if options.take(value) {
                continue;
            }
            for option in members(value).filter(|option| !options.take(option)) {
                nominated += 1;
                if nominated > MAX_NOMINATED {
                    return Err(Reason::TooManyOptions);
                }
                for slot in slots.iter_mut() {
                    if slot.kind != FieldKind::Host && slot.name(bytes).eq_ignore_ascii_case(option) {
                        slot.hop = true;
                    }
                }
            }
        }
        Ok(options)
    }

    /// Whether `option` is one of ours, which it notes then.
    fn take(&mut self, option: &[u8]) -> bool {
        match option.len() {
            5 if option.eq_ignore_ascii_case(b"close") => self.close = true,
            7 if option.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
            10 if option.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
            _ => return false,
        }
        true
    }

    /// Whether the connection outlives the message as far as these options go (RFC 9112, 9.3).
    pub fn persistent(self, is_http_11: bool) -> bool {
        !self.close && (is_http_11 || self.keep_alive)
    }
}
