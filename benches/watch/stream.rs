//! A watch as a client reads it that costs as little as can be: a socket, the chunks of HTTP/1.1 taken off, and what is in them
//! handed on as it comes. One buffer a thread, none a connection.

use anyhow::{Context as _, bail, ensure};
use std::{cell::RefCell, io::ErrorKind, net::SocketAddr};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

const BUFFER: usize = 64 << 10;
/// Longest head of an answer.
const HEAD_MAX: usize = 16 << 10;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER]);
}

/// Where the reading stands.
#[derive(Debug)]
enum At {
    /// Within the head, so far.
    Head(Vec<u8>),
    /// Within the size of a chunk, so far.
    Size(usize),
    /// Within a chunk, of which so much is to come.
    Data(usize),
    /// Behind a chunk, before its line ends.
    AfterData,
    /// Nothing more comes.
    Over,
}

/// An open watch.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
    at: At,
}

impl Stream {
    /// Asks, and does not wait for the answer.
    pub async fn open(address: SocketAddr, path: &str) -> anyhow::Result<Self> {
        let mut tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        tcp.write_all(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n").as_bytes()).await?;
        Ok(Self { tcp, at: At::Head(Vec::new()) })
    }

    /// Reads what is there, or waits for something, and hands on what is in the body. False when the stream is over.
    pub async fn read(&mut self, mut take: impl FnMut(&[u8])) -> anyhow::Result<bool> {
        loop {
            self.tcp.readable().await?;
            let at = &mut self.at;
            let tcp = &self.tcp;
            let more = SCRATCH.with_borrow_mut(|buffer| match tcp.try_read(buffer) {
                Ok(0) => Ok(Some(false)),
                Ok(got) => decode(at, &buffer[..got], &mut take).map(|()| Some(true)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
                Err(error) => Err(error.into()),
            })?;
            if let Some(more) = more {
                return Ok(more && !matches!(self.at, At::Over));
            }
        }
    }

    /// Reads until the head has come.
    pub async fn answered(&mut self, mut take: impl FnMut(&[u8])) -> anyhow::Result<()> {
        while matches!(self.at, At::Head(_)) {
            ensure!(self.read(&mut take).await?, "the server hung up before it answered");
        }
        Ok(())
    }
}

fn decode(at: &mut At, mut bytes: &[u8], take: &mut impl FnMut(&[u8])) -> anyhow::Result<()> {
    while !bytes.is_empty() {
        *at = match at {
            At::Head(head) => {
                let before = head.len();
                head.extend_from_slice(bytes);
                ensure!(head.len() <= HEAD_MAX + BUFFER, "a head that does not end");
                let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(()) };
                let text = String::from_utf8_lossy(&head[..end]).to_ascii_lowercase();
                ensure!(text.starts_with("http/1.1 200"), "{text}");
                ensure!(text.contains("transfer-encoding: chunked"), "an answer that is no stream: {text}");
                bytes = &bytes[end + 4 - before..];
                At::Size(0)
            }
            At::Size(size) => {
                let (byte, rest) = bytes.split_first().context("it is not empty")?;
                bytes = rest;
                match byte {
                    b'\r' => At::Size(*size),
                    b'\n' if *size == 0 => At::Over,
                    b'\n' => At::Data(*size),
                    digit => match char::from(*digit).to_digit(16) {
                        Some(digit) => At::Size(*size * 16 + usize::try_from(digit)?),
                        None => bail!("a chunk whose size has {digit:?} in it"),
                    },
                }
            }
            At::Data(left) => {
                let (data, rest) = bytes.split_at(bytes.len().min(*left));
                take(data);
                bytes = rest;
                if *left == data.len() { At::AfterData } else { At::Data(*left - data.len()) }
            }
            At::AfterData => {
                let (byte, rest) = bytes.split_first().context("it is not empty")?;
                bytes = rest;
                if *byte == b'\n' { At::Size(0) } else { At::AfterData }
            }
            At::Over => return Ok(()),
        };
    }
    Ok(())
}
