// The smallest app there can be: it asks who is logged in, calls an API, logs in and out, and holds no token.
// The API's path is the query's `api`, or /api/hello.
const api = new URLSearchParams(location.search).get('api') ?? '/api/hello';
const element = (id) => document.getElementById(id);

async function call(path) {
  const response = await fetch(path, { headers: { 'X-CSRF': '1', Accept: 'application/json' } });
  return { status: response.status, body: await response.text() };
}

async function who() {
  const { status, body } = await call('/bff/session');
  const session = status === 200 ? JSON.parse(body) : {};
  element('user').textContent = session.authenticated ? session.user.sub : 'nobody';
  return { status, session };
}

function shown(action) {
  return async () => {
    const result = element('result');
    result.textContent = JSON.stringify(await action().catch((error) => ({ status: 0, error: String(error) })));
    result.dataset.clicks = Number(result.dataset.clicks) + 1;
  };
}

// A form, for logging out ends at the issuer: the browser has to go there itself.
function logout() {
  const form = Object.assign(document.createElement('form'), { method: 'post', action: '/bff/logout' });
  document.body.append(form);
  form.submit();
}

element('who').onclick = shown(who);
element('call').onclick = shown(() => call(api));
element('login').onclick = () => location.assign('/bff/login?return_to=/');
element('logout').onclick = logout;
who();
