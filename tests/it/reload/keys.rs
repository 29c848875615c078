//! Secrets in files are replaced while users work.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cloakroom::session::store::Store;
use cloakroom::session::store::memory::MemoryStore;

use crate::support::browser::Browser;
use crate::support::clock::clock;
use crate::support::gateway::{SESSION_COOKIE, Setup};
use crate::support::issuer::{CLIENT_SECRET, Issuer};
use crate::support::reloadable::Reloadable;
use crate::support::upstream::Upstream;

/// A file that nobody else may read.
fn write(path: &Path, secret: &str) {
    fs::write(path, secret).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn a_client_secret_is_replaced_and_nobody_is_logged_out() {
    let (clock, upstream, folder) = (clock(), Upstream::start().await, tempfile::tempdir().unwrap());
    let issuer = Issuer::start_with(clock.clone()).await;
    let secret = folder.path().join("client");
    write(&secret, CLIENT_SECRET);
    let setup = Setup::new(&issuer.url())
        .for_users("/api", &upstream.url())
        .for_anybody("/", &upstream.url())
        .clock(clock.clone());
    let yaml = setup.yaml().replace("{env: CLIENT_SECRET}", &format!("{{file: \"{}\"}}", secret.display()));
    let reloadable = Reloadable::start_with(&setup, &yaml).await;
    let mut browser = Browser::new(reloadable.gateway.address);
    browser.log_in("/shop").await;
    assert_eq!(browser.fetch("/api").await.status, 200);

    issuer.behave(|behaviour| "the next one".clone_into(&mut behaviour.client_secret));
    write(&secret, "the next one");
    reloadable.serve_by(&yaml).await;
    clock.advance(std::time::Duration::from_secs(300));
    assert_eq!(browser.fetch("/api").await.status, 200);
    assert_eq!(upstream.tokens().len(), 2);
    assert_ne!(upstream.tokens()[0], upstream.tokens()[1], "refreshed with the new secret");
    Browser::new(reloadable.gateway.address).log_in("/shop").await;
}

/// Two gateways over one store, each with its own file.
struct Pair {
    gateways: [Reloadable; 2],
    yaml: String,
}

impl Pair {
    async fn start(setup: &Setup) -> Self {
        let yaml = setup.yaml();
        let keys = Self::text(&yaml, &[1]);
        let one = Reloadable::start_with(setup, &keys).await;
        Self { gateways: [one, Reloadable::start_with(setup, &keys).await], yaml }
    }

    /// The configuration with these keys.
    fn text(yaml: &str, keys: &[u8]) -> String {
        let folder = std::env::temp_dir().join(format!("cloakroom-keys-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = |key: &u8| {
            let path = folder.join(format!("key-{key}"));
            write(&path, &STANDARD.encode([*key; 32]));
            format!("{{file: \"{}\"}}", path.display())
        };
        let keys: Vec<_> = keys.iter().map(file).collect();
        yaml.replace("{env: SESSION_KEY}", &keys.join(", "))
    }

    /// One gateway after the other gets these keys; in between, and afterwards, all users are served by both.
    async fn rotate(&self, keys: &[u8], users: &mut Vec<Browser>) {
        for gateway in &self.gateways {
            gateway.serve_by(&Self::text(&self.yaml, keys)).await;
            self.serve_all(users).await;
            let mut another = Browser::new(gateway.gateway.address);
            another.log_in("/shop").await;
            users.push(another);
            self.serve_all(users).await;
        }
    }

    async fn serve_all(&self, users: &mut [Browser]) {
        for gateway in &self.gateways {
            for user in &mut *users {
                user.switch_to(gateway.gateway.address);
                let answer = user.fetch("/api").await;
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
        }
    }
}

#[tokio::test]
async fn session_keys_are_rotated_at_two_gateways_and_nobody_is_logged_out_until_a_key_is_gone() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start().await);
    let mut setup =
        Setup::new(&issuer.url()).for_users("/api", &upstream.url()).for_anybody("/", &upstream.url());
    setup.stand_in = Some(Arc::new(MemoryStore::new(Arc::clone(&setup.clock))) as Arc<dyn Store>);
    let pair = Pair::start(&setup).await;
    let mut users = vec![Browser::new(pair.gateways[0].gateway.address)];
    users[0].log_in("/shop").await;
    pair.rotate(&[1, 2], &mut users).await;
    pair.rotate(&[2, 1], &mut users).await;
    let cookie = users[0].session_cookie().unwrap();
    // Those whose cookies the first key has sealed; it goes before the lifetime of their sessions is over.
    let (old, mut young): (Vec<_>, Vec<_>) = users.into_iter().enumerate().partition(|(index, _)| *index < 3);
    for gateway in &pair.gateways {
        gateway.serve_by(&Pair::text(&pair.yaml, &[2])).await;
    }
    for (_, mut user) in old {
        assert_eq!(
            user.fetch("/api").await.status,
            401,
            "at once, though its cookie was opened a moment ago"
        );
    }
    for (_, user) in &mut young {
        assert_eq!(user.fetch("/api").await.status, 200);
    }
    let mut thief = Browser::new(pair.gateways[0].gateway.address);
    thief.plant(SESSION_COOKIE, &cookie);
    assert_eq!(thief.fetch("/api").await.status, 401);
}
