/** Queues and tasks by name. A name gets its number on first use and keeps it. */
import type { Executor } from "../db/database.ts";
import { sql, textArrayLiteral } from "../db/sql.ts";

interface Named {
  readonly id: number;
  readonly name: string;
}

export async function findQueues(db: Executor, names: readonly string[]): Promise<Named[]> {
  return db.query(sql`select id, name from millrace.queues where name = any (${textArrayLiteral(names)}::text[])`);
}

export async function addQueues(db: Executor, names: readonly string[]): Promise<void> {
  await db.query(
    sql`insert into millrace.queues (name) select unnest(${textArrayLiteral(names)}::text[]) on conflict do nothing`,
  );
}

/** Up to so many; for whoever mistyped one. */
const namesMax = 1_000;

export async function queueNames(db: Executor): Promise<string[]> {
  const rows = await db.query<Named>(sql`select name from millrace.queues order by name limit ${namesMax}::int`);
  return rows.map(({ name }) => name);
}

export async function taskNames(db: Executor): Promise<string[]> {
  const rows = await db.query<Named>(sql`select name from millrace.tasks order by name limit ${namesMax}::int`);
  return rows.map(({ name }) => name);
}

export async function findTasks(db: Executor, names: readonly string[]): Promise<Named[]> {
  return db.query(sql`select id, name from millrace.tasks where name = any (${textArrayLiteral(names)}::text[])`);
}

export async function addTasks(db: Executor, names: readonly string[]): Promise<void> {
  await db.query(
    sql`insert into millrace.tasks (name) select unnest(${textArrayLiteral(names)}::text[]) on conflict do nothing`,
  );
}

export async function nameOfQueue(db: Executor, id: number): Promise<string> {
  const [row] = await db.query<Named>(sql`select id, name from millrace.queues where id = ${id}`);
  return row?.name ?? `#${id}`;
}

export async function nameOfTask(db: Executor, id: number): Promise<string> {
  const [row] = await db.query<Named>(sql`select id, name from millrace.tasks where id = ${id}`);
  return row?.name ?? `#${id}`;
}
