// What each hop means, in words, and which of the login's secrets it carries: its kind, for the value is not known here.

const NAMES = { browser: "Browser", gateway: "Gateway", issuer: "Issuer", store: "Store", api: "API" };

const COOKIE = "session cookie";

// By what was asked: what it is for, and what goes along.
const MEANINGS = {
  "browser gateway GET /bff/login": ["asks to log in, and is sent to the issuer", ""],
  "browser gateway GET /bff/callback": ["brings the code, and gets the session cookie", "code"],
  "browser gateway POST /bff/logout": ["wants to log out", COOKIE],
  "browser gateway GET /bff/logout/callback": ["is back from the issuer", ""],
  "browser issuer GET /authorize": ["asks for a code", ""],
  "browser issuer POST /login": ["says who the user is, and is sent back with a code", "password"],
  "browser issuer GET /end-session": ["logs out there as well", ""],
  "browser issuer POST /end-session": ["logs out there as well", ""],
  "issuer gateway POST /bff/backchannel-logout": ["tells that the session has ended there", "logout token"],
  "gateway issuer GET /.well-known/openid-configuration": ["asks whether it is there, and what it offers", ""],
  "gateway issuer GET /jwks": ["fetches the public keys that ID tokens are signed with", ""],
  "gateway issuer POST /revoke": ["has a token revoked", "a token"],
  "gateway store read": ["looks for the sealed record", ""],
  "gateway store create": ["puts a sealed record in", "sealed record"],
  "gateway store replace": ["puts the new tokens in, sealed", "sealed record"],
  "gateway store touch": ["notes that the session is in use", ""],
  "gateway store take": ["takes the record out", ""],
  "gateway store take_version": ["takes the record out", ""],
  "gateway store list": ["asks which records are this user's", ""],
  "gateway store lease": ["makes sure that nobody else refreshes", ""],
  "gateway store release": ["lets others refresh again", ""],
};

export function name(part) {
  return NAMES[part];
}

// `hops` are those of the same request.
export function meaning(hop, hops) {
  const way = `${hop.from} ${hop.to}`;
  if (way === "browser gateway" && hop.what.includes(" /api/")) return ["calls the API", COOKIE];
  if (way === "gateway api") return ["passes the call on, with the token in the cookie's place", "access token"];
  if (way === "gateway issuer" && hop.what === "POST /token") {
    const isLogin = hops.some(({ what }) => what === "GET /bff/callback");
    return isLogin ? ["takes the code for tokens", "code"] : ["takes the refresh token for new tokens", "refresh token"];
  }
  return MEANINGS[`${way} ${hop.what}`] ?? [way.endsWith("store") ? "notes what it must not forget" : "asks", ""];
}

export function hasFailed(hop) {
  return hop.failed || hop.status >= 400;
}

export function outcome(hop) {
  if (hop.failed || (hop.to !== "store" && hop.status === null)) return "no answer";
  return hop.status === null ? "done" : String(hop.status);
}

export function sentence(hop, hops) {
  const [what, carried] = meaning(hop, hops);
  const technical = hop.to === "store" ? "" : ` (${hop.what})`;
  const along = carried ? ` With it goes: ${carried}.` : "";
  return `${name(hop.from)} → ${name(hop.to)}: ${what}${technical}: ${outcome(hop)}.${along}`;
}
