//! Free ports, for programs that have to be told one before they listen.

use moorline::clock;
use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
    },
};

/// Below those that the kernel gives to whoever listens anywhere or connects (32,768 and up): what is free stays free until it
/// is listened on, and while who listened there is away.
const FIRST: u16 = 16_384;
const COUNT: u16 = 16_384;

/// Somewhere else in every process, so that two runs of the tests do not try the same ones.
static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new((clock::system().new_id().as_u128() & 0xffff) as u16));

/// A free port of loopback, which no other test of this process gets.
pub fn free() -> u16 {
    loop {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// The same with the address.
pub fn address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free()).into()
}
