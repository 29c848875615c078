//! The issuer: it rotates refresh tokens, and ends the grant where a used one comes again. Around it the
//! network, and what may go wrong there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use cloakroom::clock::Timestamp;
use cloakroom::config::{RouteGrant, RouteToken, TokenTarget};
use cloakroom::oidc::{
    CallFault, DocumentFault, Grants, IssuerUnavailable, RefreshError, Revocation, RevokeError, TokenKind,
};
use cloakroom::secret::Secret;
use cloakroom::tokens::{AccessToken, Identity, Tokens};
use http::StatusCode;
use serde_json::Map;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::rules::NEAR_EXPIRY;
use crate::schedule::IssuerOutage;
use crate::world::{Answer, NodeId, Sent, Truth, User, World};

/// As in the configuration.
pub const ISSUER: &str = "https://id.example.com";

/// `oidc.timeout`
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The issuer as one gateway process reaches it.
#[derive(Debug)]
pub struct NodeGrants {
    pub node: NodeId,
    pub world: Arc<World>,
    /// It has seen the issuer's metadata.
    pub knows_metadata: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Well,
    RefusesConnection,
    Fails,
    LosesAnswer,
}

#[async_trait]
impl Grants for NodeGrants {
    async fn refresh(&self, tokens: &Tokens, _: &Identity) -> Result<Tokens, RefreshError> {
        let issued = self.redeem(tokens, None).await?;
        Ok(Tokens { route_tokens: tokens.not_exchanged(issued.dpop_key.as_ref()), ..issued })
    }

    async fn obtain(
        &self,
        tokens: &Tokens,
        _: &Identity,
        wanted: &Arc<RouteToken>,
    ) -> Result<Tokens, RefreshError> {
        let mut obtained = tokens.clone();
        let value = match wanted.grant {
            RouteGrant::RefreshToken => {
                let issued = self.redeem(tokens, Some(wanted)).await?;
                obtained.refresh_token = issued.refresh_token;
                issued.access_token
            }
            RouteGrant::TokenExchange => self.exchange(&tokens.access_token).await?,
        };
        let (issued_at, life) = (self.world.now(), self.world.schedule.access_token_life);
        obtained.insert(
            wanted,
            AccessToken { value, issued_at, expires_at: issued_at + life, scopes: Vec::new() },
        );
        Ok(obtained)
    }

    async fn client_credentials(&self, _: &str, _: &TokenTarget) -> Result<AccessToken, RefreshError> {
        Err(RefreshError::Refused { error: "no route wants one".to_owned() })
    }

    async fn revoke(&self, issuer: &str, token: &Secret, kind: TokenKind) -> Result<Revocation, RevokeError> {
        self.world.while_alive(self.node).await;
        let (user, number) = parse(token);
        let (turn, there, back) = self.turn();
        {
            let now = self.world.now();
            let mut truth = self.world.truth();
            truth.note_for(self.node, user, format_args!("revokes {}", token.expose()));
            // Of two exchanges at once, one is thrown away.
            if truth.users[user].is_alive(now) && !token.expose().starts_with('x') {
                truth.fault(format_args!("user {user}: a token of a living session is revoked"));
            }
        }
        if !self.world.schedule.issuer.revokes {
            if turn != Turn::Well && !self.is_known_not_to_revoke(issuer) {
                return Err(broken().into());
            }
            self.knows_metadata.store(true, Ordering::SeqCst);
            return Ok(Revocation::NotOffered);
        }
        if kind == TokenKind::RefreshToken {
            self.world.truth().check_posted(self.node, user, number);
        }
        let reaches = matches!(turn, Turn::Well | Turn::LosesAnswer) && there + back < CALL_TIMEOUT;
        if reaches {
            sleep(there).await;
            self.world.while_alive(self.node).await;
            if !token.expose().starts_with('x') {
                self.world.truth().users[user].revoke(number, kind);
            }
            sleep(back).await;
        } else {
            sleep((there + back).min(CALL_TIMEOUT)).await;
        }
        self.world.while_alive(self.node).await;
        if reaches && turn == Turn::Well {
            return Ok(Revocation::Revoked);
        }
        Err(broken().into())
    }

    fn is_known_not_to_revoke(&self, _: &str) -> bool {
        !self.world.schedule.issuer.revokes && self.knows_metadata.load(Ordering::SeqCst)
    }
}

impl NodeGrants {
    /// Redeems the refresh token for a new access token, or for what is `wanted` beside it.
    async fn redeem(
        &self,
        tokens: &Tokens,
        wanted: Option<&Arc<RouteToken>>,
    ) -> Result<Tokens, RefreshError> {
        self.world.while_alive(self.node).await;
        let token = tokens.refresh_token.as_ref().ok_or(RefreshError::InvalidGrant)?;
        let (user, redeemed) = parse(token);
        // Where the refresh token is not replaced, the access token tells which refresh this is. Where it is redeemed for
        // other tokens too, it gets further than the access token.
        let (_, refreshed) = parse(&tokens.access_token);
        let number = if self.world.schedule.has_route_tokens { redeemed } else { refreshed };
        if self.world.schedule.issuer.rotates && redeemed != number {
            self.world.truth().fault(format_args!("user {user}: r{user}.{redeemed} beside a{user}.{number}"));
        }
        let (turn, there, back) = self.turn();
        let now = self.world.now();
        // Who wants another token than the access token may have none that can be used.
        let is_missing = wanted.is_some_and(|wanted| {
            tokens.held(Some(wanted)).is_none_or(|held| now + NEAR_EXPIRY >= held.expires_at)
        });
        self.world.truth().check_departure(self.node, user, number, is_missing, now);
        if turn == Turn::RefusesConnection {
            sleep(there.min(Duration::from_millis(100))).await;
            self.world.while_alive(self.node).await;
            self.world.truth().note_for(self.node, user, format_args!("the issuer refuses the connection"));
            return Err(RefreshError::NotSent(CallFault::from(DocumentFault::NotJson).into()));
        }
        let beside = wanted.map(|_| tokens.expires_at);
        let sent = self.world.truth().note_sent(self.node, user, number, self.world.now());
        let answer = timeout(CALL_TIMEOUT, self.send(user, sent, beside, turn, there, back)).await;
        self.world.while_alive(self.node).await;
        let mut truth = self.world.truth();
        match answer {
            Ok(Some(Ok(issued))) => {
                self.knows_metadata.store(true, Ordering::SeqCst);
                truth.note_for(
                    self.node,
                    user,
                    format_args!("a{user}.{} is issued", parse(&issued.access_token).1),
                );
                truth.users[user].sent[sent].state = Answer::Delivered;
                Ok(issued)
            }
            Ok(Some(Err(refused))) => {
                truth.note_for(self.node, user, format_args!("refresh: {refused}"));
                Err(refused)
            }
            Ok(None) | Err(_) => {
                truth.note_for(self.node, user, format_args!("refresh: no answer"));
                if truth.users[user].sent[sent].state == Answer::Issued {
                    truth.users[user].lose("the issuer's answer was lost");
                }
                truth.users[user].sent[sent].state = Answer::Ambiguous(Instant::now());
                Err(RefreshError::Ambiguous(broken()))
            }
        }
    }

    /// An access token that has died, or whose session has, is exchanged for nothing.
    async fn exchange(&self, access_token: &Secret) -> Result<Secret, RefreshError> {
        self.world.while_alive(self.node).await;
        let (turn, there, back) = self.turn();
        sleep((there + back).min(CALL_TIMEOUT)).await;
        self.world.while_alive(self.node).await;
        if turn != Turn::Well || there + back >= CALL_TIMEOUT {
            return Err(RefreshError::Ambiguous(broken()));
        }
        let (user, number) = parse(access_token);
        if self.world.truth().users[user].grant_ended.is_some() {
            return Err(RefreshError::Refused { error: "invalid_request".to_owned() });
        }
        Ok(Secret::new(format!("x{user}.{number}")))
    }

    /// The request goes its own way: the issuer does its work whoever still waits for the answer.
    async fn send(
        &self,
        user: usize,
        sent: usize,
        beside: Option<Timestamp>,
        turn: Turn,
        there: Duration,
        back: Duration,
    ) -> Option<Result<Tokens, RefreshError>> {
        let (answer, answered) = oneshot::channel();
        let world = Arc::clone(&self.world);
        tokio::spawn(async move {
            sleep(there).await;
            if turn == Turn::Fails {
                world.truth().note(format_args!("issuer: 503 for user {user}"));
                sleep(back).await;
                drop(answer);
                return;
            }
            let redeemed = redeem(&world, user, sent, beside);
            sleep(back).await;
            if turn == Turn::Well {
                let _ = answer.send(redeemed);
            }
        });
        answered.await.ok()
    }

    fn turn(&self) -> (Turn, Duration, Duration) {
        let mut truth = self.world.truth();
        let nature = &self.world.schedule.issuer;
        if truth.is_healed {
            return (Turn::Well, Duration::from_millis(1), Duration::from_millis(1));
        }
        let chance = &mut truth.chance;
        let delay = if chance.happens(nature.slow) { (2000, 20_000) } else { nature.delay };
        let (there, back) = (chance.millis(delay), chance.millis(delay));
        let draw = chance.below(1000);
        let mut turn = if draw < nature.refuses_connection {
            Turn::RefusesConnection
        } else if draw < nature.refuses_connection + nature.fails {
            Turn::Fails
        } else if draw < nature.refuses_connection + nature.fails + nature.loses_answer {
            Turn::LosesAnswer
        } else {
            Turn::Well
        };
        if let Some((until, outage)) = truth.issuer_outage
            && Instant::now() < until
        {
            turn = match outage {
                IssuerOutage::RefusesConnections => Turn::RefusesConnection,
                IssuerOutage::Fails => Turn::Fails,
                IssuerOutage::LosesAnswers => Turn::LosesAnswer,
            };
        }
        (turn, there, back)
    }
}

/// The tokens of one number, issued now.
pub fn tokens(world: &World, user: usize, number: u32) -> Tokens {
    let now = world.now();
    Tokens {
        access_token: Secret::new(format!("a{user}.{number}")),
        issued_at: now,
        expires_at: now + world.schedule.access_token_life,
        refresh_token: Some(Secret::new(format!("r{user}.{}", world.refresh_token(number)))),
        id_token: None,
        scopes: Vec::new(),
        dpop_key: None,
        route_tokens: BTreeMap::new(),
    }
}

pub fn identity(world: &World, user: usize) -> Identity {
    Identity {
        issuer: ISSUER.to_owned(),
        subject: format!("user {}", world.person(user)),
        sid: Some(format!("sid {user}")),
        claims: Map::new(),
    }
}

/// Whose token it is, and which: `r2.7` is the seventh refresh token of user 2.
pub fn parse(token: &Secret) -> (usize, u32) {
    let (user, number) = token.expose()[1..].split_once('.').unwrap();
    (user.parse().unwrap(), number.parse().unwrap())
}

/// `beside` is when the access token dies where that stays what it is.
fn redeem(
    world: &World,
    user: usize,
    sent: usize,
    beside: Option<Timestamp>,
) -> Result<Tokens, RefreshError> {
    let mut truth = world.truth();
    let number = truth.users[user].sent[sent].number;
    let grant_ended = truth.users[user].grant_ended;
    if grant_ended.is_none() && (number == truth.users[user].newest || !world.schedule.issuer.rotates) {
        let next = truth.users[user].newest + 1;
        let issued = tokens(world, user, next);
        truth.note(format_args!("issuer: a{user}.{next} in the place of a{user}.{number}"));
        let of_user = &mut truth.users[user];
        of_user.newest = next;
        of_user.sent[sent].issued = Some(next);
        of_user.access_ends.push(beside.unwrap_or(issued.expires_at));
        match of_user.sent[sent].state {
            Answer::Ambiguous(_) => of_user.lose("the issuer's answer came too late"),
            _ if of_user.sent[sent].is_crashed => {
                of_user.lose("the issuer answered a gateway that had crashed");
            }
            _ => of_user.sent[sent].state = Answer::Issued,
        }
        return Ok(issued);
    }
    if grant_ended.is_none() && world.schedule.issuer.ends_grant_on_reuse {
        truth.note(format_args!("issuer: r{user}.{number} was used before; the grant of user {user} ends"));
        truth.users[user].grant_ended = Some("a refresh token came twice");
    }
    if !matches!(truth.users[user].sent[sent].state, Answer::Ambiguous(_)) {
        truth.users[user].sent[sent].state = Answer::InvalidGrant;
    }
    Err(RefreshError::InvalidGrant)
}

fn broken() -> IssuerUnavailable {
    CallFault::Status(StatusCode::SERVICE_UNAVAILABLE).into()
}

impl Truth {
    fn note_sent(&mut self, node: NodeId, user: usize, number: u32, now: Timestamp) -> usize {
        let lapsed = self.users[user].has_lost_lease(node, now).then_some(true);
        self.note_for(node, user, format_args!("sends r{user}.{number}"));
        self.users[user].sent.push(Sent {
            number,
            node,
            state: Answer::UnderWay,
            issued: None,
            is_crashed: false,
            lapsed,
            is_stored: false,
            version: None,
            is_confirmed: false,
            lost_at: None,
            mended_at: None,
        });
        self.users[user].sent.len() - 1
    }
}

impl User {
    fn revoke(&mut self, number: u32, kind: TokenKind) {
        match kind {
            TokenKind::AccessToken => self.revoked_access.push(number),
            // A token that was used up is no grant any more: nothing is left of it to be revoked.
            TokenKind::RefreshToken if number == self.newest || !self.rotates => {
                self.grant_ended.get_or_insert("it was revoked");
            }
            TokenKind::RefreshToken => {}
        }
    }
}
