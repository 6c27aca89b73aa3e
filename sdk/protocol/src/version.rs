//! Which protocol is spoken: the ALPN name and the version range of the hello.

/// The ALPN protocol name (RFC 7301) of every Levada connection.
pub const ALPN: &[u8] = b"levada/1";

/// The newest protocol version that this build speaks.
pub const PROTOCOL_VERSION: u16 = 1;

/// The oldest protocol version that this build still speaks.
pub const PROTOCOL_VERSION_MIN: u16 = 1;
