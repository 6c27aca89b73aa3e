//! A client of HTTP/1.1 that costs little beside what it measures: whole requests that were made before, and responses of which the
//! head is read as far as their length.

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Room for the responses of the engine, which are short here.
const BUFFER_BYTES: usize = 16 * 1024;

/// One connection, kept alive.
#[derive(Debug)]
pub(super) struct HttpClient {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl HttpClient {
    pub(super) async fn connect(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(BUFFER_BYTES) })
    }

    /// Sends a whole request and reads its response, which must be a success with a `Content-Length`.
    pub(super) async fn ask(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if let Some((head, body)) = split_head(&self.buffer) {
                let length = response_length(head)?;
                if body.len() >= length {
                    return Ok(());
                }
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the connection ended within a response");
            }
        }
    }

    /// Sends a whole request, the response to which goes on.
    pub(super) async fn open(mut self, request: &[u8]) -> anyhow::Result<TcpStream> {
        self.stream.write_all(request).await?;
        Ok(self.stream)
    }
}

/// Head and body, once the head is complete.
pub(super) fn split_head(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some((&bytes[..end], &bytes[end + 4..]))
}

/// The value of a header, whose name is compared without case.
pub(super) fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let head = std::str::from_utf8(head).ok()?;
    let mut fields = head.split("\r\n").filter_map(|line| line.split_once(':'));
    fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// The length of the body behind the head of a successful response.
fn response_length(head: &[u8]) -> anyhow::Result<usize> {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    if !line.starts_with(b"HTTP/1.1 2") {
        bail!("expected a success, got {}", String::from_utf8_lossy(line));
    }
    header(head, "content-length")
        .context("a response without a length")?
        .parse()
        .context("a response's length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_ends_where_its_length_says_and_must_be_a_success() {
        let response = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nContent-Length: 5\r\n\r\nhel";
        let (head, body) = split_head(response).unwrap();
        assert_eq!((response_length(head).unwrap(), body), (5, &b"hel"[..]));
        assert!(split_head(&response[..40]).is_none());
        let refused = response_length(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0").unwrap_err();
        assert!(refused.to_string().contains("503"), "{refused}");
        assert!(response_length(b"HTTP/1.1 200 OK").is_err());
    }
}
