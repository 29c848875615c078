import { onScopeDispose, shallowReadonly, shallowRef, type ShallowRef } from 'vue';

import own, { type Client, type Session } from './index.js';

/** Who is logged in; `undefined` until it is known. To be called in `setup`. */
export function useSession(client: Client = own): Readonly<ShallowRef<Session | undefined>> {
  const session = shallowRef(client.current());
  // Where a server renders there is nothing to follow.
  if (typeof document !== 'undefined') {
    onScopeDispose(client.subscribe((changed) => { session.value = changed; }));
  }
  return shallowReadonly(session);
}
