/** The part of a worker that runs jobs and watches their deadlines, alone and on a clock of its own: no database, no waiting. */
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type JobContext, type TaskOptions, task } from "millrace";
import { Lease } from "../../src/jobs/ledger.ts";
import { Runner } from "../../src/jobs/runner.ts";
import { type Host, RunningJob } from "../../src/jobs/running.ts";
import { silent } from "../../src/core/log.ts";

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
});
afterEach(() => {
  vi.useRealTimers();
});

const host = { log: silent, random: () => 0.5 } as unknown as Host;

/** A runner, what it logged as an error, and how each of its jobs ended. */
function makeRunner(concurrency: number): { runner: Runner; errors: [object, string][]; ended: Map<string, unknown> } {
  const errors: [object, string][] = [];
  const ended = new Map<string, unknown>();
  const log = { ...silent, error: (fields: object, message: string) => void errors.push([fields, message]) };
  const runner = new Runner(concurrency, log, (job, now, end) => {
    ended.set(job.id, job.result(now, end).outcome);
    runner.startNext();
  });
  return { runner, errors, ended };
}

type Run = (context: JobContext) => unknown;

function job(id: string, run: Run, options: Partial<TaskOptions<undefined, unknown>> = {}): RunningJob {
  const definition = task({ name: "work", timeout: 1_000, ...options, run });
  return new RunningJob(
    [1, id, 1, "{}", 1, 3, null],
    new Lease("1", 1, "default", performance.now(), 1),
    definition,
    host,
  );
}

const never: Run = () => new Promise(() => undefined);
const obedient: Run = ({ signal }) =>
  new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason as Error)));

describe("a runner", () => {
  test("runs as many jobs at once as it may, and the next when one has ended", async () => {
    const { runner } = makeRunner(2);
    const ends: (() => void)[] = [];
    const started: string[] = [];
    const waiting: Run = ({ id }) => {
      started.push(id);
      return new Promise<void>((resolve) => ends.push(resolve));
    };
    runner.add(["a", "b", "c", "d"].map((id) => job(id, waiting)));
    runner.startNext();
    expect([started, runner.running.size, runner.buffered, runner.free]).toEqual([["a", "b"], 2, 2, 0]);
    ends[1]?.();
    await vi.advanceTimersByTimeAsync(0);
    expect([started, runner.running.size, runner.buffered]).toEqual([["a", "b", "c"], 2, 1]);
  });

  test("runs a hundred thousand jobs that end at once, one inside the other's end, without growing the stack", () => {
    const { runner, ended } = makeRunner(1);
    const fine = task({ name: "fine", run: () => undefined });
    const lease = new Lease("1", 1, "default", 0, 100_000);
    runner.add(
      Array.from(
        { length: 100_000 },
        (_, i) => new RunningJob([i + 1, String(i), 1, "1", 1, 1, null], lease, fine, host),
      ),
    );
    runner.startNext();
    expect(ended.size).toBe(100_000);
  });

  test("gives out what it has not started, all of it or only some", () => {
    const { runner } = makeRunner(1);
    runner.add(["a", "b", "c", "d"].map((id) => job(id, never)));
    runner.startNext();
    expect(runner.takeBuffered(({ id }) => id !== "c").map(({ id }) => id)).toEqual(["b", "d"]);
    expect(runner.takeBuffered().map(({ id }) => id)).toEqual(["c"]);
    expect([runner.buffered, runner.running.size]).toEqual([0, 1]);
  });

  test("counts a job once, whatever its thenable does", () => {
    const { runner, ended } = makeRunner(1);
    // oxlint-disable-next-line unicorn/no-thenable -- what this test is about
    runner.add([
      job("a", () => ({
        then: (done: () => void, failed: (e: Error) => void) => (done(), done(), failed(new Error("x"))),
      })),
    ]);
    runner.startNext();
    expect([...ended]).toEqual([["a", "succeeded"]]);
    expect(runner.running.size).toBe(0);
  });

  test("takes a thenable that throws while it is asked as a failure", () => {
    const { runner, ended } = makeRunner(1);
    // oxlint-disable-next-line unicorn/no-thenable -- what this test is about
    runner.add([
      job("a", () => ({
        then: () => {
          throw new Error("no promise");
        },
      })),
    ]);
    runner.startNext();
    expect([...ended]).toEqual([["a", "failed"]]);
  });
});

describe("a deadline", () => {
  test("aborts exactly the jobs whose time is up, each at its own time", async () => {
    const { runner, ended } = makeRunner(3);
    runner.add([
      job("a", obedient, { timeout: 300 }),
      job("b", obedient, { timeout: 100 }),
      job("c", obedient, { timeout: 200 }),
    ]);
    runner.startNext();
    await vi.advanceTimersByTimeAsync(99);
    expect([...ended.keys()]).toEqual([]);
    await vi.advanceTimersByTimeAsync(2);
    expect([...ended.keys()]).toEqual(["b"]);
    await vi.advanceTimersByTimeAsync(100);
    expect([...ended.keys()]).toEqual(["b", "c"]);
    await vi.advanceTimersByTimeAsync(100);
    expect([...ended]).toEqual([
      ["b", "timed_out"],
      ["c", "timed_out"],
      ["a", "timed_out"],
    ]);
  });

  test("of ten years is waited for, although no timer is that long", async () => {
    const { runner, ended } = makeRunner(1);
    runner.add([job("a", obedient, { timeout: "3650d" })]);
    runner.startNext();
    await vi.advanceTimersByTimeAsync(3649 * 86_400_000);
    expect(ended.size).toBe(0);
    await vi.advanceTimersByTimeAsync(2 * 86_400_000);
    expect([...ended]).toEqual([["a", "timed_out"]]);
  });

  test("that passes is not an attempt's fault if the worker was stopping already", async () => {
    const { runner, ended } = makeRunner(1);
    const deaf: Run = () => new Promise((_, reject) => setTimeout(() => reject(new Error("late")), 2_000));
    runner.add([job("a", deaf)]);
    runner.startNext();
    runner.interruptAll("shutdown");
    await vi.advanceTimersByTimeAsync(2_001);
    expect([...ended]).toEqual([["a", "snoozed"]]);
  });

  test("no longer counts once the job has ended, and no timer is left", async () => {
    const { runner, ended } = makeRunner(1);
    runner.add([job("a", () => undefined), job("b", obedient)]);
    runner.startNext();
    await vi.advanceTimersByTimeAsync(1_500);
    expect([...ended]).toEqual([
      ["a", "succeeded"],
      ["b", "timed_out"],
    ]);
    runner.close();
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("a task that ignores its signal", () => {
  test("is reported as hung once, five seconds after its timeout, and keeps its slot", async () => {
    const { runner, errors, ended } = makeRunner(2);
    runner.add([job("deaf", never), job("quick", () => undefined), job("also quick", () => undefined)]);
    runner.startNext();
    await vi.advanceTimersByTimeAsync(5_999);
    expect(errors).toEqual([]);
    await vi.advanceTimersByTimeAsync(10);
    expect(errors).toEqual([
      [
        { job: "deaf", task: "work", attempt: 1, running_ms: expect.any(Number) },
        "job.hung: the task ignores its signal after its timeout and keeps its slot; make it honour the signal, or restart this worker",
      ],
    ]);
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(errors).toHaveLength(1);
    expect([runner.free, runner.hung.size]).toEqual([1, 1]);
    expect([...ended.keys()]).toEqual(["quick", "also quick"]);
  });

  test("and ends after all has timed out, and frees its slot", async () => {
    const { runner, errors, ended } = makeRunner(1);
    runner.add([
      job("slow", () => new Promise<void>((resolve) => setTimeout(resolve, 60_000))),
      job("next", () => undefined),
    ]);
    runner.startNext();
    await vi.advanceTimersByTimeAsync(60_001);
    expect(errors).toHaveLength(1);
    expect([...ended]).toEqual([
      ["slow", "timed_out"],
      ["next", "succeeded"],
    ]);
    expect([runner.free, runner.hung.size]).toEqual([1, 0]);
  });
});

describe("a cancelled job", () => {
  test("that obeys ends as cancelled; one not started is handed out; one that is not here is not known", async () => {
    const { runner, ended } = makeRunner(1);
    runner.add([job("a", obedient), job("b", obedient), job("c", never)]);
    runner.startNext();
    expect(runner.cancel("z")).toEqual({ known: false, unstarted: [] });
    const { known, unstarted } = runner.cancel("b");
    expect([known, unstarted.map(({ id }) => id)]).toEqual([true, ["b"]]);
    expect(unstarted[0]?.cancelledUnstarted).toMatchObject({ next: "cancelled", startedMs: null });
    expect(runner.cancel("a")).toEqual({ known: true, unstarted: [] });
    await vi.advanceTimersByTimeAsync(0);
    expect([...ended]).toEqual([["a", "cancelled"]]);
    expect([...runner.running].map(({ id }) => id)).toEqual(["c"]);
  });

  test("that goes on is reported as hung five seconds later, and not as timed out after that", async () => {
    const hung: string[] = [];
    const errors: string[] = [];
    const log = { ...silent, error: (_: object, message: string) => void errors.push(message) };
    const runner = new Runner(
      1,
      log,
      () => undefined,
      ({ id }) => void hung.push(id),
    );
    runner.add([job("deaf", never, { timeout: 0 })]);
    runner.startNext();
    runner.cancel("deaf");
    await vi.advanceTimersByTimeAsync(4_999);
    expect(hung).toEqual([]);
    await vi.advanceTimersByTimeAsync(10);
    expect([hung, [...runner.running][0]?.interrupted]).toEqual([["deaf"], "cancelled"]);
    expect(errors).toEqual([expect.stringMatching(/^job\.hung: .* after it was cancelled/)]);
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(errors).toHaveLength(1);
    runner.close();
  });

  test("that has timed out before stays timed out", async () => {
    const { runner, ended } = makeRunner(1);
    runner.add([job("slow", () => new Promise<void>((resolve) => setTimeout(resolve, 3_000)))]);
    runner.startNext();
    await vi.advanceTimersByTimeAsync(1_001);
    runner.cancel("slow");
    await vi.advanceTimersByTimeAsync(2_000);
    expect([...ended]).toEqual([["slow", "timed_out"]]);
  });
});

describe("the rate", () => {
  test("is jobs per busy millisecond, and idle time does not count", async () => {
    const { runner } = makeRunner(2);
    const tenMs: Run = () => new Promise<void>((resolve) => setTimeout(resolve, 10));
    const burst = (): void => {
      runner.add(Array.from({ length: 20 }, (_, i) => job(String(i), tenMs)));
      runner.startNext();
    };
    burst();
    await vi.advanceTimersByTimeAsync(1_000);
    runner.measure(performance.now());
    expect(runner.rate).toBeCloseTo(0.2, 1); // two slots, ten milliseconds each
    await vi.advanceTimersByTimeAsync(60_000);
    burst();
    await vi.advanceTimersByTimeAsync(1_000);
    runner.measure(performance.now());
    expect(runner.rate).toBeCloseTo(0.2, 1);
  });
});
