import { current, fetch, login, logout, session, subscribe } from '/bff/client.js';

const [account, who, log, warning, expiring, form, answer] =
  ['account', 'who', 'log', 'warning', 'expiring', 'call', 'answer'].map((id) => document.getElementById(id));

// Who is logged in. It follows what happens in other tabs, and warns before the session ends.
subscribe((session, reason) => {
  who.textContent = sentence(session, reason);
  log.textContent = session.authenticated ? 'Log out' : 'Log in';
  log.hidden = false;
  warning.replaceChildren(...(reason === 'expiring' ? [expiring.content.cloneNode(true)] : []));
});

function sentence(session, reason) {
  if (session.authenticated) return `You are ${session.user.name ?? session.user.sub}.`;
  return reason === 'logout' ? 'Your session has ended. What is on this page stays.' : 'You are not logged in.';
}

log.addEventListener('click', () => (current().authenticated ? logout() : login()));

warning.addEventListener('click', async ({ target }) => {
  if (!target.closest('button')) return;
  // Any call to the API puts the end off; asking for the session does not.
  await fetch('/api/hello');
  await session();
  account.focus();
});

// Calls the API as if there were no login: the gateway adds the token.
form.addEventListener('submit', async (event) => {
  event.preventDefault();
  answer.textContent = await ask(form.elements.path.value);
});

async function ask(path) {
  try {
    const response = await fetch(path);
    return `${response.status}\n${await response.text()}`;
  } catch {
    return 'There was no answer.';
  }
}
