/** Both doors, PostgreSQL and PGlite, behave as one. What only a server has is tested on the server alone. */
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Database, isTransient } from "../../src/db/database.ts";
import { arrayLiteral, quoteIdent, sql, textArrayLiteral } from "../../src/db/sql.ts";
import { backend } from "../support/database.ts";
import { gate, tally, useDatabase } from "../support/engine.ts";

const file = useDatabase();
let db: Database;
beforeAll(async () => {
  db = await file.openDoor();
  await db.script(
    `create schema ${quoteIdent(db.schema)}; create table millrace.things (id int primary key, name text)`,
  );
});
afterAll(() => db.close());

/** Any text PostgreSQL can hold. */
const texts = fc
  .oneof(
    fc.string({ unit: "binary" }),
    fc.string({ unit: fc.constantFrom('"', "\\", "{", "}", ",", "\n", "NULL", " ", "'", "$1") }),
  )
  .map((text) => text.replaceAll("\0", "").replaceAll(/\p{Surrogate}/gu, ""));

describe("arrays come back from the server as they were sent", () => {
  test("texts: quotes, backslashes, braces, newlines, emptiness, the word NULL and null", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.option(texts)), async (sent) => {
        const [row] = await db.query<{ got: (string | null)[] }>(sql`select ${textArrayLiteral(sent)}::text[] as got`);
        expect(row?.got).toEqual(sent);
      }),
      { numRuns: 300 },
    );
  });

  test("JSON texts, as jsonb", async () => {
    const values = fc
      .jsonValue({ stringUnit: "grapheme" })
      .filter((value) => !JSON.stringify(value).includes("\\u0000"));
    await fc.assert(
      fc.asyncProperty(fc.array(values, { maxLength: 5 }), async (sent) => {
        const literal = textArrayLiteral(sent.map((value) => JSON.stringify(value)));
        const [row] = await db.query<{ got: string }>(sql`select to_jsonb(${literal}::jsonb[])::text as got`);
        // jsonb is numeric: minus zero is zero.
        expect(JSON.parse(row?.got ?? "")).toEqual(JSON.parse(JSON.stringify(sent).replaceAll(/-0(?=[,\]}])/g, "0")));
      }),
      { numRuns: 200 },
    );
  });

  test("numbers and nulls", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.option(fc.integer())), async (sent) => {
        const [row] = await db.query<{ got: (number | null)[] }>(sql`select ${arrayLiteral(sent)}::int[] as got`);
        expect(row?.got).toEqual(sent);
      }),
      { numRuns: 50 },
    );
  });
});

describe("a statement", () => {
  test("gives rows as objects or as arrays", async () => {
    const query = sql`select 1 as a, ${"x"}::text as b`;
    expect(await db.query(query)).toEqual([{ a: 1, b: "x" }]);
    expect(await db.rows(query)).toEqual([[1, "x"]]);
  });

  test("that fails leaves the door open for the next one", async () => {
    await expect(db.query(sql`select 1 / ${0}::int as x`)).rejects.toMatchObject({ code: "22012" });
    expect(await db.query(sql`select 1 as x`)).toEqual([{ x: 1 }]);
  });
});

describe("a transaction", () => {
  const names = async (from: number): Promise<unknown[]> =>
    db.query(sql`select id, name from millrace.things where id between ${from} and ${from + 9} order by id`);

  test("is there as a whole when the work returns, and gives what it returned", async () => {
    const given = await db.transaction(async (tx) => {
      await tx.query(sql`insert into millrace.things values (10, 'a')`);
      await tx.query(sql`insert into millrace.things values (11, ${"b"})`);
      return "done";
    });
    expect(given).toBe("done");
    expect(await names(10)).toEqual([
      { id: 10, name: "a" },
      { id: 11, name: "b" },
    ]);
  });

  test("is gone when the work throws, and the error comes out as it was", async () => {
    const reason = new Error("changed my mind");
    const work = db.transaction(async (tx) => {
      await tx.query(sql`insert into millrace.things values (20, 'a')`);
      throw reason;
    });
    await expect(work).rejects.toBe(reason);
    expect(await names(20)).toEqual([]);
  });

  test("is gone when one of its statements fails", async () => {
    const work = db.transaction(async (tx) => {
      await tx.query(sql`insert into millrace.things values (30, 'a')`);
      await tx.query(sql`insert into millrace.things values (30, 'again')`);
    });
    await expect(work).rejects.toMatchObject({ code: "23505" });
    expect(await names(30)).toEqual([]);
  });

  test("lent to the user takes their SQL as it stands, and Millrace's through adopt", async () => {
    await db.lend(async (tx) => {
      await tx.query("create temporary table mine (n int) on commit drop", []);
      await tx.query("insert into mine values ($1)", [7]);
      const adopted = db.adopt(tx);
      await adopted.query(sql`insert into millrace.things select 40, n::text from mine`);
      expect(await adopted.rows(sql`select id, name from millrace.things where id = ${40}`)).toEqual([[40, "7"]]);
    });
    expect(await names(40)).toEqual([{ id: 40, name: "7" }]);
  });

  test("lent to the user is gone when they throw", async () => {
    const work = db.lend(async (tx) => {
      await tx.query(`insert into ${quoteIdent(db.schema)}.things values (50, 'a')`, []);
      throw new Error("no");
    });
    await expect(work).rejects.toThrow("no");
    expect(await names(50)).toEqual([]);
  });
});

describe("listening", () => {
  test("hears what is sent on its channel, whatever capitals its name has, and nothing after it is closed", async () => {
    const heard = tally<string>();
    const other = tally<string>();
    const gaps = tally<true>();
    const channel = `millrace_${db.schema}`;
    const subscription = await db.listen(channel, heard.add, () => gaps.add(true));
    const second = await db.listen(channel.toLowerCase(), other.add, () => undefined);
    expect(subscription.live).toBe(true);
    expect(gaps.seen).toHaveLength(1);

    await db.query(
      sql`select pg_notify(${channel}, 'one'), pg_notify(${channel}, 'two'), pg_notify(${channel.toLowerCase()}, 'three')`,
    );
    expect(await heard.reached(2)).toEqual(["one", "two"]);
    expect(await other.reached(1)).toEqual(["three"]);

    await subscription.close();
    await db.query(sql`select pg_notify(${channel}, 'after'), pg_notify(${channel.toLowerCase()}, 'last')`);
    expect(await other.reached(2)).toEqual(["three", "last"]);
    expect(heard.seen).toEqual(["one", "two"]);
    await second.close();
  });

  test.runIf(backend === "postgres")(
    "goes on after its connection was cut, and says that messages may be missing",
    async () => {
      const heard = tally<string>();
      const gaps = tally<true>();
      const subscription = await db.listen("cut", heard.add, () => gaps.add(true));
      await db.query(sql`select pg_terminate_backend(pid) from pg_stat_activity where query = 'listen "cut"'`);
      await gaps.reached(2);
      expect(subscription.live).toBe(true);
      await db.query(sql`select pg_notify('cut', 'still here')`);
      expect(await heard.reached(1)).toEqual(["still here"]);
      await subscription.close();
    },
  );

  test.runIf(backend === "postgres")(
    "behind a pooler without a URL of its own never claims to hear anything",
    async () => {
      const pooled = await file.openDoor(undefined, { pooler: true });
      const subscription = await pooled.listen(
        "pooled",
        () => undefined,
        () => undefined,
      );
      expect(subscription.live).toBe(false);
      await subscription.close();
      await pooled.close();
    },
  );
});

test.runIf(backend === "postgres")("the connection that listens is not lent while it is asked something", async () => {
  const subscription = await db.listen(
    "lent",
    () => undefined,
    () => undefined,
  );
  const asked = subscription.awake?.query(sql`select 1 as n`);
  expect(subscription.awake).toBeUndefined();
  expect(await asked).toEqual([{ n: 1 }]);
  expect(subscription.awake).toBeDefined();
  await subscription.close();
});

describe.runIf(backend === "postgres")("every connection of the pool", () => {
  const settings = sql`
    select current_setting('enable_seqscan') as seqscan, current_setting('jit') as jit, current_setting('plan_cache_mode') as plans,
           (select count(*)::int from pg_prepared_statements) as prepared`;

  test("has the settings the hot path needs, and keeps statements prepared", async () => {
    const reached = gate();
    let inside = 0;
    const one = (): Promise<unknown[]> =>
      db.transaction(async (tx) => {
        if ((inside += 1) === 5) reached.open();
        await reached.opened; // all five connections are taken
        await tx.query(sql`select 1 as warm`);
        return tx.query(settings);
      });
    const all = await Promise.all([one(), one(), one(), one(), one()]);
    for (const [row] of all)
      expect(row).toMatchObject({
        seqscan: "off",
        jit: "off",
        plans: "force_generic_plan",
        prepared: expect.any(Number),
      });
    for (const [row] of all) expect((row as { prepared: number }).prepared).toBeGreaterThan(0);
  });

  test("behind a pooler is left as the server made it, and keeps nothing prepared", async () => {
    const pooled = await file.openDoor(undefined, { pooler: true });
    expect(await pooled.query(settings)).toEqual([{ seqscan: "on", jit: "on", plans: "auto", prepared: 0 }]);
    await pooled.close();
  });
});

describe("an error after which trying again can help", () => {
  const coded = (code: string): Error => Object.assign(new Error("x"), { code });

  test.each([
    "ECONNREFUSED",
    "ECONNRESET",
    "ENOTFOUND",
    "57P01",
    "57P03",
    "53300",
    "08006",
    "40P01",
    "40001",
    "55P03",
    "57014",
  ])("has the code %s", (code) => {
    expect(isTransient(coded(code))).toBe(true);
  });

  test.each([
    "Connection terminated unexpectedly",
    "Connection terminated due to connection timeout",
    "timeout exceeded when trying to connect",
    "Query read timeout",
    "Client has encountered a connection error and is not queryable",
  ])("says %j", (message) => {
    expect(isTransient(new Error(message))).toBe(true);
  });

  test.each([
    coded("23505"),
    coded("22P02"),
    new Error("relation does not exist"),
    "ECONNREFUSED",
    null,
    { code: "ECONNREFUSED" },
  ])("is not %s", (error) => {
    expect(isTransient(error)).toBe(false);
  });
});
