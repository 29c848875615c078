//! Each reason for which a request is refused, and what is said of it to whoever wrote the request: what happened, why, and
//! what to change. `docs/refusals.md` has a section for each, and a test holds the two to each other.
//!
//! Nothing here tells an attacker more than a developer: a cookie that opens no session is one reason, whatever is wrong
//! with it, and which hosts and issuers are configured is for the log.

use super::Code;

macro_rules! reasons {
    ($($code:ident { $($reason:ident = $name:literal: $detail:literal,)* })*) => {
        /// Why a request is refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason {
            $($(#[doc = $detail] $reason,)*)*
        }

        impl Reason {
            /// Each of them, by its code.
            pub const ALL: &'static [Self] = &[$($(Self::$reason,)*)*];

            /// What kind of refusal it is.
            pub const fn code(self) -> Code {
                match self {
                    $($(Self::$reason)|* => Code::$code,)*
                }
            }

            /// Its name: the anchor of its section in `docs/refusals.md`.
            pub const fn name(self) -> &'static str {
                match self {
                    $($(Self::$reason => $name,)*)*
                }
            }

            /// What happened, why, and what to change, for a developer.
            pub const fn detail(self) -> &'static str {
                match self {
                    $($(Self::$reason => $detail,)*)*
                }
            }
        }
    };
}

reasons! {
    Unauthenticated {
        NoSession = "no-session":
            "There is no session: the request has no session cookie, or one that opens none. Send the user to login_url by \
             a navigation; login() and fetch() of client.js do so.",
    }
    SessionEnded {
        IssuerEndedSession = "issuer-ended-session":
            "The session has just ended, for the issuer gives it no fresh access token: the refresh token was revoked or has \
             expired, or there is none. Send the user to login_url by a navigation, once for all requests that are told so.",
    }
    InsufficientUserAuthentication {
        StepUpNeeded = "step-up-needed":
            "The upstream wants the user to prove again, or in another way, who they are (RFC 9470). Send the user to \
             login_url, which asks the issuer for that, and repeat the request afterwards.",
    }
    Csrf {
        CsrfHeaderMissing = "csrf-header-missing":
            "This request came without `X-CSRF: 1`, sent once, which shows that the app's own script made it. Send it with \
             each request, reads too; fetch() of client.js adds it. Where no script can, as for an \
             image, set `csrf: same_origin` on the route.",
        ForeignOrigin = "foreign-origin":
            "Another origin made this request: Sec-Fetch-Site is neither same-origin nor none, or Origin is not the app's. A \
             sibling subdomain, another port and another scheme count as foreign. Make the request from a page of the app's \
             own `origin`; in development, open that origin and not the dev server's.",
        OriginUnproven = "origin-unproven":
            "Neither Sec-Fetch-Site nor Origin says that the app made this request, and the route has `csrf: same_origin`. \
             Browsers send the first by HTTPS and on localhost; another client has to send the app's origin as Origin.",
        WebsocketOrigin = "websocket-origin":
            "A WebSocket handshake needs the app's own origin as Origin, to the letter. Open the WebSocket from a page of the \
             app's `origin`; a proxy in between must pass Origin on unchanged.",
        PageOnAdmin = "page-on-admin":
            "A page in a browser asked the operators' listener to end sessions. Ask by a command-line client, which sends \
             neither Origin nor Sec-Fetch-Site.",
    }
    Forbidden {
        ScopeMissing = "scope-missing":
            "The session's token lacks a scope that `required_scopes` of this route names. List it in `scopes` of the app's \
             `oidc`, see that the issuer grants it to this client and this user, and log in again.",
        ClaimMissing = "claim-missing":
            "The user lacks a claim that `required_claims` of this route names, or has it with another value; the log has its \
             name. See that the issuer puts it into the ID token, or into userinfo with `userinfo: true`. The claims are those \
             of the login: log in again after a change.",
        TokenRefused = "token-refused":
            "The issuer gives this session no token for what `token` of this route asks for. See which scopes, audiences and \
             grants the issuer allows this client; the log has its answer.",
        StepUpInsufficient = "step-up-insufficient":
            "The login that was just made does not suffice: the upstream asks for a better one still. See that the issuer can \
             bring the `acr` that the upstream names in its challenge, and says so in the token.",
    }
    BadRequest {
        HostMissing = "host-missing":
            "There is no Host field, so that nobody knows which app is meant. Send exactly one (RFC 9112 §3.2).",
        HostRepeated = "host-repeated":
            "There is more than one Host field. Send exactly one; a proxy in between has to replace it, not to add to it.",
        HostDiffers = "host-differs":
            "The Host field and the host in the request's target differ. Send the same in both (RFC 9112 §3.2.2).",
        HostMalformed = "host-malformed":
            "The Host field names no host. Send a host and, where it is not the scheme's own, a port.",
        PathWithoutSlash = "path-without-slash":
            "The path does not begin with a slash. Ask for a path, such as /api/orders.",
        PathEmptySegment = "path-empty-segment":
            "The path holds an empty segment (`//`), which servers read differently. Join paths with one slash.",
        PathDotSegment = "path-dot-segment":
            "The path holds a dot segment (`.` or `..`, encoded or before a `;` too), which servers resolve differently. \
             Resolve it before the request is sent, as `new URL()` does.",
        PathBackslash = "path-backslash":
            "The path holds a backslash, plain or as %5C, which some servers read as a slash. Write a slash, or put the value \
             into the query.",
        PathEncodedSlash = "path-encoded-slash":
            "The path holds %2F, which some servers read as a separator. Put the value into the query, or set \
             `allow_encoded_slash: true` on the route if its upstream does not.",
        PathAmbiguous = "path-ambiguous":
            "The path's %2F would lead to another route if it were read as a separator, so that two rules could hold. Put the \
             value into the query, or arrange the routes so that both readings meet the same one.",
        PathNul = "path-nul":
            "The path holds %00, which ends a text for some servers. Leave it out.",
        PathBadEscape = "path-bad-escape":
            "The path holds a % that two hexadecimal digits do not follow. Encode each part of the path with \
             encodeURIComponent().",
        PathNotForwardable = "path-not-forwardable":
            "The path and the query make no address at the upstream. Encode each part of them with encodeURIComponent().",
        BodyFraming = "body-framing":
            "Nobody can tell for certain where the request's body ends: Content-Length and Transfer-Encoding contradict each \
             other, or are repeated. Send one of the two, once (RFC 9112 §6.3).",
        BodyBroken = "body-broken":
            "The request's body broke off. Send it again; where that happens again, look at the client and the proxies before \
             the gateway.",
        CookiesConflict = "cookies-conflict":
            "The request carries two different session cookies. Delete the cookies of this site; then see that no other app \
             sets a cookie of this name for a parent domain or another path, or give this one another `cookie.name`.",
        WebsocketNotEnabled = "websocket-not-enabled":
            "This route takes no WebSockets. Set `websocket: true` on it.",
        LoginByScript = "login-by-script":
            "A script or a sub-resource asked for a login, which begins by a navigation: the browser has to leave the page. \
             Set location.href to this address; login() of client.js does so.",
        LoginPostWithoutIssuer = "login-post-without-issuer":
            "A login that another party begins by POST has to name its issuer as iss (OpenID Connect Core §4). Add it to the \
             form, or begin the login by GET.",
        SilentLoginWithoutIssuer = "silent-login-without-issuer":
            "This app has several issuers, and a login by prompt=none can ask nobody which. Name one as iss.",
        IssuerUnknown = "issuer-unknown":
            "This app does not log in at the issuer that iss names. Name one of those in its `oidc`, letter by letter.",
        ReturnTo = "return-to":
            "return_to is no path of this app: it begins with one slash, leads to no endpoint of the gateway, and is not longer \
             than 1024 bytes. Send a path such as /orders?page=2, encoded once; an absolute URL is refused, the app's own too.",
        TargetLink = "target-link":
            "target_link_uri is no URL of this app. Send an absolute URL of the app's own origin, or a path as return_to.",
        ReturnToTwice = "return-to-twice":
            "return_to and target_link_uri exclude each other. The app sends return_to, another party target_link_uri.",
        MaxAge = "max-age":
            "max_age is not a number of seconds. Send whole seconds, such as max_age=300.",
        AcrValues = "acr-values":
            "acr_values is longer than 512 bytes. Send the few values that would do.",
        LoginTooLarge = "login-too-large":
            "return_to and acr_values together are too long for the cookie that keeps them during a login. Send a shorter \
             return_to, and keep what else is to be known after the login in sessionStorage.",
        ParameterRepeated = "parameter-repeated":
            "A parameter is given more than once, so that nobody knows which counts (RFC 6749 §3.1). Send each once.",
        FormType = "form-type":
            "What is posted here is a form. Send it with `Content-Type: application/x-www-form-urlencoded`.",
        FormSlow = "form-slow":
            "The body takes too long to come in. Send it at once; `header_timeout` in `server.limits` is for all of it.",
        FormBroken = "form-broken":
            "The body broke off, or is larger than 128 KiB, more than any such form has. Send it whole.",
        DeviceIssuerAmbiguous = "device-issuer-ambiguous":
            "This app has several issuers where users may log in on another device. Name one as iss.",
        DeviceIssuer = "device-issuer":
            "This app begins no login on another device at that issuer. Set `device_authorization: true` in its `oidc`, or name \
             another issuer as iss.",
        PlainHttp = "plain-http":
            "This port speaks HTTPS, and the request came in cleartext. Begin the URL with https://; a proxy before the \
             gateway has to speak TLS to it.",
        SessionsQuery = "sessions-query":
            "Exactly one parameter is wanted, sub or sid, once and not empty. Ask for /sessions?sub=… or /sessions?sid=….",
    }
    MethodNotAllowed {
        Method = "method":
            "This address does not answer this method; Allow lists those that it does. Send one of them, or add the method to \
             `methods` of the route.",
    }
    LoginFailed {
        LoginDenied = "login-denied":
            "The user or the issuer said no (access_denied). Begin again at login_url; if nobody cancelled, see whether the \
             issuer lets this user use this client.",
        LoginNeedsUser = "login-needs-user":
            "The issuer would have had to ask the user something, and did not. Send the user to login_url; where that happens \
             again, see whether `authorization_parameters` forbid the issuer to ask (prompt=none).",
        LoginIssuerTrouble = "login-issuer-trouble":
            "The issuer answered that it cannot log anybody in at the moment (server_error, temporarily_unavailable). Begin again \
             later at login_url; the log has its words.",
        LoginRefused = "login-refused":
            "The issuer refused this login. Mostly the client is registered in another way than it is configured: compare \
             redirect_uri, scopes, response mode and authorization parameters with the issuer's settings; the log has its words.",
        LoginIssuerMismatch = "login-issuer-mismatch":
            "The answer does not come from the issuer that this login was begun at (RFC 9207). Begin again at login_url; if it \
             happens again, compare `issuer` with the iss that the issuer sends.",
        LoginResponse = "login-response":
            "The issuer's answer could not be accepted: it is neither a code nor an error, came in another way than \
             `response_mode` says, or its signature fails a check. The log says which.",
        LoginCodeRefused = "login-code-refused":
            "The issuer refused to redeem the code: it was used before, is too old, or is for another redirect_uri. Begin again \
             at login_url.",
        LoginClientRefused = "login-client-refused":
            "The issuer refused the token request itself. Mostly the client's secret or key is not the one registered, or its \
             `client_auth` is another method than the issuer expects; the log has its words.",
        LoginTokens = "login-tokens":
            "The issuer's token response could not be accepted. The log says what is wrong with it.",
        LoginIdToken = "login-id-token":
            "The issuer's ID token fails a check, such as its signature, audience, nonce or time. The log says which; a \
             wrong clock on either side is the usual one.",
        LoginUserinfo = "login-userinfo":
            "The issuer's userinfo response fails a check. The log says which; `userinfo: false` does without it.",
        LoginStale = "login-stale":
            "This login is no longer under way: it was finished before, began more than ten minutes ago, or in another browser, \
             or its cookie was not sent. Begin again at login_url, and never store or share the address of the callback.",
        LoginOnDevice = "login-on-device":
            "The issuer begins no login on another device for this client. See whether it offers device authorization (RFC 8628) \
             and allows the client that grant; the log has its answer.",
    }
    NotFound {
        NoRoute = "no-route":
            "No route and no endpoint has this path. Compare it with `path` of the app's routes, which match whole segments, \
             and with its `base_path`, under which there are the gateway's own endpoints alone.",
        NoFile = "no-file":
            "No file has this path, and index.html answers only requests that accept text/html. See whether the build put the \
             file into the folder of `files`, and whether the page that asks for it is from an older build.",
        NoSecurityEvents = "no-security-events":
            "Nobody's security events are taken here. Configure `shared_signals` of the app.",
        NoAdminPage = "no-admin-page":
            "The operators' listener has /, /livez, /readyz, /metrics and /sessions. Ask for one of those.",
    }
    Misdirected {
        HostUnknown = "host-unknown":
            "No app has this host as its `origin`; scheme aside, host and port must be the same. Add an app with this origin, \
             open the one that is configured, or have the proxy before the gateway pass on the browser's Host (with Vite: \
             no changeOrigin).",
        AdminHost = "admin-host":
            "The operators' listener answers to names that nobody else can register. Ask by an IP address, as localhost, or by \
             a name without dots or in a private domain such as .internal.",
    }
    TooLarge {
        BodyTooLarge = "body-too-large":
            "The body is larger than is let through. Send less at a time, or raise `server.limits.body_bytes`.",
    }
    RateLimited {
        RateLimit = "rate-limit":
            "A rate limit of this route, or of logins, is used up; more is let through once the seconds in Retry-After are over. \
             Ask less often, or raise `rate_limits` of the route or `login_rate_limits` of the app.",
    }
    StoreUnavailable {
        StoreAway = "store-away":
            "The session store does not answer, so that nobody knows who is logged in; nobody was logged out. Try again after \
             the seconds in Retry-After; do not treat it as a logout.",
    }
    IssuerUnavailable {
        IssuerAway = "issuer-away":
            "The issuer does not answer, or its metadata or keys cannot be used. Try again after the seconds in Retry-After; \
             `cloakroom check --connect` says what is wrong.",
        IssuerSlow = "issuer-slow":
            "The issuer takes longer than ten seconds to answer. Try again after the seconds in Retry-After.",
        RefreshUnavailable = "refresh-unavailable":
            "The access token has to be refreshed, and the issuer does not answer. The session goes on: try again after the \
             seconds in Retry-After, and do not send the user to login.",
    }
    UpstreamUnavailable {
        UpstreamUnreachable = "upstream-unreachable":
            "No connection to the upstream could be made. See whether it runs at the address in `upstream` of the route; \
             `cloakroom check --connect` tries it, and the log has the reason.",
        UpstreamBrokeOff = "upstream-broke-off":
            "The upstream broke the exchange off before its answer was there. Its own log may say why; ours has what was seen.",
        UpstreamFraming = "upstream-framing":
            "Nobody can tell for certain where the upstream's answer ends: its Content-Length and Transfer-Encoding contradict \
             each other. Mend the upstream.",
        UpstreamUpgrade = "upstream-upgrade":
            "The upstream's answer to the WebSocket handshake makes no sense. See whether `upstream` leads to the WebSocket \
             server itself, and whether a proxy before it passes Upgrade on.",
    }
    UpstreamTimeout {
        UpstreamSlow = "upstream-slow":
            "The upstream gave no answer in time. Make it faster, or raise `timeouts.response` of the route.",
    }
    Overloaded {
        TooManyConnections = "too-many-connections":
            "There are more connections than `server.limits.connections`. Try again after the seconds in Retry-After; reuse \
             connections, or raise the limit.",
        TooManyRequests = "too-many-requests":
            "The gateway has more to do than it gets done, and serves live sessions first. Try again after the seconds in \
             Retry-After; see `server.limits.requests` and the gateway's CPU.",
    }
    Internal {
        GatewayFailed = "gateway-failed":
            "The gateway itself failed, which is a bug of Cloakroom. The log has the reason under the request id in X-Request-Id.",
        FileUnreadable = "file-unreadable":
            "The file is there and could not be read. See whether the gateway's user may read it.",
        LoginBrokeOff = "login-broke-off":
            "The login broke off by a fault of the gateway's own. Begin again at login_url; the log has the reason.",
        LogoutBrokeOff = "logout-broke-off":
            "The logout broke off by a fault of the gateway's own. Try again; the log has the reason.",
    }
}
