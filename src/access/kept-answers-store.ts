/**
 * What callers were answered under a key of theirs. Of caller, key and request only hashes are kept. Who begins holds the key until it has
 * an answer, or for five minutes when its process is gone before; an answer is kept for a day.
 */
import type { Executor } from "../db/database.ts";
import { type Sql, sql } from "../db/sql.ts";

export interface KeptAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** Null: there was none. Undefined: it is not kept. */
  readonly body: string | null | undefined;
}

/** `mine`: nobody has asked before, so do it. `other`: the key is that of another request. */
export type Begun = "mine" | "other" | "under way" | KeptAnswer;

const bytes = (hex: string): Sql => sql`decode(${hex}, 'hex')`;

/** `id` and `request` are hashes in hex. */
export async function beginAnswer(db: Executor, id: string, request: string): Promise<Begun> {
  const mine = await db.query(sql`
    insert into millrace.kept_answers as k (id, request, expires_at) values (${bytes(id)}, ${bytes(request)}, now() + interval '5 minutes')
    on conflict (id) do update set request = excluded.request, status = null, headers = null, body = null, whole = false, expires_at = excluded.expires_at
      where k.expires_at <= now()
    returning id`);
  if (mine.length === 1) return "mine";
  const [row] = await db.query<{
    same: boolean;
    status: number | null;
    headers: Record<string, string>;
    body: string | null;
    whole: boolean;
  }>(sql`
    select request = ${bytes(request)} as same, status, coalesce(headers, '{}') as headers, body, whole
    from millrace.kept_answers where id = ${bytes(id)}`);
  // Given back in this moment: the next try has it.
  if (row === undefined) return "under way";
  if (!row.same) return "other";
  if (row.status === null) return "under way";
  return { status: row.status, headers: row.headers, body: row.whole ? row.body : undefined };
}

export async function keepAnswer(db: Executor, id: string, { status, headers, body }: KeptAnswer): Promise<void> {
  await db.query(sql`
    update millrace.kept_answers set status = ${status}::int, headers = ${JSON.stringify(headers)}::jsonb, body = ${body ?? null}::text,
      whole = ${body !== undefined}::boolean, expires_at = now() + interval '24 hours'
    where id = ${bytes(id)} and status is null`);
}

/** There is no answer that may be kept: the next to ask begins anew. */
export async function giveBackAnswer(db: Executor, id: string): Promise<void> {
  await db.query(sql`delete from millrace.kept_answers where id = ${bytes(id)} and status is null`);
}

/** What is past its time, a thousand at once. Returns how many went. */
export async function sweepAnswers(db: Executor): Promise<number> {
  const gone = await db.query(sql`
    delete from millrace.kept_answers where id in (
      select id from millrace.kept_answers where expires_at <= now() order by expires_at limit 1000) returning id`);
  return gone.length;
}
