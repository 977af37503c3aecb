//! A client that costs next to nothing: a connection that is kept, bytes that are ready, and a buffer for answers.

use anyhow::{Context as _, ensure};
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

/// A connection that is kept.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    /// Connects.
    pub fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 1 << 18] })
    }

    /// Sends a request, in parts, and reads the whole answer: its status and its body.
    pub fn ask(&mut self, parts: &[&[u8]]) -> anyhow::Result<(u16, &[u8])> {
        for part in parts {
            self.stream.write_all(part)?;
        }
        let mut end = 0;
        let (head, status, length) = loop {
            let got = self.stream.read(&mut self.buffer[end..])?;
            ensure!(got > 0, "the server hung up");
            end += got;
            let Some(at) = self.buffer[..end].windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&self.buffer[..at]).to_ascii_lowercase();
            let status = head.split(' ').nth(1).context("a status")?.parse()?;
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map(str::parse::<usize>);
            break (at + 4, status, length.transpose()?.context("an answer without its length")?);
        };
        ensure!(head + length <= self.buffer.len(), "an answer of {length} bytes");
        if end < head + length {
            self.stream.read_exact(&mut self.buffer[end..head + length])?;
        }
        Ok((status, &self.buffer[head..head + length]))
    }
}
