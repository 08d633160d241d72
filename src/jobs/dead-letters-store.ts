/** Dead letters counted by what they have in common: what to look at first, and what one bulk operation can set right. */
import type { Database } from "../db/database.ts";
import { type Sql, join, sql } from "../db/sql.ts";

export const deadLetterGroups = ["reason", "error_code", "task", "queue"] as const;
export type DeadLetterGroup = (typeof deadLetterGroups)[number];

export interface DeadLetterFilter {
  readonly queue?: number | undefined;
  readonly task?: number | undefined;
  readonly reason?: string | undefined;
  readonly errorCode?: string | undefined;
}

export interface DeadLetterCount {
  /** The reason, error code, task or queue. */
  readonly value: string;
  readonly count: number;
  readonly oldest: Date;
  readonly newest: Date;
}

/** Groups told at most, the largest first. */
const groupsMax = 1_000;

const columns: Readonly<Record<DeadLetterGroup, Sql>> = {
  reason: sql`d.reason`,
  error_code: sql`d.error_code`,
  task: sql`(select name from millrace.tasks where id = d.task)`,
  queue: sql`(select name from millrace.queues where id = d.queue)`,
};
const keys: Readonly<Record<DeadLetterGroup, Sql>> = { ...columns, task: sql`d.task`, queue: sql`d.queue` };

export async function countDeadLetters(
  db: Database,
  group: DeadLetterGroup,
  { queue, task, reason, errorCode }: DeadLetterFilter,
): Promise<DeadLetterCount[]> {
  const conditions = [
    sql`true`,
    ...(queue === undefined ? [] : [sql`d.queue = ${queue}::int`]),
    ...(task === undefined ? [] : [sql`d.task = ${task}::int`]),
    ...(reason === undefined ? [] : [sql`d.reason = ${reason}::text`]),
    ...(errorCode === undefined ? [] : [sql`d.error_code = ${errorCode}::text`]),
  ];
  return db.query<DeadLetterCount>(sql`
    select ${columns[group]} as value, count(*)::float8 as count, min(d.failed_at) as oldest, max(d.failed_at) as newest
    from millrace.dead_letters d
    where ${join(conditions, sql` and `)}
    group by ${keys[group]} order by count desc, value limit ${groupsMax}`);
}
