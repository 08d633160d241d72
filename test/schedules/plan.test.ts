/** What is decided about ticks that have come: overlap, lateness, catching up. */
import { describe, expect, test } from "vitest";
import { type Spec, schedule } from "../../src/schedules/definition.ts";
import { type Plan, plan } from "../../src/schedules/plan.ts";

const minute = 60_000;
const start = Date.parse("2027-01-01T00:00:00Z");

function specWith(fields: Omit<Parameters<typeof schedule>[0], "name" | "task">): Spec {
  return schedule({ name: "one", task: "work", ...fields }).spec;
}

/** A schedule whose ticks from minute 1 on are due, looked at `minutes` after the start. */
function at(
  minutes: number,
  fields: Parameters<typeof specWith>[0],
  open: { active?: number; queued?: number } = {},
): Plan {
  const spec = specWith({ every: "1m", ...fields });
  const nowMs = start + minutes * minute;
  return plan({ spec, anchorMs: start, nextMs: start + minute, nowMs, active: 0, queued: 0, ...open });
}

/** `status minute`, or `status first-last (count)`. */
function told({ runs, nextMs }: Plan): string[] {
  const number = (ms: number): number => (ms - start) / minute;
  return [
    ...runs.map(({ status, tickMs, untilMs, count, atLeast }) =>
      untilMs === null
        ? `${status} ${number(tickMs)}${count === 1 ? "" : ` (${count})`}`
        : `${status} ${number(tickMs)}-${number(untilMs)} (${count}${atLeast ? "+" : ""})`,
    ),
    `next ${nextMs === null ? "never" : number(nextMs)}`,
  ];
}

describe("a tick in time", () => {
  test("fires, and the next one is the first after now", () => {
    expect(told(at(1, {}))).toEqual(["fired 1", "next 2"]);
    expect(told(at(1.99, {}))).toEqual(["fired 1", "next 2"]);
  });

  test("is one that is no later than its grace, jitter not counted", () => {
    expect(told(at(2, { catchUp: "none" }))).toEqual(["fired 1", "skipped 2", "next 3"]);
    expect(told(at(2, { catchUp: "none", startGrace: "30s" }))).toEqual(["missed 1", "fired 2", "next 3"]);
    expect(told(at(1.8, { catchUp: "none", startGrace: "30s", jitter: "20s" }))).toEqual(["fired 1", "next 2"]);
    expect(told(at(1.9, { catchUp: "none", startGrace: "30s", jitter: "20s" }))).toEqual(["missed 1", "next 2"]);
  });
});

describe("late ticks", () => {
  const late = { startGrace: "10s", overlap: "allow" } as const;

  test("are recorded with catchUp none", () => {
    expect(told(at(10.5, { ...late, catchUp: "none" }))).toEqual(["missed 1-10 (10)", "next 11"]);
    expect(told(at(1.5, { ...late, catchUp: "none" }))).toEqual(["missed 1", "next 2"]);
  });

  test("are made up for by one run with catchUp last", () => {
    expect(told(at(10.5, late))).toEqual(["missed 1-9 (9)", "fired 10", "next 11"]);
    expect(told(at(2.5, late))).toEqual(["missed 1", "fired 2", "next 3"]);
    expect(told(at(1.5, late))).toEqual(["fired 1", "next 2"]);
  });

  test("are made up for by the one that comes in time, where there is one", () => {
    expect(told(at(10.1, late))).toEqual(["missed 1-9 (9)", "fired 10", "next 11"]);
  });

  test("fire each with catchUp all, a thousand at most", () => {
    expect(told(at(4.5, { ...late, catchUp: "all" }))).toEqual(["fired 1", "fired 2", "fired 3", "fired 4", "next 5"]);
    const many = told(at(2_000.5, { ...late, catchUp: "all" }));
    expect(many.slice(0, 2)).toEqual(["missed 1-1000 (1000)", "fired 1001"]);
    expect(many).toHaveLength(1 + 1_000 + 1);
  });

  test("of a pattern too many to count are said to be at least so many", () => {
    const spec = specWith({ cron: "* * * * * *", overlap: "allow" });
    const { runs } = plan({ spec, anchorMs: 0, nextMs: start, nowMs: start + 86_400_000, active: 0, queued: 0 });
    expect(runs[0]).toMatchObject({ status: "missed", count: 2_000, atLeast: true });
    expect(runs.filter(({ status }) => status === "fired")).toHaveLength(61);
  });
});

describe("overlap", () => {
  test("allow: every run begins", () => {
    expect(told(at(1, { overlap: "allow" }, { active: 50 }))).toEqual(["fired 1", "next 2"]);
  });

  test("skip: as many as may run at once, and of the others one row", () => {
    expect(told(at(1, {}, { active: 1 }))).toEqual(["skipped 1", "next 2"]);
    expect(told(at(1, { concurrency: 2 }, { active: 1 }))).toEqual(["fired 1", "next 2"]);
    expect(told(at(5, { startGrace: "1h" }))).toEqual(["fired 1", "skipped 2-5 (4)", "next 6"]);
  });

  test("queue: what cannot begin waits, behind what waits already, a thousand at most", () => {
    expect(told(at(3, { overlap: "queue", startGrace: "1h" }))).toEqual(["fired 1", "queued 2", "queued 3", "next 4"]);
    expect(told(at(1, { overlap: "queue" }, { queued: 3 }))).toEqual(["queued 1", "next 2"]);
    expect(told(at(1, { overlap: "queue" }, { active: 1, queued: 1_000 }))).toEqual(["skipped 1", "next 2"]);
  });
});

describe("overlap and catching up", () => {
  // Ticks 1 to 4 are late, 5 is in time.
  const looked = (
    overlap: Spec["overlap"],
    catchUp: Spec["catchUp"],
    open: { active?: number; queued?: number } = {},
  ): string[] => told(at(5.1, { startGrace: "10s", overlap, catchUp }, open));
  const rows = (status: string, ...ticks: number[]): string[] => ticks.map((tick) => `${status} ${tick}`);

  test.each<[Spec["overlap"], Spec["catchUp"], string[]]>([
    ["allow", "none", ["missed 1-4 (4)", "fired 5"]],
    ["allow", "last", ["missed 1-4 (4)", "fired 5"]],
    ["allow", "all", rows("fired", 1, 2, 3, 4, 5)],
    ["skip", "none", ["missed 1-4 (4)", "fired 5"]],
    ["skip", "last", ["missed 1-4 (4)", "fired 5"]],
    ["skip", "all", ["fired 1", ...rows("queued", 2, 3, 4), "skipped 5"]],
    ["queue", "none", ["missed 1-4 (4)", "fired 5"]],
    ["queue", "last", ["missed 1-4 (4)", "fired 5"]],
    ["queue", "all", ["fired 1", ...rows("queued", 2, 3, 4, 5)]],
  ])("%s, %s: where nothing runs", (overlap, catchUp, decided) => {
    expect(looked(overlap, catchUp)).toEqual([...decided, "next 6"]);
  });

  test.each<[Spec["overlap"], Spec["catchUp"], string[]]>([
    ["allow", "none", ["missed 1-4 (4)", "fired 5"]],
    ["allow", "last", ["missed 1-4 (4)", "fired 5"]],
    ["allow", "all", rows("fired", 1, 2, 3, 4, 5)],
    ["skip", "none", ["missed 1-4 (4)", "skipped 5"]],
    ["skip", "last", ["missed 1-4 (4)", "skipped 5"]],
    ["skip", "all", [...rows("queued", 1, 2, 3, 4), "skipped 5"]],
    ["queue", "none", ["missed 1-4 (4)", "queued 5"]],
    ["queue", "last", ["missed 1-4 (4)", "queued 5"]],
    ["queue", "all", rows("queued", 1, 2, 3, 4, 5)],
  ])("%s, %s: where a run before them still goes on", (overlap, catchUp, decided) => {
    expect(looked(overlap, catchUp, { active: 1 })).toEqual([...decided, "next 6"]);
  });

  test("a thousand that are made up for all get their place, and more do not", () => {
    for (const overlap of ["skip", "queue"] as const) {
      const { runs } = at(2_000.5, { startGrace: "10s", overlap, catchUp: "all" }, { active: 1 });
      expect(runs.map(({ status, count }) => `${status} ${count}`)).toEqual([
        "missed 1000",
        ...Array.from({ length: 1_000 }, () => "queued 1"),
      ]);
      const full = at(3.5, { startGrace: "10s", overlap, catchUp: "all" }, { active: 1, queued: 998 });
      expect(told(full)).toEqual(["queued 1", "queued 2", "skipped 3", "next 4"]);
    }
  });
});

test("a clock that jumped back finds nothing to do before the next tick", () => {
  const spec = specWith({ every: "1m" });
  const { runs } = plan({ spec, anchorMs: start, nextMs: start + 5 * minute, nowMs: start, active: 0, queued: 0 });
  expect(runs).toEqual([]);
});
