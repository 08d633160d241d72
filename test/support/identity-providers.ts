/** Identity providers on this machine: a real one (`oidc-provider`), and one that tells what a test wants it to tell. */
import { type KeyObject, createPublicKey, generateKeyPairSync, sign } from "node:crypto";
import { once } from "node:events";
import { type IncomingMessage, type Server, type ServerResponse, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import Provider from "oidc-provider";

export const client = { clientId: "millrace", clientSecret: "of-the-client-0123456789" };

interface Account {
  readonly sub: string;
  readonly [claim: string]: unknown;
}

async function listen(server: Server, port = 0): Promise<string> {
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return `http://localhost:${(server.address() as AddressInfo).port}`;
}

async function close(server: Server): Promise<void> {
  server.closeAllConnections();
  if (server.listening) await new Promise((done) => server.close(done));
}

const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
const jwkOf = (key: KeyObject): object => ({ ...key.export({ format: "jwk" }), kid: "one", use: "sig", alg: "RS256" });

export interface RealProvider extends AsyncDisposable {
  readonly issuer: string;
  /** Who is at the keyboard: signs in as this account, or, undefined, presses cancel. */
  person: Account | undefined;
}

export async function realProvider(redirectUris: readonly string[]): Promise<RealProvider> {
  let provider: Provider | undefined;
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    if (provider === undefined) throw new Error("The provider is not there yet.");
    if (!request.url?.startsWith("/interaction/")) return provider.callback()(request, response);
    const result =
      made.person === undefined
        ? { error: "access_denied" }
        : { login: { accountId: made.person.sub, remember: false } };
    return provider.interactionFinished(request, response, result);
  };
  const server = createServer((request, response) => void answer(request, response));
  const issuer = await listen(server);
  const accounts = new Map<string, Account>();
  const made: RealProvider = {
    issuer,
    get person() {
      return [...accounts.values()].at(-1);
    },
    set person(person) {
      accounts.clear();
      if (person !== undefined) accounts.set(person.sub, person);
    },
    [Symbol.asyncDispose]: () => close(server),
  };
  const grants = (): InstanceType<Provider["Grant"]> | undefined =>
    provider && new provider.Grant({ accountId: made.person?.sub, clientId: client.clientId });
  provider = new Provider(issuer, {
    clients: [{ client_id: client.clientId, client_secret: client.clientSecret, redirect_uris: redirectUris }],
    jwks: { keys: [jwkOf(privateKey)] },
    cookies: { keys: ["a key of this test"] },
    ttl: { AccessToken: 60, AuthorizationCode: 60, Grant: 60, IdToken: 60, Interaction: 60, Session: 60 },
    features: { devInteractions: { enabled: false } },
    claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name", "groups", "realm_access"] },
    interactions: { url: (_: unknown, { uid }: { uid: string }) => `/interaction/${uid}` },
    findAccount: (_: unknown, sub: string) => ({ accountId: sub, claims: () => accounts.get(sub) ?? { sub } }),
    // Whoever signs in has agreed to everything.
    async loadExistingGrant() {
      const grant = grants();
      grant?.addOIDCScope("openid email profile");
      await grant?.save();
      return grant;
    },
  });
  return made;
}

export interface Liar extends AsyncDisposable {
  readonly issuer: string;
  /** The nonce that was sent, as the test read it from the address. */
  nonce: string;
  claims: Record<string, unknown>;
  /** How the ID token is signed; `other`: by a key that nobody knows. */
  signing: "RS256" | "none" | "other" | "HS256";
  /** Instead of a token. */
  refuse: { status: number; body: object | string } | undefined;
  /** How often it was asked for what. */
  readonly asked: Record<string, number>;
  stop(): Promise<void>;
  start(): Promise<void>;
}

export async function liar(): Promise<Liar> {
  const stranger = generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey;
  const server = createServer((request, response) => {
    const path = (request.url ?? "").split("?")[0] ?? "";
    made.asked[path] = (made.asked[path] ?? 0) + 1;
    const tell = (body: object | string, status = 200): void =>
      void response
        .writeHead(status, { "content-type": "application/json" })
        .end(typeof body === "string" ? body : JSON.stringify(body));
    if (path.startsWith("/.well-known"))
      return tell({
        issuer: made.issuer,
        authorization_endpoint: `${made.issuer}/auth`,
        token_endpoint: `${made.issuer}/token`,
        jwks_uri: `${made.issuer}/jwks`,
        id_token_signing_alg_values_supported: ["RS256", "none", "HS256"],
      });
    if (path === "/jwks") return tell({ keys: [jwkOf(createPublicKey(privateKey))] });
    if (made.refuse) return tell(made.refuse.body, made.refuse.status);
    return tell({ access_token: "an access token", token_type: "Bearer", id_token: idToken() });
  });
  const idToken = (): string => {
    const now = Math.floor(Date.now() / 1_000);
    const alg = made.signing === "other" ? "RS256" : made.signing;
    const claims = {
      iss: made.issuer,
      aud: client.clientId,
      iat: now,
      exp: now + 60,
      nonce: made.nonce,
      ...made.claims,
    };
    const text = [{ alg, kid: "one" }, claims].map((part) => base64(JSON.stringify(part))).join(".");
    if (alg === "none") return `${text}.`;
    const key = made.signing === "other" ? stranger : privateKey;
    return `${text}.${sign("RSA-SHA256", Buffer.from(text), key).toString("base64url")}`;
  };
  const issuer = await listen(server);
  const made: Liar = {
    issuer,
    nonce: "",
    claims: {},
    signing: "RS256",
    refuse: undefined,
    asked: {},
    stop: () => close(server),
    start: async () => void (await listen(server, Number(new URL(issuer).port))),
    [Symbol.asyncDispose]: () => close(server),
  };
  return made;
}

const base64 = (text: string): string => Buffer.from(text).toString("base64url");
