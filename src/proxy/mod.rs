//! What to do with a request: who gets it, what is said to whom, and what happens when nobody answers.
//!
//! Pure: times are arguments, wishes are values. `mpm` owns the sockets and obeys.
//!
//! | file | its question |
//! |---|---|
//! | `router` | which host is it for, and who answers? |
//! | `exchange` | what do request and response say, and what goes to whom? |
//! | `outcome` | what went wrong, and which status does that earn? |
//! | `session` | what does a client connection wait for, and until when? |
//! | `rewrite` | how do heads look when they leave us? |
//! | `pool` | which idle connection is used again? |
//! | `backend` | is it up? |

pub mod backend;
pub mod exchange;
pub mod outcome;
pub mod pool;
pub mod rewrite;
pub mod router;
pub mod session;
