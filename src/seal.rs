//! Sealed boxes: what may lie in a browser or in a store and can be neither read nor moved there.
//!
//! The cipher is XAES-256-GCM (C2SP), whose 192-bit nonces may be drawn at random for as long as a key
//! lives. This is the only file that imports it. A box names its key, so that nothing is ever tried, and
//! is bound to its [`Context`]: what it is for, under which name, and for which app. A box that is put
//! anywhere else does not open.

use std::fmt;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use bytes::Bytes;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use xaes_256_gcm::{Nonce, Xaes256Gcm};
use zeroize::Zeroizing;

use crate::config::SessionKey;
use crate::random::Random;

const VERSION: u8 = 1;
const KEY_ID_BYTES: usize = 8;
const HEADER_BYTES: usize = 1 + KEY_ID_BYTES;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

/// By how much a box is longer than what is in it.
pub(crate) const OVERHEAD: usize = HEADER_BYTES + NONCE_BYTES + TAG_BYTES;

/// The operator's keys: the first seals, every one opens.
#[derive(Clone)]
pub struct KeyRing {
    keys: Vec<SealingKey>,
}

/// What a box is bound to. It opens under an equal context alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context<'a> {
    /// What the box is for.
    pub purpose: Purpose,
    /// The name of the cookie, the record or the errand that holds the box.
    pub name: &'a str,
    /// The origin of the app whose box it is; empty where only the box itself says.
    pub app: &'a str,
}

/// What a box is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The session's cookie.
    SessionCookie,
    /// The cookie of a login under way.
    LoginCookie,
    /// The cookie of a login on another device.
    DeviceCookie,
    /// A session's record in the store.
    SessionRecord,
    /// An errand in the store's outbox.
    Errand,
}

/// A 256-bit key that seals one session's record. It lies in the browser's cookie and nowhere else.
#[derive(Clone, PartialEq, Eq)]
pub struct DataKey(Zeroizing<[u8; DataKey::BYTES]>);

/// A key made ready, with the id that boxes name it by.
#[derive(Clone)]
struct SealingKey {
    id: [u8; KEY_ID_BYTES],
    cipher: Xaes256Gcm,
    naming: NamingKey,
}

/// For names that only a holder of the key can give to the same thing.
type NamingKey = Hmac<Sha256>;

impl KeyRing {
    /// Makes the keys ready.
    ///
    /// # Panics
    /// Without a key. The configuration has at least one.
    pub fn new(keys: &[SessionKey]) -> Self {
        assert!(!keys.is_empty(), "a key ring holds at least one key");
        Self { keys: keys.iter().map(|key| SealingKey::new(key.expose())).collect() }
    }

    /// The names that each key gives to something whose parts nobody without it shall learn or guess, the
    /// sealing key's first. Two uses never give the same name, nor do two lists of parts.
    pub fn names(&self, of: &str, parts: &[&[u8]]) -> Vec<String> {
        self.keys.iter().map(|key| key.name(of, parts)).collect()
    }

    /// Seals with the first key.
    pub fn seal(&self, random: Random, context: &Context<'_>, plaintext: &[u8]) -> Vec<u8> {
        self.keys[0].seal(random, context, plaintext)
    }

    /// What boxes call each of these keys, the one that seals first. It tells nothing of the key.
    pub fn key_names(&self) -> impl Iterator<Item = String> {
        self.keys.iter().map(|key| hexadecimal(&key.id))
    }

    /// What a box calls its key, where that is none of these.
    pub fn foreign_key(&self, sealed: &[u8]) -> Option<String> {
        let id = key_id_of(sealed).filter(|id| self.keys.iter().all(|key| key.id != *id))?;
        Some(hexadecimal(&id))
    }

    /// Whether a box names one of these keys as its own.
    pub fn has_key_of(&self, sealed: &[u8]) -> bool {
        key_id_of(sealed).is_some_and(|id| self.keys.iter().any(|key| key.id == id))
    }

    /// Opens with the key that the box names. `None` says that the box was not sealed by this ring under
    /// this context, or was altered since.
    pub fn open(&self, context: &Context<'_>, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let id = key_id_of(sealed)?;
        self.keys.iter().find(|key| key.id == id)?.open(context, sealed)
    }
}

impl DataKey {
    /// How long a key is.
    pub const BYTES: usize = 32;

    /// A new key.
    pub fn generate(random: Random) -> Self {
        Self(Zeroizing::new(random.bytes()))
    }

    /// Takes the key over.
    pub fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key itself, for the ticket that carries it.
    pub fn expose(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// Seals with this key.
    pub fn seal(&self, random: Random, context: &Context<'_>, plaintext: &[u8]) -> Vec<u8> {
        SealingKey::new(&self.0).seal(random, context, plaintext)
    }

    /// Opens with this key. `None` says that the box was not sealed by this key under this context, or was
    /// altered since.
    pub fn open(&self, context: &Context<'_>, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        SealingKey::new(&self.0).open(context, sealed)
    }
}

impl SealingKey {
    /// A name under this key: HMAC-SHA-256 in hexadecimal.
    fn name(&self, of: &str, parts: &[&[u8]]) -> String {
        let mut name = self.naming.clone();
        each_with_its_length(of, parts, |bytes| Mac::update(&mut name, bytes));
        hexadecimal(&name.finalize().into_bytes())
    }

    fn new(key: &[u8; 32]) -> Self {
        let hash = Sha256::new().chain_update(b"cloakroom key id").chain_update(key).finalize();
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&hash[..KEY_ID_BYTES]);
        // A key shorter than a block is filled up with zeros (RFC 2104 §2).
        let mut block = [0; 64];
        let naming_key = Sha256::new().chain_update(b"cloakroom naming key").chain_update(key).finalize();
        block[..naming_key.len()].copy_from_slice(&naming_key);
        Self { id, cipher: Xaes256Gcm::new(key.into()), naming: NamingKey::new(&block.into()) }
    }

    /// Version, key id, nonce, ciphertext, tag.
    #[expect(clippy::expect_used, reason = "the cipher refuses only plaintexts of 64 GiB and more")]
    fn seal(&self, random: Random, context: &Context<'_>, plaintext: &[u8]) -> Vec<u8> {
        let nonce = random.bytes::<NONCE_BYTES>();
        let payload = Payload { msg: plaintext, aad: &self.associated_data(context) };
        let ciphertext =
            self.cipher.encrypt(&Nonce::from(nonce), payload).expect("the plaintext is below 64 GiB");
        [&[VERSION], self.id.as_slice(), &nonce, &ciphertext].concat()
    }

    fn open(&self, context: &Context<'_>, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        if key_id_of(sealed)? != self.id {
            return None;
        }
        let (nonce, ciphertext) = sealed[HEADER_BYTES..].split_first_chunk::<NONCE_BYTES>()?;
        let payload = Payload { msg: ciphertext, aad: &self.associated_data(context) };
        self.cipher.decrypt(&Nonce::from(*nonce), payload).ok().map(Zeroizing::new)
    }

    /// Each part is of a fixed length or comes after its length, so that no two contexts give the same bytes.
    fn associated_data(&self, context: &Context<'_>) -> Vec<u8> {
        let purpose = match context.purpose {
            Purpose::SessionCookie => 1,
            Purpose::LoginCookie => 2,
            Purpose::SessionRecord => 3,
            Purpose::Errand => 4,
            Purpose::DeviceCookie => 5,
        };
        let mut data = vec![VERSION];
        data.extend_from_slice(&self.id);
        data.push(purpose);
        for text in [context.name, context.app] {
            data.extend_from_slice(&(text.len() as u64).to_be_bytes());
            data.extend_from_slice(text.as_bytes());
        }
        data
    }
}

impl PartialEq for KeyRing {
    /// The same keys in the same order, by their ids.
    fn eq(&self, other: &Self) -> bool {
        self.keys.iter().map(|key| key.id).eq(other.keys.iter().map(|key| key.id))
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KeyRing").field("keys", &self.keys.len()).finish()
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// A name for something whose parts nobody shall learn: their SHA-256 in hexadecimal. Two uses never give the
/// same name, nor do two lists of parts.
pub(crate) fn hashed_name(of: &str, parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    each_with_its_length(of, parts, |bytes| Digest::update(&mut hash, bytes));
    hexadecimal(&hash.finalize())
}

fn hexadecimal(bytes: &[u8]) -> String {
    format!("{:x}", Bytes::copy_from_slice(bytes))
}

fn each_with_its_length(of: &str, parts: &[&[u8]], mut take: impl FnMut(&[u8])) {
    for part in [of.as_bytes()].iter().chain(parts) {
        take(&(part.len() as u64).to_be_bytes());
        take(part);
    }
}

/// The id of the key that sealed a box; `None` where this is no box of a version we know.
fn key_id_of(sealed: &[u8]) -> Option<[u8; KEY_ID_BYTES]> {
    let (version, rest) = sealed.split_first()?;
    (*version == VERSION).then_some(*rest.first_chunk()?)
}

#[cfg(test)]
mod tests {
    use sha3::Shake128;
    use sha3::digest::{ExtendableOutput, Update, XofReader};

    use super::*;

    const CONTEXT: Context<'static> = Context {
        purpose: Purpose::SessionCookie,
        name: "__Host-cloakroom",
        app: "https://shop.example.com",
    };

    fn ring(keys: &[u8]) -> KeyRing {
        KeyRing::new(&keys.iter().map(|key| SessionKey::new([*key; 32])).collect::<Vec<_>>())
    }

    /// <https://c2sp.org/XAES-256-GCM>, "Test vectors"
    #[test]
    fn the_cipher_gives_the_published_ciphertexts() {
        for (key, aad, expected) in [
            (1, "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
            (3, "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
        ] {
            let cipher = Xaes256Gcm::new(&[key; 32].into());
            let nonce = Nonce::from(*b"ABCDEFGHIJKLMNOPQRSTUVWX");
            let plaintext = b"XAES-256-GCM";
            let payload = Payload { msg: plaintext, aad: aad.as_bytes() };
            let ciphertext = cipher.encrypt(&nonce, payload).unwrap();
            assert_eq!(hexadecimal(&ciphertext), expected);
            let payload = Payload { msg: &ciphertext, aad: aad.as_bytes() };
            assert_eq!(cipher.decrypt(&nonce, payload).unwrap(), plaintext);
        }
    }

    /// <https://c2sp.org/XAES-256-GCM>, "Accumulated randomized tests"
    #[test]
    fn the_cipher_gives_the_published_hash_of_ten_thousand_ciphertexts() {
        let mut random = Shake128::default().finalize_xof();
        let mut hash = Shake128::default();
        for _ in 0..10_000 {
            let key: [u8; 32] = read(&mut random, 32).try_into().unwrap();
            let nonce: [u8; 24] = read(&mut random, 24).try_into().unwrap();
            let [plaintext, aad] = [(); 2].map(|()| {
                let length = read(&mut random, 1)[0];
                read(&mut random, length.into())
            });
            let payload = Payload { msg: &plaintext, aad: &aad };
            let ciphertext = Xaes256Gcm::new(&key.into()).encrypt(&Nonce::from(nonce), payload).unwrap();
            hash.update(&ciphertext);
        }
        let hash = read(&mut hash.finalize_xof(), 32);
        assert_eq!(hexadecimal(&hash), "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939");
    }

    #[test]
    fn r22_a_box_opens_under_its_own_context_alone() {
        let ring = ring(&[1]);
        let sealed = ring.seal(Random::SYSTEM, &CONTEXT, b"secret");
        assert_eq!(ring.open(&CONTEXT, &sealed).unwrap().as_slice(), b"secret");
        for other in [
            Context { purpose: Purpose::LoginCookie, ..CONTEXT },
            Context { purpose: Purpose::SessionRecord, ..CONTEXT },
            Context { name: "__Host-cloakroom2", ..CONTEXT },
            Context { app: "https://shop.example.co", ..CONTEXT },
            Context { name: "__Host-cloakroomhttps://shop", app: ".example.com", ..CONTEXT },
            Context { name: CONTEXT.app, app: CONTEXT.name, ..CONTEXT },
        ] {
            assert!(ring.open(&other, &sealed).is_none(), "{other:?}");
        }
    }

    #[test]
    fn r22_the_first_key_seals_and_every_key_opens() {
        let before = ring(&[1]).seal(Random::SYSTEM, &CONTEXT, b"old");
        let rotated = ring(&[2, 1]);
        assert_eq!(rotated.open(&CONTEXT, &before).unwrap().as_slice(), b"old");
        let after = rotated.seal(Random::SYSTEM, &CONTEXT, b"new");
        assert!(ring(&[1]).open(&CONTEXT, &after).is_none());
        assert_eq!(ring(&[2]).open(&CONTEXT, &after).unwrap().as_slice(), b"new");
    }

    #[test]
    fn a_key_has_one_name_in_each_ring_and_a_box_tells_of_one_that_is_missing() {
        let names = |keys: &[u8]| ring(keys).key_names().collect::<Vec<_>>();
        assert_eq!(names(&[2, 1]), [names(&[2]), names(&[1])].concat());
        let sealed = ring(&[2]).seal(Random::SYSTEM, &CONTEXT, b"secret");
        assert_eq!(ring(&[1, 2]).foreign_key(&sealed), None);
        assert_eq!(ring(&[1]).foreign_key(&sealed), names(&[2]).pop());
        assert_eq!(ring(&[1]).foreign_key(b"no box at all"), None);
    }

    #[test]
    fn an_altered_or_shortened_box_does_not_open() {
        let ring = ring(&[1, 2]);
        let sealed = ring.seal(Random::SYSTEM, &CONTEXT, b"secret");
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert!(ring.open(&CONTEXT, &altered).is_none(), "byte {at} altered");
            assert!(ring.open(&CONTEXT, &sealed[..at]).is_none(), "cut to {at} bytes");
        }
        assert!(ring.open(&CONTEXT, &[sealed.as_slice(), b"\0"].concat()).is_none());
    }

    #[test]
    fn no_two_boxes_of_one_plaintext_are_alike() {
        let ring = ring(&[1]);
        assert_ne!(
            ring.seal(Random::SYSTEM, &CONTEXT, b"secret"),
            ring.seal(Random::SYSTEM, &CONTEXT, b"secret")
        );
    }

    #[test]
    fn a_data_key_opens_its_own_boxes_alone() {
        let (ours, others) = (DataKey::generate(Random::SYSTEM), DataKey::generate(Random::SYSTEM));
        let sealed = ours.seal(Random::SYSTEM, &CONTEXT, b"secret");
        assert_eq!(DataKey::new(*ours.expose()).open(&CONTEXT, &sealed).unwrap().as_slice(), b"secret");
        assert!(others.open(&CONTEXT, &sealed).is_none());
    }

    #[test]
    fn r62_debug_shows_no_key() {
        let key = DataKey::new([0xab; 32]);
        let ring = ring(&[0xab]);
        assert_eq!(format!("{key:?} {ring:?}"), "[redacted] KeyRing { keys: 1 }");
    }

    #[test]
    fn hashed_names_keep_uses_and_parts_apart() {
        let name = hashed_name("mark", &[b"a", b"bc"]);
        assert_ne!(name, hashed_name("mark", &[b"ab", b"c"]));
        assert_ne!(name, hashed_name("record", &[b"a", b"bc"]));
        assert_eq!(name.len(), 64);
    }

    #[test]
    fn a_name_takes_the_key_to_give_and_outlives_a_rotation() {
        let name = |keys: &[u8], of: &str, parts: &[&[u8]]| ring(keys).names(of, parts);
        let before = name(&[1], "sub", &[b"a", b"bc"]);
        assert_eq!(before[0].len(), 64);
        assert_ne!(before, name(&[2], "sub", &[b"a", b"bc"]));
        assert_ne!(before, name(&[1], "sub", &[b"ab", b"c"]));
        assert_ne!(before, name(&[1], "sid", &[b"a", b"bc"]));
        assert_eq!(name(&[2, 1], "sub", &[b"a", b"bc"])[1], before[0]);
    }

    fn read(from: &mut impl XofReader, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        from.read(&mut bytes);
        bytes
    }
}
