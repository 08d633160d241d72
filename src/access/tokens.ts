/** Tokens of the API: `mr_<id>_<secret>`, shown once, kept as hashes, and those that the environment gives. */
import { hash, randomBytes, timingSafeEqual } from "node:crypto";
import { type Duration, durationMs } from "../core/duration.ts";
import { MillraceError } from "../core/errors.ts";
import { show } from "../core/options.ts";
import type { Database } from "../db/database.ts";
import { type Caller, type Role, checkedRole } from "./roles.ts";
import { type TokenInfo, anyToken, findLiveToken, insertToken, listTokens, revokeToken } from "./tokens-store.ts";

/** A token of the environment: it is never in the database. */
export interface GivenToken {
  readonly token: string;
  readonly role: Role;
  readonly name: string;
}

export interface CreateTokenOptions {
  name: string;
  /** Default: `viewer`. */
  role?: Role;
  /** It counts no longer then. Default: never. */
  expiresIn?: Duration;
  by?: string;
}

/** A revoked token is refused everywhere after so long, in ms: it is asked about so often. */
const rememberedMs = 5_000;
const rememberedMax = 10_000;

const digest = (text: string): Buffer => hash("sha256", text, "buffer");

export class Tokens {
  readonly #db: Database;
  readonly #given: readonly { readonly hash: Buffer; readonly caller: Caller }[];
  readonly #remembered = new Map<string, { readonly until: number; readonly found: Promise<Found> }>();

  constructor(db: Database, given: readonly GivenToken[]) {
    this.#db = db;
    this.#given = given.map(({ token, role, name }) => ({
      hash: digest(token),
      caller: { kind: "token", name, role },
    }));
  }

  /** The one time that the token itself is told. Throws `OPTION_INVALID`. */
  async create({ name, role = "viewer", expiresIn, by }: CreateTokenOptions): Promise<TokenInfo & { token: string }> {
    if (typeof name !== "string" || !/^[^\0\p{Surrogate}]{1,100}$/u.test(name))
      throw new MillraceError("OPTION_INVALID", `name must be a text of 1 to 100 characters, not ${show(name)}.`);
    const id = randomBytes(6).toString("hex");
    const secret = randomBytes(32).toString("base64url");
    const made = await insertToken(this.#db, {
      id,
      name,
      role: checkedRole(role),
      hash: digest(secret).toString("hex"),
      expiresMs: expiresIn === undefined ? null : durationMs(expiresIn, "expiresIn"),
      by: by ?? null,
    });
    return { ...made, token: `mr_${id}_${secret}` };
  }

  list(): Promise<TokenInfo[]> {
    return listTokens(this.#db);
  }

  /** Throws `TOKEN_NOT_FOUND`. Processes that have seen it within five seconds let it in until those are over. */
  async revoke(id: string, options: { by?: string } = {}): Promise<void> {
    if (!(await revokeToken(this.#db, id, options.by ?? null)))
      throw new MillraceError("TOKEN_NOT_FOUND", `There is no token ${show(id)} that could be revoked.`);
    this.#remembered.clear();
  }

  /** Whether anybody could come in with one. */
  async any(): Promise<boolean> {
    return this.#given.length > 0 || (await anyToken(this.#db));
  }

  /** Who holds this token; undefined when it is none that counts. */
  async callerOf(token: string): Promise<Caller | undefined> {
    const digested = digest(token);
    const given = this.#given.find((one) => timingSafeEqual(one.hash, digested));
    if (given) return given.caller;
    const parts = /^mr_([0-9a-f]{12})_([A-Za-z0-9_-]{43})$/.exec(token);
    if (parts === null) return undefined;
    const [, id = "", secret = ""] = parts;
    const found = await this.#find(id);
    if (found === undefined || !timingSafeEqual(Buffer.from(found.hash, "hex"), digest(secret))) return undefined;
    return { kind: "token", name: found.name, role: found.role };
  }

  #find(id: string): Promise<Found> {
    const now = performance.now();
    const known = this.#remembered.get(id);
    if (known !== undefined && known.until > now) return known.found;
    if (this.#remembered.size >= rememberedMax) this.#remembered.clear();
    const found = findLiveToken(this.#db, id);
    this.#remembered.set(id, { until: now + rememberedMs, found });
    found.catch(() => this.#remembered.delete(id));
    return found;
  }
}

type Found = Awaited<ReturnType<typeof findLiveToken>>;

/**
 * `API_TOKENS`: a JSON array of `{token, roles or role, name}`, or `name:role:token` by commas, several roles as `viewer|admin`. Undefined when it is neither, or a
 * token is shorter than 16 characters.
 */
export function readGivenTokens(text: string): readonly GivenToken[] | undefined {
  const trimmed = text.trim();
  const given = trimmed.startsWith("[") ? fromJson(trimmed) : fromCsv(trimmed);
  if (given === undefined || given.some(({ token }) => token.length < 16)) return undefined;
  return given;
}

const roleOf = (words: readonly unknown[]): Role | undefined =>
  (["admin", "operator", "viewer"] as const).find((role) => words.includes(role));

function fromCsv(text: string): GivenToken[] | undefined {
  const given = text.split(",").map((item): GivenToken | undefined => {
    const [, name = "", word, token = ""] = /^([^:]+):([^:]+):(.+)$/.exec(item.trim()) ?? [];
    const role = roleOf(word?.split("|") ?? []);
    return role && { token, role, name };
  });
  return given.every((one) => one !== undefined) ? given : undefined;
}

function fromJson(text: string): GivenToken[] | undefined {
  try {
    const items = JSON.parse(text) as { token?: unknown; role?: unknown; roles?: unknown; name?: unknown }[];
    const given = items.map(({ token, role, roles: several, name }): GivenToken | undefined => {
      const found = roleOf(Array.isArray(several) ? several : [role]);
      if (typeof token !== "string" || found === undefined) return undefined;
      return { token, role: found, name: typeof name === "string" ? name : found };
    });
    return given.every((one) => one !== undefined) ? given : undefined;
  } catch {
    return undefined; // said by who asked: the variable is not allowed
  }
}
