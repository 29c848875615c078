//! The power of two choices: of two servers drawn by lot, the one with fewer requests under way. That
//! spreads load nearly as well as the least of all would, and does not send everybody to one at once
//! (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::health::{Moment, Server};
use crate::random::Random;

/// One of these servers. One that is coming back is passed over for the other at first, then ever less often.
pub(super) fn choose<'a>(
    servers: impl Iterator<Item = &'a Arc<Server>>,
    now: Moment,
    lots: &mut Draw,
) -> Option<&'a Arc<Server>> {
    let (one, other) = draw_two(servers, lots)?;
    let Some(other) = other else { return Some(one) };
    // Either may be first, for the first one wins where both are alike.
    let (one, other) = if lots.fraction() < 0.5 { (one, other) } else { (other, one) };
    let mut may_take = |server: &Server| {
        let share = server.share(now);
        share >= 1.0 || lots.fraction() < share
    };
    let chosen = match (may_take(one), may_take(other)) {
        (true, false) => one,
        (false, true) => other,
        (true, true) | (false, false) if other.under_way() < one.under_way() => other,
        (true, true) | (false, false) => one,
    };
    Some(chosen)
}

/// Two of them, each pair as likely as any other; one where there is only one.
fn draw_two<'a>(
    mut servers: impl Iterator<Item = &'a Arc<Server>>,
    lots: &mut Draw,
) -> Option<(&'a Arc<Server>, Option<&'a Arc<Server>>)> {
    let (mut one, mut other) = (servers.next()?, servers.next());
    for (server, seen) in servers.zip(3_u32..) {
        let lot = lots.fraction() * f64::from(seen);
        if lot < 1.0 {
            one = server;
        } else if lot < 2.0 {
            other = Some(server);
        }
    }
    Some((one, other))
}

/// Random numbers for what nobody gains from guessing, without a call to the system for each: SplitMix64
/// (Steele, Lea and Flood, 2014).
#[derive(Debug)]
pub(super) struct Lots(AtomicU64);

/// Numbers of one choice.
pub(super) struct Draw(u64);

const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

impl Lots {
    pub(super) fn new(random: Random) -> Self {
        Self(AtomicU64::new(u64::from_le_bytes(random.bytes())))
    }

    pub(super) fn draw(&self) -> Draw {
        Draw(mix(self.0.fetch_add(GOLDEN_RATIO, Ordering::Relaxed)))
    }
}

impl Draw {
    /// A number from 0 up to, but without, 1.
    pub(super) fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(GOLDEN_RATIO);
        let [.., a, b, c, d] = mix(self.0).to_be_bytes();
        f64::from(u32::from_be_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0)
    }
}

fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::ServerAddress;
    use super::*;

    const NOW: Moment = Moment::after(Duration::from_secs(100));

    fn servers(count: u16) -> Vec<Arc<Server>> {
        let address = |port| ServerAddress::Tcp(([127, 0, 0, 1], port).into());
        (0..count).map(|port| Arc::new(Server::new(address(port)))).collect()
    }

    /// How many of a thousand requests go to each, where none ends.
    fn spread(servers: &[Arc<Server>], now: Moment, end_at_once: bool) -> Vec<usize> {
        let lots = Lots::new(Random::SYSTEM);
        let mut counts = vec![0; servers.len()];
        for _ in 0..1000 {
            let chosen = choose(servers.iter(), now, &mut lots.draw()).unwrap();
            if !end_at_once {
                chosen.begin();
            }
            counts[servers.iter().position(|server| Arc::ptr_eq(server, chosen)).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn each_server_takes_its_share() {
        assert!(choose(servers(0).iter(), NOW, &mut Lots::new(Random::SYSTEM).draw()).is_none());
        assert_eq!(spread(&servers(1), NOW, false), [1000]);
        for count in [2_u16, 3, 10] {
            let fair = 1000 / usize::from(count);
            for (end_at_once, slack) in [(false, fair / 10 + 5), (true, fair / 2)] {
                for got in spread(&servers(count), NOW, end_at_once) {
                    assert!(got.abs_diff(fair) <= slack, "{got} of {fair}, {end_at_once}");
                }
            }
        }
    }

    #[test]
    fn a_server_that_is_slow_to_answer_is_left_its_time() {
        let servers = servers(2);
        for _ in 0..1000 {
            servers[0].begin();
        }
        assert_eq!(spread(&servers, NOW, false), [0, 1000]);
    }

    #[test]
    fn a_server_that_comes_back_takes_a_growing_share() {
        let servers = servers(2);
        let away = servers[0].note_failure(true, NOW, 0.0).unwrap();
        let shares: Vec<_> = [0, 3, 6, 10]
            .map(|seconds| spread(&servers, NOW.plus(away + Duration::from_secs(seconds)), true)[0])
            .into();
        assert!(shares[0] > 0 && shares.is_sorted_by(|one, next| one + 50 < *next), "{shares:?}");
        assert!(shares[3].abs_diff(500) < 100, "{shares:?}");
    }
}
