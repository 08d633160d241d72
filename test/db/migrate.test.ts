import pg from "pg";
import { describe, expect, test } from "vitest";
import type { Database } from "../../src/db/database.ts";
import { latestVersion, migrate, migrations, printMigrations, schemaVersion } from "../../src/db/migrate.ts";
import { sql } from "../../src/db/sql.ts";
import { defineApp, millrace } from "millrace";
import { describeSchema } from "../support/catalog.ts";
import { freshSchema, useDatabase } from "../support/engine.ts";

const file = useDatabase();

/** Every schema there is with the number of its tables, but for PostgreSQL's own. */
const schemas = async (db: Database): Promise<unknown[]> =>
  db.query(sql`
    select nspname as name, (select count(*)::int from pg_class where relnamespace = n.oid) as objects
    from pg_namespace n where nspname !~ '^pg_' and nspname <> 'information_schema' order by nspname`);

describe("migrate", () => {
  test("numbers its migrations 1, 2, 3 … without a gap", () => {
    expect(migrations.map(({ version }) => version)).toEqual(migrations.map((_, i) => i + 1));
    expect(latestVersion).toBe(migrations.length);
  });

  test("applies everything once, and nothing the second time", async () => {
    const db = await file.openDoor();
    expect(await schemaVersion(db)).toBe(0);
    expect(await migrate(db)).toEqual(migrations.map(({ name }) => name));
    const after = await describeSchema(db);
    const applied = await db.query(sql`select * from millrace.migrations order by version`);
    expect(await schemaVersion(db)).toBe(latestVersion);

    expect(await migrate(db)).toEqual([]);
    expect(await describeSchema(db)).toBe(after);
    expect(await db.query(sql`select * from millrace.migrations order by version`)).toEqual(applied);
    await db.close();
  });

  test("from many connections at once applies each migration once", async () => {
    const schema = freshSchema();
    const doors = await Promise.all(Array.from({ length: 8 }, () => file.openDoor(schema)));
    const applied = await Promise.all(doors.map((db) => migrate(db)));
    // each by whichever came first
    expect(applied.flat().toSorted()).toEqual(migrations.map(({ name }) => name));
    await Promise.all(doors.map((db) => db.close()));
  });

  test("leaves no trace of a migration that fails halfway", async () => {
    const db = await file.openDoor();
    await db.script(`create schema "${db.schema}"; create table millrace.leases (mine int)`);
    await expect(migrate(db)).rejects.toMatchObject({ code: "42P07" });
    expect(await db.query(sql`select tablename from pg_tables where schemaname = ${db.schema}`)).toEqual([
      { tablename: "leases" },
    ]);
    await db.close();
  });

  test("goes on in a schema that somebody made for it", async () => {
    const db = await file.openDoor();
    await db.script(`create schema "${db.schema}"`);
    expect(await migrate(db)).toHaveLength(migrations.length);
    await db.close();
  });
});

describe("a database", () => {
  test("that a newer Millrace migrated is refused as DATABASE_NEWER, and nothing is changed", async () => {
    const db = await file.openDoor();
    await migrate(db);
    await db.query(
      sql`insert into millrace.migrations (version, name) values (${latestVersion + 1}, 'from the future')`,
    );
    await db.script("drop table millrace.operations");
    const before = [await describeSchema(db), await db.query(sql`select * from millrace.migrations order by version`)];

    for (const migrateFirst of [true, false]) {
      const opening = millrace(defineApp({ tasks: [] }), { ...file.door, schema: db.schema, migrate: migrateFirst });
      await expect(opening).rejects.toMatchObject({
        code: "DATABASE_NEWER",
        message: `The database is at schema version ${latestVersion + 1}, newer than the ${latestVersion} this Millrace knows. Deploy the newer Millrace; nothing was changed.`,
      });
    }
    expect([await describeSchema(db), await db.query(sql`select * from millrace.migrations order by version`)]).toEqual(
      before,
    );
    await db.close();
  });

  test("that is behind is refused as DATABASE_BEHIND when migrations are off, and nothing is made", async () => {
    const db = await file.openDoor();
    const before = await schemas(db);
    const opening = millrace(defineApp({ tasks: [] }), { ...file.door, schema: db.schema, migrate: false });
    await expect(opening).rejects.toMatchObject({ code: "DATABASE_BEHIND" });
    expect(await schemas(db)).toEqual(before);
    await db.close();
  });

  test("that is up to date opens with migrations off", async () => {
    const db = await file.openDoor();
    await migrate(db);
    await using mill = await millrace(defineApp({ tasks: [] }), { ...file.door, schema: db.schema, migrate: false });
    expect(await mill.stats()).toEqual([]);
    await db.close();
  });
});

describe("the schema's name", () => {
  test.each(["millrace", "Capital_Letters", "_1", "select", "x".repeat(48)])("may be %s", async (schema) => {
    const own = schema === "millrace" ? "millrace" : `${schema}`;
    await using mill = await millrace(defineApp({ tasks: [] }), { ...file.door, schema: own });
    await mill.enqueue("hello", {});
    expect(await mill.db.query(sql`select count(*)::int as n from millrace.jobs`)).toEqual([{ n: 1 }]);
    expect(
      await mill.db.query(
        sql`select count(*)::int as n from pg_tables where schemaname = ${own} and tablename = 'jobs'`,
      ),
    ).toEqual([{ n: 1 }]);
  });

  test.each(["", "a-b", "a b", 'a"b', "1a", "é", "a.b", "x".repeat(49)])("may not be %j", async (schema) => {
    await expect(millrace(defineApp({ tasks: [] }), { ...file.door, schema })).rejects.toMatchObject({
      code: "OPTION_INVALID",
      message: expect.stringMatching(/^schema must be an identifier of at most 48 characters/),
    });
  });
});

describe("the migrations as printed", () => {
  test("applied as plain SQL make the same schema, which the next start takes as it is", async () => {
    const migrated = await file.openDoor();
    await migrate(migrated);
    const printed = freshSchema();
    const text = printMigrations(printed);
    const { database } = file;
    if (database.backend === "pglite") await database.pglite.exec(text);
    else {
      const client = new pg.Client({ connectionString: database.url });
      await client.connect();
      await client.query(text);
      await client.end();
    }
    const db = await file.openDoor(printed);
    expect(await describeSchema(db)).toBe(await describeSchema(migrated));
    expect(await migrate(db)).toEqual([]);
    await using mill = await millrace(defineApp({ tasks: [] }), { ...file.door, schema: printed, migrate: false });
    await mill.enqueue("hello", {});
    await Promise.all([db.close(), migrated.close()]);
  });

  test("are as written in the file when the schema is the default one", () => {
    expect(printMigrations("millrace")).toContain((migrations[0]?.text ?? "?").trim());
  });
});
