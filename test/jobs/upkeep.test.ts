import { describe, expect, test } from "vitest";
import type { Millrace } from "millrace";
import { sql } from "../../src/db/sql.ts";
import { vacuum } from "../../src/jobs/upkeep.ts";
import { useDatabase } from "../support/engine.ts";

const file = useDatabase();

interface Vacuums {
  readonly pending: number;
  readonly leases: number;
}

async function vacuums({ db }: Millrace): Promise<Vacuums> {
  const [counts] = await db.query<Vacuums>(sql`
    select pg_stat_get_vacuum_count('millrace.pending'::regclass)::int as pending,
           pg_stat_get_vacuum_count('millrace.leases'::regclass)::int as leases`);
  return counts as Vacuums;
}

describe("vacuum of the hot tables", () => {
  test("is made by one of all workers, and again when the last is old enough", async () => {
    await using mill = await file.open([]);
    let claimed = 5_000;
    const worker = (everyMs: number) => vacuum(mill.db, () => claimed, everyMs);
    const never = await vacuums(mill);
    const rounds = (n: number): Vacuums => ({ pending: never.pending + n, leases: never.leases + n });

    const eager = worker(0);
    await eager.run();
    expect(await vacuums(mill)).toEqual(rounds(1));
    await worker(3_600_000).run();
    expect(await vacuums(mill)).toEqual(rounds(1));
    await worker(0).run();
    expect(await vacuums(mill)).toEqual(rounds(2));

    claimed = 9_999; // since its last round: not enough to be worth it
    await eager.run();
    expect(await vacuums(mill)).toEqual(rounds(2));
  });
});
