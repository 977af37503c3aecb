//! The floor: a bare axum server that sends the same bytes to whoever asks, in pieces that all of them share. It reads no log,
//! decides nothing and copies nothing.
//!
//! `floor ADDRESS FILE LINES`: sends FILE, so many lines a piece, and then keeps the stream open.

use anyhow::bail;
use axum::{
    Router,
    body::{Body, Bytes},
    routing::get,
};
use futures::{StreamExt as _, stream};
use std::{convert::Infallible, sync::Arc};

/// The process.
pub fn main(args: &[String]) -> anyhow::Result<()> {
    let [address, file, lines] = args else { bail!("floor ADDRESS FILE LINES") };
    let text = Bytes::from(std::fs::read(file)?);
    let lines: usize = lines.parse()?;
    let ends: Vec<usize> = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    let mut from = 0;
    let pieces: Arc<[Bytes]> = ends
        .chunks(lines)
        .filter_map(|some| some.last())
        .map(|end| {
            let piece = text.slice(from..*end);
            from = *end;
            piece
        })
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let answer = move || {
            let pieces = Arc::clone(&pieces);
            let sent = stream::iter(0..pieces.len()).map(move |n| Ok::<_, Infallible>(pieces[n].clone()));
            async { Body::from_stream(sent.chain(stream::pending())) }
        };
        let listener = tokio::net::TcpListener::bind(address).await?;
        axum::serve(listener, Router::new().route("/", get(answer))).await?;
        Ok(())
    })
}
