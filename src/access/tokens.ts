/** Tokens of the API: `mr_<id>_<secret>`, shown once, kept as hashes, and those that the environment gives. */
import { hash, randomBytes, scrypt, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";
import { type Duration, durationMs } from "../core/duration.ts";
import { MillraceError } from "../core/errors.ts";
import { isText, show, textOrNull } from "../core/options.ts";
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
/** Of a token that somebody thought up, and that whoever reads it must not find by trying. */
const slowDigest = async (text: string): Promise<string> =>
  ((await promisify(scrypt)(text, "millrace token", 16)) as Buffer).toString("hex");

interface Given {
  readonly token: string;
  readonly hash: Buffer;
  readonly caller: Caller;
  key?: Promise<string>;
}

export class Tokens {
  readonly #db: Database;
  readonly #given: readonly Given[];
  readonly #remembered = new Map<string, { readonly until: number; readonly found: Promise<Found> }>();

  constructor(db: Database, given: readonly GivenToken[]) {
    this.#db = db;
    this.#given = given.map(({ token, role, name }) => ({
      token,
      hash: digest(token),
      caller: { kind: "token", name, role },
    }));
  }

  /** The one time that the token itself is told. Throws `OPTION_INVALID`. */
  async create({ name, role = "viewer", expiresIn, by }: CreateTokenOptions): Promise<TokenInfo & { token: string }> {
    if (!isText(name, 100, 1))
      throw new MillraceError("OPTION_INVALID", `name must be a text of 1 to 100 characters, not ${show(name)}.`);
    const id = randomBytes(6).toString("hex");
    const secret = randomBytes(32).toString("base64url");
    const made = await insertToken(this.#db, {
      id,
      name,
      role: checkedRole(role),
      hash: digest(secret).toString("hex"),
      expiresMs: expiresIn === undefined ? null : durationMs(expiresIn, "expiresIn"),
      by: textOrNull(by, "by", 200),
    });
    return { ...made, token: `mr_${id}_${secret}` };
  }

  list(): Promise<TokenInfo[]> {
    return listTokens(this.#db);
  }

  /** Throws `TOKEN_NOT_FOUND`. Processes that have seen it within five seconds let it in until those are over. */
  async revoke(id: string, options: { by?: string } = {}): Promise<void> {
    if (!(await revokeToken(this.#db, id, textOrNull(options.by, "by", 200))))
      throw new MillraceError("TOKEN_NOT_FOUND", `There is no token ${show(id)} that could be revoked.`);
    this.#remembered.clear();
  }

  /** Whether anybody could come in with one. */
  async any(): Promise<boolean> {
    return this.#given.length > 0 || (await anyToken(this.#db));
  }

  /** Who holds this token; undefined when it is none that counts. */
  async callerOf(token: string): Promise<Caller | undefined> {
    const given = this.#givenAs(token);
    if (given) return given.caller;
    const parts = partsOf(token);
    if (parts === undefined) return undefined;
    const { id, secret } = parts;
    const found = await this.#find(id);
    if (found === undefined || !timingSafeEqual(Buffer.from(found.hash, "hex"), digest(secret))) return undefined;
    return { kind: "token", name: found.name, role: found.role };
  }

  /** By what a session remembers a token. It lets nobody in: an id, or, of a token of the environment, what is made of it slowly. */
  async keyOf(token: string): Promise<string> {
    const given = this.#givenAs(token);
    return given === undefined ? (partsOf(token)?.id ?? "") : keyOfGiven(given);
  }

  /** Who holds the token that has this key; undefined when it is none that counts, or not any more. */
  async holderOf(key: string): Promise<Caller | undefined> {
    if (key.startsWith(givenPrefix)) {
      const keys = await Promise.all(this.#given.map(keyOfGiven));
      return this.#given[keys.indexOf(key)]?.caller;
    }
    const found = await this.#find(key);
    return found && { kind: "token", name: found.name, role: found.role };
  }

  #givenAs(token: string): Given | undefined {
    const hash = digest(token);
    return this.#given.find((one) => timingSafeEqual(one.hash, hash));
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

const givenPrefix = "env:";

async function keyOfGiven(given: Given): Promise<string> {
  given.key ??= slowDigest(given.token);
  return givenPrefix + (await given.key);
}

function partsOf(token: string): { readonly id: string; readonly secret: string } | undefined {
  const [, id, secret] = /^mr_([0-9a-f]{12})_([A-Za-z0-9_-]{43})$/.exec(token) ?? [];
  return id === undefined || secret === undefined ? undefined : { id, secret };
}

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
