//! The PROXY protocol's header: it is read alike in whatever pieces it comes, and no further than it goes.

use cloakroom::server::proxy_protocol::parse;

/// No header is longer, and no more than this is ever waited for.
const LONGEST: usize = 4096;

/// What a connection begins with.
pub fn run(data: &[u8]) {
    let whole = parse(data);
    // The first piece that is enough decides; those before are not.
    let decided = (0..=data.len()).find_map(|end| Some((end, parse(&data[..end])?)));
    match (&whole, &decided) {
        (None, None) => assert!(data.len() < LONGEST, "it waits for ever"),
        (Some(Ok((source, length))), Some((end, Ok((first_source, first_length))))) => {
            assert_eq!((source, length), (first_source, first_length));
            assert_eq!(length, end, "more was waited for than the header has");
            assert!(*length <= LONGEST);
            let header = &data[..*length];
            let is_line = header.starts_with(b"PROXY ") && header.ends_with(b"\r\n");
            assert!(is_line || header.starts_with(b"\r\n\r\n\0\r\nQUIT\n"));
            if let (Some(source), true) = (source, is_line) {
                let text = String::from_utf8_lossy(header);
                let words: Vec<&str> = text.trim_end().split(' ').collect();
                assert_eq!(words[2].parse().ok(), Some(source.ip()), "{text}");
                assert_eq!(words[4].parse().ok(), Some(source.port()), "{text}");
            }
        }
        (Some(Err(_)), Some((_, Err(_)))) => {}
        (whole, decided) => panic!("{whole:?} in one piece, {decided:?} in several"),
    }
}
