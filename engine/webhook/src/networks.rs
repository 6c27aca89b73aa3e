//! Which addresses deliveries may be pushed to. Pure: it resolves and connects to nothing.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// A network: an address, and how many of its first bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Why a text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{got:?} is no network: expected an address and how many of its first bits count, such as 10.0.0.0/8 or fd00::/8"
)]
pub struct InvalidNetwork {
    got: String,
}

impl Network {
    const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), bits }
    }

    const fn v6(first: u16, second: u16, bits: u8) -> Self {
        Self { address: IpAddr::V6(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0)), bits }
    }

    /// True if the address is in the network; an IPv4 address in IPv6 clothes is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let differs = |bits: u32, difference: u128, all: u32| bits > 0 && difference >> (all - bits) != 0;
        let bits = u32::from(self.bits);
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                !differs(bits, u128::from(own.to_bits() ^ other.to_bits()), 32)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => !differs(bits, own.to_bits() ^ other.to_bits(), 128),
            _ => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let invalid = || InvalidNetwork { got: text.chars().take(80).collect() };
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address = address.parse::<IpAddr>().map_err(|_| invalid())?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(all), str::parse::<u8>).map_err(|_| invalid())?;
        if bits > all || (address.is_ipv6() && address.to_canonical().is_ipv4()) {
            return Err(invalid());
        }
        Ok(Self { address, bits })
    }
}

/// IPv4 addresses that nobody on the public internet has, by RFC 6890 and its successors, and one that a cloud's hosts answer on.
const NOT_PUBLIC_V4: [Network; 17] = [
    Network::v4(0, 0, 0, 0, 8),
    Network::v4(10, 0, 0, 0, 8),
    Network::v4(100, 64, 0, 0, 10),
    Network::v4(127, 0, 0, 0, 8),
    // Metadata of clouds is at 169.254.169.254.
    Network::v4(169, 254, 0, 0, 16),
    Network::v4(172, 16, 0, 0, 12),
    Network::v4(192, 0, 0, 0, 24),
    Network::v4(192, 0, 2, 0, 24),
    Network::v4(192, 31, 196, 0, 24),
    Network::v4(192, 88, 99, 0, 24),
    Network::v4(192, 168, 0, 0, 16),
    Network::v4(198, 18, 0, 0, 15),
    Network::v4(198, 51, 100, 0, 24),
    Network::v4(203, 0, 113, 0, 24),
    // The host's agent in Azure.
    Network::v4(168, 63, 129, 16, 32),
    Network::v4(224, 0, 0, 0, 4),
    Network::v4(240, 0, 0, 0, 4),
];

/// All that is given out of IPv6 to be reached globally.
const GLOBAL_V6: Network = Network::v6(0x2000, 0, 3);

/// What of it is not public: protocols, tunnels that hold an IPv4 address, documentation.
const NOT_PUBLIC_V6: [Network; 4] = [
    Network::v6(0x2001, 0, 23),
    Network::v6(0x2001, 0x0db8, 32),
    Network::v6(0x2002, 0, 16),
    Network::v6(0x3fff, 0, 20),
];

/// True for an address of the public internet.
pub fn is_public(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let is_in = |networks: &[Network]| networks.iter().any(|network| network.contains(address));
    match address {
        IpAddr::V4(_) => !is_in(&NOT_PUBLIC_V4),
        IpAddr::V6(_) => GLOBAL_V6.contains(address) && !is_in(&NOT_PUBLIC_V6),
    }
}

/// Networks that deliveries may be pushed to although they are not public.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allowed(Vec<Network>);

impl Allowed {
    /// These.
    #[must_use]
    pub fn new(networks: Vec<Network>) -> Self {
        Self(networks)
    }

    /// True if the address was named.
    fn names(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// True if anything on this machine may be reached.
    pub(crate) fn loopback(&self) -> bool {
        let is_loopback = |network: &Network| network.address.is_loopback();
        self.0.iter().any(is_loopback)
            || self.names(IpAddr::V4(Ipv4Addr::LOCALHOST))
            || self.names(IpAddr::V6(Ipv6Addr::LOCALHOST))
    }

    /// Checks one address that a connection would be made to.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub(crate) fn check(&self, address: IpAddr, is_plain: bool) -> Result<(), String> {
        let is_loopback = address.to_canonical().is_loopback();
        if is_plain && !(is_loopback && self.names(address)) {
            return Err(format!(
                "http to {address} is refused: expected https; http is for addresses of this machine alone, if they are \
                 named in push.allow"
            ));
        }
        if is_public(address) || self.names(address) {
            return Ok(());
        }
        Err(format!(
            "{address} is not an address of the public internet: expected one that is, or its network in the engine's \
             setting push.allow"
        ))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn allowed(networks: &[&str]) -> Allowed {
        Allowed::new(networks.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn public_addresses_are_these() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2001:4860:4860::8888",
            "2a00::1",
            "::ffff:1.1.1.1",
        ] {
            assert!(is_public(address(text)), "{text}");
        }
    }

    #[test]
    fn addresses_that_are_not_public_are_these() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.0",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "168.63.129.16",
            "169.254.0.0",
            "169.254.169.254",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:10::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(address(text)), "{text}");
        }
    }

    #[test]
    fn a_network_that_was_named_is_allowed_and_http_on_this_machine_alone() {
        let some = allowed(&["127.0.0.0/8", "10.1.0.0/16", "fd00::/8"]);
        for (text, https, http) in [
            ("127.0.0.1", true, true),
            ("::ffff:127.0.0.1", true, true),
            ("10.1.2.3", true, false),
            ("10.2.0.1", false, false),
            ("fd12::1", true, false),
            ("::1", false, false),
            ("1.1.1.1", true, false),
            ("169.254.169.254", false, false),
        ] {
            assert_eq!(some.check(address(text), false).is_ok(), https, "https {text}");
            assert_eq!(some.check(address(text), true).is_ok(), http, "http {text}");
        }
        let none = Allowed::default();
        assert!(none.check(address("127.0.0.1"), false).is_err() && !none.loopback() && some.loopback());
        assert!(allowed(&["::1/128"]).loopback() && allowed(&["0.0.0.0/0"]).loopback());
    }

    #[test]
    fn networks_are_written_as_an_address_and_bits() {
        for (text, shown) in
            [("10.0.0.0/8", "10.0.0.0/8"), ("127.0.0.1", "127.0.0.1/32"), ("fd00::/8", "fd00::/8")]
        {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), shown);
        }
        for text in
            ["", "/8", "10.0.0.0/33", "::/129", "10.0.0/8", "localhost", "10.0.0.0/-1", "::ffff:10.0.0.0/8"]
        {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_ipv4_address_is_as_public_in_ipv6_clothes(bits: u32) {
            let plain = Ipv4Addr::from_bits(bits);
            let mapped = IpAddr::V6(plain.to_ipv6_mapped());
            prop_assert_eq!(is_public(mapped), is_public(IpAddr::V4(plain)));
            // What the standard library knows not to be public is not.
            let known = plain.is_private() || plain.is_loopback() || plain.is_link_local() || plain.is_multicast()
                || plain.is_broadcast() || plain.is_documentation() || plain.is_unspecified();
            prop_assert!(!(known && is_public(mapped)), "{}", plain);
        }

        #[test]
        fn an_ipv6_address_that_is_known_not_to_be_public_is_not(bits: u128, high in 0_u16..) {
            let address = Ipv6Addr::from_bits(bits >> 16 | u128::from(high) << 112);
            let known = address.is_unicast_link_local() || address.is_unique_local() || address.is_multicast()
                || address.is_loopback() || address.is_unspecified();
            prop_assert!(!(known && is_public(IpAddr::V6(address))), "{}", address);
        }

        #[test]
        fn a_network_holds_exactly_what_begins_with_its_bits(own: u32, other: u32, bits in 0_u8..=32) {
            let network = Network { address: IpAddr::V4(Ipv4Addr::from_bits(own)), bits };
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            let expected = own & mask == other & mask;
            prop_assert_eq!(network.contains(IpAddr::V4(Ipv4Addr::from_bits(other))), expected);
            prop_assert!(network.contains(IpAddr::V4(Ipv4Addr::from_bits(own))));
            prop_assert_eq!(network.to_string().parse::<Network>(), Ok(network));
        }
    }
}
