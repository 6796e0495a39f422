//! The kernel: the only room with libc and `unsafe`.

pub mod shm;
