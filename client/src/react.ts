import { useSyncExternalStore } from 'react';

import own, { type Client, type Session } from './index.js';

/** Who is logged in; `undefined` until it is known, and where a server renders. The component follows each change. */
export function useSession(client: Client = own): Session | undefined {
  return useSyncExternalStore(client.subscribe, client.current, () => undefined);
}
