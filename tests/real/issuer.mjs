// A real OpenID provider (npm oidc-provider) on a free loopback port.
//
//   node issuer.mjs '{"clients": [{"client_id": "shop", "redirect_uris": ["http://localhost:8080/bff/callback"]}]}'
//
// prints one JSON line, {"issuer": "…", "admin": "…"}, once it answers, and exits when its standard input closes, so that it
// never outlives who started it. Options, all but `clients` with a default:
//
//   clients           client metadata (RFC 7591 §2); without a client_secret a client is public
//   users             {name: password}
//   access_token_ttl  seconds
//   rotate            whether each refresh gives a new refresh token; a used one that comes again ends its grant
//   refresh_delay     milliseconds that a refresh takes longer, after the token was rotated
//   dpop_nonces       whether each proof of possession (RFC 9449) must have a nonce of the provider's
//   features          further features of the provider's, as its configuration has them
//   resources         where access tokens may be used (RFC 8707), each with the scope `orders.read`
//   gateway_port      where a client's backchannel_logout_uri leads to, whatever its host
//   tls               {certificate, key, ca}, files in PEM: the provider is on https, and asks for certificates of `ca` at mtls_endpoint_aliases
//
// A refresh token is given for the scope `offline_access`, and that only with `prompt=consent` (OpenID Connect Core §11).
// `GET {admin}/state` tells what the provider has seen and what is alive; see `state` below. `GET {admin}/kill` ends all access tokens.
import { generateKeyPairSync, randomBytes, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer, request as call } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { setTimeout as delay } from 'node:timers/promises';

import { errors, Provider } from 'oidc-provider';
import { createMemoryAdapter } from 'oidc-provider/lib/adapters/memory_adapter.js';

const options = {
  users: { alice: 'wonderland', bob: 'builder' },
  access_token_ttl: 300,
  rotate: true,
  refresh_delay: 0,
  dpop_nonces: false,
  gateway_port: 0,
  features: {},
  resources: [],
  ...JSON.parse(process.argv[2] ?? '{}'),
};

/** RFC 8693. The provider has no token exchange of its own. */
const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';

/** What has happened so far, for `state`. */
const seen = { pushed: 0, token_requests: [], revocations: [], introspections: [], end_sessions: 0, backchannel: [], tokens: [], id_tokens: [] };

const server = options.tls ? createSecureServer(secure({})) : createServer();
const mutual = options.tls && createSecureServer(secure({ requestCert: true, rejectUnauthorized: false }));
const issuer = await listen(server);
const aliases = mutual && (await listen(mutual));
const provider = new Provider(issuer, configuration());
provider.registerGrantType(TOKEN_EXCHANGE, exchange, [
  'subject_token', 'subject_token_type', 'requested_token_type', 'audience', 'scope',
]);
provider.use(observe);
provider.use(interaction);
provider.on('end_session.success', () => { seen.end_sessions += 1; });
provider.on('backchannel.success', () => { seen.backchannel.push('done'); });
provider.on('backchannel.error', (_ctx, error) => { seen.backchannel.push(error.message); });
provider.on('server_error', (_ctx, error) => console.error(error));
server.on('request', provider.callback());
mutual?.on('request', provider.callback());

const admin = await listen(createServer(async (request, response) => {
  const answer = { '/state': state, '/kill': kill }[request.url];
  response.writeHead(answer ? 200 : 404, { 'content-type': 'application/json' });
  response.end(JSON.stringify(answer ? await answer() : {}));
}));

process.stdin.on('end', () => process.exit(0)).resume();
console.log(JSON.stringify({ issuer, admin }));

function configuration() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return {
    adapter: createMemoryAdapter(),
    clients: options.clients.map((client) => ({
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: client.client_secret ? 'client_secret_basic' : 'none',
      ...client,
    })),
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), alg: 'RS256', use: 'sig', kid: 'key-1' }] },
    cookies: { keys: [randomBytes(32).toString('hex')] },
    scopes: ['openid', 'offline_access', 'profile', 'email'],
    claims: { openid: ['sub'], profile: ['name', 'preferred_username'], email: ['email'] },
    ttl: {
      AccessToken: options.access_token_ttl, AuthorizationCode: 60, Grant: 86400, IdToken: 3600, Interaction: 600,
      RefreshToken: 86400, Session: 86400,
    },
    rotateRefreshToken: options.rotate,
    fetch: post,
    interactions: { url: (_ctx, { uid }) => `/interaction/${uid}` },
    ...(aliases && { discovery: { mtls_endpoint_aliases: {
      token_endpoint: `${aliases}/token`, revocation_endpoint: `${aliases}/token/revocation`, userinfo_endpoint: `${aliases}/me`,
      pushed_authorization_request_endpoint: `${aliases}/request`, introspection_endpoint: `${aliases}/token/introspection`,
    } } }),
    clientAuthMethods: [
      'client_secret_basic', 'client_secret_post', 'private_key_jwt', 'none', ...(mutual ? ['tls_client_auth', 'self_signed_tls_client_auth'] : []),
    ],
    features: {
      devInteractions: { enabled: false },
      mTLS: {
        enabled: Boolean(mutual),
        certificateBoundAccessTokens: true,
        tlsClientAuth: true,
        selfSignedTlsClientAuth: true,
        getCertificate: clientCertificate,
        certificateAuthorized: (ctx) => ctx.socket.authorized,
        certificateSubjectMatches: (ctx, property, expected) => (
          property === 'tls_client_auth_subject_dn' && clientCertificate(ctx).subject === expected),
      },
      claimsParameter: { enabled: true },
      resourceIndicators: { enabled: true, useGrantedResource: () => true, getResourceServerInfo: resource },
      ...options.features,
      revocation: { enabled: true },
      dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => options.dpop_nonces },
      clientCredentials: { enabled: true },
      introspection: { enabled: true },
      jwtUserinfo: { enabled: true },
      encryption: { enabled: true },
      deviceFlow: {
        enabled: true,
        userCodeInputSource: (ctx, form) => { ctx.body = page('Type the code in', form); },
        userCodeConfirmSource: (ctx, form) => { ctx.body = page('Is this your code?', form); },
        successSource: (ctx) => { ctx.body = page('Logged in', '<p>Go on at your other device.</p>'); },
      },
      backchannelLogout: { enabled: true },
      rpInitiatedLogout: {
        enabled: true,
        logoutSource: (ctx, form) => {
          ctx.body = page('Log out', `${form}<button form="op.logoutForm" name="logout" value="yes">Log out</button>`);
        },
        postLogoutSuccessSource: (ctx) => { ctx.body = page('Logged out', '<p>You are logged out.</p>'); },
      },
    },
    renderError: (ctx, { error, error_description: description }) => {
      ctx.type = 'html';
      ctx.body = page('Error', `<p>${escape(error)}: ${escape(description ?? '')}</p>`);
    },
    findAccount: (_ctx, name) => (Object.hasOwn(options.users, name) ? {
      accountId: name,
      claims: () => ({ sub: name, name: `User ${name}`, preferred_username: name, email: `${name}@example.com` }),
    } : undefined),
  };
}

/** How a server speaks TLS. */
function secure(more) {
  const { certificate, key, ca } = options.tls;
  return { cert: readFileSync(certificate), key: readFileSync(key), ca: readFileSync(ca), ...more };
}

/** What the client has shown of itself. */
function clientCertificate(ctx) {
  const { raw } = ctx.socket.getPeerCertificate?.() ?? {};
  return raw && new X509Certificate(raw);
}

/** What is known of a place where access tokens are used. */
function resource(_ctx, indicator) {
  if (!options.resources.includes(indicator)) throw new errors.InvalidTarget();
  return { scope: 'orders.read', audience: indicator };
}

/** The provider posts to an app. Apps are at made-up hosts, all behind one gateway. */
async function post(url, { method, headers, body }) {
  const { host, pathname } = new URL(url);
  return new Promise((resolve, reject) => {
    const fields = { ...Object.fromEntries(new Headers(headers)), host };
    const address = { host: '127.0.0.1', port: options.gateway_port, path: pathname, method, headers: fields };
    const request = call(address, (response) => {
      response.resume().once('end', () => resolve(new Response(null, { status: response.statusCode })));
    });
    request.once('error', reject).end(String(body));
  });
}

/** Exchanges an access token for one with another audience. */
async function exchange(ctx) {
  const { subject_token: value, subject_token_type: kind, audience } = ctx.oidc.params;
  const subject = kind === ACCESS_TOKEN && await provider.AccessToken.find(value);
  const { client } = ctx.oidc;
  if (!subject || subject.clientId !== client.clientId) throw new errors.InvalidRequest('the subject token is not good');
  if (audience !== 'orders') throw new errors.InvalidTarget();
  const { accountId, grantId, scope } = subject;
  const token = new provider.AccessToken({ accountId, client, grantId, scope, gty: 'token_exchange' });
  ctx.oidc.entity('AccessToken', token);
  ctx.body = {
    access_token: await token.save(), issued_token_type: ACCESS_TOKEN, token_type: 'Bearer', expires_in: token.expiration, scope,
  };
}

/** Keeps what the token and revocation endpoints were asked and what they gave. */
async function observe(ctx, next) {
  await next();
  if (ctx.oidc?.route === 'pushed_authorization_request' && ctx.status === 201) seen.pushed += 1;
  if (ctx.oidc?.route === 'token') {
    const { grant_type, refresh_token } = ctx.oidc.body ?? {};
    if (grant_type === 'refresh_token') await delay(options.refresh_delay);
    seen.token_requests.push({
      grant_type, refresh_token, status: ctx.status, error: ctx.body?.error, at: `${ctx.protocol}://${ctx.host}`,
    });
    for (const kind of ['access_token', 'refresh_token']) {
      if (ctx.body?.[kind]) seen.tokens.push({ kind, value: ctx.body[kind] });
    }
    if (ctx.body?.id_token) seen.id_tokens.push(ctx.body.id_token);
  } else if (ctx.oidc?.route === 'revocation') {
    const { token, token_type_hint } = ctx.oidc.body ?? {};
    seen.revocations.push({ token, token_type_hint, status: ctx.status, at: `${ctx.protocol}://${ctx.host}` });
  } else if (ctx.oidc?.route === 'introspection') {
    seen.introspections.push(ctx.body?.active);
  }
}

/** The login page: a form with `login` and `password`, or a button alone where the provider knows the user. */
async function interaction(ctx, next) {
  if (!ctx.path.startsWith('/interaction/')) return next();
  try {
    const { prompt, params, session } = await provider.interactionDetails(ctx.req, ctx.res);
    if (ctx.method === 'GET') {
      ctx.body = loginPage(prompt.name);
      return undefined;
    }
    const { login, password } = await form(ctx.req);
    const right = Object.hasOwn(options.users, login) && options.users[login] === password;
    if (prompt.name === 'login' && !right) {
      ctx.status = 401;
      ctx.body = loginPage(prompt.name, 'Wrong name or password.');
      return undefined;
    }
    const accountId = prompt.name === 'login' ? login : session.accountId;
    const grant = new provider.Grant({ accountId, clientId: params.client_id });
    grant.addOIDCScope(params.scope);
    for (const resource of options.resources) grant.addResourceScope(resource, 'orders.read');
    const claims = JSON.parse(params.claims ?? '{}');
    grant.addOIDCClaims([claims.userinfo, claims.id_token].flatMap((wanted) => Object.keys(wanted ?? {})));
    const consent = { grantId: await grant.save() };
    const result = prompt.name === 'login' ? { login: { accountId }, consent } : { consent };
    ctx.redirect(await provider.interactionResult(ctx.req, ctx.res, result));
    ctx.status = 303;
  } catch (error) {
    if (!(error instanceof errors.SessionNotFound)) throw error;
    ctx.status = 400;
    ctx.body = page('Error', '<p>This login has expired.</p>');
  }
  return undefined;
}

/** `seen`, with each token's life: a refresh token that was rotated away is dead, and so is all that a revoked grant gave. */
async function state() {
  const models = { access_token: provider.AccessToken, refresh_token: provider.RefreshToken };
  const tokens = await Promise.all(seen.tokens.map(async ({ kind, value }) => {
    const token = await models[kind].find(value);
    const grant = token && (await provider.Grant.find(token.grantId));
    const bound_to = token?.['x5t#S256'];
    return {
      kind, value, alive: Boolean(grant) && !token.consumed, subject: token?.accountId,
      audience: token?.aud, grant_id: token?.grantId, bound_to,
    };
  }));
  const grants = [...new Set(tokens.filter(({ alive }) => alive).map(({ grant_id }) => grant_id))];
  return { ...seen, tokens, grants };
}

/** All access tokens die before their time. */
async function kill() {
  const tokens = seen.tokens.filter(({ kind }) => kind === 'access_token');
  await Promise.all(tokens.map(async ({ value }) => (await provider.AccessToken.find(value))?.destroy()));
  return {};
}

function loginPage(prompt, message = '') {
  const fields = '<label>Name <input name="login" autocomplete="username"></label>'
    + '<label>Password <input name="password" type="password" autocomplete="current-password"></label>';
  return page('Log in', `<p role="alert">${message}</p>
    <form method="post">${prompt === 'login' ? fields : ''}<button type="submit">Continue</button></form>`);
}

function page(title, body) {
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>${title}</title><h1>${title}</h1>${body}</html>`;
}

function escape(text) {
  return String(text).replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

async function form(request) {
  let body = '';
  for await (const chunk of request) {
    body += chunk;
    if (body.length > 10_000) throw new Error('the form is too long');
  }
  return Object.fromEntries(new URLSearchParams(body));
}

function listen(httpServer) {
  return new Promise((resolve, reject) => {
    httpServer.once('error', reject);
    const scheme = 'setSecureContext' in httpServer ? 'https' : 'http';
    httpServer.listen(0, '127.0.0.1', () => resolve(`${scheme}://127.0.0.1:${httpServer.address().port}`));
  });
}
