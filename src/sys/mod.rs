//! The kernel: the only room with libc and `unsafe`.
//!
//! Thin and boring on purpose. A function here asks the kernel one thing, retries what a signal interrupted,
//! and gives back a type that cannot be misread. What to do with the answer is decided on other floors.
//!
//! Every descriptor made here is close-on-exec from birth, and every socket non-blocking.

pub mod cells;
pub mod cgroup;
pub mod environment;
pub mod epoll;
pub mod fd;
pub mod heap;
pub mod limits;
pub mod lock;
pub mod memory;
pub mod passing;
pub mod poll;
pub mod privilege;
pub mod process;
pub mod random;
pub mod shm;
pub mod signal;
pub mod socket;
pub mod splice;
pub mod terminal;
pub mod text;
pub mod time;
pub mod title;
