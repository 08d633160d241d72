/** The chain of the audit: how it grows, what is refused, and what verification finds. */
import { describe, expect, test } from "vitest";
import { appendAudit, listAudit } from "../../src/audit/audit-store.ts";
import { verifyAudit } from "../../src/audit/verify.ts";
import type { Database } from "../../src/db/database.ts";
import { migrate, migrations } from "../../src/db/migrate.ts";
import { Dialect, sql } from "../../src/db/sql.ts";
import { sweepUp } from "../../src/jobs/maintenance-store.ts";
import { orderConcurrency, orderDrain, orderSystemDrain } from "../../src/jobs/registry-store.ts";
import { useDatabase } from "../support/engine.ts";

const file = useDatabase();
const dayMs = 86_400_000;
const ages = { decisionsMs: dayMs, auditMs: 400 * dayMs, eventsMs: dayMs, workersMs: dayMs };

const entry = {
  action: "POST /api/queue/:name/pause",
  subject: "/api/queue/mail/pause",
  details: { status: 200 },
  actorKind: "token",
  actor: "ada",
  role: "operator",
  address: "10.0.0.1",
  requestId: "r-1",
  outcome: "allow",
} as const;

/** So many rows of a statement each, and one of many; the last of them is row `n`. */
async function grow(db: Database, n: number): Promise<void> {
  await appendAudit(db, entry);
  await db.query(sql`
    insert into millrace.audit (by, action, subject, details)
    select case when i % 3 = 0 then 'Ünï "c" \\ ' || i end, 'a' || i, 's', case when i % 2 = 0 then jsonb_build_object('n', i, 'x', '1:-') end
    from generate_series(2, ${n}::int) i`);
}

/** As somebody who may do everything, and does not want to be seen. */
const tamper = (db: Database, statement: string): Promise<void> =>
  db.script(`set session_replication_role = replica; ${statement}; set session_replication_role = origin`);

describe("the chain", () => {
  test("is whole while it is empty, and when it has grown by one, by many, and past a chunk", async () => {
    await using mill = await file.open([]);
    expect(await verifyAudit(mill.db)).toEqual({ whole: true, verified: 0, last: null, break: null });
    await grow(mill.db, 2_000);
    const whole = await verifyAudit(mill.db);
    expect(whole).toMatchObject({ whole: true, verified: 2_000, last: { id: 2_000 }, break: null });
    expect(await listAudit(mill.db, {}, { limit: 1 })).toMatchObject([{ id: "2000", hash: whole.last?.hash }]);
  });

  test("has no fork and no gap when twenty write at once, some of whom roll back", async () => {
    await using mill = await file.open([], { poolSize: 20 });
    const failures = await Promise.all(
      Array.from({ length: 20 }, async (_, writer) => {
        let failed = 0;
        for (let i = 0; i < 10; i += 1) {
          await mill.db
            .transaction(async (tx) => {
              await appendAudit(tx, { ...entry, actor: `writer-${writer}`, requestId: String(i) });
              if (i % 5 === 4) throw new Error("rolled back");
            })
            .catch(() => (failed += 1));
        }
        return failed;
      }),
    );
    expect(failures).toEqual(Array.from({ length: 20 }, () => 2));
    expect(await verifyAudit(mill.db)).toMatchObject({ whole: true, verified: 160, last: { id: 160 } });
    // The order of each writer is kept.
    const rows = await listAudit(mill.db, { by: "writer-7" }, { limit: 500 });
    expect(rows.map(({ requestId }) => requestId)).toEqual(["8", "7", "6", "5", "3", "2", "1", "0"]);
  });

  test("does not let orders for all workers and orders for one wait for each other in a circle", async () => {
    await using mill = await file.open([], { poolSize: 20 });
    const workers = await mill.db.rows<[number]>(sql`
      insert into millrace.workers (name, host, pid, version, concurrency, lease_ms)
      select 'w' || n, 'h', 1, '1', 1, 60000 from generate_series(1, 20) n returning id`);
    const orders = workers.flatMap(([id], i) => [
      orderConcurrency(mill.db, "c", id, i + 2, null),
      orderSystemDrain(mill.db, "c", i % 2 === 0, null),
      orderDrain(mill.db, "c", id, true, null),
    ]);
    await Promise.all(orders);
    expect(await verifyAudit(mill.db)).toMatchObject({ whole: true });
  });

  test("cannot be changed: no update, no truncate, no delete but of what is oldest and old enough", async () => {
    await using mill = await file.open([]);
    await grow(mill.db, 5);
    await mill.db.query(
      sql`insert into millrace.audit (at, action, subject) values (now() - interval '500 days', 'old', 's')`,
    );
    for (const statement of [
      "update millrace.audit set by = 'eve' where id = 3",
      "update millrace.audit set by = 'eve' where false",
      "delete from millrace.audit where id = 1",
      "delete from millrace.audit where id = 6",
      "delete from millrace.audit",
      "truncate millrace.audit",
      "update millrace.audit_checkpoint set last_id = 3",
      "delete from millrace.audit_checkpoint",
      "truncate millrace.audit_checkpoint",
      "insert into millrace.audit_checkpoint (last_id, last_hash) values (1, '')",
    ])
      await expect(mill.db.script(statement)).rejects.toMatchObject({
        code: "23001",
        message: expect.stringContaining("append-only"),
      });
    expect(await verifyAudit(mill.db)).toMatchObject({ whole: true, verified: 6 });
  });

  test("takes no id and no hash from whoever writes", async () => {
    await using mill = await file.open([]);
    await grow(mill.db, 2);
    await mill.db.script(
      "insert into millrace.audit (id, action, subject, prev_hash, hash) values (1, 'a', 's', '\\x00', '\\x00')",
    );
    expect(await verifyAudit(mill.db)).toMatchObject({ whole: true, verified: 3, last: { id: 3 } });
  });
});

describe("verification finds", () => {
  const hex = "decode(repeat('ab', 32), 'hex')";
  test.each([
    ["a row that was changed", "update millrace.audit set by = 'eve' where id = 1200", 1200, "changed row", 1199],
    [
      "a detail that was changed",
      `update millrace.audit set details = '{"n": 4, "x": "2"}' where id = 4`,
      4,
      "changed row",
      3,
    ],
    [
      "a time that was changed",
      "update millrace.audit set at = at + interval '1 microsecond' where id = 7",
      7,
      "changed row",
      6,
    ],
    [
      "a text that moved into the next field",
      "update millrace.audit set action = action || subject, subject = '' where id = 5",
      5,
      "changed row",
      4,
    ],
    ["null for an empty text", "update millrace.audit set address = '' where id = 5", 5, "changed row", 4],
    ["the oldest row deleted", "delete from millrace.audit where id = 1", 1, "missing row", 0],
    ["a row deleted in the middle", "delete from millrace.audit where id = 1000", 1000, "missing row", 999],
    ["rows deleted in the middle", "delete from millrace.audit where id between 3 and 5", 3, "missing row", 2],
    ["the newest row deleted", "delete from millrace.audit where id = 1300", 1300, "missing row", 1299],
    ["all rows deleted", "delete from millrace.audit", 1, "missing row", 0],
    ["a hash that was changed", `update millrace.audit set hash = ${hex} where id = 1001`, 1001, "changed row", 1000],
    ["a link that was changed", `update millrace.audit set prev_hash = ${hex} where id = 9`, 9, "bad link", 8],
    [
      "a first link that was changed",
      `update millrace.audit set prev_hash = ${hex} where id = 1`,
      1,
      "broken checkpoint",
      0,
    ],
    [
      "a row with a new hash",
      "update millrace.audit a set by = 'eve', hash = millrace.audit_hash(row(id, at, 'eve', action, subject, details, actor_kind, actor, role, address, request_id, outcome, prev_hash, hash)) where id = 8",
      9,
      "bad link",
      8,
    ],
    [
      "a newest row with a new hash",
      "update millrace.audit a set by = 'eve', hash = millrace.audit_hash(row(id, at, 'eve', action, subject, details, actor_kind, actor, role, address, request_id, outcome, prev_hash, hash)) where id = 1300",
      1300,
      "broken checkpoint",
      1300,
    ],
    [
      "a row that the chain does not know",
      `insert into millrace.audit (id, action, subject, prev_hash, hash) values (1301, 'a', 's', ${hex}, ${hex})`,
      1301,
      "bad link",
      1300,
    ],
    ["a beginning that was moved", "update millrace.audit_checkpoint set deleted_id = 3", 1, "broken checkpoint", 0],
    ["a checkpoint that was deleted", "delete from millrace.audit_checkpoint", null, "broken checkpoint", 0],
  ] as const)("%s", async (_, statement, id, kind, verified) => {
    await using mill = await file.open([]);
    await grow(mill.db, 1_300);
    await tamper(mill.db, statement);
    expect(await verifyAudit(mill.db)).toMatchObject({ whole: false, verified, break: { id, kind } });
  });

  test("a newest row deleted, also when others were appended since", async () => {
    await using mill = await file.open([]);
    await grow(mill.db, 3);
    await tamper(mill.db, "delete from millrace.audit where id = 3");
    await appendAudit(mill.db, entry);
    expect(await verifyAudit(mill.db)).toMatchObject({
      whole: false,
      verified: 2,
      break: { id: 3, kind: "missing row", message: "Row 3 is missing." },
    });
  });
});

describe("retention", () => {
  test("deletes from the oldest on, and the chain begins behind it", async () => {
    await using mill = await file.open([]);
    const insert = (n: number, days: number) =>
      mill.db.query(sql`
        insert into millrace.audit (at, action, subject)
        select now() - ${days}::int * interval '24 hours', 'a', 's' from generate_series(1, ${n}::int)`);
    await insert(1_200, 500);
    await insert(1, 399);
    await insert(5, 500);
    expect(await sweepUp(mill.db, ages)).toBe(1_000);
    expect(await verifyAudit(mill.db)).toMatchObject({ whole: true, verified: 206, last: { id: 1_206 } });
    expect(await sweepUp(mill.db, ages)).toBe(200);
    // What is behind a younger row stays until that one may go.
    expect(await sweepUp(mill.db, ages)).toBe(0);
    expect(await verifyAudit(mill.db)).toMatchObject({ whole: true, verified: 6 });

    await tamper(mill.db, "delete from millrace.audit where id = 1201");
    expect(await verifyAudit(mill.db)).toMatchObject({
      whole: false,
      verified: 0,
      break: { id: 1_201, kind: "missing row" },
    });
  });

  test("may delete every row, and the next goes on with its id and hash", async () => {
    await using mill = await file.open([]);
    await mill.db.query(
      sql`insert into millrace.audit (at, action, subject) select now() - interval '401 days', 'a', 's' from generate_series(1, 3)`,
    );
    expect(await sweepUp(mill.db, ages)).toBe(3);
    expect(await verifyAudit(mill.db)).toEqual({ whole: true, verified: 0, last: null, break: null });
    await grow(mill.db, 2);
    expect(await verifyAudit(mill.db)).toMatchObject({ whole: true, verified: 2, last: { id: 5 } });
  });
});

test("rows from before the chain get their hashes, and ids go on behind the last that was given", async () => {
  const db = await file.openDoor();
  const before = new Dialect(db.schema, false);
  await db.script(`create schema "${db.schema}"`);
  const chain = migrations.find(({ name }) => name.endsWith("_audit.sql"));
  for (const { version, name, text } of migrations) {
    if (version >= (chain?.version ?? 0)) break;
    await db.script(before.inSchema(text));
    await db.query(sql`insert into millrace.migrations (version, name) values (${version}, ${name})`);
  }
  await db.query(sql`
    insert into millrace.audit (by, action, subject, details)
    select 'ada', 'pause', 'queue:' || n, case when n > 4 then '{"reason": "ö"}'::jsonb end from generate_series(1, 9) n`);
  // As a transaction that was rolled back, and as retention without a chain.
  await db.query(sql`delete from millrace.audit where id in (1, 5, 9)`);

  await migrate(db);
  expect(await verifyAudit(db)).toMatchObject({ whole: true, verified: 6, last: { id: 8 } });
  await appendAudit(db, entry);
  expect(await verifyAudit(db)).toMatchObject({ whole: true, verified: 7, last: { id: 10 } });
  await tamper(db, "delete from millrace.audit where id = 4");
  expect(await verifyAudit(db)).toMatchObject({ whole: false, verified: 2, break: { id: 4, kind: "missing row" } });
  await db.close();
});
