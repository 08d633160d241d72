/** The commands that tell jobs what to do: beside an `up` (embedded, they ask its API) and on a database that nobody holds. */
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
     const fail = task({ name: "fail", run: () => { throw new NonRetryableError("no", { code: "BROKEN" }); } });
     const long = task({ name: "long", async run({ signal, log }) {
       log.info({}, "long runs");
       await new Promise((resolve) => signal.addEventListener("abort", resolve));
       throw signal.reason;
     } });
     export default defineApp({ tasks: [fail, long] });`,
  );
});
afterAll(() => place[Symbol.asyncDispose]());

test("on a database that nobody holds: cancel, replay, bulk", async () => {
  const id = await place.enqueue("later", '{"n":1}', "--delay", "1h");
  expect((await place.run("replay", id, "--queue", "again", "--input", '{"n":2}')).stdout).toMatch(
    new RegExp(`^Enqueued job \\S+, a replay of ${id}\\.$`),
  );
  expect((await place.run("cancel", id, "--by", "ann", "--reason", "no need")).stdout).toBe(`Job ${id} is cancelled.`);
  expect(await place.json("job", id)).toMatchObject({
    status: "cancelled",
    last_error_message: "Cancelled by ann: no need",
  });
  const again = await place.run("cancel", id);
  expect([again.code, again.stderr]).toEqual([1, expect.stringContaining("JOB_STATE")]);

  expect((await place.run("bulk", "cancel", "--queue", "again", "--preview")).stdout).toBe(
    "cancel would look at 1 job. Nothing was changed.",
  );
  const begun = await place.json("bulk", "cancel", "--queue", "again", "--by", "ann");
  expect(begun).toMatchObject({ action: "cancel", status: "waiting", expected: 1, created_by: "ann" });
  expect((await place.run("bulk", "list")).stdout).toMatch(/cancel +waiting +1 +0 +0/);
  expect(await place.json("bulk", "stop", begun["id"] as string)).toMatchObject({ status: "stopped" });
  expect((await place.run("bulk", "show", begun["id"] as string)).stdout).toMatch(/^status +stopped$/m);
  expect((await place.run("dlq")).stdout).toBe("No dead letters.");
});

test("what is not understood, or meant by accident, is refused, which is exit code 2", async () => {
  for (const [args, message] of [
    [["cancel", "nonsense"], "is not the id of a job"],
    [["bulk", "cancle", "--queue", "a"], 'Did you mean "cancel"?'],
    [["bulk", "cancel"], "FILTER_TOO_WIDE"],
    [["bulk", "show"], "needs the id"],
    [["dlq", "retry"], "FILTER_TOO_WIDE"],
    [["dlq", "purge", "--older-than", "0s"], "FILTER_TOO_WIDE"],
    [["dlq", "--group", "task", "--tag", "a"], "With group there are no tag"],
    [["dlq", "--limit", "501"], "--limit must be a whole number from 1 to 500"],
    [["jobs", "--queue", ""], "queue must not be empty"],
  ] as const) {
    const { code, stderr } = await place.run(...args);
    expect(stderr).toContain(message);
    expect(code).toBe(2);
  }
});

test("beside an `up`: a running job is cancelled, dead letters are counted and replayed", async () => {
  await using up = place.start("up", "--json");
  await up.says(/"worker started/);
  const long = await place.enqueue("long");
  await up.says(/long runs/);
  expect(await place.json("cancel", long, "--wait", "30s")).toEqual({
    job_id: long,
    id: long,
    status: "cancelled",
    ignored: false,
  });
  const failed = await place.enqueue("fail");
  await up.says(/jobs given up/);
  expect(await place.json("dlq", "--group", "error_code")).toMatchObject({
    group: "error_code",
    groups: [{ value: "BROKEN", count: 1 }],
    total: 1,
  });
  expect((await place.run("dlq", "--group", "task")).stdout).toMatch(/^task +jobs +oldest +newest\nfail +1 /);
  expect(await place.json("dlq", "--error-code", "BROKEN")).toMatchObject({ items: [{ id: failed }] });
  expect(await place.json("dlq", "purge", "--preview")).toMatchObject({ preview: true, expected: 0 });
  const { id } = await place.json<{ id: string }>("dlq", "replay", "--error-code", "BROKEN", "--to-queue", "elsewhere");
  await expect
    .poll(async () => (await place.json("bulk", "show", id))["status"], { interval: 5, timeout: 60_000 })
    .toBe("completed");
  expect(await place.json("bulk", "show", id)).toMatchObject({ changed: 1 });
  expect(await place.json("jobs", "--queue", "elsewhere")).toMatchObject({ items: [{ replay_of_job_id: failed }] });
});
