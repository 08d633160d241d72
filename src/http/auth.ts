/** The operations by which people sign in and out, and on their sessions. */
import { z } from "zod";
import { roles } from "../access/roles.ts";
import { type SignIn, signInMs } from "../access/sign-in.ts";
import type { Sessions } from "../access/sessions.ts";
import { MillraceError } from "../core/errors.ts";
import { type Endpoints, endpoint } from "./endpoint.ts";
import type { ApiContext } from "./env.ts";
import type { Gate } from "./gate.ts";
import type { SessionDoor } from "./session-door.ts";
import { send, signOutPage, tokenPage } from "./sign-in-pages.ts";

export interface Entrance {
  readonly gate: Gate;
  readonly door: SessionDoor;
  readonly sessions: Sessions;
  /** Undefined: there is no identity provider. */
  readonly signIn: SignIn | undefined;
}

const time = z.iso.datetime();
const who = {
  name: z.string().nullable(),
  email: z.string().nullable(),
  email_verified: z.boolean().describe("Only then does the address count for anything."),
};
const sessionInfo = z
  .object({
    id: z.uuid().describe("Names the session; it lets nobody in."),
    issuer: z.string(),
    sub: z.string(),
    ...who,
    role: z.enum(roles),
    created_at: time,
    last_seen_at: time.describe("To ten seconds."),
    expires_at: time,
    current: z.boolean().describe("Whether this very request came by it."),
  })
  .meta({ id: "Session" });

const page = { 200: { contentType: "text/html", about: "The page." } } as const;

export function authEndpoints({ gate, door, sessions, signIn }: Entrance): Endpoints {
  const provided = (): SignIn => {
    if (signIn !== undefined) return signIn;
    throw new MillraceError("SIGN_IN_NOT_CONFIGURED", "People cannot sign in here: there is no identity provider.");
  };
  return [
    endpoint("Access", "GET /auth/login", {
      summary: "Go to the identity provider, to sign in",
      role: "public",
      routeClass: "ops",
      query: z.strictObject({
        return_to: z.string().default("/").describe("A path of this server, to go to afterwards."),
      }),
      answers: { 302: null },
      errors: ["SIGN_IN_NOT_CONFIGURED", "SIGN_IN_UNAVAILABLE"],
      async handle({ c, query }) {
        const { url, secret } = await provided().begin(query.return_to);
        door.write(c, "sign_in", secret, signInMs / 1_000);
        return c.redirect(url.href, 302);
      },
    }),
    endpoint("Access", "GET /auth/callback", {
      summary: "Where the identity provider sends people back to",
      role: "public",
      routeClass: "ops",
      query: z.looseObject({ state: z.string().optional(), code: z.string().optional(), error: z.string().optional() }),
      answers: { 302: null },
      errors: ["SIGN_IN_INVALID", "SIGN_IN_REFUSED", "SIGN_IN_NOT_CONFIGURED", "SIGN_IN_UNAVAILABLE"],
      async handle({ c }) {
        const query = new URL(c.req.url).searchParams;
        c.header("Referrer-Policy", "no-referrer");
        const finished = await provided().finish(query, door.read(c, "sign_in"), door.read(c, "session"));
        door.write(c, "sign_in", "", 0);
        door.write(c, "session", finished.session);
        return c.redirect(finished.returnTo, 302);
      },
    }),
    endpoint("Access", "GET /auth/token", {
      summary: "A page to sign in at with a token",
      role: "public",
      routeClass: "api",
      answers: page,
      handle: ({ c }) => send(c, tokenPage(undefined, signIn !== undefined)),
    }),
    endpoint("Access", "POST /auth/token", {
      summary: "Begin a session with a token: it may what the token may, as long as the token counts",
      about: "For pages of this server. Programs send the token with each request.",
      role: "public",
      body: z.strictObject({ token: z.string().max(1_000) }),
      answers: { 204: null },
      errors: ["UNAUTHORIZED", "CSRF_REFUSED"],
      async handle({ c, body: { token } }) {
        // Or a page of another site could make somebody work in its author's name.
        door.refuseForgery(c);
        const holder = await gate.holderOf(c, token);
        c.set("caller", holder);
        door.write(c, "session", await sessions.openFor(token, holder, door.read(c, "session")));
      },
    }),
    endpoint("Access", "GET /auth/logout", {
      summary: "A page that says who is signed in, to sign out at",
      role: "public",
      routeClass: "api",
      answers: page,
      handle: async ({ c }) => send(c, signOutPage(await gate.known(c), signIn !== undefined)),
    }),
    endpoint("Access", "POST /auth/logout", {
      summary: "End this session, at once and everywhere; the identity provider's own goes on",
      role: "viewer",
      answers: { 204: null },
      kept: "never", // whoever has signed out has nothing to ask again with
      async handle({ c }) {
        const { session, name } = c.get("caller") ?? {};
        if (session === undefined) throw new MillraceError("UNAUTHORIZED", "This request came without a session.");
        await sessions.end(session.id, session, name ?? null);
        door.write(c, "session", "", 0);
      },
    }),
    endpoint("Access", "GET /auth/session", {
      summary: "Who I am",
      role: "public",
      routeClass: "api",
      answers: {
        200: z.object({
          kind: z.enum(["program", "machine", "token", "user"]).nullable().describe("Null: nobody who is known."),
          ...who,
          role: z.enum(roles).nullable(),
          expires_at: time.nullable().describe("When the session ends, however much it is used."),
          sign_in: z.boolean().describe("Whether people can sign in here, at /auth/login."),
        }),
      },
      async handle({ c }) {
        const caller = await gate.known(c);
        const { session } = caller ?? {};
        return {
          kind: caller?.kind ?? null,
          name: caller?.kind === "user" ? (session?.name ?? null) : (caller?.name ?? null),
          email: session?.email ?? null,
          email_verified: session?.emailVerified ?? false,
          role: caller?.role ?? null,
          expires_at: session?.expiresAt ?? null,
          sign_in: signIn !== undefined,
        };
      },
    }),
    endpoint("Access", "GET /api/sessions", {
      summary: "Sessions of people, newest first: one's own; for admins, everybody's",
      role: "viewer",
      answers: { 200: z.object({ items: z.array(sessionInfo) }) },
      async handle({ c }) {
        const owner = ownerFor(c);
        const listed = owner === "nobody" ? [] : await sessions.list(owner);
        const items = listed.map((one) => ({
          id: one.id,
          issuer: one.issuer,
          sub: one.sub,
          name: one.name,
          email: one.email,
          email_verified: one.emailVerified,
          role: one.role,
          created_at: one.createdAt,
          last_seen_at: one.lastSeenAt,
          expires_at: one.expiresAt,
          current: one.id === c.get("caller")?.session?.id,
        }));
        return { items };
      },
    }),
    endpoint("Access", "DELETE /api/sessions/:id", {
      summary: "End a session: one's own; for admins, anybody's",
      role: "viewer",
      params: z.strictObject({ id: z.string() }),
      answers: { 204: null },
      errors: ["SESSION_NOT_FOUND"],
      async handle({ c, params }) {
        const owner = ownerFor(c);
        if (owner === "nobody") throw new MillraceError("SESSION_NOT_FOUND", "This caller has no sessions.");
        await sessions.end(params.id, owner, c.get("caller")?.name ?? null);
      },
    }),
  ];
}

/** Whose sessions a caller may see and end; undefined: everybody's. */
function ownerFor(c: ApiContext): { issuer: string; sub: string } | undefined | "nobody" {
  const { role, session } = c.get("caller") ?? {};
  if (role === "admin") return undefined;
  return session ?? "nobody";
}
