//! Networks and sockets: anything but the loopback and the gateway's listener.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};
use std::time::Duration;

use outpost_sandbox::attack;
use outpost_sandbox::{HOST_ROOT_INSIDE, Weakness as W};

use crate::attempt::{Attempt, Tries};
use crate::probe::{Bait, Probe, Proof};
use crate::verdict::Group::{Network, Sockets};

/// How long a connection to the host's loopback is waited for, milliseconds: it is made or refused at once.
const CONNECT_MILLIS_MAX: u64 = 2_000;

pub(super) const PROBES: &[Probe] = &[
    Probe::new(
        Network,
        "network.interfaces",
        "find an interface beside the loopback",
        interfaces,
        Proof::Weakened(&[W::Network]),
    ),
    Probe::new(
        Network,
        "network.route",
        "find a way to any other address",
        route,
        Proof::Weakened(&[W::Network]),
    ),
    Probe::new(
        Network,
        "network.host-loopback",
        "connect to a listener on the host's loopback",
        host_loopback,
        Proof::Weakened(&[W::Network]),
    ),
    Probe::new(
        Network,
        "network.raw",
        "open raw and packet sockets",
        raw,
        Proof::Weakened(&[W::Filter, W::Capabilities]),
    ),
    Probe::new(
        Network,
        "network.families",
        "open vsock, kernel crypto, netlink and other families that no namespace confines",
        families,
        Proof::Weakened(&[W::Filter]),
    ),
    Probe::new(
        Sockets,
        "socket.abstract",
        "connect to an abstract socket of the host",
        abstract_socket,
        Proof::Weakened(&[W::Network, W::Landlock]),
    ),
    Probe::new(
        Sockets,
        "socket.path",
        "connect to a socket by its path: a host program's, the launcher's, docker's, the bus's",
        path_socket,
        Proof::Weakened(&[W::HostRoot]),
    ),
];

fn interfaces(_: &Bait) -> Attempt {
    let mut tries = Tries::default();
    let devices = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    for line in devices.lines().skip(2) {
        let name = line.split(':').next().unwrap_or_default().trim();
        tries.add_found(name, name != "lo");
    }
    tries.end()
}

fn route(_: &Bait) -> Attempt {
    let mut tries = Tries::default();
    // Connecting a datagram socket sends nothing: it only looks for a route. The addresses: one for documentation
    // (RFC 5737), the metadata service of clouds, one in a private range, one for documentation (RFC 3849).
    for address in ["192.0.2.1:9", "169.254.169.254:80", "10.0.0.1:53", "[2001:db8::1]:9"] {
        let result = address.parse::<SocketAddr>().map_err(io::Error::other).and_then(|address| {
            let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            UdpSocket::bind(any)?.connect(address)
        });
        tries.add(address, result);
    }
    tries.end()
}

fn host_loopback(bait: &Bait) -> Attempt {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, bait.tcp_port));
    let wait = Duration::from_millis(CONNECT_MILLIS_MAX);
    Tries::one("connect", TcpStream::connect_timeout(&address, wait))
}

fn raw(_: &Bait) -> Attempt {
    let mut tries = Tries::default();
    tries.add("icmp", attack::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP));
    tries.add("raw", attack::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW));
    tries.add("packet", attack::socket(libc::AF_PACKET, libc::SOCK_RAW, 0));
    tries.end()
}

fn families(_: &Bait) -> Attempt {
    let mut tries = Tries::default();
    let stream = libc::SOCK_STREAM;
    for (name, family, kind, protocol) in [
        ("vsock", libc::AF_VSOCK, stream, 0),
        ("kernel crypto", libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
        ("netlink uevent", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_KOBJECT_UEVENT),
        ("netlink audit", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT),
        ("bluetooth", libc::AF_BLUETOOTH, libc::SOCK_RAW, 1),
        ("can", libc::AF_CAN, libc::SOCK_RAW, 1),
        ("tipc", libc::AF_TIPC, stream, 0),
        ("xdp", libc::AF_XDP, libc::SOCK_RAW, 0),
    ] {
        tries.add_filtered(name, attack::socket(family, kind, protocol));
    }
    tries.end()
}

fn abstract_socket(bait: &Bait) -> Attempt {
    let connect = UnixAddr::from_abstract_name(&bait.abstract_name)
        .and_then(|address| UnixStream::connect_addr(&address));
    Tries::one("connect", connect)
}

fn path_socket(bait: &Bait) -> Attempt {
    let mut tries = Tries::default();
    let known = [
        "/run/docker.sock",
        "/var/run/docker.sock",
        "/run/dbus/system_bus_socket",
        "/run/systemd/private",
    ];
    let ours = [bait.socket_path.as_str(), bait.launcher_socket.as_str()];
    for path in ours.into_iter().chain(known) {
        for way in
            [path.to_owned(), format!("{HOST_ROOT_INSIDE}{path}"), format!("/proc/1/root{path}")]
        {
            tries.add(&way, UnixStream::connect(&way));
        }
    }
    tries.end()
}
