//! What to do with a request.

pub mod router;
