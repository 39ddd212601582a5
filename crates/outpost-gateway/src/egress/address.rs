//! Which addresses are on the public internet, and what hides in those that carry others.
//!
//! Sources: the registries of special-purpose addresses of IANA (RFC 6890 and its successors), RFC 4291 (mapped,
//! compatible), 3056 (6to4), 4380 (Teredo), 6052 and 8215 (NAT64), 5214 (ISATAP), and the documents of the clouds on
//! their metadata services. For version 6 only what is assigned as global unicast is public; anything new is
//! not, until it is listed here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::EgressReason;
use super::policy::EgressError;

/// Version 4 ranges that are not public.
const PRIVATE_V4: [(Ipv4Addr, u32); 14] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Where hosts of clouds are told their credentials: all of link-local, Alibaba, Azure, Oracle.
const METADATA_V4: [(Ipv4Addr, u32); 4] = [
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(100, 100, 100, 200), 32),
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(192, 0, 0, 192), 32),
];

/// The same in version 6: AWS (all of its services there), Google, and link-local.
const METADATA_V6: [(Ipv6Addr, u32); 3] = [
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
];

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    address: IpAddr,
    bits: u32,
}

impl Cidr {
    /// Whether the address is in it. Version 4 and 6 never meet here.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(net), IpAddr::V4(address)) => in_v4(address, (net, self.bits)),
            (IpAddr::V6(net), IpAddr::V6(address)) => in_v6(address, (net, self.bits)),
            _ => false,
        }
    }
}

impl FromStr for Cidr {
    type Err = EgressError;

    fn from_str(text: &str) -> Result<Self, EgressError> {
        let bad = || EgressError::BadCidr(text.escape_debug().to_string());
        let (address, bits) = text.split_once('/').ok_or_else(bad)?;
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let bits: u32 = bits.parse().map_err(|_| bad())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        if bits > most { Err(bad()) } else { Ok(Self { address, bits }) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn in_v4(address: Ipv4Addr, (net, bits): (Ipv4Addr, u32)) -> bool {
    let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
    (u32::from(address) ^ u32::from(net)) & mask == 0
}

fn in_v6(address: Ipv6Addr, (net, bits): (Ipv6Addr, u32)) -> bool {
    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    (u128::from(address) ^ u128::from(net)) & mask == 0
}

/// Whether a connection may go to an address. `allowed` are ranges that the operator allows though they are not
/// public; they open no metadata service.
pub(crate) fn judge(address: IpAddr, allowed: &[Cidr]) -> Result<(), EgressReason> {
    let mut carried = vec![address];
    if let IpAddr::V6(v6) = address {
        carried.extend(embedded(v6).into_iter().flatten().map(IpAddr::V4));
    }
    if carried.iter().any(|address| is_metadata(*address)) {
        return Err(EgressReason::Metadata);
    }
    if allowed.iter().any(|cidr| cidr.contains(address)) {
        return Ok(());
    }
    let public = carried.iter().all(|address| match address {
        IpAddr::V4(v4) => PRIVATE_V4.iter().all(|range| !in_v4(*v4, *range)),
        IpAddr::V6(v6) => is_public_v6(*v6),
    });
    if public { Ok(()) } else { Err(EgressReason::PrivateAddress) }
}

fn is_metadata(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => METADATA_V4.iter().any(|range| in_v4(v4, *range)),
        IpAddr::V6(v6) => METADATA_V6.iter().any(|range| in_v6(v6, *range)),
    }
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let documentation = [
        (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
        (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
    ];
    let [first, second, ..] = address.segments();
    let global = first & 0xe000 == 0x2000 && !documentation.iter().any(|net| in_v6(address, *net));
    // What 64:ff9b::/96 leads to was judged by the address it carries.
    let nat64 = (first, second) == (0x64, 0xff9b) && address.segments()[2..6] == [0; 4];
    global || nat64
}

/// Version 4 addresses inside a version 6 one, in any form that something on the way could unpack.
fn embedded(address: Ipv6Addr) -> [Option<Ipv4Addr>; 4] {
    let segments = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    let last = v4(segments[6], segments[7]);
    let low = match segments {
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] => Some(last),
        [0, 0, 0, 0, 0xffff, 0, ..] => Some(last),
        [0x64, 0xff9b, ..] => Some(last),
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => Some(last),
        _ => None,
    };
    let six_to_four = (segments[0] == 0x2002).then(|| v4(segments[1], segments[2]));
    let teredo = segments[0] == 0x2001 && segments[1] == 0;
    let server = teredo.then(|| v4(segments[2], segments[3]));
    let client = teredo.then(|| v4(!segments[6], !segments[7]));
    [low, six_to_four, server, client]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn verdict(text: &str) -> Result<(), EgressReason> {
        judge(text.parse().unwrap(), &[])
    }

    #[test]
    fn only_the_public_internet_is_reached() {
        for good in
            ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::1.1.1.1", "2002:101:101::1"]
        {
            assert_eq!(verdict(good), Ok(()), "{good}");
        }
        let private = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fc00::1",
            "fd12::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "3fff::1",
            "100::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "::ffff:0:10.0.0.1",
            "2002:7f00:1::1",
            "2002:a00:1::",
            "2001:0:a00:1::",
            "2001:0:101:101:0:0:80ff:fffe",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1.1.1.1",
            "2606::5efe:10.0.0.1",
            "2606::200:5efe:192.168.0.1",
        ];
        for bad in private {
            assert_eq!(verdict(bad), Err(EgressReason::PrivateAddress), "{bad}");
        }
    }

    #[test]
    fn metadata_is_never_reached() {
        let metadata = [
            "169.254.169.254",
            "169.254.170.2",
            "169.254.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fe80::1",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "2002:a9fe:a9fe::1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "2001:0:0:0:0:0:5601:5601",
            "2001:0:a9fe:a9fe::",
        ];
        let all: Vec<Cidr> = ["0.0.0.0/0", "::/0"].map(|text| text.parse().unwrap()).into();
        for bad in metadata {
            assert_eq!(verdict(bad), Err(EgressReason::Metadata), "{bad}");
            assert_eq!(judge(bad.parse().unwrap(), &all), Err(EgressReason::Metadata), "{bad}");
        }
    }

    #[test]
    fn an_operator_opens_a_range_and_no_other() {
        let allowed: Vec<Cidr> =
            ["10.1.0.0/16", "fd12::/16"].map(|text| text.parse().unwrap()).into();
        for (address, good) in
            [("10.1.2.3", true), ("10.2.2.3", false), ("fd12::1", true), ("::ffff:10.1.2.3", false)]
        {
            assert_eq!(judge(address.parse().unwrap(), &allowed).is_ok(), good, "{address}");
        }
        for bad in ["10.0.0.0", "10.0.0.0/33", "x/8", "::/129", "10.0.0.0/-1", ""] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_form_of_an_address_is_judged_milder_than_the_address(v4 in any::<u32>()) {
            let plain = Ipv4Addr::from(v4);
            let (high, low) = ((v4 >> 16) as u16, v4 as u16);
            let forms = [
                plain.to_ipv6_mapped(),
                plain.to_ipv6_compatible(),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2001, 0, 0x101, 0x101, 0, 0, !high, !low),
            ];
            for form in forms {
                if let Err(reason) = judge(plain.into(), &[]) {
                    prop_assert_eq!(judge(form.into(), &[]), Err(reason), "{}", form);
                }
            }
        }
    }
}
