/** Sessions of people, and sign-ins under way, as hashes. All times are the database's. */
import { actorColumns, actorNow } from "../audit/actor-store.ts";
import type { Executor } from "../db/database.ts";
import { type Sql, sql } from "../db/sql.ts";
import type { Person } from "./people.ts";
import type { Role } from "./roles.ts";

/** A session as its readers see it: what would let somebody in is not there. */
export interface SessionRow extends Person {
  readonly id: string;
  /** Null: only OPS_ADMIN_EMAILS lets this one in. */
  readonly role: Role | null;
  readonly createdAt: Date;
  readonly lastSeenAt: Date;
  /** The end, however much it is used. */
  readonly expiresAt: Date;
}

const columns = sql`id, issuer, sub, email, email_verified as "emailVerified", name, role, created_at as "createdAt",
  last_seen_at as "lastSeenAt", expires_at as "expiresAt"`;
const ms = (count: number): Sql => sql`${count}::float8 * interval '1 millisecond'`;
const bytes = (hex: string): Sql => sql`decode(${hex}, 'hex')`;
/** Neither too old nor unused for too long. */
const live = (idleMs: number): Sql => sql`expires_at > now() and last_seen_at > now() - ${ms(idleMs)}`;

/** Who signs in, by the hash of what their browser holds meanwhile. */
export async function insertSignIn(db: Executor, hash: string, returnTo: string, withinMs: number): Promise<void> {
  await db.query(sql`
    insert into millrace.sign_ins (hash, return_to, expires_at) values (${bytes(hash)}, ${returnTo}, now() + ${ms(withinMs)})`);
}

/** Takes it away, so that it is there once. Undefined: there is none, or it is too old. */
export async function takeSignIn(db: Executor, hash: string): Promise<{ returnTo: string } | undefined> {
  const [row] = await db.query<{ returnTo: string; live: boolean }>(sql`
    delete from millrace.sign_ins where hash = ${bytes(hash)} returning return_to as "returnTo", expires_at > now() as live`);
  return row?.live ? { returnTo: row.returnTo } : undefined;
}

export interface NewSession extends Person {
  readonly role: Role | null;
  readonly hash: string;
  readonly absoluteMs: number;
  /** Of the session that this browser had before: it ends. */
  readonly instead: string | undefined;
  /** Sessions of one person; the oldest end. */
  readonly most: number;
  /** As whom the audit knows them. */
  readonly by: string | null;
}

export async function insertSession(db: Executor, session: NewSession): Promise<void> {
  const { issuer, sub, email, emailVerified, name, role, hash, absoluteMs, instead = "", most, by } = session;
  await db.query(sql`
    with surplus as (
      delete from millrace.sessions where hash = ${bytes(instead)} or rotated_from = ${bytes(instead)} or id in (
        select id from millrace.sessions where issuer = ${issuer} and sub = ${sub} order by created_at desc, id offset ${most - 1}::int)
    ),
    made as (
      insert into millrace.sessions (hash, issuer, sub, email, email_verified, name, role, expires_at)
      values (${bytes(hash)}, ${issuer}, ${sub}, ${email}, ${emailVerified}, ${name}, ${role}, now() + ${ms(absoluteMs)})
      returning id, issuer, sub, role
    )
    insert into millrace.audit (by, action, subject, details, ${actorColumns})
    select ${by}::text, 'session.create', 'session:' || id, jsonb_build_object('issuer', issuer, 'sub', sub, 'role', role), ${actorNow()} from made`);
}

export interface SessionTimes {
  readonly idleMs: number;
  /** An id that was replaced is good for so long. */
  readonly graceMs: number;
  readonly rotateMs: number;
  /** How exactly the last use is known. */
  readonly seenMs: number;
}

/** `due`: it wants another id. Also notes that it was used. */
export async function findSession(
  db: Executor,
  hash: string,
  { idleMs, graceMs, rotateMs, seenMs }: SessionTimes,
): Promise<(SessionRow & { readonly due: boolean }) | undefined> {
  const [row] = await db.query<SessionRow & { due: boolean }>(sql`
    with found as (
      select * from millrace.sessions
      where (hash = ${bytes(hash)} or (rotated_from = ${bytes(hash)} and rotated_at > now() - ${ms(graceMs)})) and ${live(idleMs)}
    ),
    seen as (
      update millrace.sessions s set last_seen_at = now() from found where s.id = found.id and found.last_seen_at < now() - ${ms(seenMs)}
    )
    select ${columns}, hash = ${bytes(hash)} and rotated_at < now() - ${ms(rotateMs)} as due from found`);
  return row;
}

/** False: another request was first. */
export async function rotateSession(db: Executor, hash: string, next: string): Promise<boolean> {
  const rows = await db.query(sql`
    update millrace.sessions set hash = ${bytes(next)}, rotated_from = hash, rotated_at = now()
    where hash = ${bytes(hash)} returning id`);
  return rows.length > 0;
}

/** Whose sessions: of one person, or of everybody. */
export type Owner = Pick<Person, "issuer" | "sub"> | undefined;

const ofOwner = (owner: Owner): Sql =>
  owner === undefined ? sql`true` : sql`issuer = ${owner.issuer} and sub = ${owner.sub}`;

/** Those that count now, newest first. */
export function listSessions(db: Executor, owner: Owner, idleMs: number): Promise<SessionRow[]> {
  return db.query<SessionRow>(sql`
    select ${columns} from millrace.sessions where ${ofOwner(owner)} and ${live(idleMs)} order by created_at desc, id limit 1000`);
}

/** False when there is none. */
export async function endSession(db: Executor, id: string, owner: Owner, by: string | null): Promise<boolean> {
  const rows = await db.query(sql`
    with gone as (delete from millrace.sessions where id = ${id}::uuid and ${ofOwner(owner)} returning id, issuer, sub),
    noted as (
      insert into millrace.audit (by, action, subject, details, ${actorColumns})
      select ${by}::text, 'session.end', 'session:' || id, jsonb_build_object('issuer', issuer, 'sub', sub), ${actorNow()} from gone
    )
    select id from gone`);
  return rows.length > 0;
}

/** What lets nobody in any more, a thousand rows of each at a time. Returns how many went. */
export async function sweepSessions(db: Executor): Promise<number> {
  const [row] = await db.query<{ gone: number }>(sql`
    with ended as (
      delete from millrace.sessions where id in (
        select id from millrace.sessions where expires_at < now() order by expires_at limit 1000) returning id
    ),
    left_open as (
      delete from millrace.sign_ins where hash in (
        select hash from millrace.sign_ins where expires_at < now() order by expires_at limit 1000) returning hash
    )
    select ((select count(*) from ended) + (select count(*) from left_open))::int as gone`);
  return row?.gone ?? 0;
}
