/**
 * Sessions of people at browsers, who have signed in at an identity provider or with a token: opaque ids of 256 bits, kept as hashes, with
 * two ends and a change of id in use. What was signed in with a token counts as long as the token does, and may what the token may.
 */
import { createHash, randomBytes } from "node:crypto";
import { MillraceError } from "../core/errors.ts";
import { isUuid } from "../core/uuid.ts";
import type { Database } from "../db/database.ts";
import { type Emails, type Person, auditName, isListed } from "./people.ts";
import type { Caller, Role } from "./roles.ts";
import type { Tokens } from "./tokens.ts";
import {
  type Owner,
  type SessionRow,
  endSession,
  findSession,
  insertSession,
  listSessions,
  rotateSession,
} from "./sessions-store.ts";

export interface SessionSettings {
  /** Where browsers find this server: `https://millrace.example`. Undefined: wherever they say that they found it. */
  readonly origin: string | undefined;
  /** Unused for so long, a session ends. */
  readonly idleMs: number;
  /** After so long it ends, used or not. */
  readonly absoluteMs: number;
  /** Admins, whatever else is said of them; with an empty list nobody is singled out. */
  readonly admins: Emails;
}

export const defaultSessions: SessionSettings = {
  origin: undefined,
  idleMs: 30 * 60_000,
  absoluteMs: 12 * 3_600_000,
  admins: new Set(),
};

export interface SessionInfo extends SessionRow {
  /** What its holder may do now. */
  readonly role: Role;
}

/** Requests that were on their way with the id before. */
const graceMs = 30_000;
const rotateMs = 15 * 60_000;
const seenMs = 10_000;
const mostPerPerson = 20;
/** In place of an identity provider; none has such an address. */
const tokenIssuer = "urn:millrace:token";

const newId = (): string => randomBytes(32).toString("base64url");
const hashOf = (id: string): string => createHash("sha256").update(id).digest("hex");

export class Sessions {
  readonly #db: Database;
  readonly #tokens: Tokens;
  readonly #settings: SessionSettings;

  constructor(db: Database, tokens: Tokens, settings: SessionSettings) {
    this.#db = db;
    this.#tokens = tokens;
    this.#settings = settings;
  }

  /** Its id, always a new one. `instead`: the id this browser came with, if any; it lets nobody in any more. Throws `SIGN_IN_REFUSED`. */
  async open(person: Person, role: Role | null, instead: string | undefined): Promise<string> {
    if (this.#roleOf(person, role) === undefined)
      throw new MillraceError("SIGN_IN_REFUSED", "You are known to the identity provider, and have no role here.");
    return this.#insert(person, role, auditName(person), instead);
  }

  /** The same for whoever showed a token that counts, and is this caller. */
  async openFor(token: string, { name, role }: Caller, instead: string | undefined): Promise<string> {
    const sub = await this.#tokens.keyOf(token);
    const person: Person = { issuer: tokenIssuer, sub, email: null, emailVerified: false, name: null };
    return this.#insert(person, role, name, instead);
  }

  async #insert(person: Person, role: Role | null, by: string | null, instead: string | undefined): Promise<string> {
    const id = newId();
    await insertSession(this.#db, {
      ...person,
      role,
      hash: hashOf(id),
      absoluteMs: this.#settings.absoluteMs,
      instead: instead === undefined ? undefined : hashOf(instead),
      most: mostPerPerson,
      by,
    });
    return id;
  }

  /** Who came with this id, and, now and then, the id to come with from now on. Undefined: nobody, or not any more. */
  async callerOf(id: string): Promise<{ readonly caller: Caller; readonly next: string | undefined } | undefined> {
    if (!/^[A-Za-z0-9_-]{43}$/.test(id)) return undefined;
    const { idleMs } = this.#settings;
    const found = await findSession(this.#db, hashOf(id), { idleMs, graceMs, rotateMs, seenMs });
    if (found === undefined) return undefined;
    const holder = await this.#holderOf(found);
    if (holder === undefined) return undefined;
    const { due, ...session } = found;
    const caller: Caller = { ...holder, session };
    const next = due ? newId() : undefined;
    if (next !== undefined && (await rotateSession(this.#db, hashOf(id), hashOf(next)))) return { caller, next };
    return { caller, next: undefined };
  }

  async list(owner: Owner): Promise<SessionInfo[]> {
    const rows = await listSessions(this.#db, owner, this.#settings.idleMs);
    const holders = await Promise.all(rows.map((row) => this.#holderOf(row)));
    return rows.flatMap((row, i) => {
      const { kind, name, role } = holders[i] ?? {};
      return role === undefined ? [] : { ...row, name: kind === "token" ? (name ?? null) : row.name, role };
    });
  }

  /** At once, everywhere. Throws `SESSION_NOT_FOUND`. */
  async end(id: string, owner: Owner, by: string | null): Promise<void> {
    if (isUuid(id) && (await endSession(this.#db, id, owner, by))) return;
    throw new MillraceError("SESSION_NOT_FOUND", "There is no such session that could be ended by this caller.");
  }

  /** Whether the list of admins keeps these callers from what it guards. */
  leavesOut({ kind, session }: Caller): boolean {
    const { admins } = this.#settings;
    return kind === "user" && session !== undefined && admins.size > 0 && !isListed(admins, session);
  }

  /** Whose session it is, as of now; undefined: it lets nobody in any more. */
  async #holderOf(row: SessionRow): Promise<Caller | undefined> {
    if (row.issuer === tokenIssuer) return this.#tokens.holderOf(row.sub);
    const role = this.#roleOf(row, row.role);
    return role && { kind: "user", name: auditName(row), role };
  }

  /** By the list of today: who is taken from it is no admin with the next request. */
  #roleOf(person: Person, role: Role | null): Role | undefined {
    return isListed(this.#settings.admins, person) ? "admin" : (role ?? undefined);
  }
}
