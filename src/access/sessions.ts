/** Sessions of people who have signed in: opaque ids of 256 bits, kept as hashes, with two ends and a change of id in use. */
import { createHash, randomBytes } from "node:crypto";
import { MillraceError } from "../core/errors.ts";
import { isUuid } from "../core/uuid.ts";
import type { Database } from "../db/database.ts";
import { type Emails, type Person, auditName, isListed } from "./people.ts";
import type { Caller, Role } from "./roles.ts";
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
  /** Unused for so long, a session ends. */
  readonly idleMs: number;
  /** After so long it ends, used or not. */
  readonly absoluteMs: number;
  /** Admins, whatever else is said of them; with an empty list nobody is singled out. */
  readonly admins: Emails;
}

export interface SessionInfo extends SessionRow {
  /** What its holder may do now. */
  readonly role: Role;
}

/** Requests that were on their way with the id before. */
const graceMs = 30_000;
const rotateMs = 15 * 60_000;
const seenMs = 10_000;
const mostPerPerson = 20;

const newId = (): string => randomBytes(32).toString("base64url");
const hashOf = (id: string): string => createHash("sha256").update(id).digest("hex");

export class Sessions {
  readonly #db: Database;
  readonly #settings: SessionSettings;

  constructor(db: Database, settings: SessionSettings) {
    this.#db = db;
    this.#settings = settings;
  }

  /** Its id, always a new one. `instead`: the id this browser came with, if any; it lets nobody in any more. Throws `SIGN_IN_REFUSED`. */
  async open(person: Person, role: Role | null, instead: string | undefined): Promise<string> {
    if (this.#roleOf(person, role) === undefined)
      throw new MillraceError("SIGN_IN_REFUSED", "You are known to the identity provider, and have no role here.");
    const id = newId();
    await insertSession(this.#db, {
      ...person,
      role,
      hash: hashOf(id),
      absoluteMs: this.#settings.absoluteMs,
      instead: instead === undefined ? undefined : hashOf(instead),
      most: mostPerPerson,
      by: auditName(person),
    });
    return id;
  }

  /** Who came with this id, and, now and then, the id to come with from now on. Undefined: nobody, or not any more. */
  async callerOf(id: string): Promise<{ readonly caller: Caller; readonly next: string | undefined } | undefined> {
    if (!/^[A-Za-z0-9_-]{43}$/.test(id)) return undefined;
    const { idleMs } = this.#settings;
    const found = await findSession(this.#db, hashOf(id), { idleMs, graceMs, rotateMs, seenMs });
    if (found === undefined) return undefined;
    const role = this.#roleOf(found, found.role);
    if (role === undefined) return undefined;
    const { due, ...session } = found;
    const caller: Caller = { kind: "user", name: auditName(found), role, session };
    const next = due ? newId() : undefined;
    if (next !== undefined && (await rotateSession(this.#db, hashOf(id), hashOf(next)))) return { caller, next };
    return { caller, next: undefined };
  }

  async list(owner: Owner): Promise<SessionInfo[]> {
    const rows = await listSessions(this.#db, owner, this.#settings.idleMs);
    return rows.flatMap((row) => {
      const role = this.#roleOf(row, row.role);
      return role === undefined ? [] : { ...row, role };
    });
  }

  /** At once, everywhere. Throws `SESSION_NOT_FOUND`. */
  async end(id: string, owner: Owner, by: string | null): Promise<void> {
    if (isUuid(id) && (await endSession(this.#db, id, owner, by))) return;
    throw new MillraceError("SESSION_NOT_FOUND", "There is no such session that could be ended by this caller.");
  }

  /** Whether the list of admins keeps these callers from what it guards. */
  leavesOut({ session }: Caller): boolean {
    const { admins } = this.#settings;
    return session !== undefined && admins.size > 0 && !isListed(admins, session);
  }

  /** By the list of today: who is taken from it is no admin with the next request. */
  #roleOf(person: Person, role: Role | null): Role | undefined {
    return isListed(this.#settings.admins, person) ? "admin" : (role ?? undefined);
  }
}
