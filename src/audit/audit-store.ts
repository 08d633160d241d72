/**
 * The audit: who did what, when, from where, and what came of it. The database chains its rows by hashes as they are written, and refuses
 * to change them (migrations/0009_audit.sql); here they are appended, listed, and read as the chain they should be.
 */
import type { Executor } from "../db/database.ts";
import { sql } from "../db/sql.ts";

type ActorKind = "program" | "machine" | "token" | "user";
type Outcome = "allow" | "deny" | "error";

/** What a request leaves behind; times, ids and hashes are the database's. */
export interface NewAuditEntry {
  readonly action: string;
  readonly subject: string;
  readonly details: object;
  /** Null: nobody knows who asked. */
  readonly actorKind: ActorKind | null;
  readonly actor: string | null;
  readonly role: string | null;
  readonly address: string | null;
  readonly requestId: string | null;
  readonly outcome: Outcome;
}

export interface AuditEntry {
  /** In the order of the chain, one by one; only before the chain was made were some left out. */
  readonly id: string;
  readonly at: Date;
  /** Who says to have done it: the caller, or the name that an order was signed with. */
  readonly by: string | null;
  readonly action: string;
  readonly subject: string;
  readonly details: unknown;
  readonly actorKind: ActorKind | null;
  readonly actor: string | null;
  readonly role: string | null;
  readonly address: string | null;
  readonly requestId: string | null;
  /** Null: an order, which was carried out. */
  readonly outcome: Outcome | null;
  /** SHA-256, in hex. */
  readonly hash: string;
}

export async function appendAudit(db: Executor, entry: NewAuditEntry): Promise<void> {
  await db.query(sql`
    insert into millrace.audit (by, action, subject, details, actor_kind, actor, role, address, request_id, outcome)
    values (${entry.actor}, ${entry.action}, ${entry.subject}, ${JSON.stringify(entry.details)}::jsonb, ${entry.actorKind}, ${entry.actor},
      ${entry.role}, ${entry.address}, ${entry.requestId}, ${entry.outcome})`);
}

/** Each exactly as it stands there. */
export interface AuditFilter {
  readonly by?: string | undefined;
  readonly action?: string | undefined;
  readonly subject?: string | undefined;
}

/** Newest first. `after`: the id of the last one of the page before. */
export async function listAudit(
  db: Executor,
  { by = null, action = null, subject = null }: { readonly [Name in keyof AuditFilter]: AuditFilter[Name] | null },
  { limit, after = null }: { readonly limit: number; readonly after?: string | undefined | null },
): Promise<AuditEntry[]> {
  return db.query<AuditEntry>(sql`
    select id::text, at, by, action, subject, details, actor_kind as "actorKind", actor, role, address, request_id as "requestId", outcome,
           encode(hash, 'hex') as hash
    from millrace.audit a
    where (${after}::bigint is null or a.id < ${after}::bigint) and (${by}::text is null or a.by = ${by}::text)
      and (${action}::text is null or a.action = ${action}::text) and (${subject}::text is null or a.subject = ${subject}::text)
    order by a.id desc limit ${limit}::int`);
}

/** Hashes in hex. */
export interface Checkpoint {
  /** The newest row that retention has deleted. */
  readonly deletedId: number;
  readonly deletedHash: string;
  /** The newest row. */
  readonly lastId: number;
  readonly lastHash: string;
}

export interface Link {
  readonly id: number;
  /** In hex. */
  readonly prevHash: string;
  readonly hash: string;
  /** What the hash is made of, beside the one before it, in its order. */
  readonly fields: readonly (string | null)[];
}

/**
 * The next rows of the chain behind `after`, or behind what retention has deleted, and its ends as they are at the same moment. No
 * checkpoint: somebody has taken it away.
 */
export async function readChain(
  db: Executor,
  after: number,
  limit: number,
): Promise<{ checkpoint: Checkpoint | undefined; links: Link[] }> {
  const rows = await db.query<Checkpoint & { id: number | null } & Omit<Link, "id">>(sql`
    select c.deleted_id::float8 as "deletedId", encode(c.deleted_hash, 'hex') as "deletedHash",
           c.last_id::float8 as "lastId", encode(c.last_hash, 'hex') as "lastHash",
           a.id::float8 as id, encode(a.prev_hash, 'hex') as "prevHash", encode(a.hash, 'hex') as hash,
           array[a.id::text, (extract(epoch from a.at) * 1000000)::bigint::text, a.by, a.action, a.subject, a.details::text,
             a.actor_kind, a.actor, a.role, a.address, a.request_id, a.outcome] as fields
    from millrace.audit_checkpoint c left join lateral (
      select * from millrace.audit where id > greatest(${after}::bigint, c.deleted_id) order by id limit ${limit}::int
    ) a on true order by a.id`);
  const links = rows.flatMap(({ id, prevHash, hash, fields }) => (id === null ? [] : [{ id, prevHash, hash, fields }]));
  return { checkpoint: rows[0], links };
}

/** A row that retention is said to have deleted and that is there; undefined as it should be. */
export async function findUndead(db: Executor): Promise<number | undefined> {
  const [row] = await db.query<{ id: number }>(sql`
    select a.id::float8 from millrace.audit a join millrace.audit_checkpoint c on a.id <= c.deleted_id order by a.id limit 1`);
  return row?.id;
}
