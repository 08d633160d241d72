/**
 * The OpenID Connect provider that people sign in at: found by its issuer when it is first needed, and again after an hour; asked for an
 * identity once per sign-in. Nothing of what it answers is kept but who somebody is. What it answers is checked, signatures included
 * (openid-client), and whatever is wrong with it ends the sign-in.
 */
import * as oidc from "openid-client";
import { MillraceError } from "../core/errors.ts";
import type { Log } from "../core/log.ts";
import type { Claims } from "./claims.ts";

export interface ProviderSettings {
  /** https, or http on this machine. */
  readonly issuer: string;
  readonly clientId: string;
  /** Undefined: a public client, which PKCE alone protects. */
  readonly clientSecret: string | undefined;
  /** Where the provider sends people back to. */
  readonly redirectUri: string;
}

/** What one sign-in is recognised by: nobody but this browser has it. */
export interface Secrets {
  readonly state: string;
  readonly nonce: string;
  readonly verifier: string;
}

const timeoutSeconds = 5;
const foundForMs = 3_600_000;
/** While it does not answer it is asked so often at most. */
const pauseMs = 2_000;

export class IdentityProvider {
  readonly #settings: ProviderSettings;
  readonly #log: Log;
  readonly #now: () => number;
  #known: { readonly until: number; readonly config: Promise<oidc.Configuration> } | undefined;

  /** `now`: in ms, from anywhere on. */
  constructor(settings: ProviderSettings, log: Log, now = () => performance.now()) {
    this.#settings = settings;
    this.#log = log;
    this.#now = now;
  }

  /** Where to send somebody. Throws `SIGN_IN_UNAVAILABLE`. */
  async authorizationUrl({ state, nonce, verifier }: Secrets): Promise<URL> {
    return oidc.buildAuthorizationUrl(await this.find(), {
      redirect_uri: this.#settings.redirectUri,
      scope: "openid email profile",
      code_challenge: await oidc.calculatePKCECodeChallenge(verifier),
      code_challenge_method: "S256",
      state,
      nonce,
    });
  }

  /** Who came back with `query`. Throws `SIGN_IN_UNAVAILABLE`, `SIGN_IN_REFUSED`, `SIGN_IN_INVALID`. */
  async identify(
    query: URLSearchParams,
    { state, nonce, verifier }: Secrets,
  ): Promise<{ idToken: Claims; userInfo: Claims }> {
    const config = await this.find();
    const url = new URL(this.#settings.redirectUri);
    url.search = query.toString();
    try {
      const tokens = await oidc.authorizationCodeGrant(config, url, {
        expectedState: state,
        expectedNonce: nonce,
        pkceCodeVerifier: verifier,
      });
      const idToken = tokens.claims() as oidc.IDToken;
      const asks = config.serverMetadata().userinfo_endpoint !== undefined;
      // A provider that keeps to the letter tells e-mail and name there only.
      const userInfo = asks ? await oidc.fetchUserInfo(config, tokens.access_token, idToken.sub) : {};
      return { idToken, userInfo };
    } catch (error) {
      this.#log.warn(reasonOf(error), "sign_in.failed");
      throw refusal(error);
    }
  }

  /** Whoever asks at once is answered together. Throws `SIGN_IN_UNAVAILABLE`. */
  find(): Promise<oidc.Configuration> {
    const now = this.#now();
    if (this.#known === undefined || this.#known.until <= now) {
      const config = this.#discover();
      this.#known = { until: now + foundForMs, config };
      config.catch(() => (this.#known = { until: this.#now() + pauseMs, config }));
    }
    return this.#known.config;
  }

  async #discover(): Promise<oidc.Configuration> {
    const { issuer, clientId, clientSecret } = this.#settings;
    const server = new URL(issuer);
    try {
      const config = await oidc.discovery(
        server,
        clientId,
        undefined,
        clientSecret === undefined ? oidc.None() : bySecret(clientSecret),
        {
          timeout: timeoutSeconds,
          execute: [
            oidc.enableNonRepudiationChecks,
            ...(server.protocol === "http:" ? [oidc.allowInsecureRequests] : []),
          ],
        },
      );
      this.#log.info({ issuer }, "sign_in.ready");
      return config;
    } catch (error) {
      this.#log.warn({ issuer, ...reasonOf(error) }, "sign_in.unavailable");
      throw unavailable(error);
    }
  }
}

/** In the header, as every provider takes it unless it says otherwise. */
function bySecret(secret: string): oidc.ClientAuth {
  const [basic, post] = [oidc.ClientSecretBasic(secret), oidc.ClientSecretPost(secret)];
  return (server, ...request) => {
    const methods = server.token_endpoint_auth_methods_supported ?? ["client_secret_basic"];
    return (methods.includes("client_secret_basic") ? basic : post)(server, ...request);
  };
}

/** Codes of openid-client for what a server that is down, or no provider, answers. */
const noAnswer: ReadonlySet<unknown> = new Set([
  "OAUTH_TIMEOUT",
  "OAUTH_ABORT",
  "OAUTH_RESPONSE_IS_NOT_CONFORM",
  "OAUTH_RESPONSE_IS_NOT_JSON",
]);

function refusal(error: unknown): MillraceError {
  if (error instanceof oidc.AuthorizationResponseError) {
    const why = /^[a-z_]{1,60}$/.test(error.error) ? `: ${error.error}` : "";
    return new MillraceError("SIGN_IN_REFUSED", `The identity provider did not sign you in${why}.`, { cause: error });
  }
  const expired = error instanceof oidc.ResponseBodyError && error.error === "invalid_grant";
  if (!expired && isTheirs(error)) return unavailable(error);
  const message = "What came back from the identity provider does not fit this sign-in.";
  return new MillraceError("SIGN_IN_INVALID", message, { cause: error });
}

/** Not what the browser brought, but the provider, the way to it, or what it thinks of us. */
function isTheirs(error: unknown): boolean {
  return (
    error instanceof TypeError ||
    error instanceof oidc.ResponseBodyError ||
    error instanceof oidc.WWWAuthenticateChallengeError ||
    (error instanceof oidc.ClientError && noAnswer.has(error.code))
  );
}

function unavailable(cause: unknown): MillraceError {
  return new MillraceError("SIGN_IN_UNAVAILABLE", "The identity provider cannot be used right now.", { cause });
}

/** For the log. Not the error itself: some carry what the provider answered. */
function reasonOf(thrown: unknown): object {
  const { message, code, error, cause } = thrown as Error & { code?: unknown; error?: unknown };
  const why = cause instanceof Error ? ` (${cause.message})` : "";
  return {
    reason: `${message}${why}`,
    ...(code === undefined ? {} : { code }),
    ...(error === undefined ? {} : { error }),
  };
}
