//! The proxy to other hosts, with real sockets and real clients on loopback.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use outpost_gateway::egress::{
    EgressFloor, EgressGrant, EgressLevel, EgressPolicy, EgressReason, Resolve, Resolving,
};
use outpost_gateway::gateway::GatewayEvent;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Open, Raw, RawUpstream, SOON, loopback, open_with, raw_request};

/// Every name leads to loopback, but some lead to where they should not.
#[derive(Debug, Default)]
struct Names {
    asked: AtomicU32,
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let good = IpAddr::V4(Ipv4Addr::LOCALHOST);
            match name {
                "private.test" => Ok(vec![good, [10, 0, 0, 1].into()]),
                "metadata.test" => Ok(vec![[169, 254, 169, 254].into()]),
                // Public at first, and another address when it is asked again.
                "rebind.test" if asked > 0 => Ok(vec![[169, 254, 169, 254].into()]),
                "nowhere.test" => Err(io::Error::other("no such name")),
                _ => Ok(vec![good]),
            }
        })
    }
}

const HELLO_TO_SERVER_TEST: &[u8] = b"\x16\x03\x01\x00\x48\x01\x00\x00\x44\x03\x03\
    00000000000000000000000000000000\x00\x00\x02\x13\x01\x01\x00\x00\x19\
    \x00\x00\x00\x10\x00\x0e\x00\x00\x0bserver.test\x00\x0a\x00\x01\x00";

async fn opened(allow: &[String], tls_port: Option<u16>, bytes_max: Option<u64>) -> Open {
    let allow = allow.iter().map(|rule| rule.parse().unwrap()).collect();
    let policy = EgressPolicy { level: EgressLevel::Custom, allow, ..EgressPolicy::default() };
    let private = vec!["127.0.0.0/8".parse().unwrap()];
    let floor = EgressFloor { private, ..EgressFloor::default() };
    let mut grant = EgressGrant::new(policy, floor);
    grant.resolver = Arc::new(Names::default());
    grant.tls_ports.extend(tls_port);
    grant.bytes_max = bytes_max;
    open_with("http://127.0.0.1:9", |it| it.with_egress(grant)).await
}

/// A server that sends back what it gets; its port.
async fn echo() -> u16 {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = socket.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    port
}

/// A tunnel to `target`, and what was answered.
async fn connect(open: &Open, target: &str) -> (TcpStream, String) {
    let mut socket = TcpStream::connect(open.addr).await.unwrap();
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = async {
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(socket.read_u8().await.unwrap());
        }
    };
    tokio::time::timeout(SOON, read).await.unwrap();
    (socket, String::from_utf8(answer).unwrap())
}

async fn round_trip(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    socket.write_all(bytes).await?;
    let mut back = vec![0; bytes.len()];
    tokio::time::timeout(SOON, socket.read_exact(&mut back)).await??;
    assert_eq!(back, bytes);
    Ok(())
}

async fn denied(open: &mut Open) -> (String, u16, EgressReason, Option<String>) {
    match open.event().await {
        GatewayEvent::EgressDenied { host, port, reason, suggested_rule, .. } => {
            (host, port, reason, suggested_rule)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_tunnel_opens_what_is_allowed_and_a_new_policy_cuts_it() {
    let port = echo().await;
    let mut open = opened(&[format!("server.test:{port}")], None, None).await;
    let (mut socket, answer) = connect(&open, &format!("Server.Test.:{port}")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    round_trip(&mut socket, b"hello").await.unwrap();
    open.session.set_egress(EgressPolicy::default());
    assert_eq!(socket.read(&mut [0; 8]).await.unwrap_or(0), 0);
    assert_eq!(denied(&mut open).await.2, EgressReason::NotAllowed);
    assert!(connect(&open, &format!("server.test:{port}")).await.1.starts_with("HTTP/1.1 403"));
    open.session.shutdown().await;
}

#[tokio::test]
async fn the_end_of_the_session_cuts_tunnels() {
    let port = echo().await;
    let open = opened(&[format!("server.test:{port}")], None, None).await;
    let (mut socket, _) = connect(&open, &format!("server.test:{port}")).await;
    round_trip(&mut socket, b"hello").await.unwrap();
    open.session.shutdown().await;
    assert_eq!(socket.read(&mut [0; 8]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_refusal_names_the_rule_and_is_not_repeated_to_the_reader() {
    let mut open = opened(&[], None, None).await;
    for _ in 0..25 {
        let request = "CONNECT registry.example:443 HTTP/1.1\r\nHost: registry.example:443\r\n\r\n";
        let answer = raw_request(open.addr, request, "--allow-host registry.example`").await;
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("A human can allow it"));
    }
    let event = denied(&mut open).await;
    let rule = Some("registry.example".to_owned());
    assert_eq!(event, ("registry.example".into(), 443, EgressReason::NotAllowed, rule));
    let event = open.event().await;
    assert!(matches!(event, GatewayEvent::EgressDenied { count: 10, .. }), "{event:?}");
    assert!(open.events.try_recv().is_err());
    assert_eq!(open.session.stats().denials, 25);
}

#[tokio::test]
async fn what_must_never_be_reached_is_not() {
    let rules = ["*.test:80,443", "127.0.0.1:80", "a.test:25"].map(str::to_owned);
    let mut open = opened(&rules, None, None).await;
    let cases = [
        ("private.test:443", EgressReason::PrivateAddress),
        ("metadata.test:443", EgressReason::Metadata),
        ("169.254.169.254:80", EgressReason::Metadata),
        ("metadata.google.internal:80", EgressReason::Metadata),
        ("10.0.0.1:443", EgressReason::PrivateAddress),
        ("[::1]:80", EgressReason::PrivateAddress),
        ("[::ffff:169.254.169.254]:80", EgressReason::Metadata),
        ("2130706433:80", EgressReason::BadHost),
        ("0x7f.1:80", EgressReason::BadHost),
        ("0177.0.0.1:80", EgressReason::BadHost),
        ("user@a.test:443", EgressReason::BadHost),
        ("a.test:22", EgressReason::NotAllowed),
        ("127.0.0.2:80", EgressReason::NotAllowed),
    ];
    for (target, expected) in cases {
        let (_, answer) = connect(&open, target).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{target}: {answer}");
        assert_eq!(denied(&mut open).await.2, expected, "{target}");
    }
    assert!(connect(&open, "nowhere.test:443").await.1.starts_with("HTTP/1.1 502"));
    // A new answer to the same question changes nothing for the better.
    connect(&open, "rebind.test:443").await;
    assert_eq!(denied(&mut open).await.2, EgressReason::Metadata);
}

#[tokio::test]
async fn a_tunnel_with_tls_goes_to_the_host_it_was_opened_for() {
    let port = echo().await;
    let rules = [format!("server.test:{port}"), format!("other.test:{port}")];
    let mut open = opened(&rules, Some(port), None).await;
    let (mut socket, _) = connect(&open, &format!("server.test:{port}")).await;
    // The first message may come in pieces.
    for byte in &HELLO_TO_SERVER_TEST[..60] {
        socket.write_all(std::slice::from_ref(byte)).await.unwrap();
    }
    socket.write_all(&HELLO_TO_SERVER_TEST[60..]).await.unwrap();
    let mut back = vec![0; HELLO_TO_SERVER_TEST.len()];
    socket.read_exact(&mut back).await.unwrap();
    assert_eq!(back, HELLO_TO_SERVER_TEST);
    round_trip(&mut socket, b"more").await.unwrap();
    let cases = [
        ("other.test", HELLO_TO_SERVER_TEST, EgressReason::HostMismatch),
        ("server.test", b"GET / HTTP/1.1\r\n\r\n", EgressReason::NoServerName),
    ];
    for (host, first, expected) in cases {
        let (mut socket, answer) = connect(&open, &format!("{host}:{port}")).await;
        assert!(answer.starts_with("HTTP/1.1 200"));
        socket.write_all(first).await.unwrap();
        assert_eq!(socket.read(&mut [0; 8]).await.unwrap_or(0), 0);
        assert_eq!(denied(&mut open).await.2, expected, "{host}");
    }
}

#[tokio::test]
async fn plain_http_is_passed_on_without_keys_and_only_as_it_says() {
    let reply =
        b"HTTP/1.1 302 Found\r\nlocation: http://elsewhere.test/\r\ncontent-length: 2\r\n\r\nok";
    let upstream = RawUpstream::start(vec![Raw::Send(reply.to_vec())]).await;
    let port = upstream.url.rsplit(':').next().unwrap().to_owned();
    let mut open = opened(&[format!("server.test:{port}")], None, None).await;
    let get = |host: &str, more: &str| {
        format!("GET http://server.test:{port}/a?b=c HTTP/1.1\r\nHost: {host}\r\n{more}\r\n")
    };
    let host = format!("server.test:{port}");
    let keys =
        "authorization: Bearer x\r\nx-api-key: x\r\nproxy-authorization: x\r\naccept: */*\r\n";
    let answer = raw_request(open.addr, &get(&host, keys), "ok").await;
    assert!(
        answer.starts_with("HTTP/1.1 302") && answer.contains("location: http://elsewhere.test/")
    );
    let head = upstream.heads().remove(0).to_lowercase();
    assert!(head.starts_with("get /a?b=c http/1.1\r\n") && head.contains("accept: */*"), "{head}");
    assert!(head.contains(&format!("host: {host}\r\n")));
    for gone in ["authorization", "x-api-key"] {
        assert!(!head.contains(gone), "{head}");
    }
    for (request, expected) in [
        (get("other.test", ""), EgressReason::HostMismatch),
        (get(&host, &format!("host: {host}\r\n")), EgressReason::HostMismatch),
        (get(&host, &format!("x-leak: a{}b\r\n", open.handle)), EgressReason::HandleInRequest),
        (
            "GET http://127.0.0.1/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".into(),
            EgressReason::NotAllowed,
        ),
        (
            "GET https://server.test/ HTTP/1.1\r\nHost: server.test\r\n\r\n".into(),
            EgressReason::BadHost,
        ),
    ] {
        let answer = raw_request(open.addr, &request, expected.as_str()).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{request}: {answer}");
        // The second mismatch of the same host is counted, not told.
        if !request.contains(&format!("host: {host}\r\n")) {
            assert_eq!(denied(&mut open).await.2, expected, "{request}");
        }
    }
    assert_eq!(upstream.heads().len(), 1);
}

#[tokio::test]
async fn bytes_and_tunnels_are_bounded() {
    let port = echo().await;
    let mut open = opened(&[format!("server.test:{port}")], None, Some(100)).await;
    let target = format!("server.test:{port}");
    let mut tunnels = Vec::new();
    for _ in 0..outpost_gateway::egress::TUNNELS_MAX {
        tunnels.push(connect(&open, &target).await.0);
    }
    assert!(connect(&open, &target).await.1.starts_with("HTTP/1.1 503"));
    assert!(round_trip(&mut tunnels[0], &[7; 200]).await.is_err());
    assert_eq!(denied(&mut open).await.2, EgressReason::BytesUsedUp);
    assert!(connect(&open, &target).await.1.starts_with("HTTP/1.1 403"));
}

#[tokio::test]
async fn curl_goes_through_it() {
    let reply = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
    let upstream = RawUpstream::start(vec![Raw::Send(reply.to_vec())]).await;
    let port = upstream.url.rsplit(':').next().unwrap();
    let open = opened(&[format!("server.test:{port}")], None, None).await;
    for tunnel in [true, false] {
        let mut curl = tokio::process::Command::new("curl");
        curl.args(["-sS", "--max-time", "20", "-x", &open.url("")]);
        curl.args(tunnel.then_some("--proxytunnel"));
        curl.arg(format!("http://server.test:{port}/"));
        match curl.output().await {
            Ok(output) => assert_eq!(output.stdout, b"hello", "{output:?}"),
            // Without curl there is nothing to see here; the other tests speak for themselves.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound),
        }
    }
}
