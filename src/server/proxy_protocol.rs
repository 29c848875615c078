//! The header of the PROXY protocol, versions 1 and 2, which tells whose connection a proxy passes on
//! (haproxy.org, "The PROXY protocol").

use std::io;
use std::net::SocketAddr;

use ppp::{v1, v2};
use tokio::io::AsyncRead;

use super::prefixed::Prefixed;

/// The longest header of version 1, in bytes, with its end of line (§2.1).
const LONGEST_LINE: usize = 107;

/// The longest header of version 2 that is read, in bytes: room for addresses and what proxies add to them,
/// such as the client's certificate name.
const LONGEST_BINARY: usize = 4096;

/// What of a header of version 2 says how long it is: signature, command, family, and length (§2.2).
const FIXED_PART: usize = 16;

/// Why a connection does not begin with a header.
#[derive(Debug, thiserror::Error)]
pub enum InvalidHeader {
    /// The connection has failed.
    #[error("the connection has failed before its PROXY header was there")]
    Stream(#[from] io::Error),
    /// Something else comes first.
    #[error("the connection begins with no PROXY header")]
    Absent,
    /// Longer than any honest one.
    #[error("the PROXY header has too many bytes")]
    TooLong,
    /// Not as §2.1 has it.
    #[error("the PROXY header of version 1 is wrong")]
    Line(#[from] v1::BinaryParseError),
    /// Not as §2.2 has it.
    #[error("the PROXY header of version 2 is wrong")]
    Binary(#[from] v2::ParseError),
    /// Of a datagram, or of a socket on the proxy's own machine.
    #[error("the PROXY header is not one of a connection over TCP")]
    NotTcp,
}

/// Reads the header with which a connection begins, and takes it out. Gives whose the connection is; nothing
/// where the proxy speaks for itself, as in health checks, or does not know.
pub(super) async fn read<S: AsyncRead + Unpin>(
    stream: &mut Prefixed<S>,
) -> Result<Option<SocketAddr>, InvalidHeader> {
    let (source, length) = stream.look(LONGEST_BINARY, parse).await??;
    stream.skip(length);
    Ok(source)
}

/// Whose the connection is, by the header that these bytes begin with, and how long that header is. `None`
/// where more bytes are needed.
pub fn parse(ahead: &[u8]) -> Option<Result<(Option<SocketAddr>, usize), InvalidHeader>> {
    let header = length(ahead)?;
    Some(header.and_then(|length| Ok((source(&ahead[..length])?, length))))
}

/// How long the header is; nothing where that does not show so far.
fn length(ahead: &[u8]) -> Option<Result<usize, InvalidHeader>> {
    let begins_with = |signature: &[u8]| ahead.iter().zip(signature).all(|(byte, expected)| byte == expected);
    if begins_with(v2::PROTOCOL_PREFIX) {
        let (high, low) = (*ahead.get(FIXED_PART - 2)?, *ahead.get(FIXED_PART - 1)?);
        let length = FIXED_PART + usize::from(u16::from_be_bytes([high, low]));
        return if length > LONGEST_BINARY {
            Some(Err(InvalidHeader::TooLong))
        } else {
            (ahead.len() >= length).then_some(Ok(length))
        };
    }
    if !begins_with(b"PROXY ") {
        return Some(Err(InvalidHeader::Absent));
    }
    match ahead.windows(2).take(LONGEST_LINE - 1).position(|end| end == b"\r\n") {
        Some(end) => Some(Ok(end + 2)),
        None => (ahead.len() >= LONGEST_LINE).then_some(Err(InvalidHeader::TooLong)),
    }
}

fn source(header: &[u8]) -> Result<Option<SocketAddr>, InvalidHeader> {
    if header.starts_with(v2::PROTOCOL_PREFIX) {
        let header = v2::Header::try_from(header)?;
        return match (header.command, header.protocol, header.addresses) {
            (v2::Command::Local, _, _) | (_, _, v2::Addresses::Unspecified) => Ok(None),
            (_, v2::Protocol::Stream, v2::Addresses::IPv4(addresses)) => {
                Ok(Some((addresses.source_address, addresses.source_port).into()))
            }
            (_, v2::Protocol::Stream, v2::Addresses::IPv6(addresses)) => {
                Ok(Some((addresses.source_address, addresses.source_port).into()))
            }
            // Browsers come over TCP.
            (_, v2::Protocol::Stream | v2::Protocol::Datagram | v2::Protocol::Unspecified, _) => {
                Err(InvalidHeader::NotTcp)
            }
        };
    }
    Ok(match v1::Header::try_from(header)?.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(addresses) => Some((addresses.source_address, addresses.source_port).into()),
        v1::Addresses::Tcp6(addresses) => Some((addresses.source_address, addresses.source_port).into()),
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// The header's source, and what comes after it; the bytes come one by one.
    async fn read_all(bytes: &[u8]) -> Result<(Option<SocketAddr>, Vec<u8>), InvalidHeader> {
        let (ours, mut theirs) = duplex(1);
        let bytes = bytes.to_vec();
        tokio::spawn(async move { theirs.write_all(&bytes).await });
        let mut stream = Prefixed::new(ours);
        let source = read(&mut stream).await?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await?;
        Ok((source, rest))
    }

    fn binary(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[0x20 | command, family], &length, content].concat()
    }

    const FOUR: [u8; 12] = [192, 0, 2, 1, 10, 0, 0, 1, 0xdd, 0xd5, 0, 80];

    fn six() -> Vec<u8> {
        let mut content = vec![0; 36];
        content[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        content[15] = 1;
        content[32..34].copy_from_slice(&[0xdd, 0xd5]);
        content
    }

    #[tokio::test]
    async fn both_versions_name_the_client_whatever_pieces_they_come_in() {
        let with_more = [&FOUR[..], &[0x01, 0, 2, b'h', b'2']].concat();
        for (header, source) in [
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 56789 80\r\n".to_vec(), Some("192.0.2.1:56789")),
            (b"PROXY TCP6 2001:db8::1 ::1 56789 80\r\n".to_vec(), Some("[2001:db8::1]:56789")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (binary(1, 0x11, &FOUR), Some("192.0.2.1:56789")),
            (binary(1, 0x11, &with_more), Some("192.0.2.1:56789")),
            (binary(1, 0x21, &six()), Some("[2001:db8::1]:56789")),
            (binary(0, 0x00, &[]), None),
            (binary(0, 0x11, &FOUR), None),
            (binary(1, 0x00, &[]), None),
        ] {
            let read = read_all(&[&header[..], b"GET /"].concat()).await;
            let read = read.unwrap_or_else(|error| panic!("{error}: {}", header.escape_ascii()));
            assert_eq!(read, (source.map(|source| source.parse().unwrap()), b"GET /".to_vec()));
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_none() {
        let long =
            |length: usize| [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; length - 16], b"\r\n".to_vec()].concat();
        assert!(read_all(&long(LONGEST_LINE)).await.is_ok());
        for bytes in [
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            b"\x16\x03\x01\x02\x00".to_vec(),
            b"".to_vec(),
            b"PROXY TCP4 192.0.2.1".to_vec(),
            b"PROXY\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.256 10.0.0.1 56789 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 056789 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 56789\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::1 ::1 56789 80\r\n".to_vec(),
            b"PROXY UDP4 192.0.2.1 10.0.0.1 56789 80\r\n".to_vec(),
            b"PROXY \xff\r\n".to_vec(),
            long(LONGEST_LINE + 1),
            binary(1, 0x11, &FOUR[..11]),
            binary(2, 0x11, &FOUR),
            binary(1, 0x12, &FOUR),
            binary(1, 0x31, &[0; 216]),
            binary(1, 0x41, &FOUR),
            binary(1, 0x11, &vec![0; LONGEST_BINARY]),
            binary(1, 0x11, &FOUR)[..20].to_vec(),
            [v2::PROTOCOL_PREFIX, &[0x11, 0x11, 0, 12], &FOUR].concat(),
        ] {
            assert!(read_all(&bytes).await.is_err(), "{}", bytes.escape_ascii());
        }
    }
}
