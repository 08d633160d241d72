/** Tokens of the API, as hashes. */
import { actorColumns, actorNow } from "../audit/actor-store.ts";
import type { Executor } from "../db/database.ts";
import { sql } from "../db/sql.ts";
import type { Role } from "./roles.ts";

/** A token as its readers see it: what would let somebody in is not there. Times are Dates; what does not apply is null. */
export interface TokenInfo {
  /** The part by which it is recognised: `mr_<id>_…`. */
  readonly id: string;
  readonly name: string;
  readonly role: Role;
  readonly createdAt: Date;
  readonly createdBy: string | null;
  readonly expiresAt: Date | null;
  /** To the minute. */
  readonly lastUsedAt: Date | null;
  readonly revokedAt: Date | null;
  readonly revokedBy: string | null;
}

const columns = sql`id, name, role, created_at as "createdAt", created_by as "createdBy", expires_at as "expiresAt",
  last_used_at as "lastUsedAt", revoked_at as "revokedAt", revoked_by as "revokedBy"`;

export interface NewToken {
  readonly id: string;
  readonly name: string;
  readonly role: Role;
  /** SHA-256 of its secret, in hex. */
  readonly hash: string;
  readonly expiresMs: number | null;
  readonly by: string | null;
}

export async function insertToken(db: Executor, { id, name, role, hash, expiresMs, by }: NewToken): Promise<TokenInfo> {
  const [row] = await db.query<TokenInfo>(sql`
    with made as (
      insert into millrace.api_tokens (id, name, role, hash, created_by, expires_at)
      values (${id}, ${name}, ${role}, decode(${hash}, 'hex'), ${by}, now() + ${expiresMs}::float8 * interval '1 millisecond')
      returning *
    ),
    noted as (
      insert into millrace.audit (by, action, subject, details, ${actorColumns})
      select ${by}::text, 'token.create', 'token:' || id, jsonb_build_object('name', name, 'role', role, 'expires_at', expires_at), ${actorNow()} from made
    )
    select ${columns} from made`);
  return row as TokenInfo;
}

/** Newest first. */
export function listTokens(db: Executor): Promise<TokenInfo[]> {
  return db.query<TokenInfo>(sql`select ${columns} from millrace.api_tokens order by created_at desc, id limit 1000`);
}

/** False when there is none, or it was revoked before. */
export async function revokeToken(db: Executor, id: string, by: string | null): Promise<boolean> {
  const rows = await db.query(sql`
    with gone as (
      update millrace.api_tokens set revoked_at = now(), revoked_by = ${by} where id = ${id} and revoked_at is null returning id, name
    ),
    noted as (
      insert into millrace.audit (by, action, subject, details, ${actorColumns})
      select ${by}::text, 'token.revoke', 'token:' || id, jsonb_build_object('name', name), ${actorNow()} from gone
    )
    select id from gone`);
  return rows.length > 0;
}

/** One that counts now: neither revoked nor expired. */
export interface LiveToken {
  readonly name: string;
  readonly role: Role;
  /** In hex. */
  readonly hash: string;
}

/** Also notes that it was used, at most once a minute. */
export async function findLiveToken(db: Executor, id: string): Promise<LiveToken | undefined> {
  const [row] = await db.query<LiveToken & { idle: boolean }>(sql`
    select name, role, encode(hash, 'hex') as hash, coalesce(last_used_at < now() - interval '1 minute', true) as idle
    from millrace.api_tokens where id = ${id} and revoked_at is null and coalesce(expires_at > now(), true)`);
  if (row === undefined) return undefined;
  if (row.idle) await db.query(sql`update millrace.api_tokens set last_used_at = now() where id = ${id}`);
  return { name: row.name, role: row.role, hash: row.hash };
}

export async function anyToken(db: Executor): Promise<boolean> {
  const [row] = await db.query<{ found: boolean }>(sql`
    select exists (select from millrace.api_tokens where revoked_at is null and coalesce(expires_at > now(), true)) as found`);
  return row?.found ?? false;
}

/** Deletes tokens that were revoked, or expired, longer ago than that: a thousand at a time. Returns how many went. */
export async function sweepTokens(db: Executor, olderThanMs: number): Promise<number> {
  const rows = await db.query(sql`
    delete from millrace.api_tokens where id in (
      select id from millrace.api_tokens where least(revoked_at, expires_at) < now() - ${olderThanMs}::float8 * interval '1 millisecond' limit 1000)
    returning id`);
  return rows.length;
}
