/** `millrace schedules`, on a database that nobody holds. */
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { type Place, cliPlace } from "./process.ts";

// Each test starts processes that open a database, on a machine that may be busy.
vi.setConfig({ testTimeout: 180_000 });

let place: Place;
beforeAll(async () => {
  place = await cliPlace();
  await place.run("migrate");
}, 120_000);
afterAll(() => place[Symbol.asyncDispose]());

const said = async (...args: string[]): Promise<string> => {
  const { code, stdout, stderr } = await place.run("schedules", ...args);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return stdout;
};
const json = async (...args: string[]): Promise<unknown> => JSON.parse(await said(...args, "--json"));

test("a schedule is made, looked at, changed, paused, run and deleted", async () => {
  expect(await said()).toBe("No schedules.");
  const made = await said(
    "create",
    "nightly",
    "--task",
    "send",
    "--cron",
    "30 2 * * *",
    "--zone",
    "Europe/Berlin",
    "--input",
    '{"a":1}',
  );
  expect(made).toMatch(/^when +30 2 \* \* \* Europe\/Berlin$/m);
  expect(await said("list")).toMatch(
    /^name +when +task +queue +next +last +state\nnightly +30 2 \* \* \* Europe\/Berlin +send +default +in .* - +waits$/,
  );
  expect(await json("show", "nightly")).toMatchObject({ name: "nightly", overlap: "skip", input: { a: 1 } });
  expect(await json("update", "nightly", "--every", "10m", "--jitter", "5s")).toMatchObject({
    cron: null,
    every_ms: 600_000,
    jitter_ms: 5_000,
  });
  expect(await json("update", "nightly", "--jitter", "none")).toMatchObject({ jitter_ms: 0 });
  // A word of its own here, not the default.
  expect(await json("update", "nightly", "--catch-up", "none")).toMatchObject({ catch_up: "none" });
  expect(await said("pause", "nightly", "--by", "ada", "--reason", "too loud")).toBe("Schedule nightly is paused.");
  expect(await said("show", "nightly")).toMatch(/^paused +.* by ada: too loud$/m);
  expect(await said("run", "nightly", "--input", "2")).toMatch(/^Enqueued job \S+\.$/);
  expect(await said("runs", "nightly")).toMatch(/^run +tick +status +late +took +job\n *\d+ +\S+Z +fired, by \S+ /);
  expect(await said("resume", "nightly")).toBe("Schedule nightly goes on with its next tick.");
  expect(await said("delete", "nightly")).toMatch(/^Schedule nightly is gone/);
  expect(await json()).toEqual({ items: [], next: null });
});

test("a preview says when a pattern comes, by the clock on its wall", async () => {
  const shown = await said("preview", "--cron", "0 8 * * *", "--zone", "Asia/Tokyo", "--count", "2");
  expect(shown.split("\n")).toEqual([
    expect.stringMatching(/^at +local/),
    expect.stringMatching(/^\S+T23:00:00.000Z +\S+ 08:00:00 \+09:00$/),
    expect.stringMatching(/^\S+T23:00:00.000Z +\S+ 08:00:00 \+09:00$/),
  ]);
});

test.each([
  [["show"], 2, /which one\?/],
  [["update", "one"], 2, /nothing to change/],
  [["pause", "one", "--cron", "@daily"], 2, /takes no settings/],
  [["preview"], 2, /--cron or --every/],
  [["dance", "one"], 2, /must be one of list, show/],
  [["create", "one", "--task", "t", "--cron", "nope"], 2, /not a pattern/],
  [["show", "one"], 1, /There is no schedule "one"/],
])("millrace schedules %j ends with code %i", async (words, expected, message) => {
  const { code, stderr } = await place.run("schedules", ...words);
  expect(stderr).toMatch(message);
  expect(code).toBe(expected);
});
