//! Secrets: never in the file, but in another file or in the environment (R64).

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::config::SessionKey;
use crate::config::decode::{At, Decode, wrong_type};
use crate::config::document::{Content, Kind, Node, REDACTED};
use crate::config::keys::{Choice, Keys, Record};
use crate::config::reading::{Place, Reading, Reported, is_variable_name};
use crate::config::scalar::Text;
use crate::config::signing_key::{KeySource, SigningAlgorithm, SigningKey};
use crate::secret::Secret;

const WANTED: &str = "`{file: PATH}` or `{env: NAME}`";
const LARGEST: u64 = 64 * 1024;

/// Where a secret is.
#[derive(Debug)]
pub(super) struct SecretRef(Source);

#[derive(Debug)]
enum Source {
    File(At<Text>),
    Environment(At<VariableName>),
}

/// The name of an environment variable.
#[derive(Debug)]
struct VariableName(String);

impl SecretRef {
    /// Reads the secret, without the line break that editors and `echo` put at its end.
    pub(super) fn read(self, reading: &mut Reading<'_>) -> Result<(Secret, Place), Reported> {
        let (text, place) = match self.0 {
            Source::File(At { value: Text(path), place, .. }) => {
                let remedy = "a file of text that this user may read and others may not (`chmod o-r`)";
                let text =
                    file(Path::new(&path)).map_err(|problem| reading.fault(&place, problem, remedy))?;
                (text, place)
            }
            Source::Environment(At { value: VariableName(name), place, .. }) => match reading.variable(&name)
            {
                Some(text) => (Zeroizing::new(text), place),
                None => {
                    let problem = "this environment variable is not set";
                    return Err(reading.fault(
                        &place,
                        problem,
                        format!("the name of one that is, or set {name}"),
                    ));
                }
            },
        };
        let line =
            text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        if line.is_empty() {
            return Err(reading.fault(&place, "this secret is empty", "one that is not"));
        }
        Ok((Secret::new(line), place))
    }

    /// Reads a key such as a `session key`: 32 bytes in base64, of either alphabet, padded or not.
    pub(super) fn read_key(
        self,
        what: &str,
        reading: &mut Reading<'_>,
    ) -> Result<(SessionKey, Place), Reported> {
        let (secret, place) = self.read(reading)?;
        let text = secret.expose();
        let alphabet = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
        let either = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let bytes = Zeroizing::new(GeneralPurpose::new(alphabet, either).decode(text).unwrap_or_default());
        let problem = match <[u8; 32]>::try_from(bytes.as_slice()) {
            Ok(key) if key != [0; 32] => return Ok((SessionKey::new(key), place)),
            Ok(_) => format!("this {what} is all zeros"),
            Err(_) if bytes.is_empty() => format!("this {what} is not base64"),
            Err(_) => format!("this {what} has {} bytes, not 32", bytes.len()),
        };
        Err(reading.fault(&place, problem, "a key that `cloakroom keygen` made"))
    }

    /// Reads a private key that signs JWTs, and keeps where it is.
    pub(super) fn read_signing_key(
        self,
        kid: Option<String>,
        algorithm: Option<SigningAlgorithm>,
        reading: &mut Reading<'_>,
    ) -> Result<SigningKey, Reported> {
        let (source, place) = match self.0 {
            Source::File(At { value: Text(path), place, .. }) => (KeySource::File(path.into()), place),
            Source::Environment(_) => {
                let (text, place) = self.read(reading)?;
                (KeySource::Value(text), place)
            }
        };
        let key = SigningKey::new(source, kid, algorithm);
        match key.load() {
            Ok(_) => Ok(key),
            Err(error) => Err(reading.fault(&place, error.to_string(), error.remedy())),
        }
    }
}

impl Decode for SecretRef {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        match &node.content {
            Content::Map(_) => Source::decode(node, reading).map(Self),
            Content::Scalar { .. } if node.kind() != Some(Kind::Null) => {
                let place = Place { position: node.position, text: REDACTED.to_owned() };
                Err(reading.fault(&place, "a secret written in the file itself", WANTED))
            }
            Content::Scalar { .. } | Content::List(_) => Err(wrong_type(node, WANTED, REDACTED, reading)),
        }
    }

    fn schema() -> Value {
        Source::schema()
    }

    fn shown(_: &Node) -> String {
        REDACTED.to_owned()
    }
}

impl Record for Source {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        keys.one_of(&[
            Choice::new(
                "file",
                "A file that holds the secret, relative to the working directory; others must not be able to read it.",
                Self::File,
            ),
            Choice::new("env", "The environment variable that holds the secret.", Self::Environment),
        ])
    }
}

impl Decode for VariableName {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        let Text(name) = Text::decode(node, reading)?;
        if is_variable_name(&name) {
            return Ok(Self(name));
        }
        let place = Place { position: node.position, text: Self::shown(node) };
        let remedy = "letters, digits and `_`, such as `SHOP_CLIENT_SECRET`";
        Err(reading.fault(&place, "not the name of an environment variable", remedy))
    }

    fn schema() -> Value {
        crate::config::schema::pattern("[A-Za-z_][A-Za-z0-9_]*")
    }

    /// What can't be a name may be the secret itself.
    fn shown(node: &Node) -> String {
        let shown = node.shown();
        if is_variable_name(&shown) { shown } else { REDACTED.to_owned() }
    }
}

/// What a secret file holds. Symbolic links are followed, for that is how Kubernetes mounts secrets; the
/// mode is that of the file that is read.
pub(super) fn file(path: &Path) -> Result<Zeroizing<String>, String> {
    let unreadable = |error: io::Error| format!("this secret file cannot be read ({error})");
    // Before it is opened: to open a named pipe would wait for its writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err("this secret file is not a file".to_owned());
    }
    let file = File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.permissions().mode() & 0o004 != 0 {
        return Err("this secret file can be read by others".to_owned());
    }
    let mut text = Zeroizing::new(String::new());
    let length = file.take(LARGEST + 1).read_to_string(&mut text).map_err(unreadable)?;
    if length as u64 > LARGEST {
        return Err(format!("this secret file has more than {LARGEST} bytes"));
    }
    Ok(text)
}
