/** Ends of jobs that somebody waits for: told once, whoever dies between the end and the telling. */
import { describe, expect, test } from "vitest";
import { type Millrace, task } from "millrace";
import { silent } from "../../src/core/log.ts";
import { sql } from "../../src/db/sql.ts";
import { settleDependents } from "../../src/flows/flow-store.ts";
import { type EndingListener, Endings } from "../../src/jobs/endings.ts";
import { useDatabase } from "../support/engine.ts";
import { StoreWorker } from "../support/store-worker.ts";

const file = useDatabase();
const plain = task({ name: "plain", run: () => undefined });

const dependents =
  (mill: Millrace): EndingListener =>
  (tx, ended) =>
    settleDependents(tx, mill.channel, ended);

/** A flow of which the first job has ended, and nobody was told. */
async function untold(mill: Millrace): Promise<{ first: string; last: string }> {
  const { jobs } = await mill.enqueueFlow({
    jobs: { first: { task: plain }, last: { task: plain, after: ["first"] } },
  });
  const worker = await StoreWorker.register(mill);
  await worker.settle(await worker.claim(1), { [jobs.first]: { next: "done", watched: true } });
  expect(await endings(mill)).toBe(1);
  return jobs;
}

async function endings(mill: Millrace): Promise<number> {
  const [row] = await mill.db.rows<[number]>(sql`select count(*)::int from millrace.endings`);
  return row?.[0] ?? -1;
}

const statusOf = async (mill: Millrace, id: string) => (await mill.job(id))?.status;

describe("an end", () => {
  test("that a teller died over is told by the next one, and everything it did until then is undone", async () => {
    await using mill = await file.open([plain]);
    const { last } = await untold(mill);
    let tries = 0;
    const dies: EndingListener = async () => {
      tries += 1;
      if (tries === 1) throw new Error("killed");
    };
    const teller = new Endings(mill.db, mill.channel, [dependents(mill), dies], silent);
    await expect(teller.tell()).rejects.toThrow("killed");
    expect(await statusOf(mill, last)).toBe("blocked");
    expect(await endings(mill)).toBe(1);
    await teller.tell();
    expect(await statusOf(mill, last)).toBe("waiting");
    expect(await endings(mill)).toBe(0);
  });

  test("that nobody here has caused is found by looking", async () => {
    await using mill = await file.open([plain]);
    const { last } = await untold(mill);
    const teller = new Endings(mill.db, mill.channel, [dependents(mill)], silent);
    await teller.chore.run();
    expect(await statusOf(mill, last)).toBe("waiting");
  });

  test("that could not be told is told by a worker that comes later", async () => {
    await using mill = await file.open([plain]);
    const { last } = await untold(mill);
    mill.work();
    await mill.waitUntilFinished(last);
    expect(await endings(mill)).toBe(0);
  });

  test("is told once by two at once", async () => {
    await using mill = await file.open([plain]);
    await using second = await file.open([plain], { schema: mill.db.schema });
    for (let round = 0; round < 5; round += 1) {
      const { first, last } = await untold(mill);
      const heard: string[] = [];
      const hears: EndingListener = async (_, ended) => void heard.push(...ended.map(({ jobId }) => jobId));
      const tellers = [mill, second].map((one) => new Endings(one.db, one.channel, [dependents(one), hears], silent));
      await Promise.all(tellers.map((teller) => teller.tell()));
      expect(heard).toEqual([first]);
      const [row] = await mill.db.rows<[number]>(
        sql`select count(*)::int from millrace.operations where job_id = ${last}::uuid and action = 'release'`,
      );
      expect(row?.[0]).toBe(1);
      await mill.remove(last);
    }
  });

  test("is told in the order in which it came, in transactions of a thousand", async () => {
    await using mill = await file.open([plain]);
    await mill.db.query(sql`
      insert into millrace.endings (job_id, outcome)
      select ('018f0000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'completed' from generate_series(1, 2500) n`);
    const heard: number[] = [];
    const hears: EndingListener = async (_, ended) => {
      expect(ended.map(({ jobId }) => jobId)).toEqual(ended.map(({ jobId }) => jobId).toSorted());
      heard.push(ended.length);
    };
    await new Endings(mill.db, mill.channel, [hears], silent).tell();
    expect(heard).toEqual([1_000, 1_000, 500]);
  });

  test("of a job that nobody waits for is no row", async () => {
    await using mill = await file.open([plain]);
    const worker = mill.work();
    await mill.waitUntilFinished(await mill.enqueue(plain, null));
    await worker.stop();
    expect(await endings(mill)).toBe(0);
  });
});
