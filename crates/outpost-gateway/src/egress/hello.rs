//! Finds the server's name in the first bytes of a TLS connection.
//!
//! Source: RFC 8446 (records, ClientHello) and RFC 6066 (server_name). Bounded: [`HELLO_BYTES_MAX`]. Absent: the
//! name inside encrypted ClientHellos; the outer one counts, since that is whom the client asked.

use crate::egress::host::Host;

/// Most bytes that are waited for. Hellos with keys against quantum computers have some 2,000.
pub(crate) const HELLO_BYTES_MAX: usize = 16 * 1024;
/// Most records a hello may be spread over.
const RECORDS_MAX: usize = 32;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
#[doc(hidden)]
pub enum Hello {
    /// The beginning of one; more bytes are needed.
    More,
    /// A ClientHello, and the name in it, if it is a plain one.
    Name(Option<String>),
    /// Something else.
    NotTls,
}

/// Reads what has arrived so far.
#[must_use]
#[doc(hidden)]
pub fn server_name(bytes: &[u8]) -> Hello {
    let mut message = Vec::new();
    let mut rest = bytes;
    for _ in 0..RECORDS_MAX {
        match message_in(&message) {
            Some(hello) => return hello,
            None if rest.is_empty() => return more(bytes),
            None => {}
        }
        // type, version, length
        if rest[0] != HANDSHAKE || rest.get(1).is_some_and(|major| *major != 3) {
            return Hello::NotTls;
        }
        let Some((header, after)) = rest.split_at_checked(5) else { return more(bytes) };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length == 0 || length > HELLO_BYTES_MAX {
            return Hello::NotTls;
        }
        let there = length.min(after.len());
        message.extend_from_slice(&after[..there]);
        rest = &after[there..];
    }
    message_in(&message).unwrap_or(Hello::NotTls)
}

fn more(bytes: &[u8]) -> Hello {
    if bytes.len() < HELLO_BYTES_MAX { Hello::More } else { Hello::NotTls }
}

/// Reads a handshake message; `None` while it is not whole.
fn message_in(message: &[u8]) -> Option<Hello> {
    let kind = message.first()?;
    if *kind != CLIENT_HELLO {
        return Some(Hello::NotTls);
    }
    let length = message.get(1..4)?;
    let length =
        usize::from(length[0]) << 16 | usize::from(length[1]) << 8 | usize::from(length[2]);
    if length > HELLO_BYTES_MAX {
        return Some(Hello::NotTls);
    }
    let body = message.get(4..4 + length)?;
    Some(client_hello(body).unwrap_or(Hello::NotTls))
}

fn client_hello(body: &[u8]) -> Option<Hello> {
    // version, random
    let mut rest = body.get(34..)?;
    take(&mut rest, 1)?; // session
    take(&mut rest, 2)?; // ciphers
    take(&mut rest, 1)?; // compression
    if rest.is_empty() {
        return Some(Hello::Name(None));
    }
    let mut extensions = take(&mut rest, 2)?;
    let mut name = None;
    let mut seen = false;
    while !extensions.is_empty() {
        let (kind, after) = extensions.split_at_checked(2)?;
        let kind = u16::from_be_bytes([kind[0], kind[1]]);
        extensions = after;
        let mut content = take(&mut extensions, 2)?;
        if kind == SERVER_NAME {
            // Twice would be read in two ways.
            if seen {
                return None;
            }
            seen = true;
            name = single_name(take(&mut content, 2)?)?;
        }
    }
    Some(Hello::Name(name))
}

/// The list's only name.
fn single_name(mut list: &[u8]) -> Option<Option<String>> {
    let (kind, after) = list.split_first()?;
    list = after;
    let name = take(&mut list, 2)?;
    if *kind != HOST_NAME || !list.is_empty() {
        return None;
    }
    let name = std::str::from_utf8(name).ok()?;
    Some(Host::parse(name).map(|host| host.to_string()))
}

/// A part that begins with its length in so many bytes.
fn take<'a>(rest: &mut &'a [u8], length_bytes: usize) -> Option<&'a [u8]> {
    let (length, after) = rest.split_at_checked(length_bytes)?;
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    let (part, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(part)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A hello with these extensions.
    fn hello(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut list = Vec::new();
        for (kind, content) in extensions {
            list.extend_from_slice(&kind.to_be_bytes());
            list.extend_from_slice(&(content.len() as u16).to_be_bytes());
            list.extend_from_slice(content);
        }
        let mut body = vec![3, 3];
        body.extend_from_slice(&[7; 32]);
        body.extend_from_slice(&[0, 0, 2, 0x13, 1, 1, 0]);
        body.extend_from_slice(&(list.len() as u16).to_be_bytes());
        body.extend_from_slice(&list);
        let mut message = vec![CLIENT_HELLO, 0];
        message.extend_from_slice(&(body.len() as u16).to_be_bytes());
        message.extend_from_slice(&body);
        message
    }

    fn names(names: &[&str]) -> (u16, Vec<u8>) {
        let mut list = Vec::new();
        for name in names {
            list.push(HOST_NAME);
            list.extend_from_slice(&(name.len() as u16).to_be_bytes());
            list.extend_from_slice(name.as_bytes());
        }
        let mut content = (list.len() as u16).to_be_bytes().to_vec();
        content.extend_from_slice(&list);
        (SERVER_NAME, content)
    }

    fn records(message: &[u8], size: usize) -> Vec<u8> {
        let record = |piece: &[u8]| {
            let mut record = vec![HANDSHAKE, 3, 1];
            record.extend_from_slice(&(piece.len() as u16).to_be_bytes());
            record.extend_from_slice(piece);
            record
        };
        message.chunks(size).flat_map(record).collect()
    }

    #[test]
    fn the_name_is_found_in_any_pieces_and_nothing_before_it_is_whole() {
        let message = hello(&[(10, vec![1, 2]), names(&["Example.com"]), (0xfe0d, vec![9; 40])]);
        for size in [message.len(), 20, 60] {
            let bytes = records(&message, size);
            for end in 0..bytes.len() {
                assert_eq!(server_name(&bytes[..end]), Hello::More, "{end}");
            }
            assert_eq!(server_name(&bytes), Hello::Name(Some("example.com".into())));
        }
    }

    #[test]
    fn what_is_no_single_name_is_none() {
        let name = |extensions: &[(u16, Vec<u8>)]| server_name(&records(&hello(extensions), 9999));
        assert_eq!(name(&[]), Hello::Name(None));
        assert_eq!(name(&[names(&["a b"])]), Hello::Name(None));
        assert_eq!(name(&[names(&["a.com", "b.com"])]), Hello::NotTls);
        assert_eq!(name(&[names(&["a.com"]), names(&["b.com"])]), Hello::NotTls);
        assert_eq!(name(&[names(&[])]), Hello::NotTls);
        for other in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"SSH-2.0",
            &[0x16, 2],
            &[0x16, 3, 1, 0, 0],
            &[0x16, 3, 1, 0, 1, 2],
        ] {
            assert_eq!(server_name(other), Hello::NotTls, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = server_name(&bytes);
            let mut tls = vec![HANDSHAKE, 3, 1, (bytes.len() >> 8) as u8, bytes.len() as u8];
            tls.extend_from_slice(&bytes);
            let _ = server_name(&tls);
        }

        #[test]
        fn no_change_makes_it_panic(at in any::<proptest::sample::Index>(), byte in any::<u8>(), size in 1..200_usize) {
            let mut bytes = records(&hello(&[names(&["example.com"])]), size);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = server_name(&bytes);
        }
    }
}
