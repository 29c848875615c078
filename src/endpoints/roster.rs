//! Sessions of several apps by whose they are, for those who end them without a cookie: an issuer by its
//! logout tokens, an operator by the admin listener.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use crate::clock::Timestamp;
use crate::config;
use crate::oidc::Client;
use crate::revocation::Revocations;
use crate::session::store::{RecordKey, Unavailable};
use crate::session::{Cause, Session, Sessions, Whose};
use crate::telemetry::audit::{Event, Facts};
use crate::telemetry::for_request;

/// For how long, and how often, a store that is away is asked again to end what was to be ended.
const RETRY_FOR: Duration = Duration::from_secs(60);
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// The sessions of some apps.
#[derive(Clone, Debug)]
pub struct Roster {
    apps: Vec<Listing>,
    tasks: TaskTracker,
}

/// One app at one of its issuers, as far as its sessions are found and ended.
#[derive(Clone, Debug)]
pub struct Listing {
    issuer: Arc<str>,
    client_id: Arc<str>,
    sessions: Arc<Sessions>,
    revocations: Revocations,
}

/// A session, as far as it can be told of without its cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The origin of its app.
    pub app: String,
    /// Its issuer, as configured.
    pub issuer: String,
    /// When it dies of idleness, or would have.
    pub idle_expires_at: Timestamp,
}

impl Listing {
    /// The sessions of this app, by their issuer.
    pub fn all_of(app: &config::App, sessions: &Arc<Sessions>, revocations: &Revocations) -> Vec<Self> {
        let listing = |oidc: &config::Oidc| Self {
            issuer: oidc.issuer.as_str().into(),
            client_id: oidc.client_id.as_str().into(),
            sessions: Arc::clone(sessions),
            revocations: revocations.clone(),
        };
        app.oidc.iter().map(listing).collect()
    }

    fn tell(&self, idle_expires_at: Timestamp) -> Listed {
        Listed { app: self.sessions.app().to_owned(), issuer: self.issuer.to_string(), idle_expires_at }
    }
}

impl Roster {
    /// The sessions of these apps. What goes on behind an answer runs on `tasks`.
    pub fn new(apps: Vec<Listing>, tasks: TaskTracker) -> Self {
        Self { apps, tasks }
    }

    /// The apps that are this one client to its issuer. It calls one of them only, for all.
    #[must_use]
    pub fn of_client(&self, client: &Client) -> Self {
        let is_same = |app: &&Listing| *app.issuer == *client.issuer() && *app.client_id == *client.id();
        Self { apps: self.apps.iter().filter(is_same).cloned().collect(), tasks: self.tasks.clone() }
    }

    /// Those of this app, by its origin.
    #[must_use]
    pub fn of_app(mut self, origin: &str) -> Self {
        self.apps.retain(|app| app.sessions.app() == origin);
        self
    }

    /// The sessions that are meant.
    ///
    /// # Errors
    /// Where the store cannot be asked.
    pub async fn list(&self, whose: &Whose) -> Result<Vec<Listed>, Unavailable> {
        let mut listed = Vec::new();
        for app in &self.apps {
            for key in app.sessions.find(&app.issuer, whose).await? {
                let idle_expires_at = app.sessions.expires_at(&key).await?;
                listed.extend(idle_expires_at.map(|at| app.tell(at)));
            }
        }
        if let Some(app) = self.apps.first() {
            let facts = Facts { count: u64::try_from(listed.len()).ok(), ..whose.facts() };
            app.sessions.common().audit().note(Event::SessionsListed, &facts);
        }
        Ok(listed)
    }

    /// Ends the sessions that are meant, in a task of its own: nobody who does not wait cancels anything. What
    /// is open in this process is revoked; the tokens of all others can be read by nobody any more.
    ///
    /// # Errors
    /// Where the store cannot be asked. What was to be ended then is, as soon as the store is back, if
    /// that is soon.
    pub async fn end(&self, whose: Whose, cause: Cause) -> Result<Vec<Listed>, Unavailable> {
        match self.tasks.spawn(for_request(self.begin(whose, cause).run())).await {
            Ok(ended) => ended,
            Err(broken) => Err(Unavailable(format!("the ending broke off: {broken}"))),
        }
    }

    /// The same for those who have learned already that the store is away.
    pub fn end_once_possible(&self, whose: Whose, cause: Cause) {
        self.tasks.spawn(for_request(self.begin(whose, cause).persist()));
    }

    fn begin(&self, whose: Whose, cause: Cause) -> Ending {
        let todo = self.apps.iter().map(|app| Todo { app: app.clone(), found: None }).collect();
        Ending { whose, cause, todo, ended: Vec::new(), tasks: self.tasks.clone() }
    }
}

/// An ending under way.
struct Ending {
    whose: Whose,
    cause: Cause,
    todo: Vec<Todo>,
    ended: Vec<Listed>,
    tasks: TaskTracker,
}

/// What is still to be ended of one app.
struct Todo {
    app: Listing,
    /// `None` until it was looked for.
    found: Option<Vec<Found>>,
}

struct Found {
    key: RecordKey,
    /// What this process had open.
    held: Option<Arc<Session>>,
    /// The store has failed to say whether it ended the session. It may have.
    is_doubtful: bool,
}

impl Ending {
    async fn run(mut self) -> Result<Vec<Listed>, Unavailable> {
        match self.go_on().await {
            Ok(()) => Ok(self.ended),
            Err(unavailable) => {
                let tasks = self.tasks.clone();
                tasks.spawn(for_request(self.persist()));
                Err(unavailable)
            }
        }
    }

    async fn persist(mut self) {
        let done = async {
            while self.go_on().await.is_err() {
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        };
        if tokio::time::timeout(RETRY_FOR, done).await.is_err() {
            let cause = self.cause.as_str();
            tracing::error!(event = "session.not_ended", cause, "the store did not come back in time");
        }
    }

    /// Ends what is left, up to where the store fails.
    async fn go_on(&mut self) -> Result<(), Unavailable> {
        while let Some(Todo { app, found }) = self.todo.last_mut() {
            let found = match found {
                Some(found) => found,
                None => found.insert(app.find(&self.whose).await?),
            };
            while let Some(next) = found.last_mut() {
                let ended = app.sessions.end_unseen(&next.key).await;
                next.is_doubtful |= ended.is_err();
                let ended = ended?;
                if ended.is_some() || next.is_doubtful {
                    // What has died of idleness already is revoked, and no more.
                    let alive = ended.as_ref().filter(|ended| app.sessions.is_future(ended.idle_expires_at));
                    let is_news = alive.is_some() || ended.is_none();
                    self.ended.extend(alive.map(|ended| app.tell(ended.idle_expires_at)));
                    let newest = ended.and_then(|ended| ended.session).map(Arc::new);
                    let newest = newest.or(next.held.take());
                    if is_news {
                        app.note_end(self.cause, &self.whose, &next.key, newest.as_deref());
                    }
                    if let Some(session) = newest {
                        let revocations = app.revocations.clone();
                        let revocation =
                            async move { revocations.revoke(&session.identity, &session.tokens).await };
                        self.tasks.spawn(for_request(revocation));
                    }
                }
                found.pop();
            }
            self.todo.pop();
        }
        Ok(())
    }
}

impl Listing {
    /// Of a session that nobody here had open, no more is known than whose was to end.
    fn note_end(&self, cause: Cause, whose: &Whose, key: &RecordKey, session: Option<&Session>) {
        let facts = match session {
            Some(session) => self.sessions.facts(&session.identity, key),
            None => Facts {
                app: self.sessions.app(),
                issuer: Some(&self.issuer),
                session: Some(&key.0),
                ..whose.facts()
            },
        };
        self.sessions.note_end(cause, &facts);
    }

    async fn find(&self, whose: &Whose) -> Result<Vec<Found>, Unavailable> {
        let keys = self.sessions.find(&self.issuer, whose).await?;
        let found =
            keys.into_iter().map(|key| Found { held: self.sessions.held(&key), key, is_doubtful: false });
        Ok(found.collect())
    }
}
