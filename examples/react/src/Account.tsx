import { useEffect, useRef, useState } from 'react';

import { fetch, login, logout, type Reason, type Session, session as ask, subscribe } from '@cloakroom/client';
import { useSession } from '@cloakroom/client/react';

/** Who is logged in. It follows what happens in other tabs, and warns before the session ends. */
export function Account() {
  const session = useSession();
  const reason = useLastReason();
  const heading = useRef<HTMLHeadingElement>(null);

  async function stay() {
    // Any call to the API puts the end off; asking for the session does not.
    await fetch('/api/hello');
    await ask();
    heading.current?.focus();
  }

  return (
    <section aria-labelledby="account">
      <h2 id="account" ref={heading} tabIndex={-1}>Your account</h2>
      <p role="status">{sentence(session, reason)}</p>
      {session && (
        <button type="button" onClick={session.authenticated ? logout : () => login()}>
          {session.authenticated ? 'Log out' : 'Log in'}
        </button>
      )}
      {reason === 'expiring' && (
        <div role="alert">
          <p>You will be logged out in less than a minute.</p>
          <button type="button" onClick={stay}>Stay logged in</button>
        </div>
      )}
    </section>
  );
}

/** Why the session was last told of. */
function useLastReason(): Reason | undefined {
  const [reason, setReason] = useState<Reason>();
  useEffect(() => subscribe((_, told) => setReason(told)), []);
  return reason;
}

function sentence(session: Session | undefined, reason: Reason | undefined): string {
  if (!session) return 'Asking who you are…';
  if (session.authenticated) return `You are ${session.user.name ?? session.user.sub}.`;
  return reason === 'logout' ? 'Your session has ended. What is on this page stays.' : 'You are not logged in.';
}
