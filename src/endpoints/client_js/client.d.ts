/** Who is logged in, as `GET session` tells it; seconds are counted from its answer. */
export type Session = {
    authenticated: false;
} | {
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
export declare class Problem extends Error {
    readonly status: number;
    /** `urn:cloakroom:` and a code. */
    readonly type: string;
    /** Where to log in, if that helps. */
    readonly loginUrl?: string | undefined;
    constructor(status: number, 
    /** `urn:cloakroom:` and a code. */
    type: string, detail?: string, 
    /** Where to log in, if that helps. */
    loginUrl?: string | undefined);
}
/** A client of the gateway in front of this page. */
export declare function createClient({ basePath, warnBefore, loginWhenEnded }?: Options): Client;
/** The gateway serves this module as `{base_path}/client.js`; from elsewhere it can't know the path. */
declare const client: Client;
export default client;
export declare const session: () => Promise<Session>, current: () => Session | undefined, subscribe: (listener: Listener) => () => void, login: (options?: LoginOptions) => void, silentLogin: () => Promise<boolean>, logout: () => void, fetch: (input: RequestInfo | URL, init?: RequestInit) => Promise<Response>;
