import { type FormEvent, useState } from 'react';

import { fetch } from '@cloakroom/client';

import { Account } from './Account';

export function App() {
  return (
    <>
      <header><h1>React behind Cloakroom</h1></header>
      <main>
        <Account />
        <Api />
      </main>
    </>
  );
}

/** Calls the API as if there were no login: the gateway adds the token. */
function Api() {
  const [answer, setAnswer] = useState('');

  async function call(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    setAnswer(await ask(String(new FormData(event.currentTarget).get('path'))));
  }

  return (
    <section aria-labelledby="api">
      <h2 id="api">The API</h2>
      <form onSubmit={call}>
        <label htmlFor="path">Path</label>
        <input id="path" name="path" defaultValue="/api/hello" required autoCapitalize="none" spellCheck={false} />
        <button>Call</button>
      </form>
      <output aria-labelledby="api">{answer}</output>
    </section>
  );
}

async function ask(path: string): Promise<string> {
  try {
    const response = await fetch(path);
    return `${response.status}\n${await response.text()}`;
  } catch {
    return 'There was no answer.';
  }
}
