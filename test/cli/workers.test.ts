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
    `import { existsSync } from "node:fs";
     import { setTimeout as pause } from "node:timers/promises";
     import { defineApp, task } from "millrace";
     const hold = task({ name: "hold", async run({ log, signal }) { log.info({}, "hold begins"); await pause(60_000, undefined, { signal }); } });
     const deaf = task({ name: "deaf", async run({ log }) { log.info({}, "deaf begins"); await pause(60_000); } });
     const file = task({ name: "file", async run({ input, log }) {
       log.info({}, "file begins");
       while (!existsSync(input as string)) await pause(20);
     } });
     const act = task({ name: "act", isolate: "process", run: new URL("./act.ts", import.meta.url) });
     export default defineApp({ tasks: [hold, deaf, file, act] });`,
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
  expect((await place.run("doctor")).stdout).toMatch(
    new RegExp(`! workers +1 of 1 drain and claim no jobs: ${id} \\(.*\\)\\.\n +\`millrace workers resume <id>\` lets`),
  );
  const waited = await place.run("drain", "--wait");
  expect(waited.stdout).toMatch(
    /^0 workers told to drain; so is every one that starts\.\n0 jobs running on 1 worker; running \+ waiting: .*default 0\+0/,
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

test("the drained system stays so over a new start, says by whom and since when, and is resumed by one word", async () => {
  {
    await using up = place.start("up");
    await up.says(/worker started/);
    expect((await place.run("drain", "--by", "ada")).stdout).toBe(
      "1 worker told to drain; so is every one that starts.",
    );
    await up.says(/worker drains.*the whole system is drained/);
    up.kill("SIGTERM");
    await up.ended;
  }
  await using up = place.start("up");
  await up.says(/worker drains.*the whole system is drained/);
  const { id } = JSON.parse((await place.run("enqueue", "act", "--json")).stdout) as { id: string };
  expect((await place.run("workers")).stdout).toMatch(
    /^The system is drained by ada since \d{4}-.* ago\); .*\nid +name/,
  );
  expect((await place.run("explain", id)).stdout).toMatch(/The system is drained since .* by ada/);
  const doctor = await place.run("doctor");
  expect(doctor.stdout).toMatch(
    /! workers +The system is drained by ada since .* ago\): no worker claims jobs, nor will one that starts\.\n +`millrace drain resume` lets/,
  );
  expect(doctor.stdout).not.toMatch(/ of 1 drain/);
  expect(doctor.code).toBe(0);
  const doomed = await place.run("drain", "--until-empty");
  expect(doomed.stderr).toMatch(/SYSTEM_DRAINED/);
  expect(doomed.code).toBe(1);
  expect((await place.run("drain", "resume")).stdout).toBe("1 worker told to claim again.");
  await up.says(/acted apart/);
  expect((await place.run("workers")).stdout).toMatch(/^id +name/);
});

test("drain --until-empty lets workers go on, leaves all as it is when it is interrupted, and drains in the end", async () => {
  await using up = place.start("up");
  await up.says(/worker started/);
  const go = `${place.folder}/go`;
  await place.run("enqueue", "file", JSON.stringify(go));
  await place.run("enqueue", "file", JSON.stringify(go), "--delay", "1h");
  await up.says(/file begins/);
  {
    await using waiting = place.start("drain", "--until-empty");
    await waiting.says(/1 job running on 1 worker; running \+ waiting: .*default 1\+0, 1 delayed/);
    expect((await place.run("doctor")).stdout).toMatch(/! workers +No schedule fires, ordered .*somebody waits for/);
    waiting.kill("SIGINT");
    const { code, stderr } = await waiting.ended;
    expect({ code, stderr }).toEqual({
      code: 130,
      stderr: "Given up: nothing is drained, and schedules fire again.",
    });
  }
  expect((await place.run("doctor")).stdout).not.toMatch(/No schedule fires/);
  expect((await place.run("workers")).stdout).toMatch(/^id +name/);
  await using draining = place.start("drain", "--until-empty", "--by", "ada");
  await draining.says(/1 job running/);
  await place.write("go", "");
  const { code, stdout } = await draining.ended;
  expect(stdout).toMatch(/\n1 worker told to drain; .*\n0 jobs running .*\n.*\nNothing runs\./);
  expect(code).toBe(0);
  await up.says(/worker drains/);
  await place.run("drain", "resume");
});

test("a worker that is recycled and cannot end a job exits with code 5; what was cancelled is, the rest runs again", async () => {
  const enqueue = async (): Promise<string> =>
    (JSON.parse((await place.run("enqueue", "deaf", "--json")).stdout) as { id: string }).id;
  const status = async (id: string): Promise<unknown> =>
    (JSON.parse((await place.run("job", id, "--json")).stdout) as { status: string }).status;
  await using up = place.start("up");
  await up.says(/worker started/);
  const unwanted = await enqueue();
  const other = await enqueue();
  await up.hasSaid(2, /deaf begins/);
  expect((await place.run("cancel", unwanted, "--wait", "0s", "--json")).stdout).toMatch(/"cancelling"/);
  await vi.waitFor(
    async () => expect((await place.run("explain", unwanted)).stdout).toMatch(/the task ignores it since/),
    { timeout: 60_000, interval: 200 },
  );
  const [{ id } = { id: 0 }] = await list();
  await place.run("workers", "recycle", String(id));
  expect((await place.run("doctor")).stdout).toMatch(
    /! workers +1 of 1 end what they run, to start anew: .*\n +Wait half/,
  );
  expect((await up.ended).code).toBe(5);

  await using next = place.start("up");
  await next.says(/deaf begins/); // that of the other one
  expect(await status(unwanted)).toBe("cancelled");
  expect(await status(other)).toBe("active");
  expect(next.heard(/deaf begins/)).toHaveLength(1);
});

test.each([
  [["workers", "fire", "1"], /must be one of drain, resume, recycle, concurrency/],
  [["workers", "drain"], /which one\?/],
  [["workers", "concurrency", "1"], /how many jobs at once\?/],
  [["workers", "drain", "one"], /must be a whole number/],
  [["drain", "now"], /must be one of resume/],
  [["drain", "resume", "--until-empty"], /--until-empty is for draining/],
])("millrace %j is wrong usage", async (words, message) => {
  const { code, stderr } = await place.run(...words);
  expect(stderr).toMatch(message);
  expect(code).toBe(2);
});
