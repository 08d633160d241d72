/**
 * One sign-in, from the click to the session. The browser holds one secret meanwhile, from which state, nonce and PKCE verifier are
 * derived; the database holds its hash and where to go afterwards, and gives that once.
 */
import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { MillraceError } from "../core/errors.ts";
import type { Log } from "../core/log.ts";
import type { Database } from "../db/database.ts";
import { claimedRole, personOf } from "./claims.ts";
import { IdentityProvider, type ProviderSettings, type Secrets } from "./identity-provider.ts";
import type { Role } from "./roles.ts";
import type { SessionSettings, Sessions } from "./sessions.ts";
import { insertSignIn, takeSignIn } from "./sessions-store.ts";

export interface SignInSettings extends SessionSettings, Omit<ProviderSettings, "redirectUri"> {
  readonly origin: string;
  /** The claim whose values name a role. */
  readonly roleClaim: string | undefined;
  /** Of those whom no claim names a role; null: they stay out. */
  readonly defaultRole: Role | null;
}

/** The path that the provider sends people back to; it has to know it. */
const callbackPath = "/auth/callback";
/** So long may somebody stay with the identity provider. */
export const signInMs = 10 * 60_000;

export class SignIn {
  readonly settings: SignInSettings;
  readonly #db: Database;
  readonly #sessions: Sessions;
  readonly #provider: IdentityProvider;

  constructor(db: Database, settings: SignInSettings, sessions: Sessions, log: Log) {
    this.#db = db;
    this.settings = settings;
    this.#sessions = sessions;
    this.#provider = new IdentityProvider({ ...settings, redirectUri: settings.origin + callbackPath }, log);
  }

  /** Looks for the provider, so that the log tells soon when it is not there. Never throws: whoever signs in tries again. */
  async prepare(): Promise<void> {
    await this.#provider.find().catch(() => undefined); // logged
  }

  /** `secret` is for this browser alone. Throws `SIGN_IN_UNAVAILABLE`, `BAD_REQUEST` for a `returnTo` that leads elsewhere. */
  async begin(returnTo: string): Promise<{ readonly url: URL; readonly secret: string }> {
    const there = localUrl(returnTo, this.settings.origin);
    if (there === undefined)
      throw new MillraceError("BAD_REQUEST", "return_to must be a path of this server, such as /jobs.");
    const secret = randomBytes(32).toString("base64url");
    const url = await this.#provider.authorizationUrl(secretsOf(secret));
    await insertSignIn(this.#db, hashOf(secret), there, signInMs);
    return { url, secret };
  }

  /**
   * Opens a session for whoever came back with `query` and has the `secret`. `instead`: the session this browser had.
   * Throws `SIGN_IN_INVALID`, `SIGN_IN_REFUSED`, `SIGN_IN_UNAVAILABLE`.
   */
  async finish(
    query: URLSearchParams,
    secret: string | undefined,
    instead: string | undefined,
  ): Promise<{ readonly session: string; readonly returnTo: string }> {
    const secrets = secretsOf(secret ?? "");
    // Before it is taken: a link that somebody else made must not use up a sign-in.
    const known = secret !== undefined && isSame(query.get("state") ?? "", secrets.state);
    const taken = known ? await takeSignIn(this.#db, hashOf(secret)) : undefined;
    if (taken === undefined)
      throw new MillraceError(
        "SIGN_IN_INVALID",
        "This sign-in was not begun in this browser, took longer than ten minutes, or is over already.",
      );
    const { idToken, userInfo } = await this.#provider.identify(query, secrets);
    const person = personOf(idToken, userInfo);
    if (person === undefined)
      throw new MillraceError("SIGN_IN_INVALID", "The identity provider did not say who this is.");
    const { roleClaim, defaultRole } = this.settings;
    const claimed = roleClaim === undefined ? undefined : claimedRole({ ...userInfo, ...idToken }, roleClaim);
    const session = await this.#sessions.open(person, claimed ?? defaultRole, instead);
    return { session, returnTo: taken.returnTo };
  }
}

/** The whole address of a path of ours to go to after the sign-in; undefined for whatever leads elsewhere. */
export function localUrl(path: string, origin: string): string | undefined {
  const isPath = /^\/(?![/\\])[^\\\p{Cc}\p{Surrogate}]{0,2000}$/u.test(path) && URL.canParse(path, origin);
  const url = isPath ? new URL(path, origin) : undefined;
  return url?.origin === origin && !url.pathname.startsWith("/auth/") ? url.href : undefined;
}

const hashOf = (secret: string): string => createHash("sha256").update(secret).digest("hex");

function secretsOf(secret: string): Secrets {
  const derive = (what: string): string => createHmac("sha256", secret).update(what).digest("base64url");
  return { state: derive("state"), nonce: derive("nonce"), verifier: derive("verifier") };
}

const isSame = (one: string, other: string): boolean =>
  timingSafeEqual(createHash("sha256").update(one).digest(), createHash("sha256").update(other).digest());
