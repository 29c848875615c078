//! What happens in one simulated world, and when: all of it follows from the seed.

use std::time::Duration;

use crate::chance::Chance;

/// One schedule.
#[derive(Clone, Debug)]
pub struct Schedule {
    pub gateways: usize,
    pub users: usize,
    /// Whether all of them are one person who has logged in several times.
    pub is_one_person: bool,
    /// How long things happen; then everything heals.
    pub length: Duration,
    pub access_token_life: Duration,
    pub refresh_before_expiry: Duration,
    pub idle_timeout: Duration,
    pub lifetime: Duration,
    pub grace: Duration,
    pub store: StoreNature,
    pub issuer: IssuerNature,
    /// How long it takes until a gateway is told of a change, in milliseconds.
    pub telling: (u64, u64),
    /// How many of a thousand forwarded tokens an upstream refuses though they are good.
    pub refused: u64,
    /// Whether some requests want another token than the access token, exchanged for it or by the refresh token.
    pub has_route_tokens: bool,
    /// In the order of their times.
    pub events: Vec<(Duration, Event)>,
}

/// From this seed on, sessions have further tokens. What the seeds below it give stays what it was.
pub const WITH_ROUTE_TOKENS: u64 = 1 << 40;

/// How the store does on any day; each number of a kind is out of a thousand operations.
#[derive(Clone, Debug)]
pub struct StoreNature {
    /// One way, in milliseconds.
    pub latency: (u64, u64),
    pub slow: u64,
    pub fails: u64,
    pub hangs: u64,
    pub loses_answer: u64,
    /// The answer does not come in time, and what was asked for is done still later.
    pub late: u64,
}

/// How the issuer does on any day; each number of a kind is out of a thousand calls.
#[derive(Clone, Debug)]
pub struct IssuerNature {
    /// In milliseconds.
    pub delay: (u64, u64),
    /// Longer than the lease of a refresh, some of them longer than a gateway waits.
    pub slow: u64,
    pub refuses_connection: u64,
    pub fails: u64,
    /// The request is processed, and the answer lost.
    pub loses_answer: u64,
    /// Whether a refresh token that comes again ends the grant, or is merely refused.
    pub ends_grant_on_reuse: bool,
    /// Whether a refresh token is used up by a refresh.
    pub rotates: bool,
    /// Whether it has a revocation endpoint.
    pub revokes: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Event {
    Request {
        gateway: usize,
        user: usize,
        gives_up_after: Option<Duration>,
    },
    LogOut {
        gateway: usize,
        user: usize,
    },
    /// Without the cookie: by a logout token of the issuer, or by an operator.
    EndUnseen {
        gateway: usize,
        user: usize,
        by: By,
    },
    Crash {
        gateway: usize,
    },
    Restart {
        gateway: usize,
    },
    /// The store is out of one gateway's reach, or of all of them, for so long.
    StoreOutage {
        gateway: Option<usize>,
        length: Duration,
        hangs: bool,
    },
    /// The store is away for all for so long, and has then lost what was written last.
    FailOver {
        lost: Duration,
        length: Duration,
    },
    /// Notifications are lost; the gateway takes notice after a while, and connects again later.
    Break {
        gateway: usize,
        notice: Duration,
        length: Duration,
    },
    IssuerOutage {
        length: Duration,
        outage: IssuerOutage,
    },
    /// The issuer ends the grant by itself.
    EndGrant {
        user: usize,
    },
}

/// What is said of the user whose sessions are to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Subject,
    Sid,
    SubjectAndSid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssuerOutage {
    RefusesConnections,
    Fails,
    LosesAnswers,
}

impl Schedule {
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let access_token_life = Duration::from_secs(chance.pick(&[6, 10, 20, 30, 60, 120]));
        let periods = chance.between(2, 5);
        let length = access_token_life * u32::try_from(periods).unwrap();
        let dies_idle = chance.happens(100);
        let ages = chance.happens(100);
        let mut schedule = Self {
            gateways: usize::try_from(chance.between(1, 4)).unwrap(),
            users: usize::try_from(chance.between(1, 3)).unwrap(),
            is_one_person: chance.happens(300),
            length,
            access_token_life,
            refresh_before_expiry: Duration::from_secs(chance.pick(&[0, 2, 10, 60])),
            idle_timeout: if dies_idle { access_token_life } else { Duration::from_secs(1800) },
            lifetime: if ages { access_token_life * 2 } else { Duration::from_secs(12 * 3600) },
            grace: Duration::from_secs(chance.pick(&[0, 5, 30])),
            store: StoreNature::of(&mut chance),
            issuer: IssuerNature::of(&mut chance),
            telling: chance.pick(&[(0, 0), (1, 20), (50, 900)]),
            refused: chance.pick(&[0, 0, 0, 30, 150]),
            has_route_tokens: seed >= WITH_ROUTE_TOKENS,
            events: Vec::new(),
        };
        // A refresh token that stays the same does not tell which of them was issued for it.
        schedule.issuer.rotates |= schedule.has_route_tokens;
        schedule.add_events(&mut chance);
        schedule.events.sort_by_key(|(at, _)| *at);
        schedule
    }

    fn add_events(&mut self, chance: &mut Chance) {
        let disturbs = |chance: &mut Chance| chance.happens(350);
        let (crashes, outages, breaks) = (disturbs(chance), disturbs(chance), disturbs(chance));
        if disturbs(chance) {
            self.add_outage_in_a_refresh(chance);
        }
        let (issuer_outages, logouts, ends) = (disturbs(chance), chance.happens(700), chance.happens(80));
        let (unseen, fails_over) = (chance.happens(250), chance.happens(250));
        for _ in 0..chance.between(10, 40) {
            let at = self.moment(chance);
            let user = chance.index(self.users);
            // Browsers send what they want at once, to whichever gateways.
            for _ in 0..chance.pick(&[1, 1, 2, 5]) {
                let gateway = chance.index(self.gateways);
                let gives_up_after = chance.happens(150).then(|| chance.millis((0, 3000)));
                let request = Event::Request { gateway, user, gives_up_after };
                self.events.push((at + chance.millis((0, 30)), request));
            }
        }
        for user in 0..self.users {
            if logouts && chance.happens(600) {
                for _ in 0..chance.pick(&[1, 1, 2]) {
                    let at = self.moment(chance);
                    self.events.push((at, Event::LogOut { gateway: chance.index(self.gateways), user }));
                    self.add_requests_around(at, user, chance);
                }
            }
            if unseen && chance.happens(600) {
                let (at, gateway) = (self.moment(chance), chance.index(self.gateways));
                let by = chance.pick(&[By::Subject, By::Sid, By::SubjectAndSid]);
                self.events.push((at, Event::EndUnseen { gateway, user, by }));
                self.add_requests_around(at, user, chance);
            }
            if ends && chance.happens(500) {
                self.events.push((self.moment(chance), Event::EndGrant { user }));
            }
        }
        for _ in 0..if crashes { chance.between(1, 3) } else { 0 } {
            let (at, gateway) = (self.moment(chance), chance.index(self.gateways));
            self.events.push((at, Event::Crash { gateway }));
            self.events.push((at + chance.millis((1, 5000)), Event::Restart { gateway }));
        }
        for _ in 0..if outages { chance.between(1, 3) } else { 0 } {
            let gateway = chance.happens(600).then(|| chance.index(self.gateways));
            let length = chance.pick(&[(50, 500), (500, 3000), (3000, 40_000)]);
            let outage =
                Event::StoreOutage { gateway, length: chance.millis(length), hangs: chance.happens(300) };
            self.events.push((self.moment(chance), outage));
        }
        for _ in 0..if fails_over { chance.between(1, 2) } else { 0 } {
            let endings = self.events.iter().filter(|(_, event)| event.ends_a_session()).map(|(at, _)| *at);
            let endings: Vec<_> = endings.collect();
            let at = if !endings.is_empty() && chance.happens(500) {
                chance.pick(&endings)
            } else {
                self.moment(chance)
            };
            let lost = chance.pick(&[(1, 200), (200, 1500), (1500, 6000)]);
            let failover = Event::FailOver { lost: chance.millis(lost), length: chance.millis((300, 6000)) };
            self.events.push((at + chance.millis((0, 2500)), failover));
        }
        for _ in 0..if breaks { chance.between(1, 3) } else { 0 } {
            let broken = Event::Break {
                gateway: chance.index(self.gateways),
                notice: chance.millis((0, 2000)),
                length: chance.millis((2000, 40_000)),
            };
            self.events.push((self.moment(chance), broken));
        }
        for _ in 0..if issuer_outages { chance.between(1, 2) } else { 0 } {
            let outage = chance.pick(&[
                IssuerOutage::RefusesConnections,
                IssuerOutage::Fails,
                IssuerOutage::LosesAnswers,
            ]);
            let length = chance.millis((200, 20_000));
            self.events.push((self.moment(chance), Event::IssuerOutage { length, outage }));
        }
    }

    /// One gateway refreshes as early as it does, and loses the store in the middle of it; the others go on.
    fn add_outage_in_a_refresh(&mut self, chance: &mut Chance) {
        let margin = self.refresh_before_expiry.min(self.access_token_life / 3);
        let stale_at = self.access_token_life.saturating_sub(margin);
        let (without, user) = (chance.index(self.gateways), chance.index(self.users));
        let request = |gateway| Event::Request { gateway, user, gives_up_after: None };
        self.events.push((stale_at + Duration::from_millis(1), request(without)));
        let (at, length) = (stale_at + chance.millis((2, 3000)), chance.millis((3000, 25_000)));
        let hangs = chance.happens(300);
        self.events.push((at, Event::StoreOutage { gateway: Some(without), length, hangs }));
        for _ in 0..chance.between(3, 10) {
            let gateway = chance.index(self.gateways);
            self.events.push((at + chance.millis((2000, 25_000)), request(gateway)));
        }
    }

    /// What another tab does just before, during and after a logout.
    fn add_requests_around(&mut self, at: Duration, user: usize, chance: &mut Chance) {
        for range in [(0, 700), (0, 700), (0, 700), (800, 1500), (800, 12_000)] {
            let gateway = chance.index(self.gateways);
            let moment = (at + chance.millis(range)).saturating_sub(Duration::from_millis(500));
            self.events.push((moment, Event::Request { gateway, user, gives_up_after: None }));
        }
    }

    /// A moment at which something happens: most of it near the end of an access token.
    fn moment(&self, chance: &mut Chance) -> Duration {
        let length = u64::try_from(self.length.as_millis()).unwrap();
        if chance.happens(400) {
            return chance.millis((0, length));
        }
        let life = u64::try_from(self.access_token_life.as_millis()).unwrap();
        let end = life * chance.between(1, (length / life).max(1));
        let before = chance.between(0, 2000).min(end);
        Duration::from_millis((end - before + chance.between(0, 4000)).min(length))
    }
}

impl Event {
    fn ends_a_session(&self) -> bool {
        matches!(self, Self::LogOut { .. } | Self::EndUnseen { .. })
    }
}

impl StoreNature {
    fn of(chance: &mut Chance) -> Self {
        let rate = |chance: &mut Chance| if chance.happens(250) { chance.between(5, 80) } else { 0 };
        Self {
            latency: chance.pick(&[(0, 0), (0, 2), (1, 30), (20, 300)]),
            slow: rate(chance),
            fails: rate(chance),
            hangs: rate(chance),
            loses_answer: rate(chance),
            late: rate(chance),
        }
    }
}

impl IssuerNature {
    fn of(chance: &mut Chance) -> Self {
        let rate = |chance: &mut Chance| if chance.happens(200) { chance.between(20, 250) } else { 0 };
        Self {
            delay: chance.pick(&[(0, 1), (5, 80), (100, 2000), (500, 6000)]),
            slow: rate(chance),
            refuses_connection: rate(chance),
            fails: rate(chance),
            loses_answer: rate(chance),
            ends_grant_on_reuse: chance.happens(700),
            rotates: !chance.happens(150),
            revokes: !chance.happens(100),
        }
    }
}
