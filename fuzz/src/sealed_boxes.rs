//! Sealed boxes: what was sealed comes back under the same key and context, and nothing else opens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::config::SessionKey;
use cloakroom::random::Random;
use cloakroom::seal::{Context, KeyRing, Purpose};
use cloakroom::session::cookie::Ticket;

/// The same each time, so that a finding can be repeated. No two boxes here lie under one key and context.
const RANDOM: Random = Random::from_source(|bytes| bytes.fill(7));

const PURPOSES: [Purpose; 5] = [
    Purpose::SessionCookie,
    Purpose::LoginCookie,
    Purpose::DeviceCookie,
    Purpose::SessionRecord,
    Purpose::Errand,
];

/// Version, key id, nonce and tag.
const OVERHEAD: usize = 1 + 8 + 24 + 16;

/// Four bytes say what is done to the box, two how its context is cut out of the rest.
pub fn run(data: &[u8]) {
    let Some(([purpose, bits, high, low, name, app], rest)) = data.split_first_chunk() else { return };
    let text = String::from_utf8_lossy(rest);
    let (name, after) = cut(&text, *name);
    let (app, plaintext) = cut(after, *app);
    let context = Context { purpose: PURPOSES[usize::from(purpose % 4)], name, app };
    let plaintext = plaintext.as_bytes();

    let ring = ring(&[1]);
    let sealed = ring.seal(RANDOM, &context, plaintext);
    assert_eq!(sealed.len(), plaintext.len() + OVERHEAD);
    for turned in [ring.clone(), self::ring(&[2, 1]), self::ring(&[1, 2])] {
        assert!(turned.has_key_of(&sealed));
        assert_eq!(turned.open(&context, &sealed).as_deref().map(Vec::as_slice), Some(plaintext));
    }
    let stranger = self::ring(&[2]);
    assert!(!stranger.has_key_of(&sealed) && stranger.open(&context, &sealed).is_none());

    for other in others(&context) {
        assert!(ring.open(&other, &sealed).is_none(), "{context:?} opens under {other:?}");
    }
    let at = usize::from(u16::from_be_bytes([*high, *low])) % sealed.len();
    assert!(ring.open(&context, &sealed[..at]).is_none(), "cut to {at}");
    assert!(ring.open(&context, &[&sealed, rest].concat()).is_none() || rest.is_empty());
    let mut altered = sealed.clone();
    altered[at] ^= *bits;
    assert_eq!(ring.open(&context, &altered).is_some(), *bits == 0, "{bits:#x} at {at}");
    let forged = [&sealed[..at], rest].concat();
    assert!(ring.open(&context, &forged).is_none() || forged == sealed);

    check_ticket(&ring, &context, &text);
}

/// A ticket's cookie is one text alone, and no other opens.
fn check_ticket(ring: &KeyRing, context: &Context<'_>, text: &str) {
    let ticket = Ticket::generate(RANDOM);
    let value = ticket.to_cookie(ring, RANDOM, context);
    assert_eq!(Ticket::from_cookie(&value, ring, context), Some(ticket));
    assert!(Ticket::from_cookie(text, ring, context).is_none() || text == value);
    let raw = URL_SAFE_NO_PAD.encode(text);
    assert!(Ticket::from_cookie(&raw, ring, context).is_none());
}

/// The parts of a context, moved and mixed up.
fn others<'a>(context: &Context<'a>) -> Vec<Context<'a>> {
    let Context { name, app, .. } = *context;
    let shorter = |text: &'a str| text.get(1..).unwrap_or("x");
    let mixed = [(app, name), (shorter(name), app), (name, shorter(app)), ("", app), (name, ""), ("", "")];
    let mixed = mixed.map(|(name, app)| Context { name, app, ..*context });
    let purposes = PURPOSES.map(|purpose| Context { purpose, ..*context });
    mixed.into_iter().chain(purposes).filter(|other| other != context).collect()
}

fn ring(keys: &[u8]) -> KeyRing {
    KeyRing::new(&keys.iter().map(|key| SessionKey::new([*key; 32])).collect::<Vec<_>>())
}

/// The first `length` characters, and the rest.
fn cut(text: &str, length: u8) -> (&str, &str) {
    let end = text.char_indices().nth(usize::from(length)).map_or(text.len(), |(index, _)| index);
    text.split_at(end)
}
