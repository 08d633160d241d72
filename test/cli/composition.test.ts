/** The commands of flows, steps, keys and results: beside an `up`, and on a database that nobody holds. */
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { type Place, cliPlace } from "./process.ts";

// Each test starts processes that open a database, on a machine that may be busy.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

let place: Place;
beforeAll(async () => {
  place = await cliPlace();
  await place.run("migrate");
  await place.write(
    "app.ts",
    `import { NonRetryableError, defineApp, task } from "millrace";
     const add = task({ name: "add", async run({ input, dependencies }) {
       const found = await dependencies();
       return found.reduce((sum, { result }) => sum + result, input.n);
     } });
     const fail = task({ name: "fail", run: () => { throw new NonRetryableError("no", { code: "BROKEN" }); } });
     const order = task({ name: "order", async run({ step }) {
       await step.run("pay", () => ({ euros: 5 }));
       return step.waitForEvent("shipped", { event: "order.1.shipped" });
     } });
     export default defineApp({ tasks: [add, fail, order] });`,
  );
  await place.write(
    "sums.json",
    JSON.stringify({
      jobs: {
        one: { task: "add", input: { n: 1 } },
        two: { task: "add", input: { n: 2 } },
        sum: { task: "add", input: { n: 10 }, after: ["one", "two"] },
      },
    }),
  );
  await place.write("circle.json", '{"jobs":{"a":{"task":"x","after":["b"]},"b":{"task":"x","after":["a"]}}}');
  await place.write("broken.json", "{jobs");
});
afterAll(() => place[Symbol.asyncDispose]());

test("on a database that nobody holds: keys, flows, events, and a wait that is too short", async () => {
  const id = await place.enqueue("later", "--unique-key", "u", "--delay", "1h");
  expect((await place.run("enqueue", "later", "--unique-key", "u")).stdout).toBe(
    `There already is job ${id} with this key.`,
  );
  const debounced = ["enqueue", "later", "1", "--debounce-key", "d", "--debounce-wait", "1h"];
  const { id: first } = await place.json<{ id: string }>(...debounced);
  expect(await place.json(...debounced)).toMatchObject({ id: first, duplicate: true });
  const throttled = ["enqueue", "later", "1", "--throttle-key", "t", "--throttle-per", "1h", "--delay", "1h"];
  const { id: only } = await place.json<{ id: string }>(...throttled);
  expect(await place.json(...throttled)).toMatchObject({ id: only, duplicate: true });

  const late = await place.run("wait", id, "--within", "100ms");
  expect([late.code, late.stdout]).toEqual([1, ""]);
  expect(late.stderr).toContain(`Job ${id} has not ended within 100 ms; it goes on.\n  WAIT_TIMEOUT: `);
  const none = await place.run("result", id);
  expect([none.code, none.stderr]).toEqual([1, expect.stringContaining(`Job ${id} is delayed; only one`)]);
  expect((await place.run("steps", id)).stdout).toBe("No steps.");

  expect((await place.run("flow", "sums.json")).stdout).toMatch(/^job +id\none +\S+\ntwo +\S+\nsum +\S+$/);
  expect((await place.run("emit", "nobody.waits")).stdout).toBe("Event nobody.waits is there: 0 runs woken.");
  expect((await place.run("emit", "nobody.waits")).stdout).toBe(
    "Event nobody.waits came before, and that one counts: nothing was changed.",
  );
});

test("what is not understood is refused, which is exit code 2", async () => {
  for (const [args, message] of [
    [["flow", "circle.json"], "FLOW_CYCLE"],
    [["flow", "broken.json"], "broken.json is not JSON"],
    [["flow", "missing.json"], "Cannot read missing.json"],
    [["emit", "e", "{no"], "The payload is not JSON"],
    [["enqueue", "x", "--debounce-key", "d"], "Give both --debounce-key and --debounce-wait."],
    [["enqueue", "x", "--unique-key", "u", "--throttle-key", "t", "--throttle-per", "1h"], "Give one of unique"],
    [["wait", "nonsense"], "is not the id of a job"],
  ] as const) {
    const { code, stdout, stderr } = await place.run(...args);
    expect([args, code, stdout, stderr]).toEqual([args, 2, "", expect.stringContaining(message)]);
  }
});

test("beside an up: a flow's result is waited for, a run's steps are shown, an event lets it go on", async () => {
  await using up = place.start("up", "--app", "app.ts", "--json");
  await up.says(/"worker started/);
  const { jobs } = await place.json<{ jobs: Record<string, string> }>("flow", "sums.json");
  const sum = jobs["sum"] as string;
  const waited = await place.run("wait", sum, "--within", "60s");
  expect([waited.code, waited.stdout]).toEqual([0, "13"]);
  expect((await place.run("result", sum)).stdout).toBe("13");
  expect(await place.json("result", sum)).toEqual({ job_id: sum, id: sum, status: "completed", result: 13 });
  const shown = (await place.run("job", sum)).stdout;
  expect(shown).toMatch(/^needs +2 jobs, 0 open, 0 failed$/m);
  expect(shown).toMatch(/^result +13$/m);

  const failed = await place.run("wait", await place.enqueue("fail"));
  expect([failed.code, failed.stderr]).toEqual([1, expect.stringContaining("JOB_FAILED")]);

  const id = await place.enqueue("order");
  await expect.poll(async () => (await place.json("job", id))["status"], { timeout: 60_000 }).toBe("delayed");
  const steps = (await place.run("steps", id)).stdout;
  expect(steps).toMatch(/^1 +|^ +1 +pay +run +1 +.* ago +\{"euros":5\}$/m);
  expect(steps).toMatch(/ shipped +event order\.1\.shipped +1 +- +in 7 d/);
  expect((await place.run("explain", id)).stdout).toContain(
    'Waits for event "order.1.shipped" in step "shipped" until',
  );
  expect((await place.run("emit", "order.1.shipped", '{"truck":7}', "--by", "depot")).stdout).toBe(
    "Event order.1.shipped is there: 1 run woken.",
  );
  expect(await place.json("wait", id)).toMatchObject({ status: "completed", result: { truck: 7 } });
});
