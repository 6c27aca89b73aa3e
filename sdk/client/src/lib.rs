//! wip
#![allow(missing_docs)]
mod admin; mod client; mod clock; mod config; mod error; mod link; mod publisher; mod retry; mod session; mod stream; mod tasks; mod tls; mod transport;
mod reader { pub struct Reader; pub struct ReadOptions; impl Reader { pub async fn open(_: crate::link::Link, _: ReadOptions) -> Result<Self, crate::error::Error> { Ok(Self) } } }
mod subscriber { pub struct Subscriber; pub struct SubscribeOptions; impl Subscriber { pub async fn open(_: crate::link::Link, _: SubscribeOptions) -> Result<Self, crate::error::Error> { Ok(Self) } } }
