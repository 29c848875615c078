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
//   gateway_port      where a client's backchannel_logout_uri leads to, whatever its host
//
// A refresh token is given for the scope `offline_access`, and that only with `prompt=consent` (OpenID Connect Core §11).
// `GET {admin}/state` tells what the provider has seen and what is alive; see `state` below.
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer, request as call } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';

import { errors, Provider } from 'oidc-provider';
import { createMemoryAdapter } from 'oidc-provider/lib/adapters/memory_adapter.js';

const options = {
  users: { alice: 'wonderland', bob: 'builder' },
  access_token_ttl: 300,
  rotate: true,
  refresh_delay: 0,
  gateway_port: 0,
  ...JSON.parse(process.argv[2] ?? '{}'),
};

/** What has happened so far, for `state`. */
const seen = { token_requests: [], revocations: [], end_sessions: 0, backchannel: [], tokens: [], id_tokens: [] };

const server = createServer();
const issuer = await listen(server);
const provider = new Provider(issuer, configuration());
provider.use(observe);
provider.use(interaction);
provider.on('end_session.success', () => { seen.end_sessions += 1; });
provider.on('backchannel.success', () => { seen.backchannel.push('done'); });
provider.on('backchannel.error', (_ctx, error) => { seen.backchannel.push(error.message); });
provider.on('server_error', (_ctx, error) => console.error(error));
server.on('request', provider.callback());

const admin = await listen(createServer(async (request, response) => {
  const known = request.method === 'GET' && request.url === '/state';
  response.writeHead(known ? 200 : 404, { 'content-type': 'application/json' });
  response.end(JSON.stringify(known ? await state() : {}));
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
    features: {
      devInteractions: { enabled: false },
      revocation: { enabled: true },
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

/** Keeps what the token and revocation endpoints were asked and what they gave. */
async function observe(ctx, next) {
  await next();
  if (ctx.oidc?.route === 'token') {
    const { grant_type, refresh_token } = ctx.oidc.body ?? {};
    if (grant_type === 'refresh_token') await delay(options.refresh_delay);
    seen.token_requests.push({ grant_type, refresh_token, status: ctx.status, error: ctx.body?.error });
    for (const kind of ['access_token', 'refresh_token']) {
      if (ctx.body?.[kind]) seen.tokens.push({ kind, value: ctx.body[kind] });
    }
    if (ctx.body?.id_token) seen.id_tokens.push(ctx.body.id_token);
  } else if (ctx.oidc?.route === 'revocation') {
    const { token, token_type_hint } = ctx.oidc.body ?? {};
    seen.revocations.push({ token, token_type_hint, status: ctx.status });
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
    return { kind, value, alive: Boolean(grant) && !token.consumed, subject: token?.accountId, grant_id: token?.grantId };
  }));
  const grants = [...new Set(tokens.filter(({ alive }) => alive).map(({ grant_id }) => grant_id))];
  return { ...seen, tokens, grants };
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
    httpServer.listen(0, '127.0.0.1', () => resolve(`http://127.0.0.1:${httpServer.address().port}`));
  });
}
