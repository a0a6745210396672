//! System calls, sockets, files; the only place with `unsafe`.

pub mod tcp;
