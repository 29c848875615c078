/** Who is logged in, as `GET session` tells it; seconds are counted from its answer. */
export type Session =
  | { authenticated: false }
  | {
      authenticated: true;
      /** Claims about the user, `sub` among them. */
      user: Record<string, unknown>;
      /** Seconds until the session ends, whatever its user does. */
      expires_in: number;
      /** Seconds until it ends where its user does nothing. */
      idle_expires_in: number;
      access_token_expires_in: number;
    };

/** Why a listener is called: the first answer, a change of who is logged in, here or in another tab; or the end is near, or was put off. */
export type Reason = 'loaded' | 'login' | 'logout' | 'expiring' | 'extended';

export type Listener = (session: Session, reason: Reason) => void;

export interface Options {
  /** The app's `base_path`; `/bff` unless it says otherwise. */
  basePath?: string;
  /** How many seconds before its end a session is said to be `expiring`. */
  warnBefore?: number;
  /** Whether `fetch` sends the browser to login once the session has ended; `subscribe` tells of it in any case. */
  loginWhenEnded?: boolean;
}

/** What the issuer is asked for (OpenID Connect Core §3.1.2.1). */
export interface LoginOptions {
  /** A path of the app; the page that calls, unless it is given. */
  returnTo?: string;
  prompt?: string;
  loginHint?: string;
  acrValues?: string;
  /** In seconds. */
  maxAge?: number;
  uiLocales?: string;
  /** Which issuer, where the app has several. */
  issuer?: string;
}

export interface Client {
  /** Asks who is logged in. It is not activity, and keeps no session alive. Rejects with a `Problem` where nobody can tell. */
  session(): Promise<Session>;
  /** What is known without asking; `undefined` before the first answer. */
  current(): Session | undefined;
  /** Calls `listener` with each change, until the function that this gives is called. Asks, where nothing is known yet. */
  subscribe(listener: Listener): () => void;
  /** Leaves the page for the issuer. */
  login(options?: LoginOptions): void;
  /** Logs in without a page, where the user is logged in at the issuer and the browser lets its cookies into a frame. */
  silentLogin(): Promise<boolean>;
  /** Ends the session, and leaves the page for the issuer's logout. */
  logout(): void;
  /** `fetch`, with the header that the gateway asks of scripts. The end of the session leads to one login, however many calls find it. */
  fetch(input: RequestInfo | URL, init?: RequestInit): Promise<Response>;
}

/** An answer of the gateway's own that is no success (RFC 9457). */
export class Problem extends Error {
  constructor(
    readonly status: number,
    /** `urn:cloakroom:` and a code. */
    readonly type: string,
    detail?: string,
    /** Where to log in, if that helps. */
    readonly loginUrl?: string,
  ) {
    super(detail ?? type);
  }
}

/** `return_to` may be no longer. */
const LONGEST_RETURN_TO = 1024;
/** How long an answer about a silent login is waited for, and how soon the gateway is asked again where it did not answer, or the end is near. */
const PATIENCE = 10_000;
const LONGEST_TIMEOUT = 2 ** 31 - 1;

const CSRF = { 'X-CSRF': '1' };

/** A client of the gateway in front of this page. */
export function createClient({ basePath = '/bff', warnBefore = 60, loginWhenEnded = true }: Options = {}): Client {
  const listeners = new Set<Listener>();
  let known: Session | undefined;
  let asking: Promise<Session> | undefined;
  let alarm: ReturnType<typeof setTimeout> | undefined;
  let hasWarned = false;
  let isLeaving = false;

  // Not where a server renders the page.
  const tabs = typeof document === 'undefined' ? undefined : new BroadcastChannel(`cloakroom:${basePath}`);
  if (tabs) {
    tabs.onmessage = ({ data }) => {
      if (!known || data === subject(known)) return;
      if (data === null) learn({ authenticated: false }, true);
      else check();
    };
    // A page may have slept for hours, or come out of the back/forward cache after a logout.
    document.addEventListener('visibilitychange', () => document.hidden || wake());
    addEventListener('online', wake);
    addEventListener('pageshow', ({ persisted }) => {
      if (persisted) {
        isLeaving = false;
        wake();
      }
    });
  }

  function wake(): void {
    if (known && listeners.size) check();
  }

  function check(): void {
    session().catch(() => {
      clearTimeout(alarm);
      if (listeners.size) alarm = setTimeout(check, PATIENCE);
    });
  }

  function session(): Promise<Session> {
    return (asking ??= ask().finally(() => (asking = undefined)));
  }

  async function ask(): Promise<Session> {
    const response = await globalThis.fetch(`${basePath}/session`, { headers: CSRF, cache: 'no-store' });
    if (!response.ok) throw await problem(response);
    return learn(await response.json());
  }

  function learn(session: Session, isTold = false): Session {
    const before = known;
    known = session;
    const isNews = before && subject(before) !== subject(session);
    if (isNews) hasWarned = false;
    // The first answer too: this page may be where a login has just come back to.
    if (!isTold && (isNews || (!before && session.authenticated))) tabs?.postMessage(subject(session));
    if (!before) tell('loaded');
    else if (isNews) tell(session.authenticated ? 'login' : 'logout');
    watch();
    return session;
  }

  function tell(reason: Reason): void {
    for (const listener of listeners) listener(known!, reason);
  }

  /** Asks again when the end is near: other tabs may have put it off. */
  function watch(): void {
    clearTimeout(alarm);
    if (!known?.authenticated || !listeners.size) return;
    const left = Math.min(known.expires_in, known.idle_expires_in);
    const isNear = left <= warnBefore;
    // Whoever was warned is told soon where another tab has put the end off.
    alarm = setTimeout(check, isNear ? Math.min((left + 1) * 1000, PATIENCE) : Math.min((left - warnBefore) * 1000, LONGEST_TIMEOUT));
    if (isNear === hasWarned) return;
    hasWarned = isNear;
    tell(isNear ? 'expiring' : 'extended');
  }

  function leave(url: URL, returnTo = location.pathname + location.search + location.hash): void {
    if (isLeaving || url.origin !== location.origin) return;
    isLeaving = true;
    setTimeout(() => (isLeaving = false), PATIENCE);
    if (returnTo.length <= LONGEST_RETURN_TO) url.searchParams.set('return_to', returnTo);
    location.assign(url);
  }

  return {
    session,

    current: () => known,

    subscribe(listener) {
      listeners.add(listener);
      if (known) watch();
      else check();
      return () => {
        listeners.delete(listener);
        watch();
      };
    },

    login({ returnTo, prompt, loginHint, acrValues, maxAge, uiLocales, issuer } = {}) {
      const url = new URL(`${basePath}/login`, location.href);
      const wanted = { prompt, login_hint: loginHint, acr_values: acrValues, max_age: maxAge, ui_locales: uiLocales, iss: issuer };
      for (const [name, value] of Object.entries(wanted)) if (value !== undefined) url.searchParams.set(name, `${value}`);
      leave(url, returnTo);
    },

    silentLogin: () =>
      new Promise<boolean>((resolve) => {
        const frame = Object.assign(document.createElement('iframe'), { hidden: true, src: `${basePath}/login?prompt=none` });
        const end = (isLoggedIn: boolean) => {
          clearTimeout(limit);
          removeEventListener('message', told);
          frame.remove();
          resolve(isLoggedIn);
          if (isLoggedIn) check();
        };
        const told = ({ origin, source, data }: MessageEvent) => {
          if (origin === location.origin && source === frame.contentWindow && data?.source === 'cloakroom') end(!!data.authenticated);
        };
        const limit = setTimeout(end, PATIENCE, false);
        addEventListener('message', told);
        document.body.append(frame);
      }),

    logout() {
      // A form and no script's request, for the browser is to go on to the issuer.
      const form = Object.assign(document.createElement('form'), { method: 'post', action: `${basePath}/logout` });
      document.body.append(form);
      form.submit();
      // Who hears that the user is gone must not log in again at once.
      isLeaving = true;
      setTimeout(() => (isLeaving = false), PATIENCE);
      learn({ authenticated: false });
    },

    async fetch(input, init) {
      const request = new Request(input, init);
      // Elsewhere the header would only ask for a preflight.
      if (new URL(request.url).origin !== location.origin) return globalThis.fetch(request);
      request.headers.set('X-CSRF', '1');
      const response = await globalThis.fetch(request);
      if (response.status === 401) {
        const { type, loginUrl } = await problem(response.clone());
        const isOver = type === 'urn:cloakroom:session-ended' || (type === 'urn:cloakroom:unauthenticated' && !!known?.authenticated);
        if (isOver) learn({ authenticated: false });
        if (loginUrl && ((isOver && loginWhenEnded) || type === 'urn:cloakroom:insufficient-user-authentication')) {
          leave(new URL(loginUrl, location.href));
        }
      }
      return response;
    },
  };
}

function subject(session: Session): string | null {
  return session.authenticated ? `${session.user.sub}` : null;
}

async function problem(response: Response): Promise<Problem> {
  const document = await response.json().catch(() => ({}));
  return new Problem(response.status, document.type ?? 'about:blank', document.detail, document.login_url);
}

/** The gateway serves this module as `{base_path}/client.js`; from elsewhere it can't know the path. */
const client = createClient({ basePath: /^(.*)\/client\.js$/.exec(new URL(import.meta.url, 'file:').pathname)?.[1] });

export default client;
export const { session, current, subscribe, login, silentLogin, logout, fetch } = client;
