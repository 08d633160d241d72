/** `millrace workers` and `millrace drain`, on a process that works. */
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { type Place, cliPlace } from "./process.ts";

// Each test starts processes that open a database, on a machine that may be busy.
vi.setConfig({ testTimeout: 180_000 });

let place: Place;
beforeAll(async () => {
  place = await cliPlace();
  await place.write(
    "app.ts",
    `import { setTimeout as pause } from "node:timers/promises";
     import { defineApp, task } from "millrace";
     const hold = task({ name: "hold", async run({ log, signal }) { log.info({}, "hold begins"); await pause(60_000, undefined, { signal }); } });
     const deaf = task({ name: "deaf", async run({ log }) { log.info({}, "deaf begins"); await pause(60_000); } });
     const act = task({ name: "act", isolate: "process", run: new URL("./act.ts", import.meta.url) });
     export default defineApp({ tasks: [hold, deaf, act] });`,
  );
  await place.write(
    "act.ts",
    `import { type JobContext, NonRetryableError } from "millrace";
     export default ({ log, input }: JobContext): void => {
       log.info({ input }, "acted apart");
       throw new NonRetryableError("once is enough");
     };`,
  );
});
afterAll(() => place[Symbol.asyncDispose]());

const list = async (): Promise<{ id: number; state: string; concurrency: number; active: number }[]> => {
  const { code, stdout, stderr } = await place.run("workers", "--json");
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return (JSON.parse(stdout) as { workers: [] }).workers;
};

test("up and worker can be looked at, drained, resumed, told another concurrency, and recycled", async () => {
  await using up = place.start("up");
  await up.says(/worker started/);
  const [{ id } = { id: 0 }] = await list();
  expect((await place.run("workers")).stdout).toMatch(new RegExp(`^id +name +state.*\\n *${id} .* idle `));

  expect((await place.run("workers", "concurrency", String(id), "3")).stdout).toMatch(/3 jobs at once/);
  await up.says(/another number of jobs at once/);
  expect(await list()).toMatchObject([{ id, concurrency: 3 }]);

  await place.run("enqueue", "act", '{"n":1}');
  await up.says(/acted apart.*"n":1/);
  await up.says(/jobs given up.*NON_RETRYABLE/); // the handler's NonRetryableError is ours

  expect((await place.run("workers", "drain", String(id))).stdout).toBe(
    `Worker ${id}: claims nothing more, and ends what runs.`,
  );
  await up.says(/worker drains/);
  const waited = await place.run("drain", "--wait");
  expect(waited.stdout).toMatch(
    /^0 workers told to drain\.\n0 jobs running on 1 worker; running \+ waiting: .*default 0\+0/,
  );
  expect(waited.stdout).toMatch(/Nothing runs\./);
  expect((await place.run("drain", "resume")).stdout).toBe("1 worker told to claim again.");
  await up.says(/worker claims again/);

  await place.run("workers", "recycle", String(id));
  await up.hasSaid(2, /worker started/);
  const after = await list();
  expect(after).toMatchObject([{ state: "idle" }, { id, state: "stopped" }]);

  const nobody = await place.run("workers", "drain", "999999");
  expect(nobody.stderr).toMatch(/WORKER_NOT_FOUND/);
  expect(nobody.code).toBe(1);
  up.kill("SIGTERM");
  expect((await up.ended).code).toBe(0);
});

test("a worker that is recycled and cannot end a job exits with code 5", async () => {
  await using up = place.start("up");
  await up.says(/worker started/);
  await place.run("enqueue", "deaf");
  await up.says(/deaf begins/);
  const [{ id } = { id: 0 }] = await list();
  await place.run("workers", "recycle", String(id));
  expect((await up.ended).code).toBe(5);
});

test.each([
  [["workers", "fire", "1"], /must be one of drain, resume, recycle, concurrency/],
  [["workers", "drain"], /which one\?/],
  [["workers", "concurrency", "1"], /how many jobs at once\?/],
  [["workers", "drain", "one"], /must be a whole number/],
  [["drain", "now"], /must be one of resume/],
])("millrace %j is wrong usage", async (words, message) => {
  const { code, stderr } = await place.run(...words);
  expect(stderr).toMatch(message);
  expect(code).toBe(2);
});
