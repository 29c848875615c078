//! What a real provider says of tokens for routes that take another than the session's access token.

use crate::support::gateway::Gateway;
use crate::support::issuer::TOKEN_EXCHANGE;

use super::*;

const RESOURCE: &str = "https://orders.test";

/// A gateway with a route to this upstream for each of these kinds of token, before a provider that knows them all.
struct World {
    issuer: RealIssuer,
    upstream: Upstream,
    clock: Arc<ManualClock>,
    gateway: Gateway,
}

impl World {
    async fn start(routes: &[&str]) -> Self {
        let grants = ["authorization_code", "refresh_token", "client_credentials", TOKEN_EXCHANGE];
        let options = json!({"resources": [RESOURCE]});
        let issuer = issuer_with("client_secret_basic", options, &json!({"grant_types": grants})).await;
        let (upstream, clock) = (Upstream::start().await, clock());
        let mut setup = setup(&issuer, &upstream, "client_secret_basic").clock(clock.clone());
        setup.oidc = setup.oidc.replace("offline_access]", "offline_access, orders.read]");
        setup.oidc += &format!("\nresource: [{RESOURCE}]");
        for keys in routes {
            setup.add_route(&format!("upstream: \"{}\", {keys}", upstream.url()));
        }
        let gateway = setup.start().await;
        Self { issuer, upstream, clock, gateway }
    }

    async fn user(&self) -> Browser {
        let mut browser = Browser::new(self.gateway.address);
        log_in(&mut browser).await;
        browser
    }

    /// Calls each path ten times at once, and then lets all tokens expire.
    async fn round(&self, browser: &Browser, paths: &[&str]) {
        let calls = paths.iter().cycle().take(10 * paths.len()).map(|path| {
            let mut window = browser.window();
            async move { (path, window.fetch(path).await) }
        });
        for (path, answer) in join_all(calls).await {
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        }
        self.clock.advance(Duration::from_secs(601));
    }

    /// How many of these were asked for, all of which were granted.
    async fn granted(&self, grant: &str) -> usize {
        let requests = self.issuer.state().await.token_requests;
        let requests = requests.iter().filter(|asked| asked.grant_type.as_deref() == Some(grant));
        requests.inspect(|asked| assert_eq!(asked.status, 200)).count()
    }

    /// The tokens that went upstream, each once.
    fn tokens(&self) -> HashSet<String> {
        self.upstream.tokens().into_iter().collect()
    }

    /// Logs out, and gives how many tokens were revoked; none is alive.
    async fn revoked_at_logout(&self, browser: &mut Browser) -> usize {
        log_out(browser).await;
        let state = self.issuer.state().await;
        assert!(state.revocations.iter().all(|asked| asked.status == 200));
        assert_eq!((state.alive("refresh_token"), state.alive("access_token")), (vec![], vec![]));
        state.revocations.len()
    }
}

#[tokio::test]
async fn rfc6749_a_token_of_the_clients_own_is_understood_and_had_once_for_all() {
    let token = format!("{{client_credentials: {{scopes: [orders.read], resource: \"{RESOURCE}\"}}}}");
    let world = World::start(&[&format!("path: /own, auth: none, token: {token}")]).await;
    let stranger = Browser::new(world.gateway.address);
    for round in 1..=2 {
        world.round(&stranger, &["/own"]).await;
        assert_eq!((world.granted("client_credentials").await, world.tokens().len()), (round, round));
    }
}

#[tokio::test]
async fn rfc8707_a_token_for_a_resource_is_understood_and_no_rotated_refresh_token_is_lost() {
    let token = format!("{{access_token: {{resource: \"{RESOURCE}\"}}}}");
    let route = format!("path: /resource, required_scopes: [orders.read], token: {token}");
    let world = World::start(&[&route]).await;
    let mut browser = world.user().await;
    for round in 1..=3 {
        world.round(&browser, &["/api", "/resource"]).await;
        // Of the access token, and of the one beside it.
        assert_eq!(world.granted("refresh_token").await, 2 * round - 1);
        assert_eq!(world.tokens().len(), 2 * round);
    }
    let state = world.issuer.state().await;
    let access_tokens = state.tokens.iter().filter(|token| token.kind == "access_token");
    assert!(access_tokens.map(|token| token.audience.as_deref()).all(|audience| audience == Some(RESOURCE)));
    assert_eq!(world.revoked_at_logout(&mut browser).await, 3);
}

#[tokio::test]
async fn rfc8693_an_exchange_is_understood_and_so_is_its_refusal() {
    let exchange = |path, audience| format!("path: {path}, token: {{exchange: {{audience: {audience}}}}}");
    let world = World::start(&[&exchange("/exchanged", "orders"), &exchange("/nowhere", "nowhere")]).await;
    let mut browser = world.user().await;
    for round in 1..=2 {
        world.round(&browser, &["/api", "/exchanged"]).await;
        assert_eq!(world.granted(TOKEN_EXCHANGE).await, round);
        assert_eq!((world.granted("refresh_token").await, world.tokens().len()), (round - 1, 2 * round));
    }
    assert_eq!(browser.fetch("/nowhere").await.problem(), "forbidden");
    assert_eq!(browser.fetch("/exchanged").await.status, 200, "all else goes on");
    assert_eq!(world.revoked_at_logout(&mut browser).await, 3);
}
