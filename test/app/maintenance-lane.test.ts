/** Who serves the queue `maintenance`: every process that works, whatever queues it is bound to. */
import { expect, test, vi } from "vitest";
import { type Millrace, type WorkOptions, task } from "millrace";
import { gate, tally, useDatabase } from "../support/engine.ts";

vi.setConfig({ testTimeout: 60_000 });
const file = useDatabase();
const plain = task({ name: "plain", run: () => undefined });

const becomes = (what: () => Promise<unknown>, expected: unknown): Promise<void> =>
  vi.waitFor(async () => expect(await what()).toEqual(expected), { interval: 5, timeout: 20_000 });
const namesOf = async (mill: Millrace): Promise<string[]> =>
  (await mill.workers())
    .filter(({ state }) => state !== "stopped")
    .map(({ name }) => name)
    .toSorted();

test("a worker bound to other queues carries out bulk operations and has upkeep come, and runs no other job of that queue", async () => {
  const ran = tally<string>();
  const note = task({ name: "note", run: ({ queue }) => ran.add(queue) });
  vi.stubEnv("MAINTENANCE_INTERVAL_SECS", "60");
  await using mill = await file.open([note]);
  vi.unstubAllEnvs();
  await mill.enqueue(note, {}, { queue: "maintenance" });
  await mill.enqueueMany(note, [1, 2, 3], { queue: "elsewhere" });
  const { id } = await mill.bulk("move", { queue: "elsewhere" }, { queue: "default" });
  mill.work({ name: "one", queues: ["default"] });
  await becomes(async () => (await mill.bulkOperation(id)).status, "completed");
  await ran.reached(3);
  expect(ran.seen).toEqual(["default", "default", "default"]);
  await becomes(async () => (await mill.schedules.list()).map(({ name }) => name), ["millrace.maintenance"]);
  await becomes(() => mill.stats("maintenance"), [expect.objectContaining({ waiting: 1, active: 0 })]);
  expect(await namesOf(mill)).toEqual(["one", "one/maintenance"]);
});

test("its places are its own: a worker whose only place is taken does upkeep, and upkeep takes no place", async () => {
  const held = gate();
  const holding = gate();
  const hold = task({ name: "hold", run: () => (holding.open(), held.opened) });
  await using mill = await file.open([hold, plain]);
  await mill.enqueue(hold, {});
  await mill.enqueueMany(plain, Array.from({ length: 1_000 }), { queue: "elsewhere" });
  mill.work({ queues: ["default"], concurrency: 1 });
  await holding.opened;
  const quick = await mill.bulk("cancel", { queue: "elsewhere" }, { perSecond: 100_000 });
  await becomes(async () => (await mill.bulkOperation(quick.id)).status, "completed");
  const slow = await mill.bulk("replay", { queue: "elsewhere" }, { perSecond: 1 });
  await becomes(async () => (await mill.bulkOperation(slow.id)).status, "running");
  held.open();
  const { id } = await mill.enqueue(plain, {});
  await becomes(async () => (await mill.job(id))?.status, "completed");
  expect(await mill.bulkOperation(slow.id)).toMatchObject({ status: "running" });
});

test("the workers of one process share it: it is there until the last has stopped, and what it had begun goes on elsewhere", async () => {
  await using mill = await file.open([plain]);
  const first = mill.work({ name: "first", queues: ["a"] });
  const second = mill.work({ name: "second", queues: ["b"] });
  await Promise.all([first.ready(), second.ready()]);
  await becomes(async () => (await namesOf(mill)).length, 3);
  await mill.enqueueMany(plain, Array.from({ length: 100 }));
  const { id } = await mill.bulk("cancel", { task: "plain" }, { perSecond: 1 });
  await becomes(async () => (await mill.bulkOperation(id)).status, "running");
  await first.stop();
  const left = await namesOf(mill);
  expect(left.filter((name) => name.endsWith("/maintenance"))).toHaveLength(1); // named after whichever was the first to be there
  expect(left.filter((name) => !name.endsWith("/maintenance"))).toEqual(["second"]);
  await second.stop();
  expect(await namesOf(mill)).toEqual([]);
  expect(await mill.job(id)).toMatchObject({ status: "waiting" });
});

test("recycled, it starts anew", async () => {
  await using mill = await file.open([plain]);
  mill.work({ name: "one", queues: ["a"] });
  await becomes(() => namesOf(mill), ["one", "one/maintenance"]);
  const lane = (await mill.workers()).find(({ name }) => name === "one/maintenance");
  await mill.registry.recycle(lane?.id ?? 0);
  await becomes(
    async () =>
      (await mill.workers()).some(
        ({ name, id, state }) => name === "one/maintenance" && id !== lane?.id && state === "idle",
      ),
    true,
  );
});

test("a process that is told otherwise leaves it alone, and explain says what is missing", async () => {
  vi.stubEnv("MAINTENANCE_INTERVAL_SECS", "60");
  vi.stubEnv("MILLRACE_MAINTENANCE", "off");
  await using mill = await file.open([plain]);
  await mill.enqueue(plain, {}, { queue: "elsewhere" });
  const { id } = await mill.bulk("cancel", { queue: "elsewhere" });
  vi.unstubAllEnvs();
  await mill.work({ name: "one", queues: ["default"] }).ready();
  await mill.work({ name: "two" }).ready();
  await becomes(async () => (await mill.stats("elsewhere"))[0]?.waiting, 0);
  expect(await namesOf(mill)).toEqual(["one", "two"]);
  expect(await mill.schedules.list()).toEqual([]);
  expect(await mill.explain(id)).toMatchObject({
    because: "NO_WORKER",
    whatNext: 'Start a worker that serves queue "maintenance": all do but those with MILLRACE_MAINTENANCE=off.',
  });
  mill.work({ queues: ["other"], maintenance: true });
  await becomes(async () => (await mill.bulkOperation(id)).status, "completed");
});

test("a worker that takes tasks it does not know cannot leave them alone in every queue", async () => {
  await using mill = await file.open([plain]);
  const options: WorkOptions = { maintenance: false, unknownTasks: "fail" };
  const refused = expect.objectContaining({ code: "OPTION_INVALID" });
  expect(() => mill.work(options)).toThrow(refused);
  expect(() => mill.work({ ...options, queues: ["maintenance"] })).toThrow(refused);
  await mill.work({ ...options, queues: ["default"] }).ready();
});
