//! Requests by HTTP as fast as they go, over some connections with one in flight each, on a thread of their own.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::http_client::HttpClient;
use crate::{clock::Clock, endpoint::Endpoint, producer::Budget};

/// What is sent, and where.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) address: String,
    pub(super) request: Bytes,
    pub(super) connections: u16,
    /// How much the thread gives way, as of nice(2): 0 where it is what is measured.
    pub(super) niceness: i32,
}

impl Load {
    /// Sends what the budget allows; returns the nanoseconds that took.
    pub(super) fn spawn(self, budget: Arc<Budget>, clock: Clock) -> anyhow::Result<Endpoint<u64>> {
        Endpoint::spawn("http-load", move || async move {
            if self.niceness > 0 {
                // Where this is not allowed, the measured side only has to share more.
                let _niceness = rustix::process::nice(self.niceness);
            }
            let mut clients = Vec::new();
            for _ in 0..self.connections {
                clients.push(HttpClient::connect(&self.address).await?);
            }
            let begun = clock.now();
            budget.begin(begun);
            let mut running = JoinSet::<anyhow::Result<()>>::new();
            for mut client in clients {
                let (request, budget) = (self.request.clone(), Arc::clone(&budget));
                running.spawn(async move {
                    while budget.take(1, clock.now()) > 0 {
                        client.ask(&request).await?;
                    }
                    Ok(())
                });
            }
            while let Some(ended) = running.join_next().await {
                ended??;
            }
            Ok(clock.now() - begun)
        })
    }
}

/// A whole request.
pub(super) fn request(line: &str, headers: &str, body: &[u8]) -> Bytes {
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let head = format!("{line} HTTP/1.1\r\nhost: localhost\r\n{headers}{length}\r\n");
    [head.as_bytes(), body].concat().into()
}
